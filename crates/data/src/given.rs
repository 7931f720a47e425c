//! Responses that are given rather than generated, to be scored: as texts or as token ids.

use std::path::Path;

use serde::Deserialize;

use crate::lines::{at, json};
use crate::{DataError, Place};

/// A response after its prompt.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Given {
    /// As texts.
    Text {
        /// What the response answers; may be empty.
        prompt: String,
        /// The response; not empty.
        response: String,
    },
    /// As the tokens of prompt and response together, two or more; the first is only a context.
    Ids {
        /// Token ids.
        ids: Vec<u32>,
    },
}

/// Reads a JSONL file (or `.jsonl.gz`) with `{"prompt": …, "response": …}` or `{"ids": […]}` a line; returns line numbers too.
///
/// # Errors
/// [`DataError`] when the file cannot be read or is empty, and for a line that is neither, has an empty response, or fewer than two ids.
pub fn read(path: &Path) -> Result<Vec<(usize, Given)>, DataError> {
    let rows: Vec<(usize, serde_json::Value)> = json(path)?;
    let given = rows.into_iter().map(|(line, value)| {
        let problem = match serde_json::from_value(value) {
            Err(_) => {
                "It is neither {\"prompt\": text, \"response\": text} nor {\"ids\": [token ids]}."
            }
            Ok(Given::Text { response, .. }) if response.is_empty() => {
                "The response is empty. Write one or remove the line."
            }
            Ok(Given::Ids { ids }) if ids.len() < 2 => {
                "`ids` needs at least two tokens: the first is only what the second follows."
            }
            Ok(given) => return Ok((line, given)),
        };
        Err(at(path, Place::Line(line))(problem.to_owned()))
    });
    let given = given.collect::<Result<Vec<_>, DataError>>()?;
    if given.is_empty() {
        return Err(DataError::Empty { path: path.to_path_buf(), what: "response" });
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_files::plain;

    #[test]
    fn texts_and_ids_are_read_with_their_lines() {
        let text = "{\"prompt\": \"a\", \"response\": \" b\"}\n\n{\"ids\": [1, 5, 2]}\n";
        let file = plain("g.jsonl", text);
        let [(1, Given::Text { prompt, response }), (3, Given::Ids { ids })] =
            &read(file.path()).unwrap()[..]
        else {
            panic!("a text and ids");
        };
        assert_eq!((prompt.as_str(), response.as_str(), &ids[..]), ("a", " b", &[1, 5, 2][..]));
    }

    #[test]
    fn other_lines_are_refused_by_number() {
        for (text, problem) in [
            ("{\"prompt\": \"a\"}\n", "neither"),
            ("{\"ids\": [1, -5]}\n", "neither"),
            ("{\"prompt\": \"a\", \"response\": \"\"}\n", "is empty"),
            ("{\"ids\": [7]}\n", "at least two"),
        ] {
            let file = plain("g.jsonl", &format!("{{\"ids\": [1, 2]}}\n{text}"));
            let message = read(file.path()).unwrap_err().to_string();
            assert!(message.contains("line 2") && message.contains(problem), "{message}");
        }
        assert!(matches!(read(plain("g.jsonl", "\n").path()), Err(DataError::Empty { .. })));
    }
}
