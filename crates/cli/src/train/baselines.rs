//! The methods that CTRL does not train: what each learns from, and its trainer.

use std::path::Path;

use anyhow::{Context, Result};
use infalign_model::{CausalLm, Sequence};
use infalign_train::baselines::{
    BondConfig, BondTrainer, Labels, OfflineConfig, OfflineTrainer, PairLoss, ResponsePair, Stored,
    best_of_n, best_worst_pairs, pairs,
};
use infalign_train::{FitMetrics, TrainError, fitted_steps};

use super::given::Given;
use super::inputs::Inputs;
use super::methods::Sources;
use super::metrics::{CHECKPOINTS, Metrics, is_kept};
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
        checkpoints: folder.join(CHECKPOINTS),
    };
    let steps = (config.steps, config.checkpoint_every);
    watched(title, folder, steps, progress, |observe| Ok(trainer.run(observe, interrupt::flag())?))
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
        checkpoints: folder.join(CHECKPOINTS),
    };
    let steps = (config.steps, config.checkpoint_every);
    watched(title, folder, steps, progress, |observe| Ok(trainer.run(observe, interrupt::flag())?))
}

/// Runs a trainer under a bar, and writes down its steps.
///
/// - steps: of the whole training, and from one checkpoint to the next.
fn watched(
    title: &str,
    folder: &Path,
    (steps, every): (usize, usize),
    progress: &mut Progress,
    run: impl FnOnce(&mut dyn FnMut(&FitMetrics) -> Result<(), TrainError>) -> Result<CausalLm>,
) -> Result<CausalLm> {
    let checkpoints = folder.join(CHECKPOINTS);
    let done = fitted_steps(&checkpoints).with_context(|| Damaged::at(&checkpoints))?;
    let mut metrics = Metrics::open(folder, done)?;
    let bar = progress.resumed(title, steps, done);
    let mut last = String::new();
    let mut observe = |step: &FitMetrics| -> Result<(), TrainError> {
        metrics.append(step)?;
        if is_kept(step.step, every, steps) {
            metrics.sync()?;
        }
        last = format!("loss {:.3}  |g| {:.2}", step.loss, step.grad_norm);
        bar.set(step.step, last.clone());
        Ok(())
    };
    let policy = run(&mut observe).inspect_err(|_| {
        // A reward that is stopped has a checkpoint of the step before, after which none was to follow. Why it ended is what is told.
        let _ = metrics.sync();
    })?;
    bar.finish(last);
    Ok(policy)
}

/// What a method learns from. Rollouts come with log-probabilities under the reference; of pairs of files, the trainer asks for them step by step.
fn stored(inputs: &Inputs<'_>, kind: &Kind, given: &Given, sources: Sources<'_>) -> Result<Stored> {
    let prompts = &inputs.train;
    let rollouts = || sources.rollouts.context("there are no reference rollouts");
    let compared = |labels: &Option<Labels>| -> Result<Vec<ResponsePair>> {
        match given {
            Given::Preferences(pairs) => Ok(preferred(pairs)),
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
fn preferred(pairs: &[[Sequence; 2]]) -> Vec<ResponsePair> {
    let pair = |responses: &[Sequence; 2]| ResponsePair {
        responses: responses.clone(),
        reference: None,
        preference: 1.0,
    };
    pairs.iter().map(pair).collect()
}
