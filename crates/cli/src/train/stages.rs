//! The stages of an align run. Each ends with a file under its final name; a resumed run skips those that are there.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use infalign_calibrate::{Calibration, CalibrationMeta, SCHEMA_VERSION, store};
use infalign_data::{ratings, split_by_hash};
use infalign_decode::Sampler;
use infalign_evaluate::{Evaluator, Sampled};
use infalign_model::{CausalLm, Tokenizer};
use infalign_record::atomic::{write_atomic, write_dir_atomic};
use infalign_record::hash::{sha256_bytes, sha256_file};
use infalign_reward::{Reward, RewardConfig};
use infalign_train::{Dataset, Examples, RewardModelReport, train_reward_model};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::inputs::Inputs;
use super::methods;
use super::results::{self, Measured, Results};
use crate::progress::Progress;
use crate::recipe::{Paths, RewardModelStage};

/// Runs what is left of the recipe and returns its results.
///
/// # Errors
/// The failure of a stage; what was finished stays.
pub(crate) fn execute(inputs: &Inputs<'_>, interrupted: &AtomicBool) -> Result<Results> {
    let recipe = inputs.recipe;
    let mut progress =
        Progress::new(2 + usize::from(recipe.reward_model.is_some()) + 2 * recipe.method.len());
    if let Some(stage) = &recipe.reward_model {
        reward_model(inputs, stage, &mut progress, interrupted)?;
    }
    let reward = inputs.reward()?;
    let calibration = calibrate(inputs, reward.as_ref(), &mut progress, interrupted)?;
    let evaluator = evaluator(inputs, reward.as_ref());
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

/// Trains the recipe's reward model into `RUN/reward-model`.
fn reward_model(
    inputs: &Inputs<'_>,
    stage: &RewardModelStage,
    progress: &mut Progress,
    interrupted: &AtomicBool,
) -> Result<()> {
    let dir = inputs.run.join("reward-model");
    if dir.exists() {
        progress.skip("reward model");
        return Ok(());
    }
    let paths = Paths { run: inputs.run };
    let base_dir = paths.model(&stage.base)?;
    let base = CausalLm::load(&base_dir, &inputs.device)?;
    let tokenizer = Tokenizer::load(&base_dir, base.config())?;
    let mut texts = Vec::new();
    for file in &stage.ratings {
        texts.extend(ratings::read_tsv(&paths.resolve(file)?)?);
    }
    let (used, held_out) = split_by_hash(texts, |rating| rating.text.as_str(), stage.held_out)?;
    let context = base.config().max_position_embeddings;
    let encode = |texts: Vec<infalign_data::Rating>| -> Result<Examples> {
        let encode_one = |rating: infalign_data::Rating| -> Result<(Vec<u32>, f32)> {
            let mut tokens = tokenizer.encode(&rating.text)?;
            tokens.truncate(context);
            Ok((tokens, rating.rating))
        };
        Ok(Examples::Rated(texts.into_iter().map(encode_one).collect::<Result<_>>()?))
    };
    let data = Dataset { training: encode(used)?, held_out: encode(held_out)? };
    let bar = progress.stage("reward model", stage.train.steps);
    let mut observe = |step, loss| bar.set(step, format!("loss {loss:.3}"));
    let (model, report) = train_reward_model(
        base,
        tokenizer.pad(),
        &data,
        &stage.train,
        inputs.recipe.seed,
        &mut observe,
        interrupted,
    )?;
    write_dir_atomic::<anyhow::Error>(&dir, |folder| {
        model.save(folder)?;
        tokenizer.save(folder)?;
        std::fs::write(folder.join("report.json"), serde_json::to_vec_pretty(&report)?)
            .context("cannot write report.json")
    })?;
    let RewardModelReport { examples, accuracy, correlation } = report;
    let correlation = correlation.map_or(String::new(), |c| format!(", correlation {c:.3}"));
    bar.finish(format!("held out ({examples}): pairwise accuracy {accuracy:.3}{correlation}"));
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

/// The reward's settings as far as rewards depend on them, and the hashes of the weights of its models and of its files.
fn reward_name(inputs: &Inputs<'_>) -> Result<String> {
    name_of(inputs.recipe.reward.essence(), &Paths { run: inputs.run })
}

fn name_of(mut reward: RewardConfig, paths: &Paths<'_>) -> Result<String> {
    let mut name = serde_json::to_string(&reward)?;
    for model in reward.models_mut() {
        name += &format!(", weights {}", weights_sha256(&paths.model(model)?)?);
    }
    for file in reward.files_mut() {
        name += &format!(", file {}", sha256_file(&paths.resolve(file)?)?);
    }
    Ok(name)
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
        judge: reward,
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
    let fits = sampled.rewards.len() == evaluator.prompts.len()
        && sampled.kl.len() == evaluator.prompts.len()
        && sampled.rewards.iter().all(|rewards| rewards.len() == evaluator.samples);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reward_is_named_by_what_rewards_depend_on() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        std::fs::create_dir(dir.path().join("m")).unwrap();
        write("m/model.safetensors", "weights");
        write("a.jsonl", "answers");
        let name = |settings: &str| {
            let text = format!(
                "kind = 'ensemble'\nby = 'mean'\nof = [{{kind = 'model', path = '$RUN/m'}}, {{kind = 'answer', file = '$RUN/a.jsonl'}}, \
                 {{kind = 'remote', url = 'http://host'{settings}}}]"
            );
            let reward: RewardConfig = toml::from_str(&text).unwrap();
            name_of(reward.essence(), &Paths { run: dir.path() }).unwrap()
        };
        let first = name("");
        assert!(first.contains("http://host") && first.contains(&sha256_bytes(b"answers")));
        assert!(first.contains(&sha256_bytes(b"weights")), "{first}");
        assert_eq!(name(", cache = '$RUN/c.jsonl', api_key_env = 'KEY', batch = 3"), first);
        write("a.jsonl", "other answers");
        let second = name("");
        write("m/model.safetensors", "other weights");
        assert!(first != second && second != name(""));
    }
}
