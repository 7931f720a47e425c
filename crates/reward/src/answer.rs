//! Whether the response gives the right answer, which a file has for every prompt.

use std::collections::HashMap;
use std::path::Path;

use infalign_data::answers;
use regex::Regex;

use crate::rules::compile;
use crate::{Reward, RewardError};

/// 1 for a response that gives the answer of its prompt, else 0. White space around an answer does not matter.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Prompt → answer without white space around it.
    answers: HashMap<String, String>,
    /// What finds the answer in a response.
    pattern: Option<Regex>,
}

impl Answer {
    /// - `file`: rows with the keys `prompt`, as the model reads it, and `answer`.
    /// - `pattern`: a regular expression whose last match in a response holds the answer given, in its first group or, where the pattern has
    ///   none, as a whole. Without it, the whole response is.
    ///
    /// # Errors
    /// [`RewardError::Data`] for a file that cannot be read or contradicts itself, [`RewardError::Pattern`].
    pub fn read(file: &Path, pattern: Option<&str>) -> Result<Self, RewardError> {
        let pattern = pattern.map(compile).transpose()?;
        let trimmed = |(prompt, answer): (String, String)| (prompt, answer.trim().to_owned());
        Ok(Self { answers: answers::read(file)?.into_iter().map(trimmed).collect(), pattern })
    }

    /// The answer that a response gives, if it gives one.
    fn given<'a>(&self, response: &'a str) -> Option<&'a str> {
        let Some(pattern) = &self.pattern else { return Some(response.trim()) };
        let last = pattern.captures_iter(response).last()?;
        // Where the pattern has a group, but not this match, nothing is given.
        let found = last.get(usize::from(pattern.captures_len() > 1))?;
        Some(found.as_str().trim())
    }
}

impl Reward for Answer {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        let score = |(prompt, response): &(&str, &str)| {
            let answer = self
                .answers
                .get(*prompt)
                .ok_or_else(|| RewardError::NoAnswer { prompt: (*prompt).to_owned() })?;
            Ok(f32::from(self.given(response) == Some(answer.as_str())))
        };
        pairs.iter().map(score).collect()
    }

    fn answer<'t>(&self, response: &'t str) -> Option<&'t str> {
        self.given(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(pattern: Option<&str>) -> Result<Answer, RewardError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("answers.jsonl");
        let rows = "{\"prompt\": \"1 + 1 =\", \"answer\": \"2 \"}\n{\"prompt\": \"8 + 4 =\", \"answer\": \"12\"}\n";
        std::fs::write(&file, rows).unwrap();
        Answer::read(&file, pattern)
    }

    fn score(pattern: Option<&str>, response: &str) -> f32 {
        answer(pattern).unwrap().score(&[("1 + 1 =", response)]).unwrap()[0]
    }

    #[test]
    fn the_whole_response_or_the_last_match_is_the_answer() {
        let boxed = Some(r"\[(.*?)\]");
        for (pattern, response, expected) in [
            (None, " 2\n", 1.0),
            (None, "2.", 0.0),
            (None, "", 0.0),
            (Some(r"\d+"), "1 + 1 is 2.", 1.0),
            (Some(r"\d+"), "2, since 1 + 1", 0.0),
            (Some(r"\d+"), "two", 0.0),
            (boxed, "[3], no: [ 2 ]", 1.0),
            (boxed, "[2], no: [3]", 0.0),
            (boxed, "2", 0.0),
            (Some(r"=(\d)|never"), "=2 never", 0.0),
        ] {
            assert_eq!(score(pattern, response), expected, "{pattern:?}: {response}");
        }
    }

    #[test]
    fn responses_that_say_the_same_otherwise_give_the_same_answer() {
        let digits = answer(Some(r"\d+")).unwrap();
        let given = |response| digits.answer(response);
        assert_eq!((given("1 + 1 is 2."), given("It is 2")), (Some("2"), Some("2")));
        assert_eq!(given("two"), None);
        assert_eq!(answer(None).unwrap().answer(" 2\n"), Some("2"));
    }

    #[test]
    fn each_prompt_has_its_answer() {
        let pairs = [("8 + 4 =", "12"), ("1 + 1 =", "12"), ("1 + 1 =", "2")];
        assert_eq!(answer(None).unwrap().score(&pairs).unwrap(), [1.0, 0.0, 1.0]);
        let message = answer(None).unwrap().score(&[("1 + 2 =", "3")]).unwrap_err().to_string();
        assert!(message.contains("\"1 + 2 =\""), "{message}");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        assert!(answer(Some("(")).unwrap_err().to_string().contains("`(`"));
        let error = Answer::read("absent.jsonl".as_ref(), None).unwrap_err().to_string();
        assert!(error.contains("absent.jsonl"), "{error}");
    }
}
