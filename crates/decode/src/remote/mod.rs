//! Sampling on a server that speaks OpenAI's protocol, such as vLLM's or llama.cpp's.

mod answer;
mod server;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use infalign_model::{ModelError, Tokenizer, TransformerConfig};
pub use infalign_remote::Patience;
use infalign_remote::RemoteError;
use rayon::prelude::*;
use serde_json::{Value, json};

use answer::{Choice, Fault};
pub use server::Server;

use crate::gather::Gather;
use crate::sampler::{Finished, check_prompts, check_samples};
use crate::{DecodeError, EncodedPrompt, Finish, Response, Sampler, Sampling, StopTexts, Stream};

/// How far above 0 rounding may bring the logarithm of a probability of 1.
const ROUNDING: f32 = 1e-4;

/// Samples responses on a server that speaks OpenAI's protocol.
///
/// Each response is a request of its own to `/v1/completions`, so that it can have a seed of its own:
/// 1. The prompt goes out as token ids, not as text, so that both sides read the same tokens. Stop tokens (`stop_token_ids`) and what else
///    the protocol lacks go out as extensions that vLLM and llama.cpp know; what a server's own defaults would add, such as a penalty on
///    repetition, is switched off by name.
/// 2. `seed` is made from the response's [`Stream`]: where the server honours it, a response depends on (run seed, stage, prompt id, sample
///    index) alone. Servers do not promise the same for every batch that a request happens to be computed in.
/// 3. Token ids come back as `token_ids` (vLLM, asked by `return_token_ids`) or with the log-probabilities (llama.cpp). From a server that
///    tells none, the text is encoded again; its log-probabilities are used only where there are as many as tokens.
/// 4. [`Response::log_probs`] are the model's own, at temperature 1 over the whole vocabulary. So do vLLM (`--logprobs-mode raw_logprobs`,
///    its default) and llama.cpp (without `post_sampling_probs`) report them. A server set up to report them after temperature, top-k or
///    top-p cannot be told from one that is not: then they are those of the distribution drawn from.
/// 5. A stop text is part of the tokens, as [`StopTexts`] says, but llama.cpp's server leaves its tokens out.
/// 6. llama.cpp's server tells no token that ends within a character, such as the first ones of an emoji. Such a response is refused.
pub struct RemoteGenerator<'a> {
    /// The server.
    pub server: &'a Server,
    /// The model's name there.
    pub model: &'a str,
    /// The model's configuration, for the length of its context and the size of its vocabulary.
    pub config: &'a TransformerConfig,
    /// The model's tokenizer, for the tokens that end a response.
    pub tokenizer: &'a Tokenizer,
    /// Texts that end a response; an empty one ends nothing.
    pub stop_texts: &'a [String],
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Seed of the run.
    pub seed: u64,
    /// Name of the stage of the run that draws.
    pub stage: &'a str,
    /// Largest number of requests at a time, a thread each.
    pub batch: usize,
    /// When it becomes true, no more requests are sent; those that are on their way end, after further tries unless [`Patience::cancelled`]
    /// says the same.
    pub interrupted: Option<&'a AtomicBool>,
}

impl Sampler for RemoteGenerator<'_> {
    fn generate_each(
        &self,
        prompts: &[EncodedPrompt],
        samples: Range<usize>,
        finished: Finished<'_>,
    ) -> Result<(), DecodeError> {
        self.check(prompts)?;
        let (first, samples) = (samples.start, samples.len());
        check_samples(prompts, samples)?;
        let total = prompts.len() * samples;
        let threads = self.batch.clamp(1, total.max(1));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|_| DecodeError::Setting {
            key: "batch",
            value: threads as f64,
            valid: "small enough for this machine to start as many threads",
        })?;
        let gather = Gather::new(prompts.len(), samples);
        let respond = |number| {
            if gather.stopped() || self.interrupted.is_some_and(|flag| flag.load(Ordering::Relaxed))
            {
                return Ok(());
            }
            let (prompt, sample) = (number / samples, first + number % samples);
            let response = match self.respond(&prompts[prompt], sample) {
                // As those that are not begun any more.
                Err(DecodeError::Remote(RemoteError::Cancelled { .. })) => return Ok(()),
                response => response.inspect_err(|_| gather.stop())?,
            };
            let hand_on = |responses| finished(prompt, responses);
            if gather.add(prompt, sample, response, hand_on).is_break() {
                gather.stop();
            }
            Ok(())
        };
        // One at a time, so that a thread that is done helps the others.
        let requests = (0..total).into_par_iter().with_max_len(1);
        pool.install(|| requests.try_for_each(respond))
    }

    fn check(&self, prompts: &[EncodedPrompt]) -> Result<(), DecodeError> {
        let TransformerConfig { max_position_embeddings, vocab_size, .. } = *self.config;
        check_prompts(prompts, &self.sampling, max_position_embeddings, vocab_size)
    }

    fn stop_texts(&self) -> Option<StopTexts<'_>> {
        Some(StopTexts { tokenizer: self.tokenizer, texts: self.stop_texts })
    }

    fn sampling(&self) -> &Sampling {
        &self.sampling
    }
}

impl RemoteGenerator<'_> {
    fn respond(&self, prompt: &EncodedPrompt, sample: usize) -> Result<Response, DecodeError> {
        let mut stream = Stream::new(self.seed, self.stage, &prompt.id, sample as u64);
        // 53 bits: more would be rounded where JSON's numbers are read as floating point.
        let seed = (stream.uniform(0) * (1_u64 << 53) as f64) as u64;
        let url = self.server.url("completions");
        let body = self.server.ask(&url, Some(&self.request(prompt, seed)), &mut stream)?;
        let choice = answer::choice(&body).map_err(|fault| fault.of(&url))?;
        let named = |source| prompt.refused(source);
        let tokens = match &choice.tokens {
            Some(tokens) => tokens.clone(),
            None => self.encode(prompt, &choice.text).map_err(named)?,
        };
        let response = self.response(tokens.clone(), &choice).map_err(|fault| fault.of(&url))?;
        let text = self.tokenizer.decode_response(&prompt.tokens, &tokens).map_err(named)?;
        check_characters(&text, &choice.text)
            .and_then(|()| check_text(&text, &choice.text))
            .map_err(|fault| fault.of(&url))?;
        Ok(response)
    }

    fn request(&self, prompt: &EncodedPrompt, seed: u64) -> Value {
        let Sampling { temperature, top_k, top_p, max_tokens, stop_token_ids } = &self.sampling;
        let stop: Vec<&String> = self.stop_texts.iter().filter(|text| !text.is_empty()).collect();
        json!({
            "model": self.model,
            "prompt": prompt.tokens,
            "seed": seed,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            // Every version of both servers reads −1 as all.
            "top_k": if *top_k == 0 { json!(-1) } else { json!(top_k) },
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "repeat_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "stop": stop,
            "stop_token_ids": self.tokenizer.stops() | stop_token_ids,
            // 0 would mean none to llama.cpp.
            "logprobs": 1,
            "return_token_ids": true,
        })
    }

    /// The tokens of a text that follows the prompt.
    fn encode(&self, prompt: &EncodedPrompt, text: &str) -> Result<Vec<u32>, ModelError> {
        let plain = self.tokenizer.encode_whole(&prompt.text)? == prompt.tokens;
        let encode = if plain { Tokenizer::encode_pair } else { Tokenizer::encode_chat_pair };
        let (mut tokens, prompt_length) = encode(self.tokenizer, &prompt.text, text)?;
        tokens.drain(..prompt_length);
        Ok(tokens)
    }

    /// A response of these tokens, if log-probabilities belong to them.
    fn response(&self, mut tokens: Vec<u32>, choice: &Choice) -> Result<Response, Fault> {
        self.check_tokens(&tokens)?;
        let mut log_probs = log_probs(tokens.len(), choice)?;
        // A server that does not know `stop_token_ids` may go on.
        let stop = tokens.iter().position(|token| self.is_stop(*token));
        let length = stop.map_or(tokens.len(), |stop| stop + 1);
        tokens.truncate(length);
        log_probs.truncate(length);
        let most = self.sampling.max_tokens;
        if length > most {
            let reason = format!("has {length} tokens, but at most {most} were asked for");
            return Err(Fault::new("choices[0]", reason));
        }
        let finish = if stop.is_some() { Finish::Stop } else { choice.finish };
        Ok(Response { tokens, log_probs, finish })
    }

    fn is_stop(&self, token: u32) -> bool {
        self.sampling.is_stop(token, self.tokenizer.stops())
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<(), Fault> {
        let n = self.config.vocab_size;
        let Some(token) = tokens.iter().find(|&&token| token as usize >= n) else { return Ok(()) };
        let reason = format!(
            "has the token {token}, but the model that was read here has {n} tokens: it has to be the one that the server has"
        );
        Err(Fault::new("choices[0]", reason))
    }
}

/// Refuses tokens whose text has broken characters where the server's has none: some tokens are missing.
fn check_characters(of_tokens: &str, of_server: &str) -> Result<(), Fault> {
    const BROKEN: char = char::REPLACEMENT_CHARACTER;
    // At its end, a response may have been cut within a character.
    if of_server.contains(BROKEN) || !of_tokens.trim_end_matches(BROKEN).contains(BROKEN) {
        return Ok(());
    }
    let reason = "lacks the tokens of a part of a character, so its log-probabilities are not those of its text";
    Err(Fault::new("choices[0]", reason))
}

/// Refuses a text that is not that of the tokens: the server has another tokenizer. White space is left out, which servers tidy up, and so is
/// what follows the server's text, which ends before a stop text.
fn check_text(of_tokens: &str, of_server: &str) -> Result<(), Fault> {
    let letters = |text: &'_ str| {
        let kept = |c: &char| !c.is_whitespace() && *c != char::REPLACEMENT_CHARACTER;
        text.chars().filter(kept).collect::<String>()
    };
    if letters(of_tokens).starts_with(&letters(of_server)) {
        return Ok(());
    }
    let reason = format!(
        "is {of_server:?}, but its tokens are those of {of_tokens:?} here: the server has to have the tokenizer of the model that was read here"
    );
    Err(Fault::new("choices[0].text", reason))
}

/// The log-probabilities of a response of that many tokens.
fn log_probs(tokens: usize, choice: &Choice) -> Result<Vec<f32>, Fault> {
    let refuse = |reason: String| Err(Fault::new("choices[0].logprobs", reason));
    let bad = |value: &&f32| !value.is_finite() || **value > ROUNDING;
    if let Some(value) = choice.log_probs.iter().flatten().find(bad) {
        return refuse(format!("holds {value}, which is the logarithm of no probability"));
    }
    match &choice.log_probs {
        Some(log_probs) if log_probs.len() == tokens => Ok(log_probs.clone()),
        Some(log_probs) => {
            let whose = if choice.tokens.is_some() {
                "of the response"
            } else {
                "that its text has when it is encoded again: the server tells no token ids"
            };
            let n = log_probs.len();
            refuse(format!("has {n} log-probabilities for the {tokens} tokens {whose}"))
        }
        None if tokens == 0 => Ok(Vec::new()),
        None => refuse("is missing: the server has to report log-probabilities".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_to_be_that_of_the_tokens() {
        assert!(check_text(" once  upon a", "once upon").is_ok(), "spaces, and a stop text");
        assert!(check_text("a b\u{fffd}", "a b").is_ok(), "cut within a character");
        let error = check_text("a b", "a c").unwrap_err();
        assert!(error.reason.contains("\"a c\""), "{}", error.reason);
    }

    #[test]
    fn a_character_in_parts_is_refused_but_for_the_end() {
        assert!(check_characters("a \u{fffd} b", "a \u{1f600} b").is_err());
        assert!(check_characters("a \u{fffd} b", "a \u{fffd} b").is_ok());
        assert!(check_characters("a \u{fffd}\u{fffd}", "a ").is_ok());
    }
}
