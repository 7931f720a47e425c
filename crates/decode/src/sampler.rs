//! Who samples: a model in this process, or a server.

use std::ops::{ControlFlow, Range};
use std::sync::{Mutex, PoisonError};

use infalign_model::ModelError;

use crate::gather::locked;

use crate::{DecodeError, EncodedPrompt, Response, Sampling, StopTexts};

/// Is given all responses to a prompt, in order, as soon as the last of them has ended: the index of the prompt, and the responses. It breaks
/// off everything else by [`ControlFlow::Break`]. It is called from several threads, which wait for it.
pub type Finished<'a> = &'a (dyn Fn(usize, Vec<Response>) -> ControlFlow<()> + Sync);

/// Samples responses: [`Generator`](crate::Generator) in this process, [`RemoteGenerator`](crate::RemoteGenerator) on a server.
pub trait Sampler: Sync {
    /// Samples some responses of every prompt, and hands over those of a prompt together.
    ///
    /// - samples: their numbers, by which they are drawn: `0..8` and later `8..16` are what `0..16` gives at once.
    ///
    /// # Errors
    /// Those of [`Sampler::check`], before any work; then [`DecodeError`] says what failed, [`DecodeError::Other`] in a sampler of one's own.
    /// Nothing that was finished before is lost.
    fn generate_each(
        &self,
        prompts: &[EncodedPrompt],
        samples: Range<usize>,
        finished: Finished<'_>,
    ) -> Result<(), DecodeError>;

    /// All of them at once: `[prompts][samples]`.
    ///
    /// # Errors
    /// As [`Sampler::generate_each`], and [`DecodeError::Cancelled`] where a prompt was left without responses. Responses that a watcher broke
    /// off are there, as [`Finish::Cancelled`](crate::Finish::Cancelled).
    fn generate(
        &self,
        prompts: &[EncodedPrompt],
        samples: Range<usize>,
    ) -> Result<Vec<Vec<Response>>, DecodeError> {
        let all = Mutex::new(vec![samples.is_empty().then(Vec::new); prompts.len()]);
        self.generate_each(prompts, samples, &|prompt, responses| {
            locked(&all)[prompt] = Some(responses);
            ControlFlow::Continue(())
        })?;
        whole(prompts, all.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Refuses settings out of range and prompts that do not fit the model.
    ///
    /// # Errors
    /// [`DecodeError::Setting`] and [`DecodeError::Prompt`].
    fn check(&self, prompts: &[EncodedPrompt]) -> Result<(), DecodeError>;

    /// Texts that end a response.
    fn stop_texts(&self) -> Option<StopTexts<'_>>;

    /// How tokens are drawn.
    fn sampling(&self) -> &Sampling;
}

/// What there is for every prompt.
///
/// # Errors
/// [`DecodeError::Cancelled`] for the first prompt that has nothing.
pub(crate) fn whole<T>(
    prompts: &[EncodedPrompt],
    all: Vec<Option<T>>,
) -> Result<Vec<T>, DecodeError> {
    let of_prompt = |(of, prompt): (Option<T>, &EncodedPrompt)| {
        of.ok_or_else(|| DecodeError::Cancelled { prompt: prompt.name() })
    };
    all.into_iter().zip(prompts).map(of_prompt).collect()
}

/// Refuses sampling out of range, and prompts that are empty or leave no room for the longest response.
///
/// - `limit`: tokens of the longest text that the model reads; `vocabulary`: how many tokens it has.
pub(crate) fn check_prompts(
    prompts: &[EncodedPrompt],
    sampling: &Sampling,
    limit: usize,
    vocabulary: usize,
) -> Result<(), DecodeError> {
    sampling.check()?;
    sampling.check_stops(vocabulary)?;
    for prompt in prompts {
        let length = prompt.tokens.len().saturating_add(sampling.max_tokens);
        let source = if prompt.tokens.is_empty() {
            ModelError::Empty { index: 0 }
        } else if length > limit {
            ModelError::TooLong { length, limit }
        } else {
            continue;
        };
        return Err(prompt.refused(source));
    }
    Ok(())
}

/// Refuses more responses than could be kept.
///
/// # Errors
/// [`DecodeError::Setting`] above 100 million in all.
pub fn check_samples(prompts: &[EncodedPrompt], samples: usize) -> Result<(), DecodeError> {
    const MOST: usize = 100_000_000;
    if samples.saturating_mul(prompts.len()) > MOST {
        return Err(DecodeError::Setting {
            key: "samples",
            value: samples as f64,
            valid: "small enough for at most 100 million responses in all",
        });
    }
    Ok(())
}
