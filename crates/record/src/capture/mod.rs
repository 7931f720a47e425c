//! What is found out about the machine and the process that a run happens on.

mod gpu;
mod host;
mod process;
mod scheduler;

pub use gpu::Gpu;
pub use host::{Cpu, Host, Library};
pub use process::{executable_sha256, peak_memory_bytes, threads};
pub use scheduler::Scheduler;

use crate::hash::sha256_bytes;

/// The same name gives the same digest everywhere, and the digest does not show the name.
pub(crate) fn pseudonym(name: &str) -> String {
    sha256_bytes(format!("infalign record/1 {name}").as_bytes())[..16].to_owned()
}

/// The first line of a small file of the system, without white space around it.
pub(crate) fn line_of(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().next()?.trim().to_owned();
    (!line.is_empty()).then_some(line)
}
