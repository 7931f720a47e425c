//! Whether responses that a scorer learns from, and what it reads of them, fit into memory.

use anyhow::Result;

use super::super::memory_check::{Held, Responses, check_held};
use super::inputs::ScorerInputs;
use crate::recipe::ScorerRollouts;

/// Prints what the responses hold at most, or the base's states of them, which a scorer without a trunk reads, and what there is.
///
/// # Errors
/// When that is more than there is, however short the responses are.
pub(crate) fn check_memory(inputs: &ScorerInputs<'_>) -> Result<()> {
    let ScorerInputs { recipe, train, test, completions, .. } = inputs;
    let ScorerRollouts { samples, held_out, .. } = recipe.rollouts;
    let drawn = |key, samples, prompts| {
        let max_tokens = recipe.generation.max_tokens;
        Responses { key, samples, prompts, max_tokens }
    };
    let training = drawn("rollouts.samples", samples, train.len());
    let held_out = drawn("rollouts.held_out", held_out, test.len());
    let given: usize = completions.iter().map(|one| one.sequence.response().len()).sum();
    let hidden = inputs.base.config().hidden_size;
    let states = || [Held::states(&training, hidden, given), Held::states(&held_out, hidden, 0)];
    let stored = [&training, &held_out].map(Held::stored);
    check_held(stored.into_iter().chain(inputs.trunk.is_none().then(states).into_iter().flatten()))
}
