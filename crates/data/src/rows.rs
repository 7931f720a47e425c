//! Files of rows, whatever their format: JSON Lines, CSV and Parquet, told by the file's name.
//!
//! A row is a JSON object. In CSV, whose first row names the columns, every value is text; in
//! Parquet, structs are objects, lists are lists, and a value without a JSON type (a date, a
//! decimal) is its text.

mod csv;
mod object;
mod parquet;

use std::path::Path;

use serde_json::{Map, Value};

use crate::lines::{at, json, plain_name};
use crate::{DataError, Place};
use object::Object;
pub(crate) use object::Unique;

/// A row of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Where it stands, for messages.
    pub place: Place,
    /// Its values by key.
    pub values: Map<String, Value>,
}

/// Reads the rows of a `.jsonl`, `.csv` (either also `.gz`) or `.parquet` file, in the file's
/// order. Blank lines are passed over, and a file may hold no row.
///
/// # Errors
/// [`DataError`] when the name has no such ending, or the file cannot be read whole: bytes are
/// missing, text is not UTF-8, a line is no JSON object or has a key twice, a CSV row has too few or too many fields.
pub fn read(path: &Path) -> Result<Vec<Row>, DataError> {
    let name = plain_name(path);
    if name.ends_with(".jsonl") {
        of_lines(path)
    } else if name.ends_with(".csv") {
        csv::read(path)
    } else if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("parquet")) {
        parquet::read(path)
    } else if name.ends_with(".json") {
        Err(DataError::Document { path: path.to_path_buf() })
    } else {
        let known = ".jsonl, .jsonl.gz, .csv, .csv.gz, .parquet (.txt, .txt.gz for prompts)";
        Err(DataError::Format { path: path.to_path_buf(), known })
    }
}

/// What `record` makes of each row of a file, as [`read`] finds them; `what` it is, as a noun, for a file that has no row.
pub(crate) fn parsed<T>(
    path: &Path,
    what: &'static str,
    mut record: impl FnMut(&Row) -> Result<T, String>,
) -> Result<Vec<T>, DataError> {
    let rows = read(path)?;
    if rows.is_empty() {
        return Err(DataError::Empty { path: path.to_path_buf(), what });
    }
    rows.iter().map(|row| record(row).map_err(at(path, row.place))).collect()
}

/// The rows of a file of JSON Lines, whatever its name.
pub(crate) fn of_lines(path: &Path) -> Result<Vec<Row>, DataError> {
    let row = |(line, Object(values))| Row { place: Place::Line(line), values };
    Ok(json(path)?.into_iter().map(row).collect())
}

impl Row {
    /// The value of `key`, whose letters may be of either case; `None` if absent or null.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        let of_any_case = || self.values.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
        let value = self.values.get(key).or_else(|| of_any_case().map(|(_, value)| value));
        value.filter(|value| !value.is_null())
    }

    /// The value of `key`, which the row has to have.
    pub(crate) fn required(&self, key: &str) -> Result<&Value, String> {
        self.get(key).ok_or_else(|| self.missing(key))
    }

    /// The value of `key`, which has to be text.
    pub(crate) fn string(&self, key: &str) -> Result<String, String> {
        let value = self.required(key)?;
        let text = value.as_str().map(str::to_owned);
        text.ok_or_else(|| format!("The key `{key}` has to be text, not {}.", kind(value)))
    }

    /// The finite number of `key`, which CSV has as text; `None` if absent or null.
    pub(crate) fn f64(&self, key: &str) -> Result<Option<f64>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = match value {
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_f64(),
        };
        let finite = number.filter(|number: &f64| number.is_finite());
        finite.map(Some).ok_or_else(|| {
            let found = match value {
                Value::Number(_) | Value::String(_) => value.to_string(),
                other => kind(other).to_owned(),
            };
            format!("The key `{key}` has to be a finite number, not {found}.")
        })
    }

    /// The same in 32 bits.
    pub(crate) fn f32(&self, key: &str) -> Result<Option<f32>, String> {
        let (Some(number), Some(value)) = (self.f64(key)?, self.get(key)) else { return Ok(None) };
        let number = number as f32;
        let too_large = || format!("The key `{key}` is {value}, which is too large for 32 bits.");
        number.is_finite().then_some(Some(number)).ok_or_else(too_large)
    }

    /// The text of `id`, which may be a whole number, too; `None` if absent or null.
    pub(crate) fn id(&self) -> Result<Option<String>, String> {
        match self.get("id") {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) if !number.is_f64() => Ok(Some(number.to_string())),
            Some(other) => {
                Err(format!("The key `id` has to be text or a whole number, not {other}."))
            }
        }
    }

    /// Says that `key` is missing, and which of the row's keys may be a misspelling of it.
    fn missing(&self, key: &str) -> String {
        const MOST_TYPOS: usize = 2;
        if self.values.keys().any(|name| name.eq_ignore_ascii_case(key)) {
            return format!("The key `{key}` is null. Give it a value or remove the row.");
        }
        let distance = |name: &str| strsim::damerau_levenshtein(&name.to_lowercase(), key);
        let nearest = self.values.keys().min_by_key(|name| distance(name));
        match nearest.filter(|name| distance(name) <= MOST_TYPOS) {
            Some(name) => {
                format!("The key `{key}` is missing. Is `{name}` a misspelling of it? Rename it.")
            }
            None => {
                let names: Vec<_> = self.values.keys().map(|name| format!("`{name}`")).collect();
                let names = if names.is_empty() { "no key".to_owned() } else { names.join(", ") };
                format!("The key `{key}` is missing: the row has {names}. Add or rename it.")
            }
        }
    }
}

/// What a value is, in words.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_files::{plain, real};

    #[test]
    fn numbers_beyond_32_bits_are_told_from_what_is_no_number() {
        let row = |text: &str| {
            let value = serde_json::from_str(text).unwrap();
            Row { place: Place::Line(1), values: Map::from_iter([("n".to_owned(), value)]) }
        };
        for text in ["1e308", "-1e308", "\"1e39\""] {
            let error = row(text).f32("n").unwrap_err();
            assert!(error.ends_with("which is too large for 32 bits."), "{error}");
            assert!(row(text).f64("n").unwrap().is_some(), "{text}");
        }
        for (text, found) in [
            ("\"inf\"", "\"inf\""),
            ("\"NaN\"", "\"NaN\""),
            ("\"much\"", "\"much\""),
            ("true", "true or false"),
        ] {
            let error = row(text).f32("n").unwrap_err();
            assert_eq!(error, format!("The key `n` has to be a finite number, not {found}."));
        }
        assert_eq!(row("1e38").f32("n"), Ok(Some(1e38)));
        assert_eq!((row("\" -2 \"").f64("n"), row("null").f32("n")), (Ok(Some(-2.0)), Ok(None)));
    }

    #[test]
    fn tables_of_prompts_are_read_whole() {
        let prompts = |name: &str| -> Option<Vec<String>> {
            let rows = read(&real(name)?).unwrap();
            Some(rows.iter().map(|row| row.string("prompt").unwrap()).collect())
        };
        let Some(dialogues) = prompts("hh-rlhf/prompt-subset-part.csv") else { return };
        assert_eq!(dialogues.len(), 2_350);
        assert!(dialogues.iter().all(|text| text.ends_with("Assistant:")));
        for (name, n_rows) in
            [("digit-completion/train.parquet", 800), ("digit-completion/test.parquet", 200)]
        {
            let Some(tasks) = prompts(name) else { return };
            assert_eq!(tasks.len(), n_rows);
            let is_task = |text: &String| text.contains(':') && !text.contains(char::is_alphabetic);
            assert!(tasks.iter().all(is_task));
        }
    }

    fn missing(row: Value) -> String {
        let Value::Object(values) = row else { panic!("no object") };
        Row { place: Place::Line(1), values }.string("prompt").unwrap_err()
    }

    #[test]
    fn a_missing_key_is_named_with_what_may_have_been_meant() {
        let message = missing(serde_json::json!({"chosen": "a", "Promt": "b"}));
        assert!(message.contains("Is `Promt` a misspelling"), "{message}");
        let message = missing(serde_json::json!({"text": "a"}));
        assert!(message.contains("the row has `text`"), "{message}");
        assert!(missing(serde_json::json!({})).contains("the row has no key"));
        assert!(missing(serde_json::json!({"prompt": null})).contains("is null"));
        assert!(missing(serde_json::json!({"prompt": 1})).contains("has to be text, not a number"));
    }

    #[test]
    fn keys_may_be_written_in_either_case() {
        let values = serde_json::json!({"Prompt": "a"});
        let Value::Object(values) = values else { panic!("no object") };
        assert_eq!(Row { place: Place::Line(1), values }.string("prompt").unwrap(), "a");
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused() {
        for row in [
            r#"{"reward": 1, "prompt": "b", "reward": 2}"#,
            r#"{"prompt": "b", "of": [{"reward": 1, "reward": null}]}"#,
        ] {
            let text = format!("{{\"prompt\": \"a\"}}\n{row}\n");
            let error = read(plain("r.jsonl", &text).path()).unwrap_err().to_string();
            assert!(error.contains("r.jsonl, line 2: Column "), "{error}");
            assert!(error.contains(": the key `reward` is there twice. Each line"), "{error}");
        }
    }

    #[test]
    fn values_are_kept_as_they_are() {
        let text = r#"{"a": [null, true, -1, 18446744073709551615, 0.1, 1e300, "x\n", {"b": {}}]}"#;
        let rows = read(plain("r.jsonl", text).path()).unwrap();
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(Value::Object(rows[0].values.clone()), expected);
    }

    #[test]
    fn a_list_of_rows_is_refused_with_the_way_to_convert_it() {
        let rows = "[{\"prompt\": \"a\"}]";
        for (name, text) in [
            ("r.json", rows),
            ("r.json.gz", "never opened"),
            ("r.jsonl", rows),
            ("r.jsonl", "\n[\n{\"prompt\": \"a\"}\n]\n"),
        ] {
            let error = read(plain(name, text).path()).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("jq -c '.[]'"), "{error}");
        }
    }

    #[test]
    fn ids_are_texts_or_whole_numbers() {
        let id = |id: Value| {
            let values = Map::from_iter([("id".to_owned(), id)]);
            Row { place: Place::Line(1), values }.id()
        };
        assert_eq!(id(Value::from("x")), Ok(Some("x".to_owned())));
        assert_eq!(id(Value::from(-7)), Ok(Some("-7".to_owned())));
        assert_eq!(id(Value::from(u64::MAX)), Ok(Some(u64::MAX.to_string())));
        assert_eq!(id(Value::Null), Ok(None));
        assert!(id(Value::from(7.5)).unwrap_err().contains("a whole number, not 7.5"));
    }
}
