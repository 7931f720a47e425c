//! TRL's type of data sets for process reward models: a response in steps, each found right or wrong.

use serde_json::Value;

use crate::dataset::{Record, label};
use crate::rows::{Row, kind};

/// A prompt, the steps of a response to it, and whether each was found right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepwiseSupervision {
    /// What the steps answer, one after the other.
    pub prompt: String,
    /// The steps, with their labels; at least one.
    pub steps: Vec<(String, bool)>,
}

impl Record for StepwiseSupervision {
    const WHAT: &'static str = "response in steps";

    /// Takes the keys `prompt` (text), `completions` (a list of texts) and `labels` (a list of truth values, as many).
    fn from_row(row: &Row) -> Result<Self, String> {
        let prompt = row.string("prompt")?;
        let (steps, labels) = (list(row, "completions")?, list(row, "labels")?);
        if steps.is_empty() || steps.len() != labels.len() {
            return Err(format!(
                "It has {} `completions` and {} `labels`. Give one label a completion, and at least one completion.",
                steps.len(),
                labels.len()
            ));
        }
        let step = |(step, found): (&Value, &Value)| {
            let text = step.as_str().map(str::to_owned);
            let text =
                text.ok_or_else(|| format!("A completion has to be text, not {}.", kind(step)))?;
            Ok((text, label(found)?))
        };
        let steps = steps.iter().zip(&labels).map(step).collect::<Result<_, String>>()?;
        Ok(Self { prompt, steps })
    }
}

/// The list of `key`; CSV has it as JSON in a text.
fn list(row: &Row, key: &str) -> Result<Vec<Value>, String> {
    let value = row.required(key)?;
    let read = value.as_str().and_then(|text| serde_json::from_str(text).ok());
    match read.as_ref().unwrap_or(value) {
        Value::Array(values) => Ok(values.clone()),
        other => Err(format!("The key `{key}` has to be a list, not {}.", kind(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::read;
    use crate::test_files::plain;

    #[test]
    fn steps_are_read_with_their_labels() {
        let text = r#"{"prompt": "1 + 1 + 1?", "completions": ["1 + 1 = 2", "2 + 1 = 4"], "labels": [true, false]}"#;
        let rows = read::<StepwiseSupervision>(plain("s.jsonl", text).path()).unwrap();
        let steps = [("1 + 1 = 2".to_owned(), true), ("2 + 1 = 4".to_owned(), false)];
        assert_eq!((rows[0].prompt.as_str(), &rows[0].steps[..]), ("1 + 1 + 1?", &steps[..]));
        let table = "prompt,completions,labels\np,\"[\"\"a\"\"]\",\"[0]\"\n";
        let rows = read::<StepwiseSupervision>(plain("s.csv", table).path()).unwrap();
        assert_eq!(rows[0].steps, [("a".to_owned(), false)]);
    }

    #[test]
    fn what_is_no_response_in_steps_is_refused() {
        for (keys, told) in [
            (r#""completions": [], "labels": []"#, "0 `completions` and 0 `labels`"),
            (r#""completions": ["a"], "labels": [true, false]"#, "1 `completions` and 2 `labels`"),
            (r#""completions": "a", "labels": [true]"#, "`completions` has to be a list, not text"),
            (r#""completions": [1], "labels": [true]"#, "has to be text, not a number"),
            (r#""completions": ["a"], "labels": [2]"#, "it has to be true or false"),
            (r#""completions": ["a"]"#, "`labels` is missing"),
        ] {
            let file = plain("s.jsonl", &format!("{{\"prompt\": \"p\", {keys}}}\n"));
            let error = read::<StepwiseSupervision>(file.path()).unwrap_err().to_string();
            assert!(error.contains("s.jsonl, line 1: ") && error.contains(told), "{error}");
        }
    }
}
