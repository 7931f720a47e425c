//! Compute devices behind one trait, and the operations that burn lacks.
//!
//! burn 0.22 carries the backend in a run-time [`Device`], and cargo features compile backends in. This crate is the one place that
//! names them: the rest of the workspace asks [`device`] for what `--device` says and never sees a backend again.
//! [`kernels`] are whole steps of a transformer, fused on the CPU; [`functions`] is what they and other loops over slices are made of.

mod backends;
pub mod functions;
pub mod kernels;

use std::str::FromStr;

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

    /// Whether two runs of the same binary on the same device and thread count give the same bits.
    fn deterministic(&self) -> bool;
}

/// The backends compiled into this binary, the default one first.
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

/// Multiplies two small matrices on a device, to see whether it computes.
///
/// # Errors
/// [`BackendError::Wrong`] when the product is not right.
pub fn try_out(device: &Device) -> Result<(), BackendError> {
    let a = Tensor::<2>::from_data([[1.0, 2.0], [3.0, 4.0]], device);
    let product: Vec<f32> = a.clone().matmul(a).into_data().iter::<f32>().collect();
    if product == [7.0, 10.0, 15.0, 22.0] { Ok(()) } else { Err(BackendError::Wrong { product }) }
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

/// Opens the named device, or the first device of the default backend.
///
/// # Errors
/// [`BackendError`] when the backend is not compiled in, or has no such device.
pub fn device(name: Option<&DeviceName>) -> Result<Device, BackendError> {
    let Some(name) = name else {
        return compiled().first().ok_or(BackendError::NoBackend)?.device(0);
    };
    compiled()
        .iter()
        .find(|backend| backend.name() == name.backend)
        .ok_or_else(|| BackendError::NotCompiled {
            backend: name.backend.clone(),
            compiled: compiled().iter().map(|b| b.name()).collect::<Vec<_>>().join(", "),
        })?
        .device(name.index)
}

/// Why a device could not be opened.
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
    /// The machine has fewer devices than the index asks for.
    #[error("there is no device {backend}:{index}: this machine offers {count} to that backend")]
    NoDevice {
        /// The backend.
        backend: &'static str,
        /// The index asked for, from 0.
        index: usize,
        /// How many there are.
        count: usize,
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

    #[cfg(feature = "flex")]
    #[test]
    fn a_missing_backend_or_device_is_named() {
        assert!(device(None).is_ok());
        let message = device(Some(&"tpu".parse().unwrap())).unwrap_err().to_string();
        assert!(message.contains("`tpu`") && message.contains("cpu"), "{message}");
        let message = device(Some(&"cpu:3".parse().unwrap())).unwrap_err().to_string();
        assert!(message.contains("cpu:3") && message.contains("offers 1"), "{message}");
    }
}
