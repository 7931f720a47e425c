// A CUDA driver without a device, for what can be measured where there is none: what a program launches, how long the processor takes for it,
// and what NVRTC makes of its kernels. Memory is the host's and copies are made; kernels are compiled and counted, and never run, so results are
// whatever memory holds. It says that it is an H100. COUNTS names the file that the counts are written to at the end.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef int Result;
typedef unsigned long long Pointer;
enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 101, NOT_SUPPORTED = 801 };

struct kernel {
    char name[256];
    long launches;
    struct kernel *next;
};
static struct kernel *kernels;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long to_device, to_host, allocations;

static void write_counts(void) {
    const char *path = getenv("COUNTS");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file) return;
    long launches = 0, count = 0;
    for (struct kernel *k = kernels; k; k = k->next) launches += k->launches, count++;
    fprintf(file, "%8ld launches of %ld kernels\n%8ld copies to the device\n%8ld copies to the host\n%8ld allocations\n", launches, count,
            to_device, to_host, allocations);
    for (struct kernel *k = kernels; k; k = k->next) fprintf(file, "%8ld %s\n", k->launches, k->name);
    fclose(file);
}

// The device.
Result cuInit(unsigned flags) {
    static int begun;
    if (!begun++) atexit(write_counts);
    return OK;
}
Result cuDriverGetVersion(int *version) { return *version = 13000, OK; }
Result cuDeviceGetCount(int *count) { return *count = 1, OK; }
Result cuDeviceGet(int *device, int index) { return *device = index, index ? NO_DEVICE : OK; }
Result cuDeviceGetName(char *name, int length, int device) { return snprintf(name, length, "NVIDIA H100 80GB HBM3"), OK; }
Result cuDeviceGetUuid_v2(void *uuid, int device) { return memset(uuid, 7, 16), OK; }
Result cuDeviceGetUuid(void *uuid, int device) { return memset(uuid, 7, 16), OK; }
Result cuDeviceGetLuid(char *luid, unsigned *mask, int device) { return NOT_SUPPORTED; }
Result cuDeviceGetPCIBusId(char *id, int length, int device) { return snprintf(id, length, "0000:01:00.0"), OK; }
Result cuDeviceTotalMem_v2(size_t *bytes, int device) { return *bytes = 85000000000, OK; }
Result cuMemGetInfo_v2(size_t *available, size_t *total) { return *available = *total = 85000000000, OK; }
Result cuDeviceCanAccessPeer(int *can, int a, int b) { return *can = 0, OK; }
Result cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 1: case 2: case 3: *value = 1024; break;  // Threads of a block; its first two dimensions.
    case 4: *value = 64; break;                    // Its third.
    case 5: *value = 2147483647; break;            // Blocks of a grid: the first dimension.
    case 6: case 7: *value = 65535; break;         // The others.
    case 8: *value = 49152; break;                 // Bytes of shared memory of a block.
    case 10: *value = 32; break;                   // Threads of a warp.
    case 12: *value = 65536; break;                // Registers of a block.
    case 16: *value = 132; break;                  // Multiprocessors.
    case 39: *value = 2048; break;                 // Threads of a multiprocessor.
    case 75: *value = 9; break;                    // Compute capability.
    case 76: *value = 0; break;
    case 81: *value = 233472; break;               // Bytes of shared memory of a multiprocessor.
    case 97: *value = 232448; break;               // Of a block that asks for more.
    default: *value = 1;
    }
    return OK;
}

// Contexts, streams and events: all is done when a call returns.
Result cuDevicePrimaryCtxRetain(void **context, int device) { return *context = &kernels, OK; }
Result cuDevicePrimaryCtxRelease_v2(int device) { return OK; }
Result cuCtxSetCurrent(void *context) { return OK; }
Result cuCtxGetCurrent(void **context) { return *context = &kernels, OK; }
Result cuCtxSynchronize(void) { return OK; }
Result cuCtxGetStreamPriorityRange(int *least, int *greatest) { return *least = 0, *greatest = -5, OK; }
Result cuStreamCreate(void **stream, unsigned flags) { return *stream = malloc(1), OK; }
Result cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) { return *stream = malloc(1), OK; }
Result cuStreamDestroy_v2(void *stream) { return free(stream), OK; }
Result cuStreamSynchronize(void *stream) { return OK; }
Result cuStreamQuery(void *stream) { return OK; }
Result cuStreamWaitEvent(void *stream, void *event, unsigned flags) { return OK; }
Result cuStreamIsCapturing(void *stream, int *status) { return *status = 0, OK; }
Result cuEventCreate(void **event, unsigned flags) { return *event = malloc(1), OK; }
Result cuEventDestroy_v2(void *event) { return free(event), OK; }
Result cuEventRecord(void *event, void *stream) { return OK; }
Result cuEventSynchronize(void *event) { return OK; }
Result cuEventQuery(void *event) { return OK; }
Result cuEventElapsedTime(float *ms, void *start, void *end) { return *ms = 0.01f, OK; }
Result cuEventElapsedTime_v2(float *ms, void *start, void *end) { return *ms = 0.01f, OK; }

// Memory: a page before each allocation holds its size.
enum { PAGE = 4096 };
static Result take(Pointer *pointer, size_t bytes) {
    size_t whole = ((bytes + PAGE - 1) & ~(size_t)(PAGE - 1)) + PAGE;
    void *memory = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return OUT_OF_MEMORY;
    allocations++;
    *(size_t *)memory = whole;
    *pointer = (Pointer)(uintptr_t)memory + PAGE;
    return OK;
}
static Result give_back(Pointer pointer) {
    if (!pointer) return OK;
    void *memory = (void *)(uintptr_t)(pointer - PAGE);
    munmap(memory, *(size_t *)memory);
    return OK;
}
static void *at(Pointer pointer) { return (void *)(uintptr_t)pointer; }
Result cuMemAlloc_v2(Pointer *pointer, size_t bytes) { return take(pointer, bytes); }
Result cuMemFree_v2(Pointer pointer) { return give_back(pointer); }
Result cuMemAllocAsync(Pointer *pointer, size_t bytes, void *stream) { return take(pointer, bytes); }
Result cuMemFreeAsync(Pointer pointer, void *stream) { return give_back(pointer); }
Result cuMemAllocHost_v2(void **pointer, size_t bytes) { return take((Pointer *)pointer, bytes); }
Result cuMemFreeHost(void *pointer) { return give_back((Pointer)(uintptr_t)pointer); }
Result cuMemcpyHtoDAsync_v2(Pointer to, const void *from, size_t bytes, void *stream) { return to_device++, memcpy(at(to), from, bytes), OK; }
Result cuMemcpyDtoHAsync_v2(void *to, Pointer from, size_t bytes, void *stream) { return to_host++, memcpy(to, at(from), bytes), OK; }
Result cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t bytes, void *stream) { return memcpy(at(to), at(from), bytes), OK; }
// Of copies with gaps the numbers are as arbitrary as all that kernels would have computed.
Result cuMemcpy2DAsync_v2(const void *copy, void *stream) { return to_host++, OK; }
Result cuMemsetD8Async(Pointer to, unsigned char value, size_t bytes, void *stream) { return memset(at(to), value, bytes), OK; }

// Kernels.
Result cuModuleLoadData(void **module, const void *image) { return *module = malloc(1), OK; }
Result cuModuleUnload(void *module) { return free(module), OK; }
Result cuModuleGetFunction(void **function, void *module, const char *name) {
    struct kernel *kernel = calloc(1, sizeof *kernel);
    snprintf(kernel->name, sizeof kernel->name, "%s", name);
    pthread_mutex_lock(&lock);
    kernel->next = kernels;
    kernels = kernel;
    pthread_mutex_unlock(&lock);
    return *function = kernel, OK;
}
Result cuFuncSetAttribute(void *function, int attribute, int value) { return OK; }
Result cuFuncGetAttribute(int *value, int attribute, void *function) { return *value = 0, OK; }

// Descriptions of tiles, which a device copies by itself: refused where the driver's documentation says so.
Result cuTensorMapEncodeTiled(void *map, int type, unsigned rank, void *address, const uint64_t *sizes, const uint64_t *strides, const unsigned *box,
                              const unsigned *steps, int interleave, int swizzle, int promotion, int fill) {
    static const unsigned bytes_of[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
    static const unsigned spans[] = {UINT32_MAX, 32, 64, 128};
    if (rank < 1 || rank > 5 || type > 12 || swizzle > 3 || (uintptr_t)address % 16) return INVALID;
    for (unsigned d = 0; d < rank; d++)
        if (!sizes[d] || sizes[d] > UINT64_C(1) << 32 || !box[d] || box[d] > 256 || !steps[d] || steps[d] > 8) return INVALID;
    for (unsigned d = 0; d + 1 < rank; d++)
        if (strides[d] % 16 || strides[d] >= UINT64_C(1) << 40) return INVALID;
    unsigned inner = box[0] * bytes_of[type];
    if (interleave || inner % 16 || inner > spans[swizzle]) return INVALID;
    return memset(map, 0, 128), OK;
}
Result cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream,
                      void **arguments, void **extra) {
    return ((struct kernel *)function)->launches++, OK;
}
Result cuGetErrorName(int error, const char **name) { return *name = "ERROR", OK; }
Result cuGetErrorString(int error, const char **text) { return *text = "an error of a driver without a device", OK; }
