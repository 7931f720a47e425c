//! Prompts with their ids: rows with the key `prompt` (or `messages`, or of preferences, `chosen` and `rejected`, which share one) and
//! optionally `id`, or plain text, one a line.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::dataset::{self, Preference, Record};
use crate::lines::{at, numbered, plain_name};
use crate::rows::{self, Row};
use crate::{DataError, Place, Text};

/// Rows that a message names by their places, where there are more.
const MOST_NAMED: usize = 5;

/// A prompt and the name that its random draws and its calibration go by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Unique within a file. Where the file gives none: the first 16 hexadecimal digits of the
    /// SHA-256 of the text, or of the JSON of the messages.
    pub id: String,
    /// What is to be answered; messages may end with one of the assistant, to be continued.
    pub text: Text,
}

impl Prompt {
    /// A prompt with the id that its text gives.
    #[must_use]
    pub fn new(text: impl Into<Text>) -> Self {
        let text = text.into();
        Self { id: digest(&text), text }
    }

    /// The id that its text gives, whatever its own is.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(&self.text)
    }
}

fn digest(text: &Text) -> String {
    let digest = match text {
        Text::Plain(text) => Sha256::digest(text.as_bytes()),
        Text::Messages(messages) => Sha256::digest(json!(messages).to_string()),
    };
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads the prompts of a `.txt` or `.txt.gz` file, one a line, or of a file of rows in any format
/// of [`rows::read`], in the file's order.
///
/// # Errors
/// [`DataError`] when the file cannot be read, holds no prompt, or a row holds an empty prompt,
/// an empty id, or an id that an earlier row has.
pub fn read(path: &Path) -> Result<Vec<Prompt>, DataError> {
    Ok(placed(path)?.into_iter().map(|(_, prompt)| prompt).collect())
}

/// The prompts of preferences, each once, in the files' order, without those of more than `characters`.
///
/// # Errors
/// [`DataError`] as [`dataset::read`], and [`DataError::Argument`] where no prompt is that short.
pub fn of_preferences(files: &[PathBuf], characters: usize) -> Result<Vec<Prompt>, DataError> {
    let mut seen = HashSet::new();
    let mut prompts = Vec::new();
    for file in files {
        let read = dataset::read::<Preference>(file)?.into_iter().map(|pair| pair.prompt);
        let short = read.filter(|text| text.characters() <= characters).map(Prompt::new);
        prompts.extend(short.filter(|prompt| seen.insert(prompt.id.clone())));
    }
    if prompts.is_empty() {
        let (name, value) = ("characters", characters.to_string());
        return Err(DataError::Argument {
            name,
            value,
            range: "as long as some prompt of the files",
        });
    }
    Ok(prompts)
}

/// Where the prompts of a file stand in it, in the same order: for messages about prompts that were fine until a model saw them.
///
/// # Errors
/// As [`read`].
pub fn places(path: &Path) -> Result<Vec<Place>, DataError> {
    Ok(placed(path)?.into_iter().map(|(place, _)| place).collect())
}

fn placed(path: &Path) -> Result<Vec<(Place, Prompt)>, DataError> {
    let prompts = if plain_name(path).ends_with(".txt") {
        let lines = numbered(path)?.into_iter();
        lines.map(|(line, text)| (Place::Line(line), Prompt::new(text))).collect()
    } else {
        rows::parsed(path, "prompt", |row| Ok((row.place, from_row(row)?)))?
    };
    checked(path, prompts)
}

fn from_row(row: &Row) -> Result<Prompt, String> {
    let has = |key: &str| row.get(key).is_some();
    let is_implicit = !has("prompt") && !has("messages") && has("chosen") && has("rejected");
    let text = if is_implicit { Preference::from_row(row)?.prompt } else { Text::of_prompt(row)? };
    let prompt = Prompt::new(text);
    Ok(Prompt { id: row.id()?.unwrap_or(prompt.id), ..prompt })
}

fn checked(path: &Path, prompts: Vec<(Place, Prompt)>) -> Result<Vec<(Place, Prompt)>, DataError> {
    if prompts.is_empty() {
        return Err(DataError::Empty { path: path.to_path_buf(), what: "prompt" });
    }
    let (mut seen, mut again) = (HashMap::new(), Vec::new());
    for (place, prompt) in &prompts {
        let refused = at(path, *place);
        if prompt.text.is_blank() {
            return Err(refused("The prompt is empty. Write one or remove the line.".to_owned()));
        }
        if prompt.id.is_empty() {
            return Err(refused("The `id` is empty. Write one or remove the key.".to_owned()));
        }
        match seen.entry(prompt.id.as_str()) {
            Entry::Vacant(new) => {
                new.insert(*place);
            }
            Entry::Occupied(first) => again.push((*place, *first.get(), prompt.id.as_str())),
        }
    }
    if let Some(&(place, first, id)) = again.first() {
        return Err(at(path, place)(format!(
            "The id `{id}` is that of {first} already (without `id`, equal prompts have \
             equal ids). Remove one of the two or give each an `id` of its own.{}",
            told_of_all(&again.iter().map(|(place, ..)| *place).collect::<Vec<_>>())
        )));
    }
    Ok(prompts)
}

/// Where rows stand whose ids earlier rows have, if it is more than one.
fn told_of_all(again: &[Place]) -> String {
    if again.len() < 2 {
        return String::new();
    }
    let mut named: Vec<_> = again.iter().take(MOST_NAMED).map(Place::to_string).collect();
    if again.len() > MOST_NAMED {
        named.push("…".to_owned());
    }
    format!(" It is so with {} rows: {}.", again.len(), named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_files::{gz, plain};
    use crate::{Message, Role};

    fn refused(name: &str, text: &str) -> String {
        let file = plain(name, text);
        read(file.path()).unwrap_err().to_string()
    }

    #[test]
    fn json_lines_keep_text_and_order_and_may_name_their_ids() {
        let text =
            "{\"prompt\": \" Once\\n\", \"source\": 1}\n\n{\"prompt\": \"b\", \"id\": \"x\"}\n";
        for file in [plain("p.jsonl", text), gz("p.jsonl.gz", text)] {
            let prompts = read(file.path()).unwrap();
            assert_eq!(places(file.path()).unwrap(), [Place::Line(1), Place::Line(3)]);
            assert_eq!(prompts[0], Prompt::new(" Once\n"));
            assert_eq!(prompts[1], Prompt { id: "x".into(), text: "b".into() });
            assert_eq!(prompts.len(), 2);
        }
    }

    #[test]
    fn prompts_of_preferences_are_taken_once_and_not_too_long() {
        let said = |prompt: &str| format!("\\n\\nHuman: {prompt}\\n\\nAssistant:");
        let row = |prompt: &str| {
            let prompt = said(prompt);
            format!("{{\"chosen\": \"{prompt} yes\", \"rejected\": \"{prompt} no\"}}\n")
        };
        let first = plain("a.jsonl", &[row("Hi"), row("Hi"), row("A long one")].concat());
        let second = plain("b.jsonl", &[row("Ho"), row("Hi")].concat());
        let files = [first.path().to_path_buf(), second.path().to_path_buf()];
        let texts = |characters| {
            let prompts = of_preferences(&files, characters).unwrap();
            prompts.into_iter().map(|prompt| prompt.text).collect::<Vec<_>>()
        };
        let plain = |prompt: &str| Text::from(said(prompt).replace("\\n", "\n").as_str());
        assert_eq!(texts(25), ["Hi", "Ho"].map(plain));
        assert_eq!(texts(100), ["Hi", "A long one", "Ho"].map(plain));
        let error = of_preferences(&files, 3).unwrap_err().to_string();
        assert!(error.contains("characters") && error.contains('3'), "{error}");
    }

    #[test]
    fn tables_may_name_ids_too() {
        let file = plain("p.csv", "id,Prompt\nx,\"one,\ntwo\"\n,b\n");
        let error = read(file.path()).unwrap_err().to_string();
        assert!(error.contains("p.csv, line 4: The `id` is empty"), "{error}");
        let file = plain("p.csv", "id,Prompt\nx,\"one,\ntwo\"\n");
        let prompt = Prompt { id: "x".into(), text: "one,\ntwo".into() };
        assert_eq!(read(file.path()).unwrap(), [prompt]);
    }

    #[test]
    fn prompts_may_be_conversations() {
        let talk = r#"[{"role": "user", "content": "Hi", "extra": 1}]"#;
        let rows = format!(
            "{{\"messages\": {talk}}}\n{{\"prompt\": {talk}, \"messages\": 1, \"id\": \"x\"}}\n"
        );
        let file = plain("p.jsonl", &rows);
        let prompts = read(file.path()).unwrap();
        let message = Message { role: Role::User, content: "Hi".into() };
        assert_eq!(prompts[0], Prompt::new(vec![message]));
        assert_eq!((&prompts[0].text, "x"), (&prompts[1].text, prompts[1].id.as_str()));
        assert_ne!(prompts[0].id, Prompt::new("Hi").id);
        let twice = refused("p.jsonl", &format!("{{\"prompt\": {talk}}}\n").repeat(2));
        assert!(twice.contains("line 1 already"), "{twice}");
        let unknown =
            refused("p.jsonl", "{\"messages\": [{\"role\": \"tool\", \"content\": \"\"}]}");
        assert!(unknown.contains("line 1: `messages`, message 1: The role `tool`"), "{unknown}");
    }

    /// The digest of "abc" is the example of FIPS 180-4.
    #[test]
    fn the_id_is_the_beginning_of_the_hash_of_the_text() {
        assert_eq!(Prompt::new("abc").id, "ba7816bf8f01cfea");
    }

    #[test]
    fn text_files_hold_one_prompt_a_line() {
        let file = plain("p.TXT", "first\nsecond\n");
        assert_eq!(read(file.path()).unwrap(), [Prompt::new("first"), Prompt::new("second")]);
    }

    #[test]
    fn what_cannot_be_a_prompt_is_refused_by_file_and_line() {
        let missing = refused("p.jsonl", "{\"prompt\": \"a\"}\n{\"text\": \"b\"}\n");
        assert!(missing.contains("p.jsonl, line 2: ") && missing.contains("`prompt`"), "{missing}");
        assert!(
            refused("p.jsonl", "{\"prompt\": \" \\n\"}").contains("line 1: The prompt is empty")
        );
        assert!(refused("p.jsonl", "{\"prompt\": \"a\", \"id\": \"\"}").contains("`id` is empty"));
        assert!(refused("p.txt", "a\n\nb\n").contains("line 2: The prompt is empty"));
        assert!(refused("p.jsonl", "\n").contains("holds no prompt"));
        assert!(refused("p.md", "a").contains(".jsonl.gz"));
    }

    #[test]
    fn an_id_that_occurs_twice_is_refused() {
        let equal = refused("p.txt", "same\nother\nsame\n");
        assert!(equal.contains("line 3: ") && equal.contains("line 1 already"), "{equal}");
        let named = "{\"prompt\": \"a\", \"id\": \"x\"}\n{\"prompt\": \"b\", \"id\": \"x\"}";
        assert!(refused("p.jsonl", named).contains("The id `x`"));
    }

    #[test]
    fn ids_that_occur_again_are_told_together() {
        let one = refused("p.txt", "a\nb\na\n");
        assert!(one.ends_with("an `id` of its own."), "{one}");
        let three = refused("p.txt", "a\nb\na\nb\na\n");
        assert!(three.contains("p.txt, line 3: ") && three.contains("line 1 already"), "{three}");
        assert!(three.ends_with(" It is so with 3 rows: line 3, line 4, line 5."), "{three}");
        let six = refused("p.txt", &"a\n".repeat(7));
        let told = "6 rows: line 2, line 3, line 4, line 5, line 6, ….";
        assert!(six.ends_with(told), "{six}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read(Path::new("no/such.jsonl")).unwrap_err().to_string();
        assert!(error.contains("no/such.jsonl"), "{error}");
    }

    #[test]
    fn ids_may_be_numbers() {
        let file = plain(
            "p.jsonl",
            "{\"prompt\": \"a\", \"id\": 12}\n{\"prompt\": \"b\", \"id\": \"13\"}\n",
        );
        let ids: Vec<_> = read(file.path()).unwrap().into_iter().map(|prompt| prompt.id).collect();
        assert_eq!(ids, ["12", "13"]);
        let error = refused("p.jsonl", "{\"prompt\": \"a\", \"id\": 1.5}");
        assert!(error.contains("line 1: The key `id` has to be text or a whole number"), "{error}");
    }

    #[test]
    fn what_preferences_share_is_their_prompt() {
        let turn =
            |role: &str, said: &str| format!("{{\"role\": \"{role}\", \"content\": \"{said}\"}}");
        let talk = |said: &str| format!("[{}, {}]", turn("user", "Hi"), turn("assistant", said));
        let row = format!("{{\"chosen\": {}, \"rejected\": {}}}\n", talk("Hello"), talk("What?"));
        let message = Message { role: Role::User, content: "Hi".into() };
        let expected = [Prompt::new(vec![message])];
        assert_eq!(read(plain("p.jsonl", &row).path()).unwrap(), expected);
        let error = refused("p.jsonl", "{\"chosen\": \"a\", \"rejected\": \"b\"}");
        assert!(error.contains("line 1: ") && error.contains("Add the key `prompt`"), "{error}");
    }
}
