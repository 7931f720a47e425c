//! Trained policies beside the exact optimum of what they were trained on, where all responses can be listed.

use anyhow::{Context, Result, bail, ensure};
use infalign_decode::exact::response_count;
use infalign_model::CausalLm;
use infalign_train::{Calibrator, Enumeration, Nearness, Objective};

use super::inputs::Inputs;
use super::methods::{Sources, folder};
use super::stages::once;
use crate::progress::{Progress, Stage};
use crate::recipe::Method;

/// What a method's folder holds of it.
pub(crate) const OPTIMUM: &str = "optimum.json";

/// Most tokens of prompts with all responses that are read.
const MOST: usize = 1 << 22;

/// Refuses to list what cannot be listed, and where nothing would be compared with it.
///
/// # Errors
/// One sentence that names the key and says what to lower.
pub(super) fn check(inputs: &Inputs<'_>) -> Result<()> {
    let recipe = inputs.recipe;
    if !recipe.evaluation.optimum {
        return Ok(());
    }
    ensure!(
        recipe.method.iter().any(|method| method.kind.is_ctrl()),
        "evaluation.optimum has no effect: CTRL trains none of the methods"
    );
    ensure!(
        recipe.has_table(),
        "evaluation.optimum is that of rewards which a table calibrates: give calibration.samples or calibration.table in place of calibration.group"
    );
    check_objectives(inputs)?;
    let vocabulary = inputs.reference.config().vocab_size;
    let count = response_count(&recipe.generation, inputs.tokenizer.stops(), vocabulary);
    let longest = recipe.generation.max_tokens;
    let tokens: usize = inputs.train.iter().map(|prompt| prompt.tokens.len() + longest).sum();
    let all = count.and_then(|count| count.checked_mul(tokens));
    ensure!(
        all.is_some_and(|all| all <= MOST),
        "evaluation.optimum lists every response: to {} prompts, with up to {longest} of {vocabulary} tokens, that is to read {} tokens, where {MOST} are the most: lower generation.max_tokens, take fewer prompts to train on, or leave it out",
        inputs.train.len(),
        all.map_or("more than can be counted".to_owned(), |all| all.to_string()),
    );
    Ok(())
}

/// Refuses objectives whose optimum is not computed.
fn check_objectives(inputs: &Inputs<'_>) -> Result<()> {
    for method in &inputs.recipe.method {
        if let Some(objective @ Objective::Reward(_)) = inputs.objective(method)? {
            bail!(
                "evaluation.optimum with method {:?}: the exact optimum of objective {objective} is not computed: leave out evaluation.optimum, or the method",
                method.name
            );
        }
    }
    Ok(())
}

/// Compares a method's policy with its optimum, into `RUN/methods/NAME/optimum.json`, where the recipe asks for it and CTRL trains the method.
///
/// - `all`: every response to every training prompt, listed for the first method that needs them.
///
/// # Errors
/// When the reward fails, or the file cannot be written, or read where it is there.
pub(super) fn compare<'a>(
    inputs: &'a Inputs<'_>,
    method: &Method,
    policy: &CausalLm,
    sources: Sources<'_>,
    all: &mut Option<Enumeration<'a>>,
    progress: &mut Progress,
) -> Result<()> {
    let Inputs { recipe, reference, train, tokenizer, .. } = inputs;
    let (true, Some(config), Some(objective)) =
        (recipe.evaluation.optimum, recipe.ctrl(&method.kind), inputs.objective(method)?)
    else {
        return Ok(());
    };
    let path = folder(inputs, method).join(OPTIMUM);
    let title = format!("optimum for {}", method.name);
    let make = |_: &Stage| -> Result<Nearness> {
        let calibrator = Calibrator::Table(sources.calibration.context("the run has no table")?);
        let (reward, sampling) = (sources.reward, &recipe.generation);
        let all = match all {
            Some(all) => all,
            None => all.insert(Enumeration::new(reference, train, tokenizer, reward, sampling)?),
        };
        let procedures = &recipe.evaluation.procedures;
        Ok(all.nearness(policy, &objective, calibrator, config.beta, procedures)?)
    };
    once((sources.made_by, &path), (&title, 1), progress, make, summary).map(drop)
}

fn summary(nearness: &Nearness) -> String {
    let (lacking, distance) = (100.0 * nearness.lacking, nearness.distance);
    format!("lacks {lacking:.2} % of what there was to gain, {distance:.4} nats to the best policy")
}
