//! A Vulkan driver to test with: the machine's own, or Mesa's lavapipe, which computes on the processor.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::cargo::succeed;

/// Where drivers say that they are there.
const DRIVERS: [&str; 3] =
    ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d"];

const PACKAGES: [&str; 2] = ["libvulkan1", "mesa-vulkan-drivers"];

/// Installs lavapipe where there is no driver and this is a Debian or Ubuntu of which we are root, as in a container; elsewhere says what to do.
pub(crate) fn provide() -> Result<()> {
    let named =
        ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].iter().any(|v| std::env::var_os(v).is_some());
    if !cfg!(target_os = "linux") || named || DRIVERS.iter().any(|folder| has_driver(folder)) {
        return Ok(());
    }
    if !Path::new("/usr/bin/apt-get").exists() || !is_root() {
        bail!(
            "There is no Vulkan driver here. Install the one of the GPU, or Mesa's lavapipe: on Debian and Ubuntu, apt install {}.",
            PACKAGES.join(" ")
        );
    }
    succeed(Command::new("apt-get").args(["update", "--quiet"]))?;
    let install = ["install", "--yes", "--quiet", "--no-install-recommends"];
    succeed(Command::new("apt-get").args(install).args(PACKAGES))
}

fn has_driver(folder: &str) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut files| files.next().is_some())
}

fn is_root() -> bool {
    let user = Command::new("id").arg("--user").output();
    user.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
