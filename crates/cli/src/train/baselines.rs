//! The methods that CTRL does not train: what each learns from, and its trainer.

use std::path::Path;

use anyhow::{Context, Result};
use infalign_model::{CausalLm, Sequence};
use infalign_train::baselines::{
    BondConfig, BondTrainer, Labels, OfflineConfig, OfflineTrainer, PairLoss, ResponsePair, Stored,
    best_of_n, best_worst_pairs, pairs,
};
use infalign_train::{FitMetrics, fitted_steps};

use super::given::Given;
use super::inputs::Inputs;
use super::methods::Sources;
use super::metrics::Metrics;
use crate::interrupt;
use crate::progress::Progress;
use crate::recipe::Kind;
use crate::resume::Damaged;

/// Trains a policy on stored responses, with checkpoints and metrics in `folder`.
///
/// # Errors
/// What stopped the training; the newest checkpoint stays.
pub(super) fn train_offline(
    inputs: &Inputs<'_>,
    (kind, given): (&Kind, &Given),
    config: &OfflineConfig,
    sources: Sources<'_>,
    (title, folder): (&str, &Path),
    progress: &mut Progress,
) -> Result<CausalLm> {
    let stored = stored(inputs, kind, given, sources)?;
    let trainer = OfflineTrainer {
        config,
        stored: &stored,
        reference: &inputs.reference,
        seed: inputs.recipe.seed,
        checkpoints: folder.join("checkpoints"),
    };
    watched(title, folder, config.steps, progress, |observe| {
        Ok(trainer.run(observe, interrupt::flag())?)
    })
}

/// Trains a policy by J-BOND, with checkpoints and metrics in `folder`.
///
/// # Errors
/// What stopped the training; the newest checkpoint stays.
pub(super) fn train_bond(
    inputs: &Inputs<'_>,
    config: &BondConfig,
    sources: Sources<'_>,
    (title, folder): (&str, &Path),
    progress: &mut Progress,
) -> Result<CausalLm> {
    let trainer = BondTrainer {
        config,
        prompts: &inputs.train,
        reference: &inputs.reference,
        tokenizer: &inputs.tokenizer,
        reward: sources.reward,
        sampling: inputs.recipe.generation.clone(),
        batch: inputs.recipe.batch,
        seed: inputs.recipe.seed,
        checkpoints: folder.join("checkpoints"),
    };
    watched(title, folder, config.steps, progress, |observe| {
        Ok(trainer.run(observe, interrupt::flag())?)
    })
}

/// Runs a trainer under a bar, and writes down its steps.
fn watched(
    title: &str,
    folder: &Path,
    steps: usize,
    progress: &mut Progress,
    run: impl FnOnce(&mut dyn FnMut(&FitMetrics)) -> Result<CausalLm>,
) -> Result<CausalLm> {
    let checkpoints = folder.join("checkpoints");
    let done = fitted_steps(&checkpoints).with_context(|| Damaged::at(&checkpoints))?;
    let mut metrics = Metrics::open(folder, done)?;
    let bar = progress.stage(title, steps);
    let mut last = String::new();
    let mut observe = |step: &FitMetrics| {
        metrics.append(step);
        last = format!("loss {:.3}  |g| {:.2}", step.loss, step.grad_norm);
        bar.set(step.step, last.clone());
    };
    let policy = run(&mut observe)?;
    metrics.finish()?;
    bar.finish(last);
    Ok(policy)
}

/// What a method learns from. Log-probabilities under the reference are those that the rollouts came with, or are computed here, once.
fn stored(inputs: &Inputs<'_>, kind: &Kind, given: &Given, sources: Sources<'_>) -> Result<Stored> {
    let prompts = &inputs.train;
    let rollouts = || sources.rollouts.context("there are no reference rollouts");
    let compared = |labels: &Option<Labels>| -> Result<Vec<ResponsePair>> {
        match given {
            Given::Preferences(pairs) => preferred(&inputs.reference, pairs),
            _ => Ok(pairs(rollouts()?, prompts, labels.unwrap_or_default())?),
        }
    };
    Ok(match (kind, given) {
        (Kind::Dpo { beta, labels, .. }, _) => {
            Stored::Compared(PairLoss::Dpo(*beta), compared(labels)?)
        }
        (Kind::Ipo { tau, labels, .. }, _) => {
            Stored::Compared(PairLoss::Ipo(*tau), compared(labels)?)
        }
        (Kind::Bonbon { n, alpha, .. }, _) => {
            let comparison = PairLoss::BonBon { n: *n, alpha: *alpha };
            Stored::Compared(comparison, best_worst_pairs(rollouts()?, prompts, *n)?)
        }
        (Kind::BestOfNSft { n, .. }, _) => Stored::Imitated(best_of_n(rollouts()?, prompts, *n)?),
        (_, Given::Completions(sequences)) => Stored::Imitated(sequences.clone()),
        (kind, _) => anyhow::bail!("kind \"{}\" learns from no stored responses", kind.name()),
    })
}

/// Pairs of files, the first of each preferred.
fn preferred(reference: &CausalLm, pairs: &[[Sequence; 2]]) -> Result<Vec<ResponsePair>> {
    let tokens = reference.log_probs(&pairs.concat())?;
    let sums: Vec<f64> =
        tokens.iter().map(|tokens| tokens.iter().map(|&token| f64::from(token)).sum()).collect();
    let pair = |(responses, sums): (&[Sequence; 2], &[f64])| ResponsePair {
        responses: responses.clone(),
        reference: [sums[0], sums[1]],
        preference: 1.0,
    };
    Ok(pairs.iter().zip(sums.chunks(2)).map(pair).collect())
}
