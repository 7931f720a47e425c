//! What a template prints is held to what its work pays for. The interpreter counts it only when all of it is there, and printing a list that
//! holds one list twice, which does so in turn, would take any time and memory.

use std::fmt::{self, Write as _};
use std::io;

use minijinja::{Error, ErrorKind, Output, State, Value, escape_formatter, filters};

/// Bytes of text for one unit of work, as the interpreter counts them.
const COPIED: usize = 64;
/// The same of a list or an object that is printed.
const PRINTED: usize = 4;

/// What `{{ value }}` writes.
pub(super) fn print(
    output: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    check(state, value)?;
    escape_formatter(output, state, value)
}

/// The filter `string`.
pub(super) fn string(state: &State<'_, '_>, value: &Value) -> Result<Value, Error> {
    check(state, value)?;
    filters::string(state, value)
}

/// Refuses lists and objects whose text is longer than the work that is left pays for.
fn check(state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    if value.as_object().is_none() {
        return Ok(());
    }
    let mut counter = Counter { left: left(state).saturating_mul(PRINTED) };
    write!(counter, "{value}").map_err(|_| Error::from(ErrorKind::OutOfFuel))
}

/// The work that is left.
fn left(state: &State<'_, '_>) -> usize {
    state.fuel_levels().and_then(|(_, left)| usize::try_from(left).ok()).unwrap_or(usize::MAX)
}

/// Counts what is written, and takes no more than so many bytes.
struct Counter {
    left: usize,
}

impl fmt::Write for Counter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.left = self.left.checked_sub(text.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}

/// A text that grows no longer than the work that is left pays for.
pub(super) struct Paid {
    bytes: Vec<u8>,
    left: usize,
}

impl Paid {
    pub(super) fn new(state: &State<'_, '_>) -> Self {
        Self { bytes: Vec::new(), left: left(state).saturating_mul(COPIED) }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl io::Write for Paid {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(piece.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
