//! Results on stdout.

use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::OnceLock;

use crate::failure::Failure;

/// Where results are kept besides.
static COPY: OnceLock<File> = OnceLock::new();

/// Keeps what is printed from now on in a file, too.
///
/// # Errors
/// When the file cannot be made.
pub(crate) fn copy_to(path: &Path) -> std::io::Result<()> {
    // Called once, at the beginning of a command.
    let _ = COPY.set(File::create(path)?);
    Ok(())
}

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
    if let Some(mut copy) = COPY.get() {
        writeln!(copy, "{text}").map_err(Failure::run)?;
    }
    match writeln!(std::io::stdout().lock(), "{text}") {
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
