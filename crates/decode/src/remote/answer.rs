//! Reading what a server answers.

use infalign_remote::RemoteError;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{DecodeError, Finish};

/// What is wrong with an answer.
#[derive(Debug)]
pub(super) struct Fault {
    /// The part of the answer.
    pub(super) field: &'static str,
    /// What is wrong with it.
    pub(super) reason: String,
}

impl Fault {
    pub(super) fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self { field, reason: reason.into() }
    }

    /// The error that names the server.
    pub(super) fn of(self, url: &str) -> DecodeError {
        let Self { field, reason } = self;
        RemoteError::Answer { url: url.into(), field, reason }.into()
    }
}

/// A list, where the server tells it.
type Told<T> = Option<Vec<T>>;

/// One response as the server tells it.
#[derive(Debug, PartialEq)]
pub(super) struct Choice {
    pub(super) text: String,
    pub(super) finish: Finish,
    pub(super) tokens: Told<u32>,
    /// llama.cpp's server tells none where there is no token.
    pub(super) log_probs: Told<f32>,
}

#[derive(Deserialize)]
struct Completion {
    choices: Option<Vec<RawChoice>>,
}

#[derive(Deserialize)]
struct RawChoice {
    text: Option<String>,
    finish_reason: Option<String>,
    token_ids: Option<Vec<u32>>,
    logprobs: Option<LogProbs>,
}

/// Two forms: lists side by side (OpenAI, vLLM), or a list of tokens (llama.cpp), which has ids too.
#[derive(Deserialize)]
struct LogProbs {
    token_logprobs: Option<Vec<Option<f32>>>,
    content: Option<Vec<Token>>,
}

#[derive(Deserialize)]
struct Token {
    id: Option<u32>,
    logprob: Option<f32>,
}

#[derive(Deserialize)]
struct Models {
    data: Option<Vec<Model>>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
}

/// The one response of a completion.
pub(super) fn choice(body: &str) -> Result<Choice, Fault> {
    let choices = parse::<Completion>(body)?.choices.unwrap_or_default();
    let n = choices.len();
    let Ok([choice]) = <[RawChoice; 1]>::try_from(choices) else {
        return Err(Fault::new("choices", format!("has {n} entries, but 1 was asked for")));
    };
    let text = choice.text.ok_or_else(|| Fault::new("choices[0].text", "is missing"))?;
    let finish = finish(choice.finish_reason.as_deref())?;
    let (ids, log_probs) = choice.logprobs.map_or(Ok((None, None)), LogProbs::read)?;
    Ok(Choice { text, finish, tokens: choice.token_ids.or(ids), log_probs })
}

/// The names of the models that a server lists.
pub(super) fn models(body: &str) -> Result<Vec<String>, Fault> {
    let data = parse::<Models>(body)?.data.ok_or_else(|| Fault::new("data", "is missing"))?;
    Ok(data.into_iter().map(|model| model.id).collect())
}

fn parse<T: DeserializeOwned>(body: &str) -> Result<T, Fault> {
    serde_json::from_str(body).map_err(|error| Fault::new("body", format!("is malformed: {error}")))
}

fn finish(reason: Option<&str>) -> Result<Finish, Fault> {
    match reason {
        Some("stop") => Ok(Finish::Stop),
        Some("length") => Ok(Finish::Length),
        other => {
            let what = other.map_or("missing".to_owned(), |reason| format!("`{reason}`"));
            let reason = format!("is {what}, but a finished response has `stop` or `length`");
            Err(Fault::new("choices[0].finish_reason", reason))
        }
    }
}

impl LogProbs {
    /// Ids, where there are any, and log-probabilities.
    fn read(self) -> Result<(Told<u32>, Told<f32>), Fault> {
        let null = |field| move || Fault::new(field, "holds a null in place of a number");
        if let Some(content) = self.content {
            let ids = content.iter().map(|token| token.id).collect();
            let log_probs: Option<_> = content.iter().map(|token| token.logprob).collect();
            let field = "choices[0].logprobs.content[].logprob";
            return Ok((ids, Some(log_probs.ok_or_else(null(field))?)));
        }
        let Some(log_probs) = self.token_logprobs else { return Ok((None, None)) };
        let log_probs: Option<_> = log_probs.into_iter().collect();
        Ok((None, Some(log_probs.ok_or_else(null("choices[0].logprobs.token_logprobs"))?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_vllm_and_of_llama_cpp_say_the_same() {
        let vllm = r#"{"choices": [{"text": "a b", "finish_reason": "stop", "token_ids": [3, 4], "logprobs":
            {"tokens": ["a", " b"], "token_logprobs": [-0.5, -1.0], "top_logprobs": [{}, {}], "text_offset": [0, 1]}}]}"#;
        let llama_cpp = r#"{"choices": [{"text": "a b", "finish_reason": "stop", "logprobs": {"content": [
            {"id": 3, "token": "a", "logprob": -0.5, "top_logprobs": []}, {"id": 4, "token": " b", "logprob": -1}]}}]}"#;
        let choice = choice(vllm).unwrap();
        assert_eq!(
            (&choice.tokens, &choice.log_probs),
            (&Some(vec![3, 4]), &Some(vec![-0.5, -1.]))
        );
        assert_eq!(choice, super::choice(llama_cpp).unwrap());
    }

    #[test]
    fn what_is_missing_is_named() {
        let with = |choice: &str| format!(r#"{{"choices": [{choice}]}}"#);
        for (body, field, reason) in [
            ("{\"choices\": [".to_owned(), "body", "EOF"),
            ("{}".to_owned(), "choices", "has 0 entries"),
            (with(""), "choices", "has 0 entries"),
            (with(r#"{"finish_reason": "stop"}"#), "choices[0].text", "missing"),
            (with(r#"{"text": "a"}"#), "choices[0].finish_reason", "missing"),
            (
                with(r#"{"text": "a", "finish_reason": "abort"}"#),
                "choices[0].finish_reason",
                "abort",
            ),
            (
                with(
                    r#"{"text": "a", "finish_reason": "stop", "logprobs": {"token_logprobs": [null]}}"#,
                ),
                "choices[0].logprobs.token_logprobs",
                "null",
            ),
        ] {
            let fault = choice(&body).unwrap_err();
            assert!(fault.field == field && fault.reason.contains(reason), "{body}: {fault:?}");
        }
    }
}
