//! Options of commands that generate: how tokens are drawn, and how many responses together.

use clap::Args;
use infalign_decode::{EncodedPrompt, Generator, Sampling};
use infalign_model::LanguageModel;

use crate::values::{above_nothing, at_least_one};

/// The fields of [`SamplingArgs`] and [`BatchArgs`], which say nothing where nothing is drawn.
pub(crate) const DRAWING: [&str; 7] =
    ["max_tokens", "temperature", "top_k", "top_p", "stop_token_id", "batch", "memory"];

/// How tokens are drawn.
#[derive(Args)]
pub(crate) struct SamplingArgs {
    /// Longest response, in tokens.
    #[arg(long, default_value_t = 64)]
    max_tokens: usize,
    /// Divides the logits; 0 takes the most probable token.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true, value_parser = temperature)]
    temperature: f64,
    /// Draw from the k most probable tokens; 0: from all.
    #[arg(long, default_value_t = 0)]
    top_k: usize,
    /// Draw from the smallest set of tokens that holds this share of the probability.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    top_p: f64,
    /// A token that ends a response, beside those that end the model's texts; may be repeated.
    #[arg(long, value_name = "ID")]
    stop_token_id: Vec<u32>,
}

impl SamplingArgs {
    pub(crate) fn sampling(&self) -> Sampling {
        let Self { max_tokens, temperature, top_k, top_p, ref stop_token_id } = *self;
        let stop_token_ids = stop_token_id.iter().copied().collect();
        Sampling { temperature, top_k, top_p, max_tokens, stop_token_ids }
    }
}

/// How many responses are generated together.
#[derive(Args)]
pub(crate) struct BatchArgs {
    /// Largest number of responses generated together.
    #[arg(long, default_value_t = 256, value_parser = at_least_one)]
    pub(crate) batch: usize,
    /// GiB for the keys and values of the responses generated together, in place of --batch.
    #[arg(long, conflicts_with = "batch", value_parser = above_nothing)]
    memory: Option<f64>,
}

impl BatchArgs {
    /// `--batch`, or what fits into `--memory`.
    pub(crate) fn size(
        &self,
        model: &dyn LanguageModel,
        prompts: &[EncodedPrompt],
        sampling: &Sampling,
    ) -> usize {
        let Some(gib) = self.memory else { return self.batch };
        let longest = prompts.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(0);
        let bytes = (gib * f64::from(1 << 30)) as u64;
        Generator::batch_within(model, bytes, longest.saturating_add(sampling.max_tokens))
    }
}

fn temperature(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|t: &f64| *t >= 0.0 && t.is_finite());
    number.ok_or_else(|| "give a finite number, at least 0".to_owned())
}
