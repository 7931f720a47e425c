//! Whether a run fits into memory, told and checked before it begins.

use anyhow::{Result, bail};
use infalign_backend::{Device, DeviceName, is_cpu};
use infalign_train::MemoryNeed;

use super::inputs::Inputs;
use crate::machine::Memory;

/// Bytes of a token, of its log-probability, and of a number of a state.
const NUMBER: u64 = size_of::<f32>() as u64;

/// What to lower where a run does not fit.
const REMEDY: &str = "train an adapter ([train.lora]), take a smaller model, or lower batch, train.samples_per_prompt or \
                      generation.max_tokens";

/// Responses that are drawn before anything learns from them.
#[derive(Clone, Copy)]
pub(super) struct Responses<'k> {
    /// The key that says how many each prompt has.
    pub(super) key: &'k str,
    /// How many.
    pub(super) samples: usize,
    /// Prompts.
    pub(super) prompts: usize,
    /// Tokens that a response has at most.
    pub(super) max_tokens: usize,
}

/// What the machine's memory holds of responses, whatever the device: all of them, as long as they are learned from.
#[derive(Debug)]
pub(super) struct Held {
    /// What it is and what makes it so much.
    what: String,
    /// Bytes: where every response ends with its first token, and where none ends before its last.
    bytes: [u64; 2],
    remedy: String,
}

impl Responses<'_> {
    /// Bytes of all, where each has one token and where each has as many as it may.
    ///
    /// - of_one: of a response with so many tokens.
    fn bytes(&self, of_one: impl Fn(u64) -> u64) -> [u64; 2] {
        let count = (self.prompts as u64).saturating_mul(self.samples as u64);
        [1, self.max_tokens].map(|tokens| count.saturating_mul(of_one(tokens as u64)))
    }

    fn told(&self) -> String {
        let Self { key, samples, prompts, max_tokens } = self;
        format!(
            "{key} = {samples} to each of {prompts} prompts, of up to {max_tokens} tokens (generation.max_tokens)"
        )
    }

    fn remedy(&self) -> String {
        format!("lower {} or generation.max_tokens, or take fewer prompts", self.key)
    }
}

impl Held {
    /// Responses as they are stored: of each a list of tokens and one of their log-probabilities.
    pub(super) fn stored(responses: &Responses<'_>) -> Self {
        const LIST: u64 = size_of::<Vec<u32>>() as u64;
        Self {
            what: format!("stored responses: {}", responses.told()),
            bytes: responses.bytes(|tokens| 2 * (LIST + NUMBER * tokens)),
            remedy: responses.remedy(),
        }
    }

    /// The states of a model before each of their tokens.
    ///
    /// - hidden: numbers of a state; given: tokens of other responses.
    pub(super) fn states(responses: &Responses<'_>, hidden: usize, given: usize) -> Self {
        let state = NUMBER * hidden as u64;
        let (and_given, or_given) = match given {
            0 => (String::new(), ""),
            _ => (format!(", and {given} tokens of completions"), " or completions"),
        };
        let of_given = state.saturating_mul(given as u64);
        let bytes = responses.bytes(|tokens| state.saturating_mul(tokens));
        Self {
            what: format!("states, {hidden} numbers a token: {}{and_given}", responses.told()),
            bytes: bytes.map(|bytes| bytes.saturating_add(of_given)),
            remedy: format!("{}{or_given}", responses.remedy()),
        }
    }

    fn told(&self, there: u64) -> String {
        let [_, most] = self.bytes.map(gib);
        format!("memory: up to {most} of {} for {}", gib(there), self.what)
    }
}

/// Prints which of some things that are held one after the other takes most, and what there is.
///
/// # Errors
/// When that is more than there is, however short the responses are.
pub(super) fn check_held(held: impl IntoIterator<Item = Held>) -> Result<()> {
    let Some(most) = held.into_iter().max_by_key(|held| held.bytes[1]) else { return Ok(()) };
    let there = Memory::now().available;
    tell!("{}", most.told(there));
    fit(most.bytes, there, &most.remedy)
}

/// Refuses what does not fit into memory at the least, and warns where it may be too much.
fn fit([least, most]: [u64; 2], there: u64, remedy: &str) -> Result<()> {
    if least > there {
        bail!(
            "the run does not fit into memory: it needs {} and there are {}; {remedy}",
            gib(least),
            gib(there)
        );
    }
    if most > there {
        tell!("warning: that may be more than there is; if the run ends for want of it, {remedy}");
    }
    Ok(())
}

/// Prints what stored reference responses and the most demanding method that CTRL trains need, and what there is.
///
/// # Errors
/// When what has to be there at once, at the least, is more than there is.
pub(crate) fn check(inputs: &Inputs<'_>, there: Option<u64>) -> Result<()> {
    check_held(rollouts(inputs).as_ref().map(Held::stored))?;
    let prompts = inputs.train.iter().chain(&inputs.test);
    let longest = prompts.map(|prompt| prompt.tokens.len()).max().unwrap_or(0);
    let (recipe, mut most) = (inputs.recipe, None::<MemoryNeed>);
    let calibrated = recipe.calibration.as_ref().and_then(|calibration| calibration.samples);
    let calibrated = calibrated.unwrap_or(0).saturating_mul(inputs.train.len());
    let evaluated = recipe.evaluation.samples.saturating_mul(inputs.test.len());
    for config in recipe.method.iter().filter_map(|method| recipe.ctrl(&method.kind)) {
        let (model, sampling) = (&inputs.reference, &recipe.generation);
        let responses = config.prompts_per_step.saturating_mul(config.samples_per_prompt);
        let batch = recipe.batch.min(responses.max(calibrated).max(evaluated));
        let need = MemoryNeed::of_ctrl(&config, model, sampling, batch, longest)?;
        if most.is_none_or(|most| need.total() > most.total()) {
            most = Some(need);
        }
    }
    let Some(need) = most else { return Ok(()) };
    tell!("{}", told(&need, there));
    there.map_or(Ok(()), |there| fit([need.least(), need.total()], there, REMEDY))
}

/// The responses of `[rollouts]`.
fn rollouts(inputs: &Inputs<'_>) -> Option<Responses<'static>> {
    let recipe = inputs.recipe;
    recipe.rollouts.map(|rollouts| Responses {
        key: "rollouts.samples",
        samples: rollouts.samples,
        prompts: inputs.train.len(),
        max_tokens: recipe.generation.max_tokens,
    })
}

/// Bytes of the device's memory, of the machine's those that are free for this process; None where the device does not tell.
///
/// - name: what the device was opened by.
pub(super) fn available(device: &Device, name: Option<&DeviceName>) -> Option<u64> {
    if is_cpu(device) { Some(Memory::now().available) } else { infalign_backend::memory(name) }
}

fn told(need: &MemoryNeed, there: Option<u64>) -> String {
    let MemoryNeed { weights, gradients, optimizer, cache, activations, logits } = *need;
    format!(
        "memory: about {}{}: weights {}, optimiser {}, and in turns keys and values {}, or gradients {}, activations {} and logits {}",
        gib(need.total()),
        there.map(|there| format!(" of {}", gib(there))).unwrap_or_default(),
        gib(weights),
        gib(optimizer),
        gib(cache),
        gib(gradients),
        gib(activations),
        gib(logits)
    )
}

/// Bytes for people: GiB, or MiB where that is clearer.
pub(super) fn gib(bytes: u64) -> String {
    match bytes as f64 / f64::from(1 << 30) {
        gib if gib >= 1.0 => format!("{gib:.1} GiB"),
        gib => format!("{:.0} MiB", gib * 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESPONSES: Responses<'static> =
        Responses { key: "rollouts.samples", samples: 64, prompts: 100_000, max_tokens: 2_048 };

    #[test]
    fn stored_responses_hold_two_lists_each() {
        let held = Held::stored(&RESPONSES);
        // 6,400,000 · 2 · (24 + 4 · 1), and 6,400,000 · 2 · (24 + 4 · 2,048).
        assert_eq!(held.bytes, [358_400_000, 105_164_800_000]);
        assert_eq!(
            held.told(120 << 30),
            "memory: up to 97.9 GiB of 120.0 GiB for stored responses: rollouts.samples = 64 to each of 100000 prompts, of up to 2048 \
             tokens (generation.max_tokens)"
        );
        let remedy = "lower rollouts.samples or generation.max_tokens, or take fewer prompts";
        assert_eq!(held.remedy, remedy);
    }

    #[test]
    fn states_are_held_of_every_token_given_ones_included() {
        let responses =
            Responses { key: "rollouts.held_out", samples: 10, prompts: 1_000, max_tokens: 1_000 };
        let held = Held::states(&responses, 4_096, 0);
        // 10,000 · 4,096 · 4, and 1,000 times as much.
        assert_eq!(held.bytes, [163_840_000, 163_840_000_000]);
        assert!(held.what.starts_with("states, 4096 numbers a token: rollouts.held_out = 10 to"));
        assert!(!held.what.contains("completions") && !held.remedy.contains("completions"));
        let held = Held::states(&responses, 4_096, 5);
        // 5 · 4,096 · 4 more.
        assert_eq!(held.bytes, [163_921_920, 163_840_081_920]);
        assert!(held.what.ends_with(", and 5 tokens of completions"), "{}", held.what);
        assert!(held.remedy.ends_with("fewer prompts or completions"), "{}", held.remedy);
    }

    #[test]
    fn what_is_needed_at_the_least_is_refused_and_what_may_be_is_not() {
        let error = fit([(2 << 30) + 1, 3 << 30], 2 << 30, "lower a").unwrap_err().to_string();
        assert_eq!(
            error,
            "the run does not fit into memory: it needs 2.0 GiB and there are 2.0 GiB; lower a"
        );
        fit([2 << 30, 3 << 30], 2 << 30, "lower a").unwrap();
    }

    #[test]
    fn every_part_is_told() {
        let need = MemoryNeed {
            weights: 3 << 30,
            gradients: 2 << 30,
            optimizer: 2 << 30,
            cache: 100 << 20,
            activations: 1 << 30,
            logits: 0,
        };
        assert_eq!(need.least(), 7 << 30);
        assert_eq!(
            told(&need, Some(16 << 30)),
            "memory: about 8.0 GiB of 16.0 GiB: weights 3.0 GiB, optimiser 2.0 GiB, and in turns keys and values 100 MiB, or gradients \
             2.0 GiB, activations 1.0 GiB and logits 0 MiB"
        );
        let of_unknown = told(&need, None);
        assert!(of_unknown.starts_with("memory: about 8.0 GiB: weights"), "{of_unknown}");
    }
}
