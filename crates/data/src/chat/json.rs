//! The filter `tojson`: JSON as Python's `json.dumps` writes it, which is not what web templates need.

use std::io;

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, State, Value};
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{Formatter, PrettyFormatter};

use super::limits::Paid;

/// Most blanks a level. Templates write a handful; as many as a number can say would not fit into memory.
const WIDEST: usize = 100;

/// `tojson(indent=None, ensure_ascii=False)`: HTML is not escaped, and keys keep their order.
pub(super) fn to_json(
    state: &State<'_, '_>,
    value: &Value,
    options: Kwargs,
) -> Result<String, Error> {
    let fail = |cause: String| Error::new(ErrorKind::BadSerialization, cause);
    let indent: Option<usize> = options.get("indent")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    if let Some(width) = indent.filter(|width| *width > WIDEST) {
        return Err(fail(format!("tojson(indent={width}): at most {WIDEST} is possible")));
    }
    let mut output = Paid::new(state);
    let written = match indent {
        Some(width) => {
            let indent = " ".repeat(width);
            let pretty = PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut output, pretty))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut output, Spaced)),
    };
    written.map_err(|cause| match cause.is_io() {
        true => Error::from(ErrorKind::OutOfFuel),
        false => fail(cause.to_string()),
    })?;
    let text = String::from_utf8(output.into_bytes()).map_err(|cause| fail(cause.to_string()))?;
    Ok(if ascii == Some(true) { escaped(&text) } else { text })
}

/// One line with a blank behind every comma and colon.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// Whatever is not ASCII as `\uXXXX`; outside strings, JSON has none.
fn escaped(text: &str) -> String {
    let escape = |c: char| match c.is_ascii() {
        true => c.to_string(),
        false => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
    };
    text.chars().map(escape).collect()
}
