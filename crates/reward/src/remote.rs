//! Rewards from a server, in the form of OpenRLHF's remote reward models.

use std::fmt;

use infalign_data::no_json_number;
use infalign_remote::{Client, Patience, RemoteError};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{Reward, RewardError};

/// A server that scores. It may be asked in the form `{"query": [texts], "prompts": [texts], "labels": [nulls]}`, where a query is a prompt
/// with its response, and answers `{"rewards": [numbers]}`; `scores` is read where there are no `rewards`.
///
/// The pairs of a call make one request: [`Cached`](crate::Cached) limits how many they are.
pub struct RemoteReward {
    url: String,
    client: Client,
}

impl RemoteReward {
    /// - `url`: what is posted to, such as `http://HOST:5000/get_reward`. It is not asked anything yet.
    /// - `api_key`: sent as a bearer's, never stored elsewhere or told.
    ///
    /// # Errors
    /// [`RemoteError::Server`] for an address or a key that cannot be used.
    pub fn new(url: &str, api_key: Option<&str>, patience: Patience) -> Result<Self, RewardError> {
        Ok(Self { url: url.to_owned(), client: Client::new(url, api_key, patience)? })
    }

    fn fault(&self, field: &'static str, reason: impl Into<String>) -> RewardError {
        RemoteError::Answer { url: self.url.clone(), field, reason: reason.into() }.into()
    }

    /// The rewards of an answer to a request of that many pairs.
    fn read(&self, body: &str, n_pairs: usize) -> Result<Vec<f32>, RewardError> {
        let malformed = |error: serde_json::Error| {
            let known = no_json_number(body).filter(|_| error.is_syntax());
            let what = known.map_or_else(|| error.to_string(), str::to_owned);
            self.fault("body", format!("is malformed: {what}"))
        };
        let mut answer: Value = serde_json::from_str(body).map_err(malformed)?;
        let field = if answer["rewards"].is_null() && !answer["scores"].is_null() {
            "scores"
        } else {
            "rewards"
        };
        let rewards = match answer.get_mut(field).map(Value::take) {
            Some(Value::Array(rewards)) => rewards,
            None | Some(Value::Null) => return Err(self.fault(field, "is missing")),
            Some(_) => return Err(self.fault(field, "is not a list")),
        };
        if rewards.len() != n_pairs {
            let reason = format!("has {} entries for {n_pairs} pairs", rewards.len());
            return Err(self.fault(field, reason));
        }
        let number = |(idx, value): (usize, &Value)| {
            let what = match value.as_f64().map(|number| number as f32) {
                Some(number) if number.is_finite() => return Ok(number),
                Some(_) => "too large for 32 bits",
                None => "no finite number",
            };
            let reason = format!("holds {value} at position {idx}, which is {what}");
            Err(self.fault(field, reason))
        };
        rewards.iter().enumerate().map(number).collect()
    }
}

impl fmt::Debug for RemoteReward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the client, which has the key.
        f.debug_struct("RemoteReward").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Reward for RemoteReward {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let request = request(pairs);
        let body =
            self.client.ask(&self.url, Some(&request), |tries| Some(share(&request, tries)))?;
        self.read(&body, pairs.len())
    }
}

fn request(pairs: &[(&str, &str)]) -> Value {
    let queries: Vec<String> =
        pairs.iter().map(|(prompt, response)| format!("{prompt}{response}")).collect();
    let prompts: Vec<&str> = pairs.iter().map(|(prompt, _)| *prompt).collect();
    json!({ "query": queries, "prompts": prompts, "labels": vec![Value::Null; pairs.len()] })
}

/// A share from 0 to 1 that differs between requests, so that those that failed together do not come back together.
pub(crate) fn share(request: &Value, tries: u32) -> f64 {
    let digest = Sha256::digest(format!("{tries}{request}"));
    f64::from(digest[0]) / f64::from(u8::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(body: &str) -> Result<Vec<f32>, String> {
        let patience = Patience::new(Duration::from_secs(1));
        let reward = RemoteReward::new("http://host/get_reward", None, patience).unwrap();
        reward.read(body, 2).map_err(|error| error.to_string())
    }

    #[test]
    fn rewards_are_read_in_their_order() {
        assert_eq!(read(r#"{"rewards": [0.5, -2]}"#).unwrap(), [0.5, -2.0]);
        assert_eq!(read(r#"{"scores": [1, 2], "extra_logs": {}}"#).unwrap(), [1.0, 2.0]);
        assert_eq!(read(r#"{"rewards": [1, 2], "scores": [3, 4]}"#).unwrap(), [1.0, 2.0]);
    }

    #[test]
    fn what_cannot_be_used_names_the_address_and_the_field() {
        for (body, told) in [
            ("<html>", "`body` is malformed"),
            (r#"{"rewards": [0.5, NaN]}"#, "`body` is malformed: a NaN or Infinity is no JSON"),
            (r#"{"rewards": [-Infinity, 1]}"#, "a NaN or Infinity is no JSON number"),
            ("[1, 2]", "`rewards` is missing"),
            (r#"{"reward": [1, 2]}"#, "`rewards` is missing"),
            (r#"{"rewards": 1}"#, "`rewards` is not a list"),
            (r#"{"rewards": [1]}"#, "`rewards` has 1 entries for 2 pairs"),
            (r#"{"scores": [1, 2, 3]}"#, "`scores` has 3 entries for 2 pairs"),
            (r#"{"rewards": [1, null]}"#, "`rewards` holds null at position 1"),
            (r#"{"rewards": [[1], [2]]}"#, "`rewards` holds [1] at position 0"),
            (r#"{"rewards": [1e99, 1]}"#, "at position 0, which is too large for 32 bits"),
            (r#"{"rewards": [1, "x"]}"#, "at position 1, which is no finite number"),
        ] {
            let message = read(body).unwrap_err();
            assert!(message.contains(told), "{body}: {message}");
            assert!(message.contains("http://host/get_reward"), "{message}");
        }
    }

    #[test]
    fn requests_wait_for_different_times() {
        let shares: Vec<f64> =
            (0..9).flat_map(|n| [1, 2].map(|tries| share(&json!({ "query": n }), tries))).collect();
        assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)));
        assert!(shares.iter().any(|share| *share < 0.3) && shares.iter().any(|share| *share > 0.7));
    }
}
