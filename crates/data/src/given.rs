//! Responses that are given rather than generated, to be scored: as texts or as token ids.

use std::path::Path;

use serde_json::Value;

use crate::lines::{at, json, plain_name};
use crate::responses;
use crate::rows::Row;
use crate::{DataError, Place, Text};

/// A response after its prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// As texts.
    Text {
        /// What the response answers; may be blank.
        prompt: Text,
        /// The response; not empty.
        response: String,
    },
    /// As the tokens of prompt and response together, two or more; the first is only a context.
    Ids {
        /// Token ids.
        ids: Vec<u32>,
    },
}

/// Reads a JSONL file (or `.jsonl.gz`) with `{"prompt": …, "response": …}` (`messages` may stand in for `prompt`, and `completion` for
/// `response`) or `{"ids": […]}` a line; `.json` may be what `infalign generate --json` prints, of which empty responses are left out. Returns the numbers of lines or rows, too.
///
/// # Errors
/// [`DataError`] when the file cannot be read or is empty, and for a line that is neither, has an empty response, or fewer than two ids.
pub fn read(path: &Path) -> Result<Vec<(usize, Given)>, DataError> {
    let document = plain_name(path).ends_with(".json").then(|| responses::document(path).ok());
    let rows: Vec<(usize, Row)> = match document.flatten() {
        // Of what a model ended at once there is nothing to score.
        Some((_, rows)) => (1..).zip(rows).filter(|(_, row)| !is_empty(row)).collect(),
        None => {
            let row = |(line, values)| (line, Row { place: Place::Line(line), values });
            json(path)?.into_iter().map(row).collect()
        }
    };
    let given = rows
        .into_iter()
        .map(|(number, row)| Ok((number, from_row(&row).map_err(at(path, row.place))?)));
    let given = given.collect::<Result<Vec<_>, DataError>>()?;
    if given.is_empty() {
        return Err(DataError::Empty { path: path.to_path_buf(), what: "response" });
    }
    Ok(given)
}

fn is_empty(row: &Row) -> bool {
    row.get("response").and_then(Value::as_str) == Some("")
}

fn from_row(row: &Row) -> Result<Given, String> {
    const NEITHER: &str = "It is neither {\"prompt\": text or messages, \"response\" or \"completion\": text} nor {\"ids\": [token ids]}.";
    let has_prompt = row.get("prompt").or(row.get("messages")).is_some();
    let response = row.get("response").or(row.get("completion"));
    let response = response.and_then(Value::as_str).filter(|_| has_prompt);
    let Some(response) = response else {
        let ids = row.get("ids").cloned().and_then(|ids| serde_json::from_value(ids).ok());
        let ids: Vec<u32> = ids.ok_or(NEITHER)?;
        if ids.len() < 2 {
            return Err(
                "`ids` needs at least two tokens: the first is only what the second follows."
                    .to_owned(),
            );
        }
        return Ok(Given::Ids { ids });
    };
    let prompt = Text::of_prompt(row)?;
    if response.is_empty() {
        return Err("The response is empty. Write one or remove the line.".to_owned());
    }
    Ok(Given::Text { prompt, response: response.to_owned() })
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
        assert_eq!((prompt, response.as_str(), &ids[..]), (&"a".into(), " b", &[1, 5, 2][..]));
    }

    #[test]
    fn the_prompt_may_be_a_conversation() {
        let talk = r#"[{"role": "user", "content": "Hi"}]"#;
        let text = ["prompt", "messages"]
            .map(|key| format!("{{\"{key}\": {talk}, \"response\": \"Hello\"}}\n"));
        let file = plain("g.jsonl", &text.concat());
        let given = read(file.path()).unwrap();
        let (_, Given::Text { prompt: Text::Messages(messages), .. }) = &given[0] else {
            panic!("a conversation");
        };
        assert_eq!(messages[0].content, "Hi");
        assert_eq!(given[0].1, given[1].1);
    }

    #[test]
    fn completions_and_documents_of_generated_responses_are_read() {
        let line = file_of("c.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n");
        let document = file_of(
            "d.json",
            "{\"responses\": [\n  {\"prompt\": \"a\", \"response\": \"b\", \"tokens\": [7]},\n  {\"prompt\": \"a\", \"response\": \"\"}\n]}",
        );
        assert_eq!(line, document);
        let lines = file_of("e.json", "{\"prompt\": \"a\", \"response\": \"b\"}\n");
        assert_eq!(lines, line, "lines stay lines, whatever they are called");
    }

    fn file_of(name: &str, text: &str) -> Vec<(usize, Given)> {
        read(plain(name, text).path()).unwrap()
    }

    #[test]
    fn other_lines_are_refused_by_number() {
        for (text, problem) in [
            ("{\"prompt\": \"a\"}\n", "neither"),
            ("{\"prompt\": [{\"role\": \"user\"}], \"response\": \"b\"}\n", "`content` is missing"),
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
