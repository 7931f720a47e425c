//! Preference pairs: a prompt with a chosen and a rejected response.
//!
//! A line either names its `prompt`, or holds two whole dialogues in the form of HH-RLHF, whose
//! turns begin with `\n\nHuman:` and `\n\nAssistant:`. Then the prompt is what both dialogues
//! share, up to and including the last `\n\nAssistant:` that they share. In both forms the prompt
//! followed by the response is the dialogue, byte for byte: responses of HH begin with a space.

use std::path::Path;

use serde::Deserialize;

use crate::DataError;
use crate::lines::{at, json};

const ASSISTANT: &str = "\n\nAssistant:";

/// A prompt and two different responses to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// What both responses answer.
    pub prompt: String,
    /// The response that was preferred.
    pub chosen: String,
    /// The response that was not.
    pub rejected: String,
}

/// The pairs of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairs {
    /// In the file's order; never empty.
    pub pairs: Vec<Pair>,
    /// How many lines were left out because both responses are the same.
    pub dropped: usize,
}

#[derive(Deserialize)]
struct Line {
    prompt: Option<String>,
    chosen: String,
    rejected: String,
}

/// Reads the pairs of a JSON Lines file, plain or `.gz`, with the keys `chosen`, `rejected` and
/// optionally `prompt`.
///
/// # Errors
/// [`DataError`] when the file cannot be read, holds no pair of different responses, or a line
/// without `prompt` holds dialogues that do not share an `\n\nAssistant:`.
pub fn read_jsonl(path: &Path) -> Result<Pairs, DataError> {
    let lines = json::<Line>(path)?;
    let n_lines = lines.len();
    let different = lines.into_iter().filter(|(_, line)| line.chosen != line.rejected);
    let pairs = different
        .map(|(number, line)| pair(line).map_err(at(path, number)))
        .collect::<Result<Vec<_>, _>>()?;
    if pairs.is_empty() {
        let what = "pair of different responses";
        return Err(DataError::Empty { path: path.to_path_buf(), what });
    }
    Ok(Pairs { dropped: n_lines - pairs.len(), pairs })
}

fn pair(line: Line) -> Result<Pair, String> {
    let Line { prompt, chosen, rejected } = line;
    if let Some(prompt) = prompt {
        return Ok(Pair { prompt, chosen, rejected });
    }
    let Some(end) = end_of_shared_prompt(&chosen, &rejected) else {
        return Err("It has no `prompt`, and its two dialogues share no beginning that ends in \
                    \"\\n\\nAssistant:\". Add the key `prompt`."
            .to_owned());
    };
    let (prompt, chosen) = chosen.split_at(end);
    let rejected = rejected[end..].to_owned();
    Ok(Pair { prompt: prompt.to_owned(), chosen: chosen.to_owned(), rejected })
}

/// Where the last `\n\nAssistant:` within the common beginning ends. What lies before it is equal
/// in both dialogues, so it consists of whole turns.
fn end_of_shared_prompt(chosen: &str, rejected: &str) -> Option<usize> {
    let shared = chosen.bytes().zip(rejected.bytes()).take_while(|(a, b)| a == b).count();
    let beginning = &chosen[..chosen.floor_char_boundary(shared)];
    beginning.rfind(ASSISTANT).map(|start| start + ASSISTANT.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_files::{gz, plain, real};

    fn hh(chosen: &str, rejected: &str) -> Result<Pair, String> {
        pair(Line { prompt: None, chosen: chosen.to_owned(), rejected: rejected.to_owned() })
    }

    #[test]
    fn a_named_prompt_is_taken_as_it_is() {
        let text = r#"{"prompt": "p", "chosen": "a", "rejected": "b", "margin": 2}"#;
        let file = gz("pairs.jsonl.gz", text);
        let pair = Pair { prompt: "p".into(), chosen: "a".into(), rejected: "b".into() };
        assert_eq!(read_jsonl(file.path()).unwrap(), Pairs { pairs: vec![pair], dropped: 0 });
    }

    #[test]
    fn the_shared_dialogue_is_the_prompt_and_equal_beginnings_of_responses_are_not() {
        let pair =
            hh("\n\nHuman: Hi\n\nAssistant: Hello", "\n\nHuman: Hi\n\nAssistant: Hey").unwrap();
        assert_eq!(pair.prompt, "\n\nHuman: Hi\n\nAssistant:");
        assert_eq!((pair.chosen.as_str(), pair.rejected.as_str()), (" Hello", " Hey"));
    }

    #[test]
    fn dialogues_that_part_in_an_earlier_turn_are_split_there() {
        let start = "\n\nHuman: a\n\nAssistant: b\n\nHuman: ";
        let pair =
            hh(&format!("{start}c\n\nAssistant: d"), &format!("{start}e\n\nAssistant: d")).unwrap();
        assert_eq!(pair.prompt, "\n\nHuman: a\n\nAssistant:");
        assert_eq!(pair.chosen, " b\n\nHuman: c\n\nAssistant: d");
    }

    #[test]
    fn letters_that_differ_in_their_last_byte_are_not_cut() {
        let pair = hh("\n\nAssistant: é", "\n\nAssistant: è").unwrap();
        assert_eq!((pair.chosen.as_str(), pair.rejected.as_str()), (" é", " è"));
    }

    #[test]
    fn equal_responses_are_dropped_and_counted() {
        let same = "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"a\"}\n";
        let file = plain("pairs.jsonl", &format!("{same}{}", same.replacen("\"a\"", "\"b\"", 1)));
        let read = read_jsonl(file.path()).unwrap();
        assert_eq!((read.pairs.len(), read.dropped), (1, 1));
        let error = read_jsonl(plain("pairs.jsonl", same).path()).unwrap_err().to_string();
        assert!(error.contains("holds no pair of different responses"), "{error}");
    }

    #[test]
    fn dialogues_without_a_shared_beginning_are_refused_by_line() {
        let file = plain("pairs.jsonl", r#"{"chosen": "a", "rejected": "b"}"#);
        let error = read_jsonl(file.path()).unwrap_err().to_string();
        assert!(error.contains("line 1: ") && error.contains("Add the key `prompt`"), "{error}");
    }

    #[test]
    fn the_real_files_are_read_whole() {
        for (name, n_pairs, n_dropped) in [
            ("hh-rlhf/harmless-base-test-part.jsonl.gz", 1_800, 0),
            ("hh-rlhf/helpful-base-test-part.jsonl.gz", 1_499, 1),
        ] {
            let Some(path) = real(name) else { return };
            let Pairs { pairs, dropped } = read_jsonl(&path).unwrap();
            assert_eq!((pairs.len(), dropped), (n_pairs, n_dropped));
            for pair in &pairs {
                assert!(pair.prompt.starts_with("\n\nHuman:") && pair.prompt.ends_with(ASSISTANT));
                assert_ne!(pair.chosen, pair.rejected);
            }
        }
    }
}
