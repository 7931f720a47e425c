//! What is told of keys that have no effect in a recipe, which is run all the same.

use crate::recipe::AlignRecipe;

/// Warns of a KL that no policy is trained to.
pub(super) fn warn_of_kl(recipe: &AlignRecipe) {
    let Some(train) = &recipe.train else { return };
    for (key, given) in [("target_kl", train.target_kl), ("beta", train.beta)] {
        if given.is_some() && recipe.has_no_shared_kl() {
            tell!(
                "warning: train.{key} has no effect: every [[method]] that CTRL trains is of kind \"vbon\", whose β is 1/(N − 1); it may be left out"
            );
        }
    }
}

/// Warns of what is set aside to choose a checkpoint where there is one.
///
/// - `validation`: its key and value, as a sentence begins.
/// - `every`: steps from one checkpoint to the next.
pub(super) fn warn_of_validation(validation: &str, steps: usize, every: usize) {
    if steps <= every {
        tell!(
            "warning: {validation}, but training ends after {steps} steps and train.checkpoint_every is {every}: there is one checkpoint and nothing to choose, while less is learned from; lower train.checkpoint_every, or set nothing aside"
        );
    }
}
