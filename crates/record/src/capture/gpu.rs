//! NVIDIA GPUs, as `nvidia-smi` tells them.

use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::pseudonym;

const FIELDS: &str =
    "name,uuid,compute_cap,memory.total,driver_version,ecc.mode.current,mig.mode.current";

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its model.
    pub name: String,
    /// Tells devices apart without naming them: a digest of its UUID.
    pub id: String,
    /// Compute capability, such as 9.0.
    pub compute_capability: String,
    /// MiB of memory.
    pub memory_mib: String,
    /// Version of the driver.
    pub driver: String,
    /// Whether its memory corrects errors, as the driver says it.
    pub ecc: String,
    /// Whether it is divided, as the driver says it.
    pub mig: String,
}

impl Gpu {
    /// The GPUs of this machine; none where `nvidia-smi` is not there or fails.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let query = [&format!("--query-gpu={FIELDS}"), "--format=csv,noheader,nounits"];
        let output = Command::new("nvidia-smi").args(query).stdin(Stdio::null()).output();
        match output {
            Ok(output) if output.status.success() => {
                String::from_utf8_lossy(&output.stdout).lines().filter_map(Self::of).collect()
            }
            _ => Vec::new(),
        }
    }

    fn of(line: &str) -> Option<Self> {
        let mut fields = line.split(',').map(|field| field.trim().to_owned());
        Some(Self {
            name: fields.next()?,
            id: pseudonym(&fields.next()?),
            compute_capability: fields.next()?,
            memory_mib: fields.next()?,
            driver: fields.next()?,
            ecc: fields.next()?,
            mig: fields.next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_nvidia_smi_is_read_without_the_uuid() {
        let line = "NVIDIA H100 80GB HBM3, GPU-0a1b, 9.0, 81559, 570.1, Enabled, Disabled";
        let gpu = Gpu::of(line).unwrap();
        assert_eq!((gpu.name.as_str(), gpu.driver.as_str()), ("NVIDIA H100 80GB HBM3", "570.1"));
        assert!(!gpu.id.contains("0a1b") && gpu.id.len() == 16);
        assert_eq!(Gpu::of("no devices were found"), None);
    }
}
