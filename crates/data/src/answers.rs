//! The right answers to prompts, by which responses are checked.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use crate::{DataError, rows};

/// Reads the answers of a file of rows ([`rows::read`]) with the keys `prompt` and `answer`, both text: prompt → answer. A prompt may
/// be there several times, with the same answer.
///
/// # Errors
/// [`DataError`] when the file cannot be read or has no row, and for a row without one of the keys, an answer of white space alone, or
/// another answer than an earlier row has for the same prompt.
pub fn read(path: &Path) -> Result<HashMap<String, String>, DataError> {
    let mut answers = HashMap::new();
    rows::parsed(path, "answer", |row| add(&mut answers, row))?;
    Ok(answers)
}

fn add(answers: &mut HashMap<String, String>, row: &rows::Row) -> Result<(), String> {
    let (prompt, answer) = (row.string("prompt")?, row.string("answer")?);
    if answer.trim().is_empty() {
        return Err("The answer is empty. Give it, or remove the row.".to_owned());
    }
    match answers.entry(prompt) {
        Entry::Vacant(free) => {
            free.insert(answer);
        }
        Entry::Occupied(earlier) if *earlier.get() == answer => {}
        Entry::Occupied(earlier) => {
            let (prompt, earlier) = (earlier.key(), earlier.get());
            return Err(format!(
                "The prompt {prompt:?} has the answer {answer:?} here and {earlier:?} before. Remove one of the two rows."
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_files::plain;

    #[test]
    fn answers_are_found_by_their_prompts() {
        let text = "{\"prompt\": \"1 + 1 =\", \"answer\": \"2\"}\n\n{\"prompt\": \"2 + 1 =\", \"answer\": \" 3\", \"id\": 7}\n\
                    {\"prompt\": \"1 + 1 =\", \"answer\": \"2\"}\n";
        let answers = read(plain("a.jsonl", text).path()).unwrap();
        assert_eq!(answers.len(), 2);
        assert_eq!((answers["1 + 1 ="].as_str(), answers["2 + 1 ="].as_str()), ("2", " 3"));
        let answers = read(plain("a.csv", "prompt,answer\n1 + 1 =,2\n").path()).unwrap();
        assert_eq!(answers["1 + 1 ="], "2");
    }

    #[test]
    fn what_is_no_answer_is_refused_by_file_and_line() {
        for (row, problem) in [
            (r#"{"prompt": "a"}"#, "`answer` is missing"),
            (r#"{"answer": "a"}"#, "`prompt` is missing"),
            (r#"{"prompt": "a", "answer": 2}"#, "has to be text, not a number"),
            (r#"{"prompt": "a", "answer": " "}"#, "The answer is empty"),
            (r#"{"prompt": "x", "answer": "z"}"#, r#"the answer "z" here and "y" before"#),
        ] {
            let file =
                plain("a.jsonl", &format!("{{\"prompt\": \"x\", \"answer\": \"y\"}}\n{row}\n"));
            let error = read(file.path()).unwrap_err().to_string();
            assert!(error.contains("a.jsonl, line 2: ") && error.contains(problem), "{error}");
        }
        let error = read(plain("a.jsonl", "\n").path()).unwrap_err().to_string();
        assert!(error.contains("holds no answer"), "{error}");
    }
}
