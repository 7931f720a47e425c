//! What is found out about the machine and the process that a run happens on.

mod gpu;
mod host;
mod process;
mod scheduler;

pub use gpu::Gpu;
pub use host::{Cpu, Host, Library};
pub use process::{executable_sha256, peak_memory_bytes, threads};
pub use scheduler::Scheduler;

use std::process::{Command, Stdio};

use crate::hash::sha256_bytes;

/// The same name gives the same digest everywhere, and the digest does not show the name.
pub(crate) fn pseudonym(name: &str) -> String {
    sha256_bytes(format!("infalign record/1 {name}").as_bytes())[..16].to_owned()
}

/// The first line of a small file of the system, without white space around it.
pub(crate) fn line_of(path: &str) -> Option<String> {
    first_line(&std::fs::read_to_string(path).ok()?)
}

/// The first line that a program of the system prints, without white space around it; none where it is not there or fails.
fn printed_by(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    let text = output.status.success().then(|| String::from_utf8_lossy(&output.stdout))?;
    first_line(&text)
}

fn first_line(text: &str) -> Option<String> {
    let line = text.lines().next()?.trim().to_owned();
    (!line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_program_is_told_by_its_first_line_and_one_that_fails_by_nothing() {
        let printed = |script| printed_by("sh", &["-c", script]);
        assert_eq!(printed("printf ' Fast 9 \\nmore\\n'").as_deref(), Some("Fast 9"));
        assert_eq!((printed("echo x; exit 1"), printed("echo")), (None, None));
        assert_eq!(printed_by("infalign-no-such-program", &[]), None);
    }
}
