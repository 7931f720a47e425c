//! Files as numbered lines, plain or gzip-compressed, and each line as one JSON value.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde::de::DeserializeOwned;

use crate::{DataError, Place};

/// What every text file has to be.
pub(crate) const WHOLE: &str = "The file has to be whole and UTF-8.";

/// A longer line, in bytes, is none: what never ends, such as a device, must not fill the memory.
const LONGEST: u64 = 256 << 20;

/// The lines of a file with their numbers, counted from 1, without their ends and the mark of UTF-8 before the first.
pub(crate) fn numbered(path: &Path) -> Result<Vec<(usize, String)>, DataError> {
    each(path)?.collect()
}

/// The same, one after the other; nothing is to be read after an error.
pub(crate) fn each(
    path: &Path,
) -> Result<impl Iterator<Item = Result<(usize, String), DataError>>, DataError> {
    let mut file = open(path)?;
    let lines = std::iter::from_fn(move || next(&mut file, LONGEST).transpose()).zip(1..);
    Ok(lines.map(move |(text, line)| match text {
        Ok(text) => Ok((line, without_mark(line, text))),
        Err(problem) => Err(at(path, Place::Line(line))(problem)),
    }))
}

/// The next line without its end; none after the last.
///
/// - `longest`: in bytes.
fn next(file: &mut impl BufRead, longest: u64) -> Result<Option<String>, String> {
    let unread = |cause: String| format!("Cannot read it: {cause}. {WHOLE}");
    let mut line = Vec::new();
    let mut part = file.by_ref().take(longest + 1);
    if part.read_until(b'\n', &mut line).map_err(|cause| unread(cause.to_string()))? == 0 {
        return Ok(None);
    }
    if line.len() as u64 > longest {
        return Err(format!("It is longer than {longest} bytes. Each line has to be one row."));
    }
    if line.pop_if(|byte| *byte == b'\n').is_some() {
        line.pop_if(|byte| *byte == b'\r');
    }
    String::from_utf8(line).map(Some).map_err(|cause| unread(cause.to_string()))
}

/// What may stand before the text of a file in UTF-8.
pub(crate) const BYTE_ORDER_MARK: char = '\u{feff}';

fn without_mark(line: usize, text: String) -> String {
    match text.strip_prefix(BYTE_ORDER_MARK).filter(|_| line == 1) {
        Some(rest) => rest.to_owned(),
        None => text,
    }
}

/// Each line as one JSON object. Lines of white space are passed over.
pub(crate) fn json<T: DeserializeOwned>(path: &Path) -> Result<Vec<(usize, T)>, DataError> {
    let filled = numbered(path)?.into_iter().filter(|(_, text)| !text.trim().is_empty());
    filled
        .enumerate()
        .map(|(index, (line, text))| match serde_json::from_str(&text) {
            Ok(value) => Ok((line, value)),
            Err(_) if index == 0 && is_part_of_list(&text) => {
                Err(DataError::Document { path: path.to_path_buf() })
            }
            Err(cause) => Err(at(path, Place::Line(line))(format!(
                "{}. Each line has to be one JSON object with the keys named in the documentation.",
                described(&cause, &text)
            ))),
        })
        .collect()
}

/// Whether a line begins a list that goes on, or has a list of objects.
fn is_part_of_list(text: &str) -> bool {
    let is_whole = serde_json::from_str::<serde_json::Value>(text).is_ok();
    text.trim_start().starts_with('[') && (!is_whole || text.contains('{'))
}

/// For building a [`DataError::Row`] from its problem.
pub(crate) fn at(path: &Path, place: Place) -> impl FnOnce(String) -> DataError {
    move |problem| DataError::Row { path: path.to_path_buf(), place, problem }
}

/// The file's name without `.gz`, in lower case: what its format is told from.
pub(crate) fn plain_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.strip_suffix(".gz").map(str::to_owned).unwrap_or(name)
}

/// The file's bytes, unpacked if its name ends in `.gz`.
pub(crate) fn open(path: &Path) -> Result<Box<dyn BufRead>, DataError> {
    let file =
        File::open(path).map_err(|cause| DataError::Open { path: path.to_path_buf(), cause })?;
    let packed = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz"));
    Ok(if packed {
        Box::new(BufReader::new(MultiGzDecoder::new(file)))
    } else {
        Box::new(BufReader::new(file))
    })
}

/// What to say of a NaN or an infinity in JSON.
const NO_NUMBER: &str = "a NaN or Infinity is no JSON number; Python's json.dumps writes them all the same, unless told allow_nan=False";

/// Whether a text that is no JSON has NaN or Infinity where JSON has values, as Python's `json` writes them: what to say of them.
#[must_use]
pub fn no_json_number(text: &str) -> Option<&'static str> {
    let (mut within, mut escaped) = (false, false);
    let outside_strings = |c: &char| {
        let was_within = within;
        match c {
            _ if escaped => escaped = false,
            '\\' if within => escaped = true,
            '"' => within = !within,
            _ => {}
        }
        !was_within
    };
    let values: String = text.chars().filter(outside_strings).collect();
    (values.contains("NaN") || values.contains("Infinity")).then_some(NO_NUMBER)
}

/// The message without serde's own "at line 1 column 5", of which only the column is true here.
pub(crate) fn described(cause: &serde_json::Error, text: &str) -> String {
    if let Some(what) = no_json_number(text).filter(|_| cause.is_syntax()) {
        return format!("Column {}: {what}", cause.column().max(1));
    }
    let message = cause.to_string();
    let place = format!(" at line {} column {}", cause.line(), cause.column());
    match message.strip_suffix(&place) {
        Some(what) => format!("Column {}: {what}", cause.column().max(1)),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_files::{gz, plain};

    #[test]
    fn lines_are_counted_from_one_in_plain_and_packed_files() {
        let expected = [(1, "one".to_owned()), (2, String::new()), (3, "three".to_owned())];
        for file in [plain("a.txt", "one\n\nthree\n"), gz("a.txt.gz", "one\r\n\r\nthree")] {
            assert_eq!(numbered(file.path()).unwrap(), expected);
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_text() {
        let text = "\u{feff}[1]\n\u{feff}\n";
        for file in [plain("a.txt", text), gz("a.txt.gz", text)] {
            let expected = [(1, "[1]".to_owned()), (2, "\u{feff}".to_owned())];
            assert_eq!(numbered(file.path()).unwrap(), expected);
        }
        let file = plain("a.jsonl", "\u{feff}[1]\n[2]\n");
        assert_eq!(json::<[u8; 1]>(file.path()).unwrap(), [(1, [1]), (2, [2])]);
    }

    #[test]
    fn a_line_that_does_not_end_is_not_read_on() {
        let mut endless = BufReader::new(b"ab\r\n".as_slice().chain(std::io::repeat(b'a')));
        assert_eq!(next(&mut endless, 4), Ok(Some("ab".to_owned())));
        let error = next(&mut endless, 4).unwrap_err();
        assert!(error.starts_with("It is longer than 4 bytes."), "{error}");
        let mut file = BufReader::new(&b"\xff\r"[..]);
        assert!(next(&mut file, 4).unwrap_err().contains("whole and UTF-8"));
        assert_eq!(next(&mut file, 4), Ok(None));
    }

    #[test]
    fn two_packed_members_are_one_file() {
        let file = gz("a.jsonl.gz", "1\n");
        let member = std::fs::read(file.path()).unwrap();
        std::fs::write(file.path(), [member.clone(), member].concat()).unwrap();
        assert_eq!(json::<u8>(file.path()).unwrap(), [(1, 1), (2, 1)]);
    }

    #[test]
    fn a_truncated_packed_file_is_an_error() {
        let file = gz("a.jsonl.gz", &"{\"text\": \"a line\"}\n".repeat(100));
        let bytes = std::fs::read(file.path()).unwrap();
        std::fs::write(file.path(), &bytes[..bytes.len() / 2]).unwrap();
        let error = numbered(file.path()).unwrap_err().to_string();
        assert!(error.contains("a.jsonl.gz, line "), "{error}");
    }

    #[test]
    fn what_python_writes_for_no_number_is_named() {
        for number in ["NaN", "Infinity", "-Infinity"] {
            let text = format!("{{\"a\": 1}}\n{{\"a\": \"\\\"\", \"b\": {number}}}\n");
            let file = plain("a.jsonl", &text);
            let error = json::<serde_json::Value>(file.path()).unwrap_err().to_string();
            assert!(error.contains("a.jsonl, line 2: Column "), "{error}");
            assert!(error.contains("a NaN or Infinity is no JSON number; "), "{error}");
        }
        // As text it is nothing of note.
        assert_eq!(no_json_number(r#"{"a": "NaN, \" Infinity"#), None);
        assert!(no_json_number(r#"{"a": "\\", "b": NaN}"#).is_some());
    }

    #[test]
    fn bad_json_is_named_by_line_and_column() {
        let file = plain("a.jsonl", "1\n\n[1\n");
        let error = json::<u8>(file.path()).unwrap_err().to_string();
        assert!(error.contains("a.jsonl, line 3: Column 1: invalid type"), "{error}");
    }
}
