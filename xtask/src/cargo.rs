//! Calling cargo from a program that cargo itself has started.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    // Of the clone that it is called in, which may share its build folder with the one that it was built in.
    let package = std::env::var_os("CARGO_MANIFEST_DIR");
    let package = package.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map(PathBuf::from).unwrap_or(package)
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// Cargo, without the variables that describe the package xtask to the program it runs.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let of_xtask = ["CARGO_PKG_", "CARGO_MANIFEST_"];
        if of_xtask.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end, with this program's own input and output.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_os_string();
    let status = command
        .status()
        .with_context(|| format!("Cannot start `{}`; is it installed?", program.display()))?;
    if !status.success() {
        bail!("It ended with {status}.");
    }
    Ok(())
}
