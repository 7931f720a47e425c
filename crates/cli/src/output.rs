//! Results on stdout, and what is said on stderr.

use std::borrow::Cow;
use std::fmt::Arguments;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf, absolute};
use std::sync::OnceLock;

use anyhow::{Context, Error, Result, anyhow, ensure};
use infalign_record::Secrets;

use crate::failure::{Failure, OrFailure};

/// Where results are kept besides, and what must not get there.
struct Kept {
    file: File,
    /// Where the file lies.
    path: PathBuf,
    /// The record's folder.
    folder: PathBuf,
    secrets: Secrets,
}

static COPY: OnceLock<Kept> = OnceLock::new();

/// Keeps what is printed from now on in a file of a record's folder, too, and refuses to print a secret.
///
/// # Errors
/// When the file cannot be made. The message names it.
pub(crate) fn copy_to(folder: &Path, name: &str) -> Result<()> {
    let path = folder.join(name);
    let file = File::create(&path).with_context(|| cannot_write(&path))?;
    // Called once, at the beginning of a command.
    let _ = COPY.set(Kept { file, path, folder: absolute(folder)?, secrets: Secrets::here() });
    Ok(())
}

/// A place as what is kept tells it: where it lies in the record's folder, from there, so that a replica elsewhere tells the same.
pub(crate) fn kept_place(path: &Path) -> String {
    in_record(path).unwrap_or_else(|| path.to_path_buf()).display().to_string()
}

/// Where a path lies in the record's folder, if it does.
pub(crate) fn in_record(path: &Path) -> Option<PathBuf> {
    let (copy, path) = (COPY.get()?, absolute(path).ok()?);
    path.strip_prefix(&copy.folder).ok().map(Path::to_path_buf)
}

/// Prints a result. A reader that has gone away, as `head` does, is no failure.
///
/// # Errors
/// [`Failure::Run`] when stdout cannot be written otherwise, and for a secret where what is printed is kept, too.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_on(text).map(|_| ())
}

/// Prints a result of which another form is kept: without seconds, and with its places as [`kept_place`] tells them.
///
/// # Errors
/// As for [`print()`].
pub(crate) fn print_as(shown: &str, kept: &str) -> Result<(), Failure> {
    keep(&format!("{kept}\n"))?;
    show(&format!("{shown}\n")).map(|_| ())
}

/// Prints the places of files, a line each.
///
/// - `before`: what is printed before them.
///
/// # Errors
/// As for [`print()`].
pub(crate) fn print_places(before: &str, files: &[PathBuf]) -> Result<(), Failure> {
    let shown: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let kept: Vec<String> = files.iter().map(|file| kept_place(file)).collect();
    print_as(&(before.to_owned() + &shown.join("\n")), &(before.to_owned() + &kept.join("\n")))
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
    keep(text)?;
    show(text)
}

/// Writes to the copy, if there is one.
fn keep(text: &str) -> Result<(), Failure> {
    let Some(Kept { file, path, secrets, .. }) = COPY.get() else { return Ok(()) };
    if let Some(secret) = secrets.find(text.as_bytes()) {
        return Err(Failure::Run(anyhow!(
            "what is printed holds {secret}, which must not be recorded: take it out, or leave --record out"
        )));
    }
    let mut file = file;
    file.write_all(text.as_bytes()).with_context(|| cannot_write(path)).or_run()
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

fn show(text: &str) -> Result<ControlFlow<()>, Failure> {
    let mut stdout = std::io::stdout().lock();
    let text = if stdout.is_terminal() { visible(text) } else { Cow::Borrowed(text) };
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => {
            Err(Failure::Run(Error::new(error).context("cannot write to standard output")))
        }
    }
}

/// Says a line on stderr, [`visible()`]. Nothing ends because nobody listens any more, as behind a pipe that was closed.
pub(crate) fn tell(text: Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{}", visible(&text.to_string()));
}

/// A text with its control characters as escapes, such as `\u{1b}`, but for tabs and ends of lines: a terminal would obey them, and the text
/// may come from a stranger.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let is_obeyed = |c: char| c.is_control() && !matches!(c, '\t' | '\n');
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// The words that this program was given.
pub(crate) fn given_words() -> Vec<String> {
    std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect()
}

/// Takes an option with its value out of the words of a command line.
///
/// # Errors
/// When its value is missing.
pub(crate) fn take_option(words: &mut Vec<String>, option: &str) -> Result<Option<String>> {
    let is_it = |word: &String| word == option || word.starts_with(&format!("{option}="));
    let Some(at) = words.iter().position(is_it) else { return Ok(None) };
    let word = words.remove(at);
    if let Some((_, value)) = word.split_once('=') {
        return Ok(Some(value.to_owned()));
    }
    ensure!(at < words.len(), "{option} needs a value");
    Ok(Some(words.remove(at)))
}

/// A number of a row.
pub(crate) fn shown(number: f64) -> String {
    format!("{number:.9}")
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

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn what_a_terminal_would_obey_is_visible() {
        let text = "\tß\r\n\u{1b}[2J\u{7}\u{7f}\u{9b}31m";
        let shown = "\tß\\u{d}\n\\u{1b}[2J\\u{7}\\u{7f}\\u{9b}31m";
        assert_eq!(visible(text), shown);
        assert_eq!(visible(shown), shown);
    }
}
