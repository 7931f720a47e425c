//! A chat model that says which of two responses is better.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use infalign_remote::{Client, Patience, RemoteError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::stoppable::refuse_if;
use crate::{ApiKeys, Cached, Reward, RewardError};

/// A model on an OpenAI-compatible server that judges pairs of responses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreferenceConfig {
    /// What is posted to, such as `http://HOST:8000/v1/chat/completions`.
    pub url: String,
    /// Name of the model on the server.
    pub model: String,
    /// What makes a response the better one, as the model is told.
    #[serde(default = "criterion")]
    pub criterion: String,
    /// Environment variable that holds the server's API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    /// How long one request may take, in seconds; above 0, at most a year.
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: f64,
    /// Requests at a time, at least 1.
    #[serde(default = "parallel")]
    pub parallel: NonZeroUsize,
    /// Where answers are kept for other runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// The most requests that may be made, the limit of what this costs. Answers in the cache are free.
    pub most_requests: usize,
}

fn criterion() -> String {
    "The better response is the one that follows the prompt more closely, is more correct and is better written.".to_owned()
}

fn timeout_seconds() -> f64 {
    180.0
}

fn parallel() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(7)
}

/// Two responses to a prompt, in the order in which they are shown.
pub type Shown<'a> = (&'a str, &'a str, &'a str);

/// Asks the model, and keeps its answers.
pub struct Preference {
    cached: Cached,
    parallel: NonZeroUsize,
    /// The most requests that may be made.
    most: usize,
    /// Requests so far, or promised.
    asked: AtomicUsize,
    stop: Option<&'static AtomicBool>,
}

impl Preference {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// [`RewardError`] for an address, a time-out, a key or a cache that cannot be used.
    pub fn new(config: &PreferenceConfig, keys: ApiKeys<'_>) -> Result<Self, RewardError> {
        let key = |variable: &String| {
            keys(variable).ok_or_else(|| RewardError::NoKey { variable: variable.clone() })
        };
        let key = config.api_key_env.as_ref().map(key).transpose()?;
        let patience = Patience::of_seconds(config.timeout_seconds)?;
        let client = Client::new(&config.url, key.as_deref(), patience)?;
        // What an answer depends on.
        let identity =
            json!(["preference", config.url, config.model, config.criterion]).to_string();
        let asker = Box::new(Asker { client, config: config.clone() });
        let cached = Cached::new(asker, &identity, config.parallel);
        let cached = match &config.cache {
            Some(file) => cached.with_file(file)?,
            None => cached,
        };
        let (parallel, most) = (config.parallel, config.most_requests);
        Ok(Self { cached, parallel, most, asked: AtomicUsize::new(0), stop: None })
    }

    /// Asks nothing more once a flag is set.
    #[must_use]
    pub fn stopping_at(self, stop: &'static AtomicBool) -> Self {
        Self { stop: Some(stop), ..self }
    }

    /// How far the first response of each pair is preferred: 1, ½ for a tie, or 0.
    ///
    /// # Errors
    /// [`RewardError::Requests`] before anything is asked, where more questions would be asked than may be; [`RewardError::Remote`] where the
    /// server fails or answers something else, and [`RewardError::Stopped`]. What was answered before is kept.
    pub fn of_first(&self, pairs: &[Shown<'_>]) -> Result<Vec<f32>, RewardError> {
        let texts: Vec<String> =
            pairs.iter().map(|(_, first, second)| json!([first, second]).to_string()).collect();
        let questions: Vec<(&str, &str)> =
            pairs.iter().zip(&texts).map(|((prompt, ..), text)| (*prompt, text.as_str())).collect();
        let unknown = self.cached.unknown(&questions);
        let asked = self.asked.fetch_add(unknown, Ordering::Relaxed);
        if asked + unknown > self.most {
            return Err(RewardError::Requests { most: self.most, asked, questions: unknown });
        }
        let mut answers = Vec::with_capacity(questions.len());
        for some in questions.chunks(self.parallel.get()) {
            self.stop.map_or(Ok(()), refuse_if)?;
            answers.extend(self.cached.score(some)?);
        }
        Ok(answers)
    }
}

/// Asks a question a pair: a response of [`Reward`] is here the JSON of two.
struct Asker {
    client: Client,
    config: PreferenceConfig,
}

impl Asker {
    fn ask(&self, prompt: &str, two: &str) -> Result<f32, RewardError> {
        let request = self.request(prompt, two);
        let share = |tries: u32| {
            let digest = Sha256::digest(format!("{tries}{request}"));
            f64::from(digest[0]) / f64::from(u8::MAX)
        };
        let body = self.client.ask(&self.config.url, Some(&request), share)?;
        read(&body).map_err(|reason| {
            let url = self.config.url.clone();
            RemoteError::Answer { url, field: "choices[0].message.content", reason }.into()
        })
    }

    fn request(&self, prompt: &str, two: &str) -> Value {
        let [first, second]: [String; 2] = serde_json::from_str(two).unwrap_or_default();
        let system = format!(
            "You compare two responses to the same prompt. {} Length and order do not matter. Answer with one letter alone: A if response A \
             is better, B if response B is better, C if neither is.",
            self.config.criterion
        );
        let question = format!(
            "[Prompt]\n{prompt}\n\n[Response A]\n{first}\n\n[Response B]\n{second}\n\nWhich response is better? A, B or C:"
        );
        json!({
            "model": self.config.model, "temperature": 0, "max_tokens": 16, "seed": 0,
            "messages": [{ "role": "system", "content": system }, { "role": "user", "content": question }],
        })
    }
}

impl Reward for Asker {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        // As many threads as requests at a time, which is how many pairs come together.
        std::thread::scope(|scope| {
            let asking: Vec<_> = pairs
                .iter()
                .map(|&(prompt, two)| scope.spawn(move || self.ask(prompt, two)))
                .collect();
            let answer = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            asking.into_iter().map(answer).collect()
        })
    }
}

/// The verdict of an answer: the first word that is A, B or C.
fn read(body: &str) -> Result<f32, String> {
    let answer: Value =
        serde_json::from_str(body).map_err(|error| format!("is malformed: {error}"))?;
    let content = answer["choices"][0]["message"]["content"].as_str();
    let content = content.ok_or_else(|| "is missing".to_owned())?;
    let words = content.split(|c: char| !c.is_alphanumeric());
    let mut verdicts = words.filter_map(|word| match word {
        "A" | "a" => Some(1.0),
        "B" | "b" => Some(0.0),
        "C" | "c" => Some(0.5),
        _ => None,
    });
    verdicts.next().ok_or_else(|| {
        let shown: String = content.chars().take(80).collect();
        format!("is {shown:?}, which is none of A, B and C")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(content: &str) -> String {
        json!({ "choices": [{ "message": { "content": content } }] }).to_string()
    }

    #[test]
    fn verdicts_are_read_from_what_models_write() {
        for (content, expected) in [
            ("A", 1.0),
            (" b.", 0.0),
            ("**C**", 0.5),
            ("Response B is better", 0.0),
            ("(A)\n", 1.0),
        ] {
            assert_eq!(read(&answer(content)), Ok(expected), "{content}");
        }
        for (body, told) in [
            (answer("neither"), "none of A, B and C"),
            ("{}".to_owned(), "is missing"),
            ("<html>".to_owned(), "malformed"),
        ] {
            assert!(read(&body).unwrap_err().contains(told), "{body}");
        }
    }

    #[test]
    fn settings_are_checked_before_anything_is_asked() {
        let text = "url = 'http://host/v1/chat/completions'\nmodel = 'm'\nmost_requests = 1\n";
        let build = |more: &str| {
            let config: Result<PreferenceConfig, _> = toml::from_str(&format!("{text}{more}"));
            let config = config.map_err(|error| error.to_string())?;
            Preference::new(&config, &|_| None).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(build(""), Ok(()));
        for (more, told) in [
            ("parallel = 0", "nonzero"),
            ("api_key_env = 'NO_SUCH_KEY'", "NO_SUCH_KEY"),
            ("timeout_seconds = 0", "seconds above 0"),
            ("price = 1", "unknown field"),
        ] {
            assert!(build(more).unwrap_err().contains(told), "{more}");
        }
    }
}
