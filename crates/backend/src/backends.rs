//! The backends: one small type each, compiled in by the feature of the same name.

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

#[cfg(any(feature = "flex", feature = "wgpu", feature = "cuda"))]
fn check(backend: &dyn ComputeBackend, index: usize) -> Result<(), BackendError> {
    let count = backend.count();
    if index < count {
        return Ok(());
    }
    Err(BackendError::NoDevice { backend: backend.name(), index, count })
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
        check(self, index)?;
        let mut devices = Device::enumerate(burn::tensor::DeviceType::Wgpu).into_vec();
        Ok(devices.swap_remove(index))
    }

    fn count(&self) -> usize {
        Device::enumerate(burn::tensor::DeviceType::Wgpu).into_vec().len()
    }

    // Kernels are picked by timing them, and some reductions use atomics.
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
        check(self, index)?;
        Ok(Device::cuda(index))
    }

    fn count(&self) -> usize {
        Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec().len()
    }

    // Kernels are picked by timing them, and some reductions use atomics.
    fn deterministic(&self) -> bool {
        false
    }
}
