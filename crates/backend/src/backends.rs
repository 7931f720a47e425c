//! The backends: one small type each, compiled in by the feature of the same name.

#[cfg(any(feature = "wgpu", feature = "cuda"))]
use crate::system;
use crate::{BackendError, ComputeBackend, Device};

/// Every compiled backend; accelerators come first, so that a binary built for one uses it by default.
pub(crate) const ALL: &[&dyn ComputeBackend] = &[
    #[cfg(feature = "cuda")]
    &Cuda,
    #[cfg(feature = "wgpu")]
    &Wgpu,
    #[cfg(feature = "flex")]
    &Flex,
];

/// Has all threads of this program put their work into one queue of the device.
///
/// By default every thread has a queue, and each queue memory of its own, which it keeps when the thread ends.
/// Other settings are those of `cubecl.toml` and of the environment, as burn reads them.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn one_queue() {
    use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig, streaming::StreamPolicy};
    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    config.streaming.policy = StreamPolicy::Single;
    CubeClRuntimeConfig::try_set(config);
}

#[cfg(any(feature = "flex", feature = "wgpu", feature = "cuda"))]
fn check(backend: &dyn ComputeBackend, index: usize) -> Result<(), BackendError> {
    let count = backend.count();
    if index < count {
        return Ok(());
    }
    Err(BackendError::NoDevice { backend: backend.name(), index, count, needs: backend.needs() })
}

/// burn-flex: the CPU, pure Rust.
#[cfg(feature = "flex")]
struct Flex;

#[cfg(feature = "flex")]
impl ComputeBackend for Flex {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn device(&self, index: usize) -> Result<Device, BackendError> {
        check(self, index)?;
        Ok(Device::flex())
    }

    fn count(&self) -> usize {
        1
    }

    fn devices(&self) -> Vec<Device> {
        vec![Device::flex()]
    }

    fn describe(&self, _: usize) -> Option<(String, Option<u64>)> {
        None
    }

    fn needs(&self) -> String {
        "it needs nothing, and there is one".into()
    }

    fn exact_products(&self) -> bool {
        true
    }

    fn deterministic(&self) -> bool {
        true
    }
}

/// burn-wgpu: Vulkan, Metal or WebGPU, whichever the machine has.
#[cfg(feature = "wgpu")]
struct Wgpu;

#[cfg(feature = "wgpu")]
impl ComputeBackend for Wgpu {
    fn name(&self) -> &'static str {
        "wgpu"
    }

    fn device(&self, index: usize) -> Result<Device, BackendError> {
        one_queue();
        check(self, index)?;
        let device = self.devices().swap_remove(index);
        // Opened here and now, so that what is wrong with it shows before any work.
        crate::guarded(self, index, || device.identity())?;
        Ok(device)
    }

    fn describe(&self, index: usize) -> Option<(String, Option<u64>)> {
        Some((self.device(index).ok()?.identity()?.name, None))
    }

    fn needs(&self) -> String {
        if cfg!(target_os = "macos") {
            return "it needs Metal, which macOS has".into();
        }
        if cfg!(windows) {
            return "it needs DirectX 12 or Vulkan, which come with Windows and the driver of the GPU: install that of its maker".into();
        }
        if system::IS_STATIC {
            return format!("it needs a Vulkan loader, and {}", system::LOADS_NONE);
        }
        let found = system::library("libvulkan.so.1");
        format!(
            "it needs a Vulkan loader ({}) and a driver of the GPU, or Mesa's lavapipe, which computes on the processor: on Debian and \
             Ubuntu, apt install libvulkan1 mesa-vulkan-drivers",
            system::told("libvulkan.so.1", found.as_deref())
        )
    }

    fn count(&self) -> usize {
        self.devices().len()
    }

    fn devices(&self) -> Vec<Device> {
        Device::enumerate(burn::tensor::DeviceType::Wgpu).into_vec()
    }

    fn exact_products(&self) -> bool {
        true
    }

    // Some sums use atomics; and with the feature `autotune` kernels are picked by timing them.
    fn deterministic(&self) -> bool {
        false
    }
}

/// burn-cuda: NVIDIA devices.
#[cfg(feature = "cuda")]
struct Cuda;

#[cfg(feature = "cuda")]
impl ComputeBackend for Cuda {
    fn name(&self) -> &'static str {
        "cuda"
    }

    fn device(&self, index: usize) -> Result<Device, BackendError> {
        one_queue();
        check(self, index)?;
        let device = Device::cuda(index);
        // Opened here and now, so that what is wrong with it shows before any work.
        crate::guarded(self, index, || device.identity())?;
        Ok(device)
    }

    fn describe(&self, index: usize) -> Option<(String, Option<u64>)> {
        let name = self.device(index).ok()?.identity()?.name;
        let device = cubecl::Device::cuda(index).ok()?;
        Some((name, device.client().properties().memory.max_memory()))
    }

    fn needs(&self) -> String {
        if system::IS_STATIC {
            return format!("it needs NVIDIA's driver, and {}", system::LOADS_NONE);
        }
        if cfg!(windows) {
            return "it needs NVIDIA's driver, 525 or newer, which `nvidia-smi` has to list the device by, and the CUDA toolkit 12 or 13; CUDA_PATH \
                    says where the toolkit lies, PATH where libraries are looked for, and CUDA_VISIBLE_DEVICES hides devices"
                .into();
        }
        let driver = system::library("libcuda.so.1");
        let toolkit = if cfg!(feature = "cuda-nvrtc") {
            let headers = system::cuda_file("include/cuda_runtime.h");
            let compiler = system::library("libnvrtc.so");
            format!(
                "of the CUDA toolkit 12 or 13 NVRTC ({}) and its headers ({})",
                system::told("libnvrtc.so", compiler.as_deref()),
                system::told("cuda_runtime.h", headers.as_deref())
            )
        } else {
            let bitcode = system::cuda_file("nvvm/libdevice/libdevice.10.bc");
            format!(
                "of the CUDA toolkit 12 or 13 its library of functions ({})",
                system::told("libdevice.10.bc", bitcode.as_deref())
            )
        };
        format!(
            "it needs NVIDIA's driver, 525 or newer ({}), which `nvidia-smi` has to list the device by, and {toolkit}; CUDA_PATH says where the \
             toolkit lies, LD_LIBRARY_PATH where libraries are looked for, and CUDA_VISIBLE_DEVICES hides devices",
            system::told("libcuda.so.1", driver.as_deref())
        )
    }

    fn count(&self) -> usize {
        Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec().len()
    }

    fn devices(&self) -> Vec<Device> {
        (0..self.count()).map(Device::cuda).collect()
    }

    // On tensor cores.
    fn exact_products(&self) -> bool {
        false
    }

    // Some sums use atomics; and with the feature `autotune` kernels are picked by timing them.
    fn deterministic(&self) -> bool {
        false
    }
}
