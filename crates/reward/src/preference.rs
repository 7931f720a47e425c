//! A chat model that says which of two responses is better.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use infalign_remote::{Client, Patience, RemoteError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::{key, timeout_seconds};
use crate::remote::share;
use crate::stoppable::refuse_if;
use crate::{ApiKeys, Cached, Reward, RewardError, Verdict};

/// A model on an OpenAI-compatible server that judges pairs of responses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreferenceConfig {
    /// What is posted to, such as `http://HOST:8000/v1/chat/completions`, or the base of a server's addresses, such as
    /// `http://HOST:8000/v1`, to which `/chat/completions` is added.
    pub url: String,
    /// Name of the model on the server.
    pub model: String,
    /// What makes a response the better one, as the model is told; by default that it follows the prompt more closely, is more correct and is
    /// better written, whatever its length.
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
    /// The most requests that may be made, the limit of what this costs, those included that are made again after a time-out or a refusal.
    /// Answers in the cache are free.
    pub most_requests: usize,
}

fn criterion() -> String {
    "The better response is the one that follows the prompt more closely, is more correct and is better written. Length does not matter."
        .to_owned()
}

fn parallel() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(7)
}

/// Two responses to a prompt, in the order in which they are shown.
pub type Shown<'a> = (&'a str, &'a str, &'a str);

/// The last answer that could not be used.
type Example = Arc<Mutex<Option<String>>>;

/// Requests that may still be made.
type Budget = Arc<AtomicUsize>;

/// Takes some requests off a budget, if it has as many; else tells what it has.
fn take(budget: &AtomicUsize, requests: usize) -> Result<usize, usize> {
    budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(requests))
}

/// Asks the model, and keeps its answers.
#[derive(Debug)]
pub struct Preference {
    cached: Cached,
    /// What is posted to.
    url: String,
    example: Example,
    parallel: NonZeroUsize,
    /// The most requests that may be made.
    most: usize,
    /// Requests that may still be made, but for those that are promised.
    left: Budget,
    stop: Option<&'static AtomicBool>,
}

impl Preference {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// [`RewardError`] for an address, a time-out, a key or a cache that cannot be used.
    pub fn new(config: &PreferenceConfig, keys: ApiKeys<'_>) -> Result<Self, RewardError> {
        Self::new_until(None, config, keys)
    }

    /// The same, which asks nothing more once a flag is set, and waits no longer before it asks again.
    ///
    /// # Errors
    /// As [`Preference::new`].
    pub fn new_until(
        stop: Option<&'static AtomicBool>,
        config: &PreferenceConfig,
        keys: ApiKeys<'_>,
    ) -> Result<Self, RewardError> {
        let config = PreferenceConfig { url: completions(&config.url), ..config.clone() };
        let key = key(keys, config.api_key_env.as_deref())?;
        let patience = Patience::of_seconds(config.timeout_seconds)?;
        let patience = Patience { cancelled: stop, ..patience };
        let client = Client::new(&config.url, key.as_deref(), patience)?;
        // What an answer depends on.
        let identity =
            json!(["preference", config.url, config.model, system(&config.criterion)]).to_string();
        let example = Example::default();
        let left = Budget::new(config.most_requests.into());
        let asker = Asker {
            client,
            config: config.clone(),
            example: Arc::clone(&example),
            left: Arc::clone(&left),
        };
        let cached = Cached::new(Box::new(asker), &identity, config.parallel)
            .apart()
            .with_file(config.cache.as_deref())?;
        let PreferenceConfig { url, parallel, most_requests: most, .. } = config;
        Ok(Self { cached, url, example, parallel, most, left, stop })
    }

    /// Which response of each pair is better.
    ///
    /// # Errors
    /// [`RewardError::Requests`] before anything is asked, where more questions would be asked than may be; [`RewardError::Remote`] where the
    /// server fails or its answer holds no text, [`RewardError::NoVerdict`] where no answer at all can be used, and [`RewardError::Stopped`].
    /// What was answered is kept.
    pub fn verdicts(&self, pairs: &[Shown<'_>]) -> Result<Vec<Verdict>, RewardError> {
        let texts: Vec<String> =
            pairs.iter().map(|(_, first, second)| json!([first, second]).to_string()).collect();
        let questions: Vec<(&str, &str)> =
            pairs.iter().zip(&texts).map(|((prompt, ..), text)| (*prompt, text.as_str())).collect();
        let unknown = self.cached.unknown(&questions);
        take(&self.left, unknown).map_err(|left| RewardError::Requests {
            most: self.most,
            asked: self.most - left,
            questions: unknown,
        })?;
        let mut verdicts = Vec::with_capacity(questions.len());
        for some in questions.chunks(self.parallel.get()) {
            let found = self.stop.map_or(Ok(()), refuse_if).and_then(|()| self.cached.score(some));
            let found = found.inspect_err(|_| {
                // What was not asked may be asked later; of the questions that failed the server may have counted some.
                let later = questions.get(verdicts.len() + some.len()..).unwrap_or_default();
                self.left.fetch_add(self.cached.unknown(later), Ordering::Relaxed);
            })?;
            verdicts.extend(found.into_iter().map(Verdict::of_number));
        }
        self.check(&verdicts)?;
        Ok(verdicts)
    }

    /// Refuses answers none of which can be used.
    fn check(&self, verdicts: &[Verdict]) -> Result<(), RewardError> {
        let questions = verdicts.len();
        if questions == 0 || verdicts.iter().any(|verdict| *verdict != Verdict::Unusable) {
            return Ok(());
        }
        let answer = self.example.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let example = match answer {
            Some(answer) => {
                format!("one of them: {:?}", answer.chars().take(80).collect::<String>())
            }
            None => "all were kept by an earlier run".to_owned(),
        };
        Err(RewardError::NoVerdict { url: self.url.clone(), questions, example })
    }
}

/// What is posted to: `/chat/completions` is added to an address whose path ends in `/v1`, which is what clients of OpenAI's protocol are given.
fn completions(url: &str) -> String {
    let base = url.trim_end_matches('/');
    // What stands before it ends in a slash where `v1` is the host.
    match base.strip_suffix("/v1") {
        Some(server) if !server.ends_with('/') => format!("{base}/chat/completions"),
        _ => url.to_owned(),
    }
}

/// Asks a question a pair: a response of [`Reward`] is here the JSON of two.
struct Asker {
    client: Client,
    config: PreferenceConfig,
    example: Example,
    left: Budget,
}

impl Asker {
    fn ask(&self, prompt: &str, two: &str) -> Result<Verdict, RewardError> {
        let request = self.request(prompt, two);
        // A question that is asked again may be paid for again.
        let again = |tries| take(&self.left, 1).ok().map(|_| share(&request, tries));
        let body = self.client.ask(&self.config.url, Some(&request), again)?;
        let answer = content(&body).map_err(|reason| {
            let url = self.config.url.clone();
            RemoteError::Answer { url, field: "choices[0].message.content", reason }
        })?;
        let verdict = Verdict::read(&answer);
        if verdict == Verdict::Unusable {
            *self.example.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        }
        Ok(verdict)
    }

    fn request(&self, prompt: &str, two: &str) -> Value {
        let [first, second]: [String; 2] = serde_json::from_str(two).unwrap_or_default();
        let question = format!(
            "[Prompt]\n{prompt}\n\n[Response A]\n{first}\n\n[Response B]\n{second}\n\nWhich response is better? A, B or C:"
        );
        json!({
            "model": self.config.model, "temperature": 0, "max_tokens": 16, "seed": 0,
            "messages": [{ "role": "system", "content": system(&self.config.criterion) }, { "role": "user", "content": question }],
        })
    }
}

impl Reward for Asker {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        pairs.iter().map(|(prompt, two)| self.ask(prompt, two).map(Verdict::to_number)).collect()
    }
}

/// What the model is told before every question.
fn system(criterion: &str) -> String {
    format!(
        "You compare two responses to the same prompt. {criterion} The order does not matter. Answer with one letter alone: A if response A \
         is better, B if response B is better, C if neither is."
    )
}

/// The text of an answer.
fn content(body: &str) -> Result<String, String> {
    let answer: Value =
        serde_json::from_str(body).map_err(|error| format!("is malformed: {error}"))?;
    let content = answer["choices"][0]["message"]["content"].as_str();
    content.map(str::to_owned).ok_or_else(|| "is missing".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_without_a_text_are_faults() {
        let body = json!({ "choices": [{ "message": { "content": "neither" } }] }).to_string();
        assert_eq!(content(&body), Ok("neither".to_owned()));
        for (body, told) in [
            ("{}", "is missing"),
            (r#"{"choices": []}"#, "is missing"),
            (r#"{"choices": [{"message": {"content": null}}]}"#, "is missing"),
            ("<html>", "malformed"),
        ] {
            assert!(content(body).unwrap_err().contains(told), "{body}");
        }
    }

    #[test]
    fn length_matters_where_a_criterion_of_ones_own_says_so() {
        assert!(
            system(&criterion()).contains(" Length does not matter. The order does not matter. ")
        );
        let own = system("Shorter is better.");
        assert!(own.contains(" Shorter is better. The order does not matter. "), "{own}");
        assert!(!own.contains("Length"), "{own}");
    }

    #[test]
    fn addresses_are_whole_or_end_in_v1() {
        for (url, expected) in [
            ("http://host:8000/v1", "http://host:8000/v1/chat/completions"),
            ("https://host/api/v1/", "https://host/api/v1/chat/completions"),
            ("http://host/v1/chat/completions", "http://host/v1/chat/completions"),
            ("http://host/judge/", "http://host/judge/"),
            ("http://host/apiv1", "http://host/apiv1"),
            ("http://v1", "http://v1"),
            ("http://v1/v1", "http://v1/v1/chat/completions"),
        ] {
            assert_eq!(completions(url), expected);
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
