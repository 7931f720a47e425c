//! Compute devices behind one trait, and the operations that burn lacks.
//!
#![doc = include_str!("../README.md")]
//!
//! # Modules
//! burn 0.22 carries the backend in a run-time [`Device`], and cargo features compile backends in. This crate is the one place that
//! names them: the rest of the workspace asks [`device`] for what `--device` says and never sees a backend again.
//! [`kernels`] are whole steps of a transformer in one pass; [`functions`] is what they and other loops over slices are made of.
//! [`precision`] tells which settings are numbers there.

mod backends;
pub mod functions;
pub mod kernels;
pub mod precision;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod system;

use std::str::FromStr;

pub use burn;
pub use burn::tensor::Device;
use burn::tensor::Tensor;

/// One compiled backend: how to name it, open its devices, and what its results can be relied on for.
pub trait ComputeBackend: Send + Sync {
    /// The word before the colon in `--device`, which is also the cargo feature's `--backend` word: `cpu`, `wgpu` or `cuda`.
    fn name(&self) -> &'static str;

    /// Opens the `index`-th device of this backend.
    ///
    /// # Errors
    /// [`BackendError::NoDevice`] when there is no such device on this machine.
    fn device(&self, index: usize) -> Result<Device, BackendError>;

    /// Number of devices that this machine offers to the backend.
    fn count(&self) -> usize;

    /// These devices, without opening them.
    fn devices(&self) -> Vec<Device>;

    /// What the `index`-th device calls itself, and its memory in bytes; None where it is the machine's processor and memory, or says nothing.
    fn describe(&self, index: usize) -> Option<(String, Option<u64>)>;

    /// What the backend needs of a machine, where to get it, and what of it is not to be found on this one.
    fn needs(&self) -> String;

    /// Whether products of f32 matrices keep all of their bits, and not the ten of TF32's mantissa.
    fn exact_products(&self) -> bool;

    /// Whether two runs of the same binary on the same device and thread count give the same bits.
    fn deterministic(&self) -> bool;
}

/// The backends compiled into this binary, by whichever crate asked for them, the default one first: CUDA, else wgpu, else the CPU.
pub fn compiled() -> &'static [&'static dyn ComputeBackend] {
    backends::ALL
}

/// Every backend there is: the word of `--device` and of `cargo xtask --backend`.
pub const KNOWN: [&str; 3] = ["cpu", "wgpu", "cuda"];

/// Whether a device is this machine's processor, whose memory the tensors lie in.
pub fn is_cpu(device: &Device) -> bool {
    let cpu = compiled().iter().find(|backend| backend.name() == KNOWN[0]);
    cpu.and_then(|backend| backend.device(0).ok()).is_some_and(|cpu| cpu == *device)
}

/// Whether a device keeps all bits of f32 in products of matrices.
pub fn has_exact_products(device: &Device) -> bool {
    let mut backends = compiled().iter();
    is_cpu(device)
        || backends
            .find(|backend| backend.devices().contains(device))
            .is_none_or(|backend| backend.exact_products())
}

/// The results of `work` on every item, in order: on the CPU items are worked on beside each other, elsewhere one after the other, since a
/// device that is parallel in itself takes its work from one queue.
///
/// # Errors
/// The first that `work` meets.
pub fn in_order<I: Send, T: Send, E: Send>(
    device: &Device,
    items: Vec<I>,
    work: impl Fn(I) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    #[cfg(feature = "flex")]
    if is_cpu(device) {
        use rayon::prelude::*;
        return items.into_par_iter().map(&work).collect();
    }
    let _ = device;
    items.into_iter().map(work).collect()
}

/// Multiplies two small matrices on the `index`-th device of a backend, to see whether it computes.
///
/// # Errors
/// [`BackendError`] when it cannot be opened, cannot run the product, or the product is not right.
pub fn try_out(backend: &dyn ComputeBackend, index: usize) -> Result<(), BackendError> {
    let device = backend.device(index)?;
    let product: Vec<f32> = guarded(backend, index, || {
        let a = Tensor::<2>::from_data([[1.0, 2.0], [3.0, 4.0]], &device);
        a.clone().matmul(a).into_data().iter::<f32>().collect()
    })?;
    if product == [7.0, 10.0, 15.0, 22.0] { Ok(()) } else { Err(BackendError::Wrong { product }) }
}

/// Does something that the libraries below end with a panic where the machine lacks what they need.
fn guarded<T>(
    backend: &dyn ComputeBackend,
    index: usize,
    work: impl FnOnce() -> T,
) -> Result<T, BackendError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|panic| {
        let reason = panic.downcast_ref::<String>().map(String::as_str);
        let reason =
            reason.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it gives no reason");
        // Of a long message, what it says before it lists calls or source.
        let reason = reason.lines().next().unwrap_or(reason).to_owned();
        BackendError::Unusable { backend: backend.name(), index, reason, needs: backend.needs() }
    })
}

/// What `--device` says: a backend and the index of one of its devices, as in `cpu`, `cuda` or `wgpu:1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceName {
    backend: String,
    index: usize,
}

impl FromStr for DeviceName {
    type Err = BackendError;

    fn from_str(text: &str) -> Result<Self, BackendError> {
        let (backend, index) = text.split_once(':').unwrap_or((text, "0"));
        let index = index.parse().map_err(|_| BackendError::Syntax { text: text.into() })?;
        if backend.is_empty() {
            return Err(BackendError::Syntax { text: text.into() });
        }
        Ok(Self { backend: backend.into(), index })
    }
}

impl std::fmt::Display for DeviceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.backend, self.index)
    }
}

/// Opens the named device, or the first device of the default backend, which is the first of [`compiled`].
///
/// # Errors
/// [`BackendError`] when the backend is not compiled in, or has no such device.
pub fn device(name: Option<&DeviceName>) -> Result<Device, BackendError> {
    let (backend, index) = backend(name)?;
    backend.device(index)
}

/// Bytes of the memory of the named device, or of the first device of the default backend; None where it is the machine's, or not known.
pub fn memory(name: Option<&DeviceName>) -> Option<u64> {
    let (backend, index) = backend(name).ok()?;
    backend.describe(index)?.1
}

fn backend(
    name: Option<&DeviceName>,
) -> Result<(&'static dyn ComputeBackend, usize), BackendError> {
    let Some(name) = name else {
        return Ok((*compiled().first().ok_or(BackendError::NoBackend)?, 0));
    };
    let found = compiled().iter().find(|backend| backend.name() == name.backend);
    let backend = found.ok_or_else(|| {
        let backend = name.backend.clone();
        if !KNOWN.contains(&backend.as_str()) {
            return BackendError::Unknown { backend };
        }
        let compiled = compiled().iter().map(|b| b.name()).collect::<Vec<_>>().join(", ");
        BackendError::NotCompiled { backend, compiled }
    })?;
    Ok((*backend, name.index))
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// A device that does not compute what it should.
    #[error(
        "the device multiplied [[1, 2], [3, 4]] by itself and found {product:?}; its driver or this build is at fault"
    )]
    Wrong {
        /// The product, row by row.
        product: Vec<f32>,
    },
    /// The text is not `BACKEND` or `BACKEND:INDEX`.
    #[error(
        "`{text}` is not a device: write a backend, or a backend and an index, as in `cpu`, `cuda` or `wgpu:1`"
    )]
    Syntax {
        /// The text given.
        text: String,
    },
    /// No backend has this name.
    #[error("there is no backend `{backend}`: the backends are {}", KNOWN.join(", "))]
    Unknown {
        /// The backend asked for.
        backend: String,
    },
    /// The backend was not compiled into this binary.
    #[error(
        "this binary has no backend `{backend}` (compiled in: {compiled}); build it with `--backend {backend}` of cargo xtask, or with \
         the cargo feature of that name (`flex` for cpu)"
    )]
    NotCompiled {
        /// The backend asked for.
        backend: String,
        /// Those that are there.
        compiled: String,
    },
    /// The library was built without any backend feature.
    #[error("no backend is compiled in: enable the cargo feature `flex`, `wgpu` or `cuda`")]
    NoBackend,
    /// A device that is there and does not work.
    #[error("the device {backend}:{index} cannot be used: {reason}; {needs}")]
    Unusable {
        /// The backend.
        backend: &'static str,
        /// The device, from 0.
        index: usize,
        /// What the library below says.
        reason: String,
        /// What the backend needs.
        needs: String,
    },
    /// The machine has fewer devices than the index asks for.
    #[error(
        "there is no device {backend}:{index}: this machine offers {count} to that backend; {needs}"
    )]
    NoDevice {
        /// The backend.
        backend: &'static str,
        /// The index asked for, from 0.
        index: usize,
        /// How many there are.
        count: usize,
        /// What the backend needs.
        needs: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_print() {
        assert_eq!("cuda:1".parse::<DeviceName>().unwrap().to_string(), "cuda:1");
        assert_eq!("cpu".parse::<DeviceName>().unwrap().to_string(), "cpu:0");
        for bad in ["", ":1", "cpu:x", "cpu:-1"] {
            assert!(bad.parse::<DeviceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn devices_are_those_that_are_opened() {
        for backend in compiled() {
            let devices = backend.devices();
            assert_eq!(devices.len(), backend.count());
            for (index, device) in devices.iter().enumerate() {
                assert!(backend.device(index).ok().is_none_or(|opened| opened == *device));
            }
        }
    }

    #[cfg(feature = "flex")]
    #[test]
    fn a_missing_backend_or_device_is_named() {
        assert!(device(None).is_ok());
        let message = device(Some(&"tpu".parse().unwrap())).unwrap_err().to_string();
        assert!(message.contains("`tpu`: the backends are cpu, wgpu, cuda"), "{message}");
        let message = device(Some(&"cpu:3".parse().unwrap())).unwrap_err().to_string();
        assert!(message.contains("cpu:3") && message.contains("offers 1"), "{message}");
    }
}
