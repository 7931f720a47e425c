//! Becoming `infalign`: the release binary, built with the backend that was asked for.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::args::Backend;
use crate::cargo::cargo;

/// Runs `infalign ARGUMENTS…` in the folder that xtask was called in.
///
/// Input, output and exit code are the binary's own, and what cargo builds goes to its default
/// target folder, not to that of xtask.
pub(crate) fn run(backend: Backend, arguments: &[OsString]) -> Result<ExitCode> {
    let mut command = cargo();
    command.args(build_arguments(backend)).arg("--").args(arguments);
    replace_this_process(command).context("Cannot start cargo; is it installed?")
}

fn build_arguments(backend: Backend) -> Vec<&'static str> {
    let mut arguments = vec!["run", "--release", "--locked", "--package", "infalign-cli"];
    if let Some(feature) = backend.feature() {
        arguments.extend(["--no-default-features", "--features", feature]);
    }
    arguments.extend(["--bin", "infalign"]);
    arguments
}

/// Signals, Ctrl-C for one, then reach cargo and the binary with nobody in between.
#[cfg(unix)]
fn replace_this_process(mut command: Command) -> std::io::Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    Err(command.exec()) // comes back only if it fails
}

#[cfg(not(unix))]
fn replace_this_process(mut command: Command) -> std::io::Result<ExitCode> {
    let code = command.status()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_backend_takes_the_place_of_the_cpu_one() {
        let line = |backend| build_arguments(backend).join(" ");
        assert_eq!(
            line(Backend::Cpu),
            "run --release --locked --package infalign-cli --bin infalign"
        );
        assert_eq!(
            line(Backend::Cuda),
            "run --release --locked --package infalign-cli --no-default-features \
             --features cuda-nvrtc --bin infalign"
        );
    }
}
