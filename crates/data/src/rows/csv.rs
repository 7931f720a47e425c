//! Rows of comma-separated values (RFC 4180): quoted fields may hold commas and ends of lines.

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;

use csv::{Error, ErrorKind, Position, StringRecord};
use serde_json::Value;

use super::Row;
use crate::lines::{BYTE_ORDER_MARK, WHOLE, at, open};
use crate::{DataError, Place};

/// Reads the rows below the header; each value is text.
pub(super) fn read(path: &Path) -> Result<Vec<Row>, DataError> {
    let text = whole_text(path)?;
    if let Some(line) = open_quote(&text) {
        let problem = "The quoted field that begins here does not end: the file is cut off, or lacks a quote.";
        return Err(at(path, Place::Line(line))(problem.to_owned()));
    }
    let mut places = Places { text: &text, counted: 0, line: 1 };
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = match reader.headers() {
        Ok(header) => header.clone(),
        Err(cause) => return Err(at(path, places.of(cause.position()))(described(&cause))),
    };
    let mut seen = HashSet::new();
    if let Some(twice) = header.iter().find(|name| !seen.insert(*name)) {
        let problem = format!("The column `{twice}` is there twice. Rename one of the two.");
        return Err(at(path, Place::Line(1))(problem));
    }
    reader
        .records()
        .map(|record| match record {
            Ok(record) => Ok(row(&header, &record, places.of(record.position()))),
            Err(cause) => Err(at(path, places.of(cause.position()))(described(&cause))),
        })
        .collect()
}

fn row(header: &StringRecord, record: &StringRecord, place: Place) -> Row {
    let values = header.iter().zip(record).map(|(key, text)| (key.to_owned(), Value::from(text)));
    Row { place, values: values.collect() }
}

/// The file's text; what cannot be read is named by its line.
fn whole_text(path: &Path) -> Result<String, DataError> {
    let mut bytes = Vec::new();
    let read = open(path)?.read_to_end(&mut bytes);
    let refused = |before: &[u8], cause: &dyn std::fmt::Display| {
        let place = Place::Line(line_ends(before) + 1);
        at(path, place)(format!("Cannot read it: {cause}. {WHOLE}"))
    };
    read.map_err(|cause| refused(&bytes, &cause))?;
    String::from_utf8(bytes).map_err(|cause| {
        let valid = cause.utf8_error().valid_up_to();
        refused(&cause.as_bytes()[..valid], &cause.utf8_error())
    })
}

/// The line in which a quoted field begins that the text does not end; the reader would take it for whole.
fn open_quote(text: &str) -> Option<usize> {
    /// Where a character stands.
    enum At {
        Start,
        Within,
        Quoted,
        /// Behind a quote within a quoted field, which ends it unless another follows.
        Quote,
    }
    let (mut at, mut line, mut begun) = (At::Start, 1, 1);
    for c in text.trim_start_matches(BYTE_ORDER_MARK).chars() {
        at = match (at, c) {
            (At::Quoted, '"') => At::Quote,
            (At::Quoted, _) | (At::Quote, '"') => At::Quoted,
            (At::Start, '"') => {
                begun = line;
                At::Quoted
            }
            (_, ',' | '\n' | '\r') => At::Start,
            _ => At::Within,
        };
        line += usize::from(c == '\n');
    }
    matches!(at, At::Quoted).then_some(begun)
}

fn line_ends(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// Tells lines from the positions of records, in the file's order. The reader's own line numbers
/// are one too low where lines end in `\r\n`.
struct Places<'a> {
    text: &'a str,
    counted: usize,
    line: usize,
}

impl Places<'_> {
    fn of(&mut self, position: Option<&Position>) -> Place {
        let start = position.and_then(|position| usize::try_from(position.byte()).ok());
        let bytes = self.text.as_bytes();
        let rest = start.and_then(|start| bytes.get(start..)).unwrap_or_default();
        // A record may begin with the rest of the end of the line before it, or with blank lines.
        let ends = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let start = bytes.len() - rest.len() + ends;
        self.line += line_ends(bytes.get(self.counted..start).unwrap_or_default());
        self.counted = start;
        Place::Line(self.line)
    }
}

fn described(cause: &Error) -> String {
    match cause.kind() {
        ErrorKind::UnequalLengths { expected_len, len, .. } => format!(
            "It has {len} fields, and the header has {expected_len}. Quote fields that hold commas."
        ),
        _ => format!("Cannot read it: {cause}. {WHOLE}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_files::{gz, plain};

    #[test]
    fn a_file_that_is_cut_off_within_quotes_is_refused() {
        let text = "prompt,answer\n\"a\nb\",c\n\"d\n\"\"e\"\"\n,f";
        for file in [plain("p.csv", text), gz("p.csv.gz", text)] {
            let error = read(file.path()).unwrap_err().to_string();
            assert!(error.contains(", line 4: The quoted field that begins here"), "{error}");
        }
    }

    #[test]
    fn quotes_that_open_no_field_are_text() {
        let text =
            "\u{feff}\"prompt\",n\r\n5\" pipe,1\r\n\"\",2\n\"say \"\"\"\"\",3\n\"a\" b\",\"4\"";
        let rows = read(plain("p.csv", text).path()).unwrap();
        let prompts: Vec<_> = rows.iter().map(|row| row.string("prompt").unwrap()).collect();
        assert_eq!(prompts, ["5\" pipe", "", "say \"\"", "a b\""]);
    }
}
