//! Responses with the reward that somebody gave them, or to be scored.

use std::path::Path;

use crate::rows::{self, Row};
use crate::{DataError, Place};

/// A prompt with a response, a reward, or both.
#[derive(Clone, Debug, PartialEq)]
pub struct Rewarded {
    /// Where it stands, for messages.
    pub place: Place,
    /// The prompt as a model reads it.
    pub prompt: String,
    /// The response; may be empty.
    pub response: Option<String>,
    /// Finite.
    pub reward: Option<f32>,
}

/// Reads rows with `prompt` and at least one of `response` and `reward` in any format of [`rows::read`].
///
/// # Errors
/// [`DataError`] when the file cannot be read or is empty, and for a row that lacks these keys or whose reward is no finite number.
pub fn read(path: &Path) -> Result<Vec<Rewarded>, DataError> {
    rows::parsed(path, "response or reward", from_row)
}

fn from_row(row: &Row) -> Result<Rewarded, String> {
    let prompt = row.string("prompt")?;
    let response = row.get("response").is_some().then(|| row.string("response")).transpose()?;
    let reward = row.f32("reward")?;
    if response.is_none() && reward.is_none() {
        row.required("response")?;
    }
    Ok(Rewarded { place: row.place, prompt, response, reward })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_files::plain;

    #[test]
    fn responses_and_rewards_are_read_from_lines_and_tables() {
        let lines = "{\"prompt\": \"a\", \"reward\": 2}\n{\"prompt\": \"b\", \"response\": \"\"}\n";
        let rows = read(plain("r.jsonl", lines).path()).unwrap();
        assert_eq!((rows[0].reward, rows[0].response.as_deref()), (Some(2.0), None));
        assert_eq!((rows[1].reward, rows[1].response.as_deref()), (None, Some("")));
        let rows = read(plain("r.csv", "prompt,response,reward\na,b,-1e-3\n").path()).unwrap();
        assert_eq!((rows[0].place, rows[0].reward), (Place::Line(2), Some(-1e-3)));
    }

    #[test]
    fn what_is_no_reward_is_refused_with_its_value() {
        for (row, told) in [
            ("{\"prompt\": \"a\"}", "`response` is missing"),
            ("{\"prompt\": \"a\", \"reward\": \"x\"}", "not \"x\""),
            ("{\"prompt\": \"a\", \"reward\": 1e39}", "is 1e+39, which is too large for 32 bits"),
            ("{\"prompt\": \"a\", \"reward\": \"-1e308\"}", "is \"-1e308\", which is too large"),
            ("{\"prompt\": \"a\", \"reward\": NaN}", "a NaN or Infinity is no JSON number"),
            ("{\"prompt\": \"a\", \"reward\": -Infinity}", "a NaN or Infinity is no JSON number"),
            ("{\"prompt\": \"a\", \"reward\": [1]}", "not a list"),
            ("{\"reward\": 1}", "`prompt` is missing"),
        ] {
            let error = read(plain("r.jsonl", row).path()).unwrap_err().to_string();
            assert!(error.contains(told) && error.contains("line 1"), "{row}: {error}");
        }
        assert!(read(plain("r.jsonl", "").path()).is_err());
    }
}
