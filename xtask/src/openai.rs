//! The official client of OpenAI's protocol, for the test that runs it against `infalign serve`.

use std::ffi::OsString;
use std::process::Command;

use crate::cargo::root;
use crate::python::{environment, program, works};

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
    let python = program(&folder, "python");
    let has_it = works(Command::new(&python).args(["-c", "import openai"]));
    (has_it || environment(&folder, &[PACKAGE]).is_ok()).then(|| python.into_os_string())
}
