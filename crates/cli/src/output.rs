//! Results on stdout.

use std::io::Write;
use std::ops::ControlFlow;

use crate::failure::Failure;

/// Prints a result. A reader that has gone away, as `head` does, is no failure.
///
/// # Errors
/// [`Failure::Run`] when stdout cannot be written otherwise.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_on(text).map(|_| ())
}

/// Prints a part of a result; Break where the reader has gone away, so that the rest is not worth its work.
///
/// # Errors
/// As for [`print()`].
pub(crate) fn print_on(text: &str) -> Result<ControlFlow<()>, Failure> {
    print_part(&format!("{text}\n"))
}

/// Prints a part of a line, to be seen at once; Break where the reader has gone away.
///
/// # Errors
/// As for [`print()`].
pub(crate) fn print_part(text: &str) -> Result<ControlFlow<()>, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(Failure::run(error)),
    }
}

/// Prints rows of a name and what belongs to it, the names in a column of their own.
///
/// # Errors
/// As for [`print()`].
pub(crate) fn print_rows(rows: &[(String, String)]) -> Result<(), Failure> {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0) + 2;
    let lines = rows.iter().map(|(name, value)| format!("{name:<width$}{value}"));
    let text: Vec<String> = lines.map(|line| line.trim_end().to_owned()).collect();
    print(&text.join("\n"))
}
