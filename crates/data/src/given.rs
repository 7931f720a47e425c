//! Responses that are given rather than generated, to be scored: as texts or as token ids.

use std::path::Path;

use serde_json::Value;

use crate::lines::{at, each, plain_name};
use crate::responses::{self, Document};
use crate::rows::{Row, kind, of_lines};
use crate::{DataError, Place, Text};

/// What other files of responses may be, but not these.
const TABLES: [&str; 3] = [".csv", ".tsv", ".parquet"];

/// A response after its prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// As texts.
    Text {
        /// What the response answers; may be blank.
        prompt: Text,
        /// The response; empty only where its tokens are known.
        response: String,
        /// Its tokens, where they are known: the tokenizer may make others of the text, which does not show the one that ended it either.
        tokens: Option<Vec<u32>>,
    },
    /// As the tokens of prompt and response together, two or more; the first is only a context.
    Ids {
        /// Token ids.
        ids: Vec<u32>,
    },
}

/// What a file of given responses holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenResponses {
    /// At least one, with the numbers of lines or rows.
    pub rows: Vec<(usize, Given)>,
    /// False of a document of `infalign generate --json` that was stopped: the responses that take longest are missing.
    pub finished: bool,
}

/// Reads a JSONL file (or `.jsonl.gz`) with `{"prompt": …, "response": …}` (`messages` may stand in for `prompt`, and `completion` for
/// `response`), optionally with the response's `tokens`, or `{"ids": […]}` a line; `.json` may be what `infalign generate --json` prints, of which responses
/// without text and tokens are left out.
///
/// # Errors
/// [`DataError`] when the file cannot be read, is empty or a table, and for a line that is neither, has an empty response without tokens, or two
/// responses, or fewer than two ids.
pub fn read(path: &Path) -> Result<GivenResponses, DataError> {
    if TABLES.iter().any(|ending| plain_name(path).ends_with(ending)) {
        let known = ".jsonl, .jsonl.gz (JSON Lines), .json (what `generate --json` prints)";
        return Err(DataError::Format { path: path.to_path_buf(), known });
    }
    let is_document = plain_name(path).ends_with(".json") && is_document(path)?;
    let (rows, finished): (Vec<Row>, bool) = if is_document {
        let Document { rows, finished, .. } = responses::document(path)?;
        // Of what a model ended at once there is nothing to score.
        (rows.into_iter().filter(|row| !is_empty(row)).collect(), finished)
    } else {
        (of_lines(path)?, true)
    };
    let given = rows.iter().map(|row| {
        let (Place::Line(number) | Place::Row(number)) = row.place;
        Ok((number, from_row(row).map_err(at(path, row.place))?))
    });
    let rows = given.collect::<Result<Vec<_>, DataError>>()?;
    if rows.is_empty() {
        return Err(DataError::Empty { path: path.to_path_buf(), what: "response" });
    }
    Ok(GivenResponses { rows, finished })
}

/// Whether a file is one document: its first line is but the beginning of a value, or one with `responses`.
fn is_document(path: &Path) -> Result<bool, DataError> {
    let is_blank = |line: &Result<(usize, String), DataError>| {
        line.as_ref().is_ok_and(|(_, text)| text.trim().is_empty())
    };
    let Some(first) = each(path)?.find(|line| !is_blank(line)) else { return Ok(false) };
    let (_, text) = first?;
    Ok(match serde_json::from_str::<Value>(&text) {
        Ok(value) => value.get("responses").is_some(),
        Err(error) => error.is_eof(),
    })
}

fn is_empty(row: &Row) -> bool {
    let no_tokens = row.get("tokens").and_then(Value::as_array).is_none_or(Vec::is_empty);
    no_tokens && row.get("response").and_then(Value::as_str) == Some("")
}

fn from_row(row: &Row) -> Result<Given, String> {
    const NEITHER: &str = "It is neither {\"prompt\": text or messages, \"response\" or \"completion\": text} nor {\"ids\": [token ids]}.";
    if row.get("response").is_some() && row.get("completion").is_some() {
        return Err("It has both `response` and `completion`. Remove one of the two.".to_owned());
    }
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
    let (prompt, tokens) = (Text::of_prompt(row)?, tokens(row)?);
    if response.is_empty() && tokens.is_none() {
        return Err("The response is empty. Write one or remove the line.".to_owned());
    }
    Ok(Given::Text { prompt, response: response.to_owned(), tokens })
}

/// The tokens of the response, where the row has them: a number only tells how many there are.
fn tokens(row: &Row) -> Result<Option<Vec<u32>>, String> {
    let list = match row.get("tokens") {
        None | Some(Value::Number(_)) => return Ok(None),
        Some(list) => list,
    };
    let tokens: Option<Vec<u32>> = serde_json::from_value(list.clone()).ok();
    let tokens = tokens.filter(|tokens| !tokens.is_empty());
    tokens.map(Some).ok_or_else(|| {
        let found = if list.is_array() { "another list" } else { kind(list) };
        format!("The key `tokens` has to be a list of the response's token ids, not {found}.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_files::plain;

    #[test]
    fn texts_and_ids_are_read_with_their_lines() {
        let text = "{\"prompt\": \"a\", \"response\": \" b\"}\n\n{\"ids\": [1, 5, 2]}\n";
        let file = plain("g.jsonl", text);
        let text = Given::Text { prompt: "a".into(), response: " b".into(), tokens: None };
        let ids = Given::Ids { ids: vec![1, 5, 2] };
        let expected = GivenResponses { rows: vec![(1, text), (3, ids)], finished: true };
        assert_eq!(read(file.path()).unwrap(), expected);
    }

    #[test]
    fn the_prompt_may_be_a_conversation() {
        let talk = r#"[{"role": "user", "content": "Hi"}]"#;
        let text = ["prompt", "messages"]
            .map(|key| format!("{{\"{key}\": {talk}, \"response\": \"Hello\"}}\n"));
        let file = plain("g.jsonl", &text.concat());
        let given = read(file.path()).unwrap().rows;
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
            "{\"responses\": [\n  {\"prompt\": \"a\", \"response\": \"b\"},\n  {\"prompt\": \"a\", \"response\": \"\", \"tokens\": []}\n]}",
        );
        assert_eq!(line, document);
        let lines = file_of("e.json", "{\"prompt\": \"a\", \"response\": \"b\"}\n");
        assert_eq!(lines, line, "lines stay lines, whatever they are called");
        let damaged = plain("f.json", "{\"prompt\": \"a\", \"response\": \"b\",}\n{}\n");
        let message = read(damaged.path()).unwrap_err().to_string();
        assert!(message.contains("Each line has to be one JSON object"), "{message}");
    }

    #[test]
    fn tokens_of_responses_are_kept() {
        let given = |response: &str, tokens: Option<Vec<u32>>| Given::Text {
            prompt: "a".into(),
            response: response.into(),
            tokens,
        };
        let document = file_of(
            "d.json",
            "{\"responses\": [{\"prompt\": \"a\", \"response\": \"b\", \"tokens\": [7, 2]}, {\"prompt\": \"a\", \"response\": \"\", \"tokens\": [2]}]}",
        );
        let expected = [(1, given("b", Some(vec![7, 2]))), (2, given("", Some(vec![2])))];
        assert_eq!(document, expected, "a response may be nothing but its end");
        let line =
            file_of("c.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\", \"tokens\": [7]}\n");
        assert_eq!(line, [(1, given("b", Some(vec![7])))]);
        let count = file_of("c.jsonl", "{\"prompt\": \"a\", \"response\": \"b\", \"tokens\": 3}\n");
        assert_eq!(count, [(1, given("b", None))]);
    }

    #[test]
    fn tables_are_refused_by_name() {
        for name in ["r.csv", "r.csv.gz", "r.parquet"] {
            let message = read(Path::new(name)).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains("JSON Lines"), "{message}");
        }
    }

    fn file_of(name: &str, text: &str) -> Vec<(usize, Given)> {
        read(plain(name, text).path()).unwrap().rows
    }

    #[test]
    fn other_lines_are_refused_by_number() {
        for (text, problem) in [
            ("{\"prompt\": \"a\"}\n", "neither"),
            ("{\"prompt\": [{\"role\": \"user\"}], \"response\": \"b\"}\n", "`content` is missing"),
            ("{\"ids\": [1, -5]}\n", "neither"),
            ("{\"prompt\": \"a\", \"response\": \"\"}\n", "is empty"),
            ("{\"ids\": [7]}\n", "at least two"),
            (
                "{\"prompt\": \"a\", \"response\": \"b\", \"completion\": \"b\"}\n",
                "both `response` and `completion`",
            ),
            (
                "{\"prompt\": \"a\", \"response\": \"b\", \"tokens\": \"7\"}\n",
                "token ids, not text",
            ),
            ("{\"prompt\": \"a\", \"response\": \"b\", \"tokens\": [-7]}\n", "another list"),
            ("{\"prompt\": \"a\", \"response\": \"\", \"tokens\": []}\n", "another list"),
        ] {
            let file = plain("g.jsonl", &format!("{{\"ids\": [1, 2]}}\n{text}"));
            let message = read(file.path()).unwrap_err().to_string();
            assert!(message.contains("line 2") && message.contains(problem), "{message}");
        }
        assert!(matches!(read(plain("g.jsonl", "\n").path()), Err(DataError::Empty { .. })));
    }

    #[test]
    fn a_list_of_rows_and_a_key_that_is_there_twice_are_refused() {
        let list = plain("g.json", "[\n{\"prompt\": \"a\", \"response\": \"b\"}\n]");
        let error = read(list.path()).unwrap_err().to_string();
        assert!(error.contains("g.json") && error.contains("jq -c '.[]'"), "{error}");
        let twice =
            plain("g.jsonl", "{\"prompt\": \"a\", \"response\": \"b\", \"response\": \"c\"}");
        let error = read(twice.path()).unwrap_err().to_string();
        assert!(
            error.contains("line 1: ") && error.contains("`response` is there twice"),
            "{error}"
        );
        let document =
            "{\n\"responses\": [{\"prompt\": \"a\",\n\"response\": \"b\", \"prompt\": \"c\"}]}";
        let error = read(plain("g.json", document).path()).unwrap_err().to_string();
        assert!(error.contains("line 3: Column ") && error.contains("`prompt` is there twice"));
    }
}
