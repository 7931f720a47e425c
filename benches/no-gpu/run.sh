#!/usr/bin/env bash
# Runs a program of ours on CUDA where there is no GPU, by a driver that counts launches and runs none (cuda.c), and prints what it launched.
# Usage: CUDA_PATH=TOOLKIT benches/no-gpu/run.sh PROGRAM [ARGUMENT…]   PROGRAM: built with the feature `cuda-nvrtc`, such as a bench.
# TOOLKIT has the headers in include/ and NVRTC in lib/ or lib64/; `pip install nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cuda-cccl
# nvidia-cuda-crt` has all of it in site-packages/nvidia/cu13. Results are meaningless, so what checks them fails; times are the processor's alone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cc -O2 -w -shared -fPIC -o "$folder/libcuda.so" "$(dirname "${BASH_SOURCE[0]}")/cuda.c" -lpthread
for nvrtc in "$CUDA_PATH"/lib*/libnvrtc.so*; do
    ln -sf "$nvrtc" "$folder/libnvrtc.so"
done
export LD_LIBRARY_PATH="$folder:$CUDA_PATH/lib:$CUDA_PATH/lib64" COUNTS="$folder/counts" INFALIGN_DEVICE=cuda
"$@" || echo "ended with $?"
sort --numeric-sort --reverse "$folder/counts"
