//! Trained policies beside what procedures make of the base: their rewards and their KL.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use infalign_decode::{Kl, KlKind};
use infalign_evaluate::{Evaluator, Sampled};
use infalign_model::CausalLm;
use infalign_reward::Reward;
use infalign_transform::Procedure;

use super::super::made_by::MadeBy;
use super::super::stages::{once, sample_all, stop_if_asked};
use super::evaluation::{Guide, Trained};
use super::inputs::ScorerInputs;
use super::measures::{Measured, Measures, mean};
use super::row::Row;
use crate::files::make_folder;
use crate::progress::{KL, Progress, Stage};
use crate::recipe::ScorerPolicy;

/// A row a policy and procedure; what a file `RUN/evaluation/policy-N.json` holds is not drawn again.
///
/// - `first`: the reward of the first head.
///
/// # Errors
/// When a policy cannot be loaded, a procedure run, a reward fails, or a file cannot be written.
pub(super) fn rows(
    inputs: &ScorerInputs<'_>,
    first: &dyn Reward,
    (measures, guide): (&Measures<'_>, &Guide),
    made_by: &MadeBy,
    progress: &mut Progress,
) -> Result<Vec<Row>> {
    let folder = inputs.run.join("evaluation");
    let mut rows: Vec<Row> = Vec::new();
    for (policy, folder_of_model) in inputs.recipe.policy.iter().zip(&inputs.policies) {
        make_folder(&folder)?;
        let evaluation = policy.evaluation();
        for procedure in &evaluation.procedures {
            let path = folder.join(format!("policy-{}.json", rows.len()));
            let is_plain = *procedure == Procedure::Sample.into();
            let title = match is_plain {
                true => format!("policy {}", policy.name),
                false => format!("{procedure} on {}", policy.name),
            };
            let make = |bar: &Stage| -> Result<Row> {
                let model = CausalLm::load(folder_of_model, &inputs.device)?;
                if is_plain {
                    row(inputs, first, measures, policy, (&model, bar))
                } else {
                    let base = &inputs.base;
                    let from = Trained { name: &policy.name, policy: &model, base, bar };
                    inputs.on_policy((measures, guide), from, *procedure, &evaluation)
                }
                .with_context(|| format!("[[policy]] {:?}: {procedure}", policy.name))
            };
            let stage = (title.as_str(), inputs.test.len());
            let row = once((made_by, &path), stage, progress, make, Row::summary)?;
            measures.check(&row, &path)?;
            rows.push(row);
            stop_if_asked()?;
        }
    }
    Ok(rows)
}

/// Samples a policy on the prompts held out.
fn row(
    inputs: &ScorerInputs<'_>,
    first: &dyn Reward,
    measures: &Measures<'_>,
    policy: &ScorerPolicy,
    (model, bar): (&CausalLm, &Stage),
) -> Result<Row> {
    let recipe = inputs.recipe;
    let evaluator = Evaluator {
        prompts: &inputs.test,
        prompts_sha256: &[],
        samples: policy.samples,
        reference: Some(&inputs.base),
        tokenizer: &inputs.tokenizer,
        reward: first,
        judge: None,
        sampling: recipe.generation.clone(),
        batch: recipe.batch,
        seed: recipe.seed,
    };
    let measured = |prompts: usize| bar.set(prompts, KL.to_owned());
    let sampled = sample_all(&evaluator, model, "evaluate", &measured)?;
    let Measured { rewards, win_rates } =
        measures.of(&sampled.responses, Some(&sampled.rewards))?;
    Ok(Row {
        policy: Some(policy.name.clone()),
        procedure: Procedure::Sample.into(),
        weights: BTreeMap::new(),
        rewards,
        win_rates,
        kl: vec![kl(&sampled)?],
        model_tokens: sampled.response_length().context("no response was drawn")?,
        scorer_calls: 0.0,
        truncation: 0.0,
    })
}

/// Exact at every token, as that of `cd-token`.
fn kl(sampled: &Sampled) -> Result<Kl> {
    let by_prompt = sampled.kl.as_deref().context("the KL to the base is not known")?;
    let exact: Vec<f64> = by_prompt.iter().map(|kl| kl.exact).collect();
    Ok(Kl { nats: mean(&exact), kind: KlKind::Exact })
}
