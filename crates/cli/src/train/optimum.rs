//! Trained policies beside the exact optimum of what they were trained on, where all responses can be listed.

use anyhow::{Context, Result, ensure};
use infalign_calibrate::Calibration;
use infalign_decode::exact::response_count;
use infalign_model::CausalLm;
use infalign_reward::Reward;
use infalign_train::{Calibrator, Enumeration, Nearness};

use super::inputs::Inputs;
use super::methods::folder;
use super::stages::{read_json, write_json};
use crate::progress::Progress;
use crate::recipe::Method;

/// What a method's folder holds of it.
pub(super) const OPTIMUM: &str = "optimum.json";

/// Most responses, to all prompts together, that are listed.
const MOST: usize = 1 << 18;

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
    let vocabulary = inputs.reference.config().vocab_size;
    let count = response_count(&recipe.generation, inputs.tokenizer.stops(), vocabulary);
    let all = count.and_then(|count| count.checked_mul(inputs.train.len()));
    ensure!(
        all.is_some_and(|all| all <= MOST),
        "evaluation.optimum lists every response, and {} prompts with responses of up to {} among {vocabulary} tokens have {}, where {MOST} are the most: lower generation.max_tokens, or leave it out",
        inputs.train.len(),
        recipe.generation.max_tokens,
        all.map_or("more than can be counted".to_owned(), |all| all.to_string()),
    );
    Ok(())
}

/// Every response to every training prompt, where the recipe asks for the optimum.
///
/// # Errors
/// When the reward fails.
pub(super) fn list<'a>(
    inputs: &'a Inputs<'_>,
    reward: &dyn Reward,
) -> Result<Option<Enumeration<'a>>> {
    let Inputs { recipe, reference, train, tokenizer, .. } = inputs;
    let list = || Enumeration::new(reference, train, tokenizer, reward, &recipe.generation);
    Ok(recipe.evaluation.optimum.then(list).transpose()?)
}

/// Compares a method's policy with its optimum, into `RUN/methods/NAME/optimum.json`; nothing for methods that CTRL does not train.
///
/// # Errors
/// When the file cannot be written, or read where it is there.
pub(super) fn compare(
    inputs: &Inputs<'_>,
    method: &Method,
    policy: &CausalLm,
    (all, calibration): (&Enumeration<'_>, Option<&Calibration>),
    progress: &mut Progress,
) -> Result<()> {
    let (Some(config), Some(objective)) =
        (inputs.recipe.ctrl(&method.kind), inputs.objective(method)?)
    else {
        return Ok(());
    };
    let path = folder(inputs, method).join(OPTIMUM);
    let title = format!("optimum for {}", method.name);
    if path.exists() {
        progress.skip(&title);
        return read_json::<Nearness>(&path).map(drop);
    }
    let bar = progress.stage(&title, 1);
    let calibrator = Calibrator::Table(calibration.context("the run has no table")?);
    let procedures = &inputs.recipe.evaluation.procedures;
    let nearness = all.nearness(policy, &objective, calibrator, config.beta, procedures)?;
    write_json(&path, &nearness)?;
    let (lacking, distance) = (100.0 * nearness.lacking, nearness.distance);
    bar.finish(format!(
        "lacks {lacking:.2} % of the best value, {distance:.4} nats to the best policy"
    ));
    Ok(())
}
