//! The stages of an align run. Each ends with a file under its final name; a resumed run skips those that are there.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use infalign_calibrate::{Calibration, CalibrationMeta, SCHEMA_VERSION, store};
use infalign_decode::Sampler;
use infalign_evaluate::{Evaluator, Sampled};
use infalign_record::atomic::write_atomic;
use infalign_record::hash::{sha256_bytes, sha256_file};
use infalign_reward::{Reward, RewardConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::inputs::Inputs;
use super::methods;
use super::results::{self, Measured, Results};
use super::rewards;
use crate::progress::Progress;
use crate::recipe::Paths;

/// Runs what is left of the recipe and returns its results.
///
/// # Errors
/// The failure of a stage; what was finished stays.
pub(crate) fn execute(inputs: &Inputs<'_>, interrupted: &AtomicBool) -> Result<Results> {
    let recipe = inputs.recipe;
    let mut progress = Progress::new(2 + recipe.reward_model.len() + 2 * recipe.method.len());
    rewards::train(inputs, &mut progress, interrupted)?;
    let reward = inputs.build(&recipe.reward)?;
    let judge = recipe.evaluation.judge.as_ref().map(|judge| inputs.build(judge)).transpose()?;
    let calibration = calibrate(inputs, reward.as_ref(), &mut progress, interrupted)?;
    let evaluator = Evaluator { judge: judge.as_deref(), ..evaluator(inputs, reward.as_ref()) };
    let (reference, base) = reference_samples(inputs, &evaluator, &mut progress)?;
    stop_if(interrupted)?;
    let mut measured = vec![Measured { name: "base".into(), objective: None, sampled: base }];
    for method in &recipe.method {
        let policy = methods::train(
            inputs,
            method,
            reward.as_ref(),
            &calibration,
            &mut progress,
            interrupted,
        )?;
        let sampled = methods::evaluate(inputs, method, &policy, &evaluator, &mut progress)?;
        stop_if(interrupted)?;
        measured.push(Measured {
            name: method.name.clone(),
            objective: Some(inputs.objective(method)?),
            sampled,
        });
    }
    results::write(inputs, &measured, &reference)
}

/// Stops between two pieces of work once Ctrl-C was pressed.
fn stop_if(interrupted: &AtomicBool) -> Result<()> {
    anyhow::ensure!(!interrupted.load(Ordering::Relaxed), "stopped; every finished stage is kept");
    Ok(())
}

/// Batches of reference responses generated from one look at Ctrl-C to the next.
const BATCHES_PER_BLOCK: usize = 16;

/// K reference responses to every training prompt, as `RUN/calibration.parquet`.
fn calibrate(
    inputs: &Inputs<'_>,
    reward: &dyn Reward,
    progress: &mut Progress,
    interrupted: &AtomicBool,
) -> Result<Calibration> {
    let path = inputs.run.join("calibration.parquet");
    let meta = calibration_meta(inputs)?;
    if path.exists() {
        progress.skip("calibration");
        let calibration = store::read(&path)?;
        calibration.check(&meta)?;
        return Ok(calibration);
    }
    let samples = inputs.recipe.calibration.samples;
    let bar = progress.stage("calibration", inputs.train.len());
    let mut calibration = Calibration::new(meta);
    let reference = inputs.reference.clone().for_inference();
    // Enough batches at a time for every core, few enough for the bar to move.
    let per_block = (BATCHES_PER_BLOCK * inputs.recipe.batch / samples).max(1);
    for (block, prompts) in inputs.train.chunks(per_block).enumerate() {
        stop_if(interrupted)?;
        let evaluator = Evaluator { prompts, samples, ..evaluator(inputs, reward) };
        let responses =
            evaluator.generator(reference.as_ref(), "calibration").generate(prompts, samples)?;
        for (prompt, rewards) in prompts.iter().zip(evaluator.rewards(&responses)?) {
            calibration.insert(&prompt.id, rewards.into_iter().map(|r| r as f32).collect())?;
        }
        bar.set(
            (block * per_block + prompts.len()).min(inputs.train.len()),
            format!("{samples} responses a prompt"),
        );
    }
    let mut bytes = Vec::new();
    store::write_to(&calibration, &mut bytes)?;
    write_atomic(&path, |file| file.write_all(&bytes))?;
    bar.finish(format!("{} prompts, {samples} responses each", calibration.len()));
    Ok(calibration)
}

fn calibration_meta(inputs: &Inputs<'_>) -> Result<CalibrationMeta> {
    let dir = Paths { run: inputs.run }.resolve(&inputs.recipe.model)?;
    Ok(CalibrationMeta {
        schema_version: SCHEMA_VERSION,
        model_sha256: weights_sha256(&dir)?,
        reward: reward_name(inputs)?,
        tokenizer_sha256: sha256_file(&dir.join("tokenizer.json"))?,
        sampling: format!(
            "{}, seed {}",
            serde_json::to_string(&inputs.recipe.generation)?,
            inputs.recipe.seed
        ),
        samples: inputs.recipe.calibration.samples,
    })
}

/// The reward's settings, and the hash of its weights where it has any.
fn reward_name(inputs: &Inputs<'_>) -> Result<String> {
    let config = &inputs.recipe.reward;
    let settings = serde_json::to_string(config)?;
    let RewardConfig::Model { path, .. } = config else { return Ok(settings) };
    let weights = weights_sha256(&Paths { run: inputs.run }.resolve(path)?)?;
    Ok(format!("{settings}, weights {weights}"))
}

/// SHA-256 of a model's safetensors file, or of the hashes of its shards in the order of their names.
fn weights_sha256(dir: &Path) -> Result<String> {
    let entries =
        std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut files: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
        .collect();
    files.sort();
    let hashes = files.iter().map(|file| Ok(sha256_file(file)?)).collect::<Result<Vec<_>>>()?;
    Ok(if hashes.len() == 1 { hashes.concat() } else { sha256_bytes(hashes.concat().as_bytes()) })
}

fn evaluator<'a>(inputs: &'a Inputs<'_>, reward: &'a dyn Reward) -> Evaluator<'a> {
    Evaluator {
        prompts: &inputs.test,
        samples: inputs.recipe.evaluation.samples,
        reference: &inputs.reference,
        tokenizer: &inputs.tokenizer,
        reward,
        judge: None,
        sampling: inputs.recipe.generation,
        batch: inputs.recipe.batch,
        seed: inputs.recipe.seed,
    }
}

/// Two independent sets of the reference's samples: what policies are compared with, and the reference's own row.
fn reference_samples(
    inputs: &Inputs<'_>,
    evaluator: &Evaluator<'_>,
    progress: &mut Progress,
) -> Result<(Sampled, Sampled)> {
    let path = inputs.run.join("reference-samples.json");
    if path.exists() {
        progress.skip("reference samples");
        let both: (Sampled, Sampled) = read_json(&path)?;
        check_samples(&path, &both.0, evaluator)?;
        check_samples(&path, &both.1, evaluator)?;
        return Ok(both);
    }
    let bar = progress.stage("reference samples", 2);
    let reference = evaluator.sample(&inputs.reference, "evaluate-reference")?;
    bar.set(1, String::new());
    let base = evaluator.sample(&inputs.reference, methods::EVALUATION_STAGE)?;
    let both = (reference, base);
    write_json(&path, &both)?;
    bar.finish(format!(
        "{} held-out prompts, {} responses each",
        inputs.test.len(),
        evaluator.samples
    ));
    Ok(both)
}

/// Refuses stored samples that are not those of the recipe's prompts.
pub(crate) fn check_samples(
    path: &Path,
    sampled: &Sampled,
    evaluator: &Evaluator<'_>,
) -> Result<()> {
    let whole = |rewards: &[Vec<f64>]| {
        rewards.len() == evaluator.prompts.len()
            && rewards.iter().all(|rewards| rewards.len() == evaluator.samples)
    };
    let fits = whole(&sampled.rewards)
        && sampled.judged.is_some() == evaluator.judge.is_some()
        && sampled.judged.as_deref().is_none_or(whole)
        && sampled.kl.len() == evaluator.prompts.len();
    anyhow::ensure!(
        fits,
        "{} holds samples of other prompts: delete it and resume",
        path.display()
    );
    Ok(())
}

/// Reads a file that an earlier stage wrote.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes)
        .with_context(|| format!("{} is damaged: delete it and resume", path.display()))
}

/// Writes a stage's result whole or not at all.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(value)?;
    Ok(write_atomic(path, |file| file.write_all(&bytes))?)
}
