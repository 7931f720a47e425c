//! `task = "scorer"`: responses of a base, their rewards, and a prefix scorer that learns from them.

mod evaluation;
mod figures;
mod inputs;
mod policies;
mod responses;
mod row;

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use infalign_decode::{Generator, Stream};
use infalign_model::{CausalLm, LanguageModel, ScoredReward, ScorerModel, ScorerSpec};
use infalign_record::atomic::write_dir_atomic;
use infalign_reward::Reward;
use infalign_train::{
    FitMetrics, LengthReport, ScoredResponse, ScorerData, ScorerReport, train_prefix_scorer,
};
use infalign_transform::Composed;
use serde::Serialize;

use self::evaluation::{Guide, ScorerEvaluator, Trained};
pub(crate) use self::inputs::ScorerInputs;
use self::inputs::key;
use self::responses::Rewarded;
pub(crate) use self::row::{Difference, Row, reward_difference};
use super::rewards;
use super::run_dir::RESULTS;
use crate::figure::write_figure;
use crate::files::write_json;
use crate::progress::Progress;
use crate::recipe::{Head, Paths, ScorerEvaluation, ScorerRollouts};
use crate::resume::Damaged;
use crate::{identity, interrupt};

/// `results.json` of a scorer run.
#[derive(Serialize)]
struct Results<'a> {
    recipe: &'a str,
    seed: u64,
    scorer: Vec<ScorerReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    evaluation: Vec<Row>,
}

/// Makes `RUN/scorer` and `RUN/results.json`; returns the results for a program, or lines about them.
///
/// # Errors
/// What stopped a stage; what was finished stays.
pub(crate) fn execute(inputs: &ScorerInputs<'_>, json: bool) -> Result<String> {
    let ScorerInputs { recipe, run, .. } = inputs;
    let procedures: usize = recipe.evaluation.iter().map(|one| one.procedures.len()).sum();
    let of_policies: usize =
        recipe.policy.iter().map(|one| one.evaluation().procedures.len()).sum();
    let others = inputs.reward_models.len() + of_policies;
    let mut progress = Progress::new(3 + procedures + others);
    rewards::train(&inputs.reward_models, run, recipe.seed, &mut progress)?;
    let build = |head: &Head| rewards::build(&head.reward, run, &inputs.device);
    let heads = recipe.head.iter().map(build).collect::<Result<Vec<_>>>()?;
    let base = inputs.base.clone().for_inference();
    let sampling = Rewarded { inputs, base: base.as_ref(), heads: &heads };
    let ScorerRollouts { samples, held_out } = recipe.rollouts;
    let training = sampling.responses("rollouts", &inputs.train, samples, &mut progress)?;
    let held_out = sampling.responses("held-out", &inputs.test, held_out, &mut progress)?;
    let training = [training, sampling.completions()?].concat();
    let dir = run.join("scorer");
    let data = ScorerData { base: base.as_ref(), responses: &training };
    let held_out = ScorerData { base: base.as_ref(), responses: &held_out };
    let reports = inputs.train(&dir, &data, &held_out, &mut progress)?;
    let mut rows = inputs.evaluate(&dir, base.as_ref(), &mut progress)?;
    if !recipe.policy.is_empty() {
        let guide = inputs.guide(&dir, true)?;
        rows.extend(policies::rows(inputs, &heads, &guide, &mut progress)?);
    }
    if !rows.is_empty() {
        write_figure(run, "reward-kl", &figures::reward_against_kl(&recipe.head, &rows))?;
    }
    let text: Vec<String> = reports.iter().map(summary).chain(rows.iter().map(Row::line)).collect();
    let results =
        Results { recipe: &recipe.name, seed: recipe.seed, scorer: reports, evaluation: rows };
    write_json(&run.join(RESULTS), &results)?;
    if json {
        return Ok(serde_json::to_string_pretty(&results)?);
    }
    Ok(format!("{}:\n{}", dir.display(), text.join("\n")))
}

/// One line for people.
fn summary(report: &ScorerReport) -> String {
    let LengthReport { prefixes, error, deviation, bias, accuracy, .. } = &report.all;
    let accuracy =
        accuracy.map_or(String::new(), |share| format!(", {share:.3} of pairs in order"));
    format!(
        "{}: error {error:.3} (mean reward: {deviation:.3}), bias {bias:+.3}{accuracy}, on {prefixes} held-out prefixes",
        report.name
    )
}

impl ScorerInputs<'_> {
    /// Trains the scorer into `dir` and says how it does on what was held out.
    fn train(
        &self,
        dir: &Path,
        data: &ScorerData<'_>,
        held_out: &ScorerData<'_>,
        progress: &mut Progress,
    ) -> Result<Vec<ScorerReport>> {
        let config = &self.recipe.train;
        let bar = progress.stage("scorer", config.steps);
        let mut observe = |step: &FitMetrics| bar.set(step.step, format!("loss {:.3}", step.loss));
        let checkpoints = self.run.join("checkpoints/scorer");
        let seed = self.recipe.seed;
        let model = train_prefix_scorer(
            self.new_scorer(data.responses)?,
            data,
            config,
            seed,
            &checkpoints,
            &mut observe,
            interrupt::flag(),
        )?;
        let reports = ScorerReport::measure(&model, held_out, self.recipe.rollouts.held_out)?;
        if !dir.exists() {
            write_dir_atomic::<anyhow::Error>(dir, |folder| {
                model.save(folder)?;
                self.tokenizer.save(folder)?;
                write_json(&folder.join("report.json"), &reports)?;
                for report in &reports {
                    let name = format!("calibration-{}", report.name);
                    write_figure(folder, &name, &figures::calibration(report))?;
                }
                Ok(())
            })?;
        }
        bar.finish(format!("{} responses", data.responses.len()));
        Ok(reports)
    }

    /// Runs the procedures of the recipe with the scorer.
    fn evaluate(
        &self,
        dir: &Path,
        base: &dyn LanguageModel,
        progress: &mut Progress,
    ) -> Result<Vec<Row>> {
        let other = self.evaluation_base.clone().map(CausalLm::for_inference);
        let guide = self.guide(dir, other.is_some())?;
        let rewards = |head: &Head| rewards::build(&head.reward, self.run, &self.device);
        let evaluator = self.evaluator(other.as_deref().unwrap_or(base), None, &guide, &rewards);
        evaluator.run(&self.recipe.evaluation, self.run, progress)
    }

    /// What a procedure makes of a policy that was trained from the base.
    ///
    /// # Errors
    /// When it cannot be run.
    fn on_policy(
        &self,
        guide: &Guide,
        trained: Trained<'_>,
        procedure: Composed,
        evaluation: &ScorerEvaluation,
    ) -> Result<Row> {
        let policy = trained.policy.clone().for_inference();
        let rewards = |head: &Head| rewards::build(&head.reward, self.run, &self.device);
        self.evaluator(policy.as_ref(), Some(trained), guide, &rewards).row(procedure, evaluation)
    }

    fn evaluator<'e>(
        &'e self,
        model: &'e dyn LanguageModel,
        trained: Option<Trained<'e>>,
        guide: &'e Guide,
        rewards: &'e dyn Fn(&Head) -> Result<Box<dyn Reward>>,
    ) -> ScorerEvaluator<'e> {
        ScorerEvaluator {
            generator: self.generator(model, "evaluate"),
            trained,
            tokenizer: &self.tokenizer,
            prompts: &self.test,
            heads: &self.recipe.head,
            rewards,
            guide,
        }
    }

    /// The scorer that was trained.
    ///
    /// - elsewhere: whether it guides another model than the base, whose states then are not those that it reads.
    ///
    /// # Errors
    /// When its files are damaged.
    fn guide(&self, dir: &Path, elsewhere: bool) -> Result<Guide> {
        let (values, own) =
            ScorerModel::load(dir, &self.device).with_context(|| Damaged::at(dir))?.for_inference();
        let states = elsewhere.then(|| self.base.clone().for_states());
        Ok(Guide { values, trunk: own.or(states) })
    }

    /// What draws responses of a model.
    fn generator<'g>(&'g self, model: &'g dyn LanguageModel, stage: &'g str) -> Generator<'g> {
        Generator {
            model,
            stops: self.tokenizer.stops(),
            sampling: self.recipe.generation.clone(),
            seed: self.recipe.seed,
            stage,
            batch: self.recipe.batch,
            stop_texts: None,
            watch: None,
        }
    }

    fn new_scorer(&self, responses: &[ScoredResponse]) -> Result<ScorerModel> {
        let head = |(index, head): (usize, &Head)| {
            let rewards = responses.iter().map(|one| f64::from(one.rewards[index]));
            scored(&head.name, &rewards.collect::<Vec<f64>>()).with_context(|| key(head))
        };
        let heads = self.recipe.head.iter().enumerate().map(head).collect::<Result<_>>()?;
        let config = self.trunk.as_ref().unwrap_or(&self.base).config();
        let folder = Paths { run: self.run }.model(&self.recipe.model)?;
        let spec = ScorerSpec {
            heads,
            vocabulary: config.vocab_size,
            hidden: config.hidden_size,
            width: self.recipe.train.width,
            own_trunk: self.trunk.is_some(),
            soft: self.recipe.train.soft,
            base: self.base_folder.clone(),
            base_sha256: identity::weights(&folder)?,
        };
        let (mut stream, mut position) = (Stream::new(self.recipe.seed, "scorer-head", "", 0), 0);
        let mut normal = || {
            position += 1;
            stream.normal(position) as f32
        };
        Ok(ScorerModel::new(spec, self.trunk.clone(), &mut normal, &self.device)?)
    }
}

/// Why a run cannot be gone on with: all rewards of a head are the same, and would be again.
#[derive(Debug)]
pub(super) struct NothingToLearn {
    count: usize,
    reward: f64,
}

impl fmt::Display for NothingToLearn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, reward } = self;
        write!(
            f,
            "all {count} rewards are {reward}: there is nothing to learn; give the head another reward, or raise rollouts.samples"
        )
    }
}

impl std::error::Error for NothingToLearn {}

/// How the rewards of a head are distributed.
fn scored(name: &str, rewards: &[f64]) -> Result<ScoredReward> {
    let count = rewards.len() as f64;
    let mean = rewards.iter().sum::<f64>() / count;
    let scale = (rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / count).sqrt();
    ensure!(scale > 0.0, NothingToLearn { count: rewards.len(), reward: mean });
    let least = rewards.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Ok(ScoredReward { name: name.to_owned(), mean, scale, least, greatest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewards_that_are_all_the_same_teach_nothing() {
        assert_eq!(scored("a", &[1.0, 3.0]).unwrap().mean, 2.0);
        let error = scored("a", &[12.0; 3]).err().unwrap().context("[[head]] \"a\"");
        assert!(error.is::<NothingToLearn>(), "{error:#}");
        assert!(format!("{error:#}").contains("all 3 rewards are 12: "), "{error:#}");
    }
}
