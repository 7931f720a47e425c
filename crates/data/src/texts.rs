//! Texts for supervised training: JSON Lines with the key `text`.

use std::path::Path;

use serde::Deserialize;

use crate::DataError;
use crate::lines::{at, json};

#[derive(Deserialize)]
struct Line {
    text: String,
}

/// Reads the texts of a JSON Lines file, plain or `.gz`, in the file's order.
///
/// # Errors
/// [`DataError`] when the file cannot be read, holds no text, or a line holds an empty one.
pub fn read(path: &Path) -> Result<Vec<String>, DataError> {
    let lines = json::<Line>(path)?;
    if lines.is_empty() {
        return Err(DataError::Empty { path: path.to_path_buf(), what: "text" });
    }
    lines
        .into_iter()
        .map(|(line, Line { text })| match text.trim() {
            "" => Err(at(path, line)("The `text` is empty. Remove the line.".to_owned())),
            _ => Ok(text),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_files::{gz, plain};

    #[test]
    fn texts_keep_their_order_and_their_white_space() {
        let text = "{\"text\": \" a\\n\"}\n{\"text\": \"b\", \"label\": 1}\n";
        for file in [plain("t.jsonl", text), gz("t.jsonl.gz", text)] {
            assert_eq!(read(file.path()).unwrap(), [" a\n", "b"]);
        }
    }

    #[test]
    fn empty_files_and_empty_texts_are_refused() {
        let error = |text: &str| read(plain("t.jsonl", text).path()).unwrap_err().to_string();
        assert!(error("").contains("holds no text"));
        assert!(
            error("{\"text\": \"a\"}\n{\"text\": \" \"}").contains("line 2: The `text` is empty")
        );
        assert!(error("{\"prompt\": \"a\"}").contains("line 1: "));
    }
}
