//! Stored responses with their rewards, several to a prompt: rows of any format, or the document of `infalign generate --json`.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::lines::{BYTE_ORDER_MARK, at, described, open, plain_name};
use crate::prompts::Prompt;
use crate::rows::{self, Row, Unique, kind};
use crate::{DataError, Place, Text};

/// A response and what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredResponse {
    /// The text; may be empty.
    pub text: String,
    /// Its reward, finite.
    pub reward: Option<f64>,
    /// Its length in tokens.
    pub tokens: Option<usize>,
    /// Tokens that were made for it, those of discarded candidates included.
    pub made: Option<usize>,
}

/// A prompt with its responses, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredPrompt {
    /// The prompt.
    pub prompt: Prompt,
    /// At least one.
    pub responses: Vec<StoredResponse>,
}

/// What a file of responses holds.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredResponses {
    /// The procedure that made each response, where the file says so, as documents of `infalign generate --json` do.
    pub procedure: Option<String>,
    /// What gave the rewards, where the file says so.
    pub reward: Option<String>,
    /// At least one.
    pub prompts: Vec<StoredPrompt>,
}

/// Reads a file with a row a response: `prompt` (or `messages`), `response`, and optionally `id`, `reward` (or `score`), `tokens`, a number
/// or the tokens themselves, and `model_tokens`, how many were made for it. Rows of one id belong together, wherever they stand. `.json` is read as what `infalign generate --json` prints.
///
/// # Errors
/// [`DataError`] when the file cannot be read, holds no row, or is a document of a run that was stopped, and for a row without prompt or
/// response, with a reward that is no finite number, or with the id of another prompt.
pub fn read(path: &Path) -> Result<StoredResponses, DataError> {
    let is_document = plain_name(path).ends_with(".json");
    let Document { procedure, reward, finished, rows } = match is_document {
        true => document(path)?,
        false => {
            Document { procedure: None, reward: None, finished: true, rows: rows::read(path)? }
        }
    };
    if !finished {
        return Err(DataError::Unfinished { path: path.to_path_buf() });
    }
    let mut prompts: Vec<StoredPrompt> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    // Each row goes as its response comes: in memory, rows take several times what their file does.
    for row in rows {
        let (prompt, response) = from_row(&row).map_err(at(path, row.place))?;
        let place = *places.entry(prompt.id.clone()).or_insert(prompts.len());
        match prompts.get_mut(place) {
            None => prompts.push(StoredPrompt { prompt, responses: vec![response] }),
            Some(known) if known.prompt == prompt => known.responses.push(response),
            Some(_) => {
                return Err(at(path, row.place)(format!(
                    "The id `{}` is that of another prompt already. Give each prompt one of its own.",
                    prompt.id
                )));
            }
        }
    }
    if prompts.is_empty() {
        return Err(DataError::Empty { path: path.to_path_buf(), what: "response" });
    }
    Ok(StoredResponses { procedure, reward, prompts })
}

/// What `infalign generate --json` prints.
pub(crate) struct Document {
    procedure: Option<String>,
    reward: Option<String>,
    /// Whether all prompts have their responses. They get them as these end: the longest are missing first.
    pub(crate) finished: bool,
    /// Counted from 1.
    pub(crate) rows: Vec<Row>,
}

/// Reads `{"responses": […]}`.
pub(crate) fn document(path: &Path) -> Result<Document, DataError> {
    let mut value = parsed(path)?;
    if value.is_array() {
        return Err(DataError::Document { path: path.to_path_buf() });
    }
    let Some(Value::Array(rows)) = value.get_mut("responses").map(Value::take) else {
        return Err(at(path, Place::Line(1))(
            "There is no list `responses`, as `infalign generate --json` prints one.".to_owned(),
        ));
    };
    let row = |(row, place): (Value, usize)| match row {
        Value::Object(values) => Ok(Row { place: Place::Row(place), values }),
        _ => Err(at(path, Place::Row(place))("It is no object.".to_owned())),
    };
    let procedure = procedure_of(&value).map_err(at(path, Place::Line(1)))?;
    // Other programs may mean something else by it.
    let reward = value.get("reward").and_then(Value::as_str).map(str::to_owned);
    let finished = value.get("finished") != Some(&Value::Bool(false));
    let rows = rows.into_iter().zip(1..).map(row).collect::<Result<Vec<Row>, DataError>>()?;
    Ok(Document { procedure, reward, finished, rows })
}

/// The procedure that a document says; none where it is null, too.
fn procedure_of(document: &Value) -> Result<Option<String>, String> {
    match document.get("procedure") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => {
            let what = kind(other);
            Err(format!("The key `procedure` of the document is {what}, but has to be text."))
        }
    }
}

/// A file as one JSON value; its text is no longer in memory.
fn parsed(path: &Path) -> Result<Value, DataError> {
    let unread = |line: usize, what: String| {
        at(path, Place::Line(line))(format!("{what}. The file has to be one JSON document."))
    };
    let mut text = String::new();
    open(path)?.read_to_string(&mut text).map_err(|cause| unread(1, cause.to_string()))?;
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
    let Unique(value) = serde_json::from_str::<Unique>(text)
        .map_err(|cause| unread(cause.line().max(1), described(&cause, text)))?;
    Ok(value)
}

fn from_row(row: &Row) -> Result<(Prompt, StoredResponse), String> {
    let prompt = Prompt::new(Text::of_prompt(row)?);
    let prompt = Prompt { id: row.id()?.unwrap_or(prompt.id), ..prompt };
    let key = if row.get("reward").is_some() { "reward" } else { "score" };
    let reward = row.f64(key)?;
    let tokens = row.get("tokens").map(|value| length("tokens", value)).transpose()?;
    let made = row.get("model_tokens").map(|value| length("model_tokens", value)).transpose()?;
    Ok((prompt, StoredResponse { text: row.string("response")?, reward, tokens, made }))
}

fn length(key: &str, value: &Value) -> Result<usize, String> {
    let number =
        value.as_u64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));
    let tokens = value.as_array().map(|tokens| tokens.len() as u64);
    let length = tokens.or(number).ok_or_else(|| {
        format!("The key `{key}` is {value}, but has to be a count or a list of tokens.")
    })?;
    Ok(length as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_files::plain;

    #[test]
    fn rows_of_a_prompt_belong_together() {
        let text = "{\"prompt\": \"a\", \"response\": \"x\", \"reward\": 1, \"tokens\": [5, 6]}\n\
                    {\"prompt\": \"b\", \"response\": \"\", \"score\": -0.5, \"tokens\": 3}\n\
                    {\"prompt\": \"a\", \"response\": \"y\"}\n";
        let prompts = read(plain("r.jsonl", text).path()).unwrap().prompts;
        let shape: Vec<usize> = prompts.iter().map(|prompt| prompt.responses.len()).collect();
        assert_eq!(
            (shape, prompts[0].prompt.id.as_str()),
            (vec![2, 1], Prompt::new("a").id.as_str())
        );
        let [x, y] = &prompts[0].responses[..] else { panic!("two") };
        assert_eq!((x.reward, x.tokens, y.reward, y.tokens), (Some(1.0), Some(2), None, None));
        let b = &prompts[1].responses[0];
        assert_eq!((b.reward, b.tokens, b.text.as_str()), (Some(-0.5), Some(3), ""));
    }

    #[test]
    fn ids_may_be_numbers() {
        let row = "{\"id\": 7, \"prompt\": \"a\", \"response\": \"x\"}\n";
        let prompts = read(plain("r.jsonl", row).path()).unwrap().prompts;
        assert_eq!(prompts[0].prompt.id, "7");
    }

    #[test]
    fn tables_and_documents_are_read_too() {
        let table = plain("r.csv", "prompt,response,reward,tokens\na,x,0.25,7\n");
        let document = plain(
            "r.json",
            "\u{feff}{\"procedure\": \"best-of:2\", \"responses\": [{\"id\": \"one\", \"prompt\": \"a\", \"response\": \"x\", \"score\": 0.25, \"tokens\": [1], \"model_tokens\": 9}], \"reward\": {\"kind\": \"x\"}, \"finished\": true}",
        );
        let table = read(table.path()).unwrap();
        assert_eq!((table.procedure, table.prompts[0].responses[0].reward), (None, Some(0.25)));
        let StoredResponses { procedure, reward, prompts: read } = read(document.path()).unwrap();
        assert_eq!((procedure.as_deref(), reward), (Some("best-of:2"), None));
        assert_eq!((read[0].prompt.id.as_str(), read[0].responses[0].tokens), ("one", Some(1)));
        assert_eq!(read[0].responses[0].made, Some(9));
    }

    #[test]
    fn what_cannot_be_used_is_named_by_its_place() {
        for (name, text, told) in [
            ("r.csv", "prompt,response,reward\na,x,nan\n", "line 2: The key `reward`"),
            ("r.jsonl", "{\"prompt\": \"a\"}\n", "`response` is missing"),
            (
                "r.jsonl",
                "{\"prompt\": \"a\", \"response\": \"x\", \"reward\": \"much\"}\n",
                "finite number",
            ),
            ("r.jsonl", "{\"prompt\": \"a\", \"response\": \"x\", \"tokens\": -1}\n", "a count"),
            (
                "r.jsonl",
                "{\"prompt\": \"a\", \"id\": \"i\", \"response\": \"x\"}\n{\"prompt\": \"b\", \"id\": \"i\", \"response\": \"x\"}\n",
                "line 2: The id `i`",
            ),
            ("r.json", "{\"rows\": []}", "no list `responses`"),
            ("r.json", "[", "one JSON document"),
            ("r.json", "[{\"prompt\": \"a\", \"response\": \"x\"}]", "jq -c '.[]'"),
            (
                "r.json",
                "{\"responses\": [\n{\"score\": NaN}]}",
                "line 2: Column 11: a NaN or Infinity is no",
            ),
            (
                "r.json",
                "{\"responses\": [\n{\"score\": 1, \"prompt\": \"a\", \"score\": 2}]}",
                ": the key `score` is there twice. The file has to be one JSON document.",
            ),
            ("r.json", "{\"responses\": [1]}", "row 1: It is no object"),
            (
                "r.json",
                "{\"procedure\": 4, \"responses\": []}",
                "The key `procedure` of the document is a number, but",
            ),
            (
                "r.json",
                "{\"responses\": [{\"prompt\": \"a\", \"response\": \"x\"}], \"finished\": false}",
                "Run it again to its end",
            ),
            ("r.jsonl", "\n", "holds no response"),
        ] {
            let message = read(plain(name, text).path()).unwrap_err().to_string();
            assert!(message.contains(told), "{text}: {message}");
        }
    }
}
