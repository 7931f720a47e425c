//! Results on stdout.

use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::anyhow;
use infalign_record::Secrets;

use crate::failure::Failure;

/// Where results are kept besides, and what must not get there.
static COPY: OnceLock<(File, Secrets)> = OnceLock::new();

/// Keeps what is printed from now on in a file, too, and refuses to print a secret.
///
/// # Errors
/// When the file cannot be made.
pub(crate) fn copy_to(path: &Path) -> std::io::Result<()> {
    // Called once, at the beginning of a command.
    let _ = COPY.set((File::create(path)?, Secrets::here()));
    Ok(())
}

/// Prints a result. A reader that has gone away, as `head` does, is no failure.
///
/// # Errors
/// [`Failure::Run`] when stdout cannot be written otherwise, and for a secret where what is printed is kept, too.
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
    if let Some((file, secrets)) = COPY.get() {
        if let Some(secret) = secrets.find(text.as_bytes()) {
            return Err(Failure::Run(anyhow!(
                "what is printed holds {secret}, which must not be recorded: take it out, or leave --record out"
            )));
        }
        let mut file = file;
        file.write_all(text.as_bytes()).map_err(Failure::run)?;
    }
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(Failure::run(error)),
    }
}

/// A command line, so that a shell reads it the same again.
///
/// - `words`: without the program.
pub(crate) fn command_line(words: impl IntoIterator<Item = String>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    let quoted = |word: String| {
        if !word.is_empty() && word.chars().all(plain) {
            return word;
        }
        format!("'{}'", word.replace('\'', "'\\''"))
    };
    std::iter::once("infalign".to_owned())
        .chain(words.into_iter().map(quoted))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The words that this program was given.
pub(crate) fn given_words() -> Vec<String> {
    std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect()
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
