//! The types of data sets that TRL trains on, under TRL's keys, but for prompts alone, which [`crate::prompts`] reads.
//!
//! | type | keys |
//! | --- | --- |
//! | [`LanguageModeling`] | `text` or `messages` |
//! | [`PromptCompletion`] | `prompt`, `completion`; or `messages`, whose last turn is the completion |
//! | [`Preference`] | `prompt`, `chosen`, `rejected`, optionally `margin`; without `prompt`, what the two share is it |
//! | [`Unpaired`] | `prompt`, `completion`, `label` |
//!
//! Each text is plain or a list of messages, and those of one row are all of one kind: a prompt of
//! messages followed by its response is a conversation. A plain prompt followed by its response is
//! the whole text, byte for byte.

use std::path::Path;

use serde_json::Value;

use crate::DataError;
use crate::implicit_prompt;
use crate::messages::{Role, Text, check_turns};
use crate::rows::{self, Row, kind};

/// A type of data set, read row by row.
pub trait Record: Sized {
    /// What a record is called in messages, as a noun.
    const WHAT: &'static str;

    /// Makes the record of a row; keys that the type does not have are ignored.
    ///
    /// # Errors
    /// What is wrong with the row and what to do, in full sentences, without the row's place.
    fn from_row(row: &Row) -> Result<Self, String>;
}

/// Something to imitate as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanguageModeling {
    /// Not blank.
    pub text: Text,
}

/// A prompt and a response to imitate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptCompletion {
    /// What the response answers.
    pub prompt: Text,
    /// The response; not blank.
    pub completion: Text,
}

/// A prompt and two responses to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Preference {
    /// What both responses answer.
    pub prompt: Text,
    /// The response that was preferred.
    pub chosen: Text,
    /// The response that was not. A few rows of some data sets have the same one twice.
    pub rejected: Text,
    /// By how much the preferred one is better, on the data set's own scale; finite, and 0 where the row does not say.
    pub margin: f32,
}

/// A prompt and a response that was found good or bad on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpaired {
    /// What the response answers.
    pub prompt: Text,
    /// The response.
    pub completion: Text,
    /// Whether it was found good.
    pub label: bool,
}

/// Reads the records of a file in any format of [`rows::read`], in the file's order.
///
/// # Errors
/// [`DataError`] when the file cannot be read, holds no record, or a row is not of the type.
pub fn read<T: Record>(path: &Path) -> Result<Vec<T>, DataError> {
    rows::parsed(path, T::WHAT, T::from_row)
}

/// The preferences between different responses, and how many of equal ones were left out.
///
/// # Errors
/// [`DataError`] as [`read`], and when no row has different responses.
pub fn read_strict_preferences(path: &Path) -> Result<(Vec<Preference>, usize), DataError> {
    let mut pairs = read::<Preference>(path)?;
    let n_rows = pairs.len();
    pairs.retain(|pair| pair.chosen != pair.rejected);
    if pairs.is_empty() {
        let what = "pair of different responses";
        return Err(DataError::Empty { path: path.to_path_buf(), what });
    }
    let n_dropped = n_rows - pairs.len();
    Ok((pairs, n_dropped))
}

impl Record for LanguageModeling {
    const WHAT: &'static str = "text";

    fn from_row(row: &Row) -> Result<Self, String> {
        let key = if row.get("messages").is_some() { "messages" } else { "text" };
        let text = Text::of(row, key)?;
        if text.is_blank() {
            return Err(format!("The `{key}` is empty. Write one or remove the row."));
        }
        Ok(Self { text })
    }
}

impl Record for PromptCompletion {
    const WHAT: &'static str = "prompt with a response";

    fn from_row(row: &Row) -> Result<Self, String> {
        let pair = completed(row)?;
        if pair.completion.is_blank() {
            return Err("The completion is empty. Write one or remove the line.".to_owned());
        }
        Ok(pair)
    }
}

/// A prompt with its response, which may be blank.
fn completed(row: &Row) -> Result<PromptCompletion, String> {
    if row.get("prompt").is_none() && row.get("messages").is_some() {
        return last_answer(Text::of(row, "messages")?);
    }
    let prompt = Text::of(row, "prompt")?;
    let completion = response(row, "completion", &prompt)?;
    Ok(PromptCompletion { prompt, completion })
}

/// A conversation whose last turn, the assistant's, is the completion.
fn last_answer(conversation: Text) -> Result<PromptCompletion, String> {
    let refused = "`messages` has to end with an answer of the assistant, which is what is learned, and to have a message before it.";
    let Text::Messages(mut prompt) = conversation else { return Err(refused.to_owned()) };
    match prompt.pop() {
        Some(answer) if answer.role == Role::Assistant && !prompt.is_empty() => {
            let completion = Text::Messages(vec![answer]);
            Ok(PromptCompletion { prompt: Text::Messages(prompt), completion })
        }
        _ => Err(refused.to_owned()),
    }
}

impl Record for Preference {
    const WHAT: &'static str = "preference";

    fn from_row(row: &Row) -> Result<Self, String> {
        let margin = row.f32("margin")?.unwrap_or(0.0);
        if row.get("prompt").is_none() {
            let (chosen, rejected) = (Text::of(row, "chosen")?, Text::of(row, "rejected")?);
            let [prompt, chosen, rejected] = implicit_prompt::split(chosen, rejected)?;
            return Ok(Self { prompt, chosen, rejected, margin });
        }
        let prompt = Text::of(row, "prompt")?;
        let chosen = response(row, "chosen", &prompt)?;
        let rejected = response(row, "rejected", &prompt)?;
        Ok(Self { prompt, chosen, rejected, margin })
    }
}

impl Record for Unpaired {
    const WHAT: &'static str = "labelled response";

    fn from_row(row: &Row) -> Result<Self, String> {
        let PromptCompletion { prompt, completion } = completed(row)?;
        Ok(Self { prompt, completion, label: label(row.required("label")?)? })
    }
}

/// The response of `key`, which has to be of the prompt's kind and, if of messages, to go on with
/// the conversation as the assistant.
fn response(row: &Row, key: &str, prompt: &Text) -> Result<Text, String> {
    let response = Text::of(row, key)?;
    match (prompt, &response) {
        (Text::Plain(_), Text::Plain(_)) => {}
        (Text::Messages(prompt), Text::Messages(turns)) => {
            if turns[0].role != Role::Assistant {
                let role = turns[0].role;
                return Err(format!(
                    "`{key}` begins with the role {role}; it has to be assistant."
                ));
            }
            check_turns(&[prompt.as_slice(), turns.as_slice()].concat())
                .map_err(|what| format!("`prompt` followed by `{key}`, {what}"))?;
        }
        _ => {
            return Err(format!(
                "One of `prompt` and `{key}` is text, the other a list of messages. Give both the \
                 same form."
            ));
        }
    }
    Ok(response)
}

/// A truth value; `True` and `1` and their opposites too, since CSV has no type for it.
fn label(value: &Value) -> Result<bool, String> {
    let text = match value {
        Value::Bool(label) => return Ok(*label),
        Value::String(text) => text.to_lowercase(),
        Value::Number(number) => number.to_string(),
        other => {
            return Err(format!("The key `label` has to be true or false, not {}.", kind(other)));
        }
    };
    match text.as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("The key `label` is `{text}`; it has to be true or false.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_files::{plain as file, real};

    fn plain(text: &Text) -> &str {
        match text {
            Text::Plain(text) => text,
            Text::Messages(_) => panic!("a list of messages"),
        }
    }

    #[test]
    fn the_last_answer_of_a_conversation_is_its_completion() {
        let turn =
            |role: &str, text: &str| format!("{{\"role\": \"{role}\", \"content\": \"{text}\"}}");
        let row = |turns: &[String]| {
            let text = format!("{{\"messages\": [{}]}}\n", turns.join(", "));
            read::<PromptCompletion>(file("c.jsonl", &text).path())
        };
        let [ask, answer] = [turn("user", "Hi"), turn("assistant", "Hello")];
        let all = [ask.clone(), answer.clone(), ask.clone(), answer.clone()];
        let PromptCompletion { prompt, completion } = row(&all).unwrap().remove(0);
        let (Text::Messages(prompt), Text::Messages(completion)) = (prompt, completion) else {
            panic!("messages");
        };
        assert_eq!((prompt.len(), completion.len()), (3, 1));
        assert_eq!((prompt[2].content.as_str(), completion[0].content.as_str()), ("Hi", "Hello"));
        for refused in [&all[..3], &all[1..2]] {
            let error = row(refused).unwrap_err().to_string();
            assert!(error.contains("line 1"), "{error}");
        }
    }

    #[test]
    fn an_empty_completion_is_refused_by_file_and_line() {
        let answer = "[{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \"\"}]";
        for row in [
            "{\"prompt\": \"p\", \"completion\": \"\"}".to_owned(),
            "{\"prompt\": \"p\", \"completion\": \" \\n\"}".to_owned(),
            format!("{{\"messages\": {answer}}}"),
        ] {
            let text = format!("{{\"prompt\": \"p\", \"completion\": \"c\"}}\n{row}\n");
            let error = read::<PromptCompletion>(file("c.jsonl", &text).path()).unwrap_err();
            let error = error.to_string();
            assert!(error.contains("c.jsonl, line 2: The completion is empty."), "{row}: {error}");
        }
        let empty = "{\"prompt\": \"p\", \"completion\": \"\", \"label\": false}\n";
        assert!(read::<Unpaired>(file("u.jsonl", empty).path()).is_ok(), "it can be a bad one");
    }

    #[test]
    fn labels_of_csv_may_be_written_as_python_does() {
        let file = file("l.csv", "prompt,completion,label\na,b,True\na,b,false\na,b,1\na,b,0\n");
        let rows = read::<Unpaired>(file.path()).unwrap();
        let labels: Vec<_> = rows.iter().map(|row| row.label).collect();
        assert_eq!(labels, [true, false, true, false]);
    }

    #[test]
    fn margins_are_read_and_are_0_where_there_is_none() {
        let pairs = "prompt,chosen,rejected,margin\np,a,b,1.5\np,a,b,-2\n";
        let pairs = read::<Preference>(file("p.csv", pairs).path()).unwrap();
        assert_eq!(pairs.iter().map(|pair| pair.margin).collect::<Vec<_>>(), [1.5, -2.0]);
        let row = |margin: &str| {
            let text =
                format!("{{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\"{margin}}}");
            read::<Preference>(file("p.jsonl", &text).path())
        };
        assert_eq!(row("").unwrap()[0].margin, 0.0);
        assert_eq!(row(", \"margin\": 3").unwrap()[0].margin, 3.0);
        for bad in ["\"much\"", "1e99", "true"] {
            let error = row(&format!(", \"margin\": {bad}")).unwrap_err().to_string();
            assert!(error.contains("line 1: The key `margin`"), "{error}");
        }
    }

    #[test]
    fn equal_responses_are_dropped_and_counted() {
        let same = "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"a\"}\n";
        let pairs = file("p.jsonl", &format!("{same}{}", same.replacen("\"a\"", "\"b\"", 1)));
        let (strict, dropped) = read_strict_preferences(pairs.path()).unwrap();
        assert_eq!((strict.len(), dropped), (1, 1));
        let error = read_strict_preferences(file("p.jsonl", same).path()).unwrap_err().to_string();
        assert!(error.contains("holds no pair of different responses"), "{error}");
    }

    #[test]
    fn the_dialogues_of_hh_are_split_into_prompt_and_responses() {
        for (name, n_rows, n_dropped) in [
            ("hh-rlhf/harmless-base-test-part.jsonl.gz", 1_800, 0),
            ("hh-rlhf/helpful-base-test-part.jsonl.gz", 1_500, 1),
        ] {
            let Some(path) = real(name) else { return };
            assert_eq!(read::<Preference>(&path).unwrap().len(), n_rows);
            let (pairs, dropped) = read_strict_preferences(&path).unwrap();
            assert_eq!((pairs.len(), dropped), (n_rows - n_dropped, n_dropped));
            for pair in &pairs {
                let prompt = plain(&pair.prompt);
                assert!(prompt.starts_with("\n\nHuman:") && prompt.ends_with("\n\nAssistant:"));
                assert_ne!(pair.chosen, pair.rejected);
            }
        }
    }
}
