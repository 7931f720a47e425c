//! `task = "scorer"`: responses of a base, their rewards, and a prefix scorer that learns from them.

mod completions;
mod difference;
mod evaluation;
mod figures;
mod inputs;
mod listing;
mod measures;
mod memory;
mod models;
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
    BestCheckpoint, FitMetrics, LengthReport, ScoredResponse, ScorerData, ScorerReport,
    fitted_steps, train_prefix_scorer,
};
use infalign_transform::Composed;
use serde::Serialize;

pub(crate) use self::difference::{Difference, difference};
use self::evaluation::{Guide, ScorerEvaluator, Trained};
pub(crate) use self::inputs::ScorerInputs;
use self::inputs::key;
use self::measures::Measures;
pub(crate) use self::memory::check_memory;
use self::responses::Rewarded;
pub(crate) use self::row::{Measure, Row};
use super::made_by::MadeBy;
use super::rewards;
use super::run_dir::RESULTS;
use crate::figure::write_figure;
use crate::files::write_json;
use crate::progress::Progress;
use crate::recipe::{Head, Paths, ScorerEvaluation, ScorerRollouts};
use crate::resume::Damaged;
use crate::{identity, interrupt};

/// The base's responses that the scorer learns from: their stage, and their file.
const ROLLOUTS: &str = "rollouts";
/// Those that values are measured on.
const HELD_OUT: &str = "held-out";

/// `results.json` of a scorer run.
#[derive(Serialize)]
struct Results<'a> {
    recipe: &'a str,
    seed: u64,
    /// The checkpoint that validation prompts chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    best: Option<BestCheckpoint>,
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
    let mut progress = Progress::new(stages(inputs));
    let made_by = MadeBy::of(run)?;
    rewards::train(&inputs.reward_models, &made_by, run, recipe.seed, &mut progress)?;
    let build = |(_, config)| rewards::build_to_work(config, run, &inputs.device);
    let all_rewards = recipe.measures().map(build).collect::<Result<Vec<_>>>()?;
    let heads = &all_rewards[..recipe.head.len()];
    let base = inputs.base.clone().for_inference();
    let sampling = Rewarded { inputs, base: base.as_ref(), model: &recipe.model, heads };
    let ScorerRollouts { samples, held_out, validation } = recipe.rollouts;
    let training =
        sampling.responses((ROLLOUTS, ROLLOUTS), &inputs.train, samples, &mut progress)?;
    let held_out =
        sampling.responses((HELD_OUT, HELD_OUT), &inputs.test, held_out, &mut progress)?;
    let (learned, validation) = training.split_at(samples * (inputs.train.len() - validation));
    let learned = [learned, &sampling.completions()?].concat();
    let dir = run.join("scorer");
    let data = ScorerData { base: base.as_ref(), responses: &learned, validation };
    let (reports, best) = inputs.train(&dir, &data, &held_out, &made_by, &mut progress)?;
    let rows =
        inputs.evaluate(&dir, (&sampling, held_out), &all_rewards, &made_by, &mut progress)?;
    if !rows.is_empty() {
        write_figure(run, "reward-kl", &figures::reward_against_kl(recipe, &rows))?;
        write_figure(run, "win-rate-kl", &figures::win_rate_against_kl(recipe, &rows))?;
    }
    let mut text: Vec<String> = best.iter().map(ToString::to_string).collect();
    text.extend(reports.iter().map(summary));
    if !rows.is_empty() {
        let rewards: Vec<&str> = recipe.measures().map(|(name, _)| name).collect();
        text.push(format!("\n{}", listing::table(&rows, &rewards)));
    }
    let results = Results {
        recipe: &recipe.name,
        seed: recipe.seed,
        best,
        scorer: reports,
        evaluation: rows,
    };
    write_json(&run.join(RESULTS), &results)?;
    if json {
        return Ok(serde_json::to_string_pretty(&results)?);
    }
    Ok(format!("{}:\n{}", dir.display(), text.join("\n")))
}

/// How many stages the run has.
fn stages(ScorerInputs { recipe, reward_models, .. }: &ScorerInputs<'_>) -> usize {
    let procedures: usize = recipe.evaluation.iter().map(|one| one.procedures.len()).sum();
    let of_policies: usize =
        recipe.policy.iter().map(|one| one.evaluation().procedures.len()).sum();
    let other_base = usize::from(recipe.evaluation_base.is_some());
    3 + reward_models.len() + procedures + of_policies + other_base
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
        held_out: &[ScoredResponse],
        made_by: &MadeBy,
        progress: &mut Progress,
    ) -> Result<(Vec<ScorerReport>, Option<BestCheckpoint>)> {
        let config = &self.recipe.train;
        let checkpoints = self.run.join("checkpoints/scorer");
        if dir.exists() {
            made_by.check_trained(dir, &checkpoints)?;
        }
        made_by.check_checkpoints(&checkpoints)?;
        // Of a damaged checkpoint, training tells.
        let done = fitted_steps(&checkpoints).unwrap_or(0);
        let bar = progress.resumed("scorer", config.steps, done);
        let mut observe = |step: &FitMetrics| bar.set(step.step, format!("loss {:.3}", step.loss));
        let seed = self.recipe.seed;
        let (model, best) = train_prefix_scorer(
            self.new_scorer(data.responses)?,
            data,
            config,
            seed,
            &checkpoints,
            &mut observe,
            interrupt::flag(),
        )?;
        let samples = self.recipe.rollouts.held_out;
        let reports = ScorerReport::measure(&model, data.base, held_out, samples)?;
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
        let kept = best.map_or(String::new(), |best| format!(", {best}"));
        bar.finish(format!("{} responses{kept}", data.responses.len()));
        Ok((reports, best))
    }

    /// Runs the procedures of the recipe with the scorer, and samples its policies.
    ///
    /// - `sampling`, `held_out`: what draws the base's responses, and those to the prompts held out.
    /// - `all_rewards`: of the heads, and of the judge where there is one.
    fn evaluate(
        &self,
        dir: &Path,
        (sampling, held_out): (&Rewarded<'_>, Vec<ScoredResponse>),
        all_rewards: &[Box<dyn Reward>],
        made_by: &MadeBy,
        progress: &mut Progress,
    ) -> Result<Vec<Row>> {
        if self.recipe.evaluation.is_empty() && self.recipe.policy.is_empty() {
            return Ok(Vec::new());
        }
        let other = self.evaluation_base.clone().map(CausalLm::for_inference);
        let model = other.as_deref().unwrap_or(sampling.base);
        let plain = match &self.recipe.evaluation_base {
            None => held_out,
            Some(path) => Rewarded { base: model, model: path, ..*sampling }.responses(
                (HELD_OUT, "evaluation-base"),
                &self.test,
                self.recipe.rollouts.held_out,
                progress,
            )?,
        };
        let measures = Measures::new(self, all_rewards, &plain);
        let guide = self.guide(dir, other.is_some())?;
        let rewards = |head: &Head| rewards::build_to_work(&head.reward, self.run, &self.device);
        let evaluator = self.evaluator(model, None, (&measures, &guide), &rewards);
        let mut rows = evaluator.run(&self.recipe.evaluation, self.run, made_by, progress)?;
        if !self.recipe.policy.is_empty() {
            let guide = self.guide(dir, true)?;
            let first = all_rewards[0].as_ref();
            rows.extend(policies::rows(self, first, (&measures, &guide), made_by, progress)?);
        }
        Ok(rows)
    }

    /// What a procedure makes of a policy that was trained from the base.
    ///
    /// # Errors
    /// When it cannot be run.
    fn on_policy(
        &self,
        with: (&Measures<'_>, &Guide),
        trained: Trained<'_>,
        procedure: Composed,
        evaluation: &ScorerEvaluation,
    ) -> Result<Row> {
        let policy = trained.policy.clone().for_inference();
        let rewards = |head: &Head| rewards::build_to_work(&head.reward, self.run, &self.device);
        self.evaluator(policy.as_ref(), Some(trained), with, &rewards).row(procedure, evaluation)
    }

    fn evaluator<'e>(
        &'e self,
        model: &'e dyn LanguageModel,
        trained: Option<Trained<'e>>,
        (measures, guide): (&'e Measures<'e>, &'e Guide),
        rewards: &'e dyn Fn(&Head) -> Result<Box<dyn Reward>>,
    ) -> ScorerEvaluator<'e> {
        ScorerEvaluator {
            generator: self.generator(model, "evaluate"),
            trained,
            tokenizer: &self.tokenizer,
            prompts: &self.test,
            heads: &self.recipe.head,
            rewards,
            measures,
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
        let (stops, sampling) = (self.tokenizer.stops(), &self.recipe.generation);
        Generator::new(model, stops, sampling, self.recipe.seed, stage, self.recipe.batch)
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
            base_sha256: identity::model(&folder)?,
        };
        let mut normal = Stream::new(self.recipe.seed, "scorer-head", "", 0).normals(1);
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
