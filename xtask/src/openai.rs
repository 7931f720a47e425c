//! The official client of OpenAI's protocol, for the test that runs it against `infalign serve`.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use crate::cargo::root;

/// Names the Python that has it, to the test.
pub(crate) const PYTHON: &str = "INFALIGN_OPENAI_PYTHON";
/// The version that the test was written for.
const PACKAGE: &str = "openai==3.57.0";

/// The Python of a virtual environment with the client, which is made in the target folder the first time; None where that cannot be done,
/// as without Python or a network.
pub(crate) fn python() -> Option<OsString> {
    if let Some(python) = std::env::var_os(PYTHON).filter(|python| !python.is_empty()) {
        return Some(python);
    }
    let folder = root().join("target/openai-client");
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let install = ["-m", "pip", "install", "--quiet", "--retries", "1", "--timeout", "20", PACKAGE];
    let has_it = || run(Command::new(&python).args(["-c", "import openai"]).stderr(Stdio::null()));
    let made = || run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
    let installed = || run(Command::new(&python).args(install));
    (has_it() || made() && installed()).then(|| python.into_os_string())
}

fn run(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}
