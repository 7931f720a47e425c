//! Results on stdout.

use std::io::Write;

use crate::failure::Failure;

/// Prints a result. A reader that has gone away, as `head` does, is no failure.
///
/// # Errors
/// [`Failure::Run`] when stdout cannot be written otherwise.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::run(error)),
        _ => Ok(()),
    }
}
