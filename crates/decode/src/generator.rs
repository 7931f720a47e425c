//! What generation is asked for and what it returns; `engine/` does it.

use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};

use infalign_backend::functions::{Partition, softmax_weights};
use infalign_model::{LanguageModel, ModelError, Sequence, Tokenizer};
use serde::Serialize;

use crate::engine;
use crate::sampler::{Finished, check_prompts, check_samples};
use crate::{DecodeError, Draw, Sampler, Sampling, StopTexts};

/// A prompt with its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedPrompt {
    /// Names the prompt in streams, tables and messages.
    pub id: String,
    /// The text.
    pub text: String,
    /// Its tokens, special ones included.
    pub tokens: Vec<u32>,
}

impl EncodedPrompt {
    /// Encodes a prompt, as [`Tokenizer::encode_whole`].
    ///
    /// # Errors
    /// [`DecodeError::Prompt`] when the tokenizer refuses the text.
    pub fn new(id: &str, text: &str, tokenizer: &Tokenizer) -> Result<Self, DecodeError> {
        Self::of_tokens(id, text, tokenizer.encode_whole(text))
    }

    /// Encodes a prompt that a chat template wrote, special tokens included: none is added.
    ///
    /// # Errors
    /// As [`EncodedPrompt::new`].
    pub fn chat(id: &str, text: &str, tokenizer: &Tokenizer) -> Result<Self, DecodeError> {
        Self::of_tokens(id, text, tokenizer.encode_chat(text))
    }

    fn of_tokens(
        id: &str,
        text: &str,
        tokens: Result<Vec<u32>, ModelError>,
    ) -> Result<Self, DecodeError> {
        let prompt = Self { id: id.into(), text: text.into(), tokens: Vec::new() };
        match tokens {
            Ok(tokens) => Ok(Self { tokens, ..prompt }),
            Err(source) => Err(prompt.refused(source)),
        }
    }

    /// The prompt and the tokens of a response as one sequence.
    pub fn followed_by(&self, response: &[u32]) -> Sequence {
        Sequence {
            tokens: [self.tokens.as_slice(), response].concat(),
            prompt_length: self.tokens.len(),
        }
    }

    /// The id and the first words, for messages: where a file gives no id, it is a hash, which nobody can look for.
    pub fn name(&self) -> String {
        const SHOWN: usize = 40;
        let (mut rest, mut words) = (self.text.chars(), String::new());
        words.extend(rest.by_ref().take(SHOWN));
        let more = if rest.next().is_some() { " …" } else { "" };
        format!("`{}` ({words:?}{more})", self.id)
    }

    /// The error of a prompt that a model or a tokenizer refuses.
    pub(crate) fn refused(&self, source: ModelError) -> DecodeError {
        DecodeError::Prompt { prompt: self.name(), source }
    }
}

/// One sampled response.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Its tokens, the one that ended it included.
    pub tokens: Vec<u32>,
    /// log π of each token as [`Draw::log_prob`] defines it.
    pub log_probs: Vec<f32>,
    /// Why it has no more.
    pub finish: Finish,
}

/// Why a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// It came to a stop token or a stop text.
    Stop,
    /// It reached [`Sampling::max_tokens`].
    Length,
    /// The caller wanted no more of it.
    Cancelled,
}

impl Response {
    /// Prompt and response as one sequence.
    pub fn sequence(&self, prompt: &EncodedPrompt) -> Sequence {
        prompt.followed_by(&self.tokens)
    }
}

/// A token as soon as it is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event<'a> {
    /// Index of the prompt.
    pub prompt: usize,
    /// Number of the response to it.
    pub sample: usize,
    /// The token.
    pub draw: Draw,
    /// What the model said of every token in its place, `[vocabulary]`, for who reads it ([`SharedGenerator::reads_logits`](crate::SharedGenerator::reads_logits));
    /// else empty, and where tokens are told after their choice among several.
    pub logits: &'a [f32],
}

impl Event<'_> {
    /// What gives every token its log-probability, as [`Draw::log_prob`] defines it, from its logit.
    pub fn partition(&self) -> Partition {
        softmax_weights(self.logits, 1.0, &mut Vec::new())
    }
}

/// What is told of every token, in the order of each response; it breaks off the response by [`ControlFlow::Break`]. It is called from
/// several threads.
pub type Watch<'a> = &'a (dyn Fn(Event<'_>) -> ControlFlow<()> + Sync);

/// Samples responses in this process. The same (seed, stage, prompt id, sample index) gives the same response, whatever else is in its batch.
///
/// On the CPU the same bits come out whatever the batch and the number of threads. On other devices a batch of another shape may round
/// logits differently in the last digit, which reaches log-probabilities, and a token only where its draw falls within that digit. So does it
/// who draws: the device, by numbers of 24 bits and sums in f32, or the processor, where a row of the batch has its tokens from less than
/// the whole vocabulary or somebody reads all logits.
#[derive(Clone)]
pub struct Generator<'a> {
    /// The model.
    pub model: &'a dyn LanguageModel,
    /// Tokens that end the model's texts.
    pub stops: &'a BTreeSet<u32>,
    /// Texts that end a response.
    pub stop_texts: Option<StopTexts<'a>>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Seed of the run.
    pub seed: u64,
    /// Name of the stage of the run that draws.
    pub stage: &'a str,
    /// Largest number of responses generated together.
    pub batch: usize,
    /// Is told of every token.
    pub watch: Option<Watch<'a>>,
}

impl<'a> Generator<'a> {
    /// A generator whose responses end where the model's texts do, and of whose tokens nobody is told. A `top_k` that leaves out no token of the
    /// model's counts as none.
    #[must_use]
    pub fn new(
        model: &'a dyn LanguageModel,
        stops: &'a BTreeSet<u32>,
        sampling: &Sampling,
        seed: u64,
        stage: &'a str,
        batch: usize,
    ) -> Self {
        let sampling = sampling.of_vocabulary(model.vocabulary());
        let (stop_texts, watch) = (None, None);
        Self { model, stops, stop_texts, sampling, seed, stage, batch, watch }
    }

    /// The largest batch whose caches fit into `memory` bytes where prompt and response have `tokens` tokens; at least 1.
    pub fn batch_within(model: &dyn LanguageModel, memory: u64, tokens: usize) -> usize {
        let row = model.cache_bytes(tokens).max(1) as u64;
        usize::try_from(memory / row).unwrap_or(usize::MAX).max(1)
    }
}

impl Sampler for Generator<'_> {
    fn generate_each(
        &self,
        prompts: &[EncodedPrompt],
        samples: Range<usize>,
        finished: Finished<'_>,
    ) -> Result<(), DecodeError> {
        self.check(prompts)?;
        check_samples(prompts, samples.len())?;
        engine::run(self, prompts, samples, finished)
    }

    fn check(&self, prompts: &[EncodedPrompt]) -> Result<(), DecodeError> {
        check_prompts(prompts, &self.sampling, self.model.context(), self.model.vocabulary())
    }

    fn stop_texts(&self) -> Option<StopTexts<'_>> {
        self.stop_texts
    }

    fn sampling(&self) -> &Sampling {
        &self.sampling
    }
}
