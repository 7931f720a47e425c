//! Python programs, each in a virtual environment of the target folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The Python that environments are made with.
const PYTHON: &str = if cfg!(windows) { "python" } else { "python3" };

/// Makes a virtual environment, unless it is there, and installs packages into it.
///
/// # Errors
/// Without Python, or where a package cannot be had, as without a network.
pub(crate) fn environment(folder: &Path, packages: &[&str]) -> Result<()> {
    let pip = ["-m", "pip", "install", "--quiet", "--retries", "1", "--timeout", "20"];
    quietly(Command::new(PYTHON).args(["-m", "venv"]).arg(folder))?;
    quietly(Command::new(program(folder, "python")).args(pip).args(packages))
}

/// A program of a virtual environment.
pub(crate) fn program(folder: &Path, name: &str) -> PathBuf {
    let programs = folder.join(if cfg!(windows) { "Scripts" } else { "bin" });
    programs.join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

/// Runs a command to its end, and shows what it said where it fails.
fn quietly(command: &mut Command) -> Result<()> {
    let name = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("Cannot start `{name}`; is it installed?"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{name}` ended with {}: {}", output.status, said.trim());
    Ok(())
}

/// Whether a program is there and does what it is asked for.
pub(crate) fn works(command: &mut Command) -> bool {
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    silent.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_told_with_what_it_said() {
        let mut nothing = Command::new("infalign-no-such-program");
        assert!(!works(&mut nothing));
        let error = quietly(&mut nothing).unwrap_err().to_string();
        assert!(error.starts_with("Cannot start `infalign-no-such-program`"), "{error}");
        #[cfg(unix)]
        {
            let shell = |script: &str| {
                let mut command = Command::new("sh");
                command.args(["-c", script]);
                command
            };
            quietly(&mut shell("echo printed")).unwrap();
            let error = quietly(&mut shell("echo why >&2; exit 3")).unwrap_err().to_string();
            assert!(error.starts_with("`sh` ended with") && error.ends_with(": why"), "{error}");
            assert!(works(&mut shell("exit 0")) && !works(&mut shell("exit 1")));
        }
    }
}
