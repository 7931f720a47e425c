//! Trained policies beside what procedures make of the base: their rewards and their KL.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use infalign_decode::{Kl, KlKind};
use infalign_evaluate::{Evaluator, Sampled, score};
use infalign_model::CausalLm;
use infalign_transform::Procedure;

use super::super::rewards;
use super::super::stages::{read_json, stop_if, write_json};
use super::inputs::ScorerInputs;
use super::row::{Mean, Row};
use crate::progress::Progress;
use crate::recipe::ScorerPolicy;

/// A row a policy; what a file `RUN/evaluation/policy-N.json` holds is not drawn again.
///
/// # Errors
/// When a reward fails, or a file cannot be written.
pub(super) fn rows(
    inputs: &ScorerInputs<'_>,
    progress: &mut Progress,
    interrupted: &AtomicBool,
) -> Result<Vec<Row>> {
    let folder = inputs.run.join("evaluation");
    let mut rows: Vec<Row> = Vec::new();
    for (index, (policy, model)) in inputs.recipe.policy.iter().zip(&inputs.policies).enumerate() {
        let path = folder.join(format!("policy-{index}.json"));
        let title = format!("policy {}", policy.name);
        if path.exists() {
            progress.skip(&title);
            rows.push(read_json(&path)?);
            continue;
        }
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let bar = progress.stage(&title, 1);
        let row =
            row(inputs, policy, model).with_context(|| format!("[[policy]] {:?}", policy.name))?;
        write_json(&path, &row)?;
        bar.finish(row.summary());
        rows.push(row);
        stop_if(interrupted)?;
    }
    Ok(rows)
}

/// Samples a policy on the prompts held out.
fn row(inputs: &ScorerInputs<'_>, policy: &ScorerPolicy, model: &CausalLm) -> Result<Row> {
    let recipe = inputs.recipe;
    let heads = recipe
        .head
        .iter()
        .map(|head| Ok((&head.name, rewards::build(&head.reward, inputs.run, &inputs.device)?)));
    let heads = heads.collect::<Result<Vec<_>>>()?;
    let (_, first) = heads.first().context("the recipe has no [[head]]")?;
    let evaluator = Evaluator {
        prompts: &inputs.test,
        samples: policy.samples,
        reference: Some(&inputs.base),
        tokenizer: &inputs.tokenizer,
        reward: first.as_ref(),
        judge: None,
        sampling: recipe.generation.clone(),
        batch: recipe.batch,
        seed: recipe.seed,
    };
    let sampled = evaluator.sample(model, "evaluate")?;
    let mut means = BTreeMap::new();
    for (name, reward) in &heads {
        let asked = inputs.test.iter().map(|prompt| prompt.text.as_str());
        let scores = score(reward.as_ref(), asked, &sampled.responses)?;
        means.insert((*name).clone(), Mean::over(scores.iter().map(|one| mean(one)).collect())?);
    }
    Ok(Row {
        policy: Some(policy.name.clone()),
        procedure: Procedure::Sample.into(),
        weights: BTreeMap::new(),
        rewards: means,
        kl: vec![kl(&sampled)?],
        model_tokens: sampled.response_length().context("no response was drawn")?,
        scorer_calls: 0.0,
        truncation: 0.0,
    })
}

/// Exact at every token, and an estimate over responses.
fn kl(sampled: &Sampled) -> Result<Kl> {
    let by_prompt = sampled.kl.as_deref().context("the KL to the base is not known")?;
    let exact: Vec<f64> = by_prompt.iter().map(|kl| kl.exact).collect();
    Ok(Kl { nats: mean(&exact), kind: KlKind::Estimate })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
