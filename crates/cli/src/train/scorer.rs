//! `task = "scorer"`: responses of a base, their rewards, and a prefix scorer that learns from them.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use infalign_backend::Device;
use infalign_calibrate::CalibrationMeta;
use infalign_calibrate::rollouts::{self, Rollouts};
use infalign_data::Prompt;
use infalign_decode::{EncodedPrompt, Generator, Stream};
use infalign_evaluate::{Curve, Figure, Panel, Point};
use infalign_model::{
    CausalLm, LanguageModel, ScoredReward, ScorerModel, ScorerSpec, Sequence, Tokenizer,
};
use infalign_record::atomic::{write_atomic, write_dir_atomic};
use infalign_reward::Reward;
use infalign_train::{
    Filled, FitMetrics, LengthReport, ReferenceRewards, ScoredResponse, ScorerData, ScorerReport,
    ValueBin, train_prefix_scorer,
};
use serde::Serialize;

use super::calibration::BATCHES_PER_BLOCK;
use super::given::GivenReader;
use super::inputs::{check_names, check_sampling, fitting, read_prompts};
use super::reward_model::RewardModelInputs;
use super::rewards;
use super::run_dir::RESULTS;
use super::scorer_evaluation::{Row, ScorerEvaluator};
use super::stages::{stop_if, write_json};
use crate::encode::Encoder;
use crate::figure::write_figure;
use crate::identity;
use crate::progress::Progress;
use crate::recipe::{Head, Paths, ScorerRecipe};

/// Everything that a scorer recipe reads, loaded and checked.
pub(crate) struct ScorerInputs<'a> {
    recipe: &'a ScorerRecipe,
    run: &'a Path,
    device: Device,
    base: CausalLm,
    base_folder: PathBuf,
    tokenizer: Tokenizer,
    trunk: Option<CausalLm>,
    train: Vec<EncodedPrompt>,
    test: Vec<EncodedPrompt>,
    template_sha256: String,
    completions: Vec<Sequence>,
    reward_models: Vec<RewardModelInputs<'a>>,
}

/// `results.json` of a scorer run.
#[derive(Serialize)]
struct Results<'a> {
    recipe: &'a str,
    seed: u64,
    scorer: Vec<ScorerReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    evaluation: Vec<Row>,
}

impl<'a> ScorerInputs<'a> {
    /// Loads and checks.
    ///
    /// # Errors
    /// One sentence that names the file, the key or the prompt at fault.
    pub(crate) fn load(recipe: &'a ScorerRecipe, run: &'a Path, device: &Device) -> Result<Self> {
        let paths = Paths { run };
        recipe.check()?;
        check_sampling(&recipe.generation)?;
        check_names("head", recipe.head.iter().map(|head| head.name.as_str()))?;
        let keyed: Vec<_> = recipe.head.iter().map(|head| (key(head), &head.reward)).collect();
        rewards::check(&recipe.reward_model, &keyed)?;
        let folder = paths.model(&recipe.model)?;
        let base = CausalLm::load(&folder, device).context("model")?;
        let tokenizer = Tokenizer::load(&folder, base.config())?;
        let trunk =
            recipe.trunk.as_ref().map(|trunk| load_trunk(trunk, &paths, &base, &tokenizer, device));
        let trunk = trunk.transpose().context("trunk")?;
        let (train, test) = read_prompts(&recipe.prompts, &paths)?;
        // A run is the same whenever it is done, so a chat template that asks for the time gets none.
        let encoder = Encoder::new(&tokenizer, None);
        let template_sha256 = encoder.template_sha256(&train)?;
        let encode = |prompts: &[Prompt]| -> Result<Vec<EncodedPrompt>> {
            let most = recipe.generation.max_tokens;
            prompts.iter().map(|prompt| fitting(prompt, &encoder, &base, most)).collect()
        };
        let (train, test) = (encode(&train)?, encode(&test)?);
        let reader =
            GivenReader { paths: &paths, encoder: &encoder, tokenizer: &tokenizer, model: &base };
        let completions = reader.completions(&recipe.completions).context("completions")?;
        let reward_models = recipe.reward_model.iter().map(|stage| {
            let loaded = RewardModelInputs::load(stage, &paths, device);
            loaded.with_context(|| format!("[[reward_model]] {:?}", stage.name))
        });
        let reward_models = reward_models.collect::<Result<_>>()?;
        for (key, config) in keyed {
            if !rewards::is_own(config) {
                rewards::build(config, run, device).with_context(|| key)?;
            }
        }
        Ok(Self {
            recipe,
            run,
            device: device.clone(),
            base,
            base_folder: folder.path().to_path_buf(),
            tokenizer,
            trunk,
            train,
            test,
            template_sha256,
            completions,
            reward_models,
        })
    }
}

/// What messages call a head.
fn key(head: &Head) -> String {
    format!("[[head]] {:?}", head.name)
}

/// Loads what a scorer's own trunk starts from.
fn load_trunk(
    trunk: &Path,
    paths: &Paths<'_>,
    base: &CausalLm,
    tokenizer: &Tokenizer,
    device: &Device,
) -> Result<CausalLm> {
    let folder = paths.model(trunk)?;
    let trunk = CausalLm::load(&folder, device)?.merge()?;
    ensure!(
        tokenizer.has_tokens_of(&folder.tokenizer()?)?
            && trunk.config().vocab_size == base.config().vocab_size,
        "{} has another tokenizer than the base: a scorer reads the base's tokens",
        folder.path().display()
    );
    let (own, context) =
        (trunk.config().max_position_embeddings, base.config().max_position_embeddings);
    ensure!(
        own >= context,
        "{} reads {own} tokens, but the base {context}: a scorer must read whatever the base can write",
        folder.path().display()
    );
    Ok(trunk)
}

/// Makes `RUN/scorer` and `RUN/results.json`; returns the results for a program, or lines about them.
///
/// # Errors
/// What stopped a stage; what was finished stays.
pub(crate) fn execute(
    inputs: &ScorerInputs<'_>,
    json: bool,
    interrupted: &AtomicBool,
) -> Result<String> {
    let ScorerInputs { recipe, run, .. } = inputs;
    let procedures: usize = recipe.evaluation.iter().map(|one| one.procedures.len()).sum();
    let mut progress = Progress::new(inputs.reward_models.len() + 3 + procedures);
    rewards::train(&inputs.reward_models, run, recipe.seed, &mut progress, interrupted)?;
    let build = |head: &Head| rewards::build(&head.reward, run, &inputs.device);
    let heads = recipe.head.iter().map(build).collect::<Result<Vec<_>>>()?;
    let base = inputs.base.clone().for_inference();
    let sampling = Rewarded { inputs, base: base.as_ref(), heads: &heads };
    let training = sampling.responses(
        "rollouts",
        &inputs.train,
        recipe.rollouts.samples,
        &mut progress,
        interrupted,
    )?;
    let held_out = sampling.responses(
        "held-out",
        &inputs.test,
        recipe.rollouts.held_out,
        &mut progress,
        interrupted,
    )?;
    let training = [training, sampling.completions()?].concat();
    let dir = run.join("scorer");
    let data = ScorerData { base: base.as_ref(), responses: &training };
    let held_out = ScorerData { base: base.as_ref(), responses: &held_out };
    let reports = inputs.train(&dir, &data, &held_out, &mut progress, interrupted)?;
    let rows = inputs.evaluate(&dir, base.as_ref(), &mut progress, interrupted)?;
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
        interrupted: &AtomicBool,
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
            interrupted,
        )?;
        let reports = ScorerReport::measure(&model, held_out, self.recipe.rollouts.held_out)?;
        if !dir.exists() {
            write_dir_atomic::<anyhow::Error>(dir, |folder| {
                model.save(folder)?;
                self.tokenizer.save(folder)?;
                write_json(&folder.join("report.json"), &reports)?;
                for report in &reports {
                    let name = format!("calibration-{}", report.name);
                    write_figure(folder, &name, &figure(report))?;
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
        interrupted: &AtomicBool,
    ) -> Result<Vec<Row>> {
        let (values, trunk) = ScorerModel::load(dir, &self.device)?.for_inference();
        let rewards = |head: &Head| rewards::build(&head.reward, self.run, &self.device);
        let evaluator = ScorerEvaluator {
            generator: self.generator(base, "evaluate"),
            tokenizer: &self.tokenizer,
            prompts: &self.test,
            heads: &self.recipe.head,
            rewards: &rewards,
            values: &values,
            trunk: trunk.as_deref(),
        };
        evaluator.run(&self.recipe.evaluation, self.run, progress, interrupted)
    }

    /// What draws responses of the base.
    fn generator<'g>(&'g self, base: &'g dyn LanguageModel, stage: &'g str) -> Generator<'g> {
        Generator {
            model: base,
            stops: self.tokenizer.stops(),
            sampling: self.recipe.generation,
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

/// How the rewards of a head are distributed.
fn scored(name: &str, rewards: &[f64]) -> Result<ScoredReward> {
    let count = rewards.len() as f64;
    let mean = rewards.iter().sum::<f64>() / count;
    let scale = (rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / count).sqrt();
    ensure!(scale > 0.0, "all {count} rewards are {mean}: there is nothing to learn");
    let least = rewards.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Ok(ScoredReward { name: name.to_owned(), mean, scale, least, greatest })
}

/// Responses with their rewards.
struct Rewarded<'a> {
    inputs: &'a ScorerInputs<'a>,
    base: &'a dyn LanguageModel,
    heads: &'a [Box<dyn Reward>],
}

impl Rewarded<'_> {
    /// Responses of the base, prompt by prompt, as `RUN/NAME.parquet`, with the rewards of all heads. The file has those of the first.
    fn responses(
        &self,
        name: &str,
        prompts: &[EncodedPrompt],
        samples: usize,
        progress: &mut Progress,
        interrupted: &AtomicBool,
    ) -> Result<Vec<ScoredResponse>> {
        let path = self.inputs.run.join(format!("{name}.parquet"));
        let meta = self.meta()?;
        let rollouts = if path.exists() {
            progress.skip(name);
            let rollouts = rollouts::read(&path)?;
            rollouts.check(&meta, samples).with_context(|| path.display().to_string())?;
            rollouts
        } else {
            let rollouts = self.sample(name, meta, prompts, samples, progress, interrupted)?;
            let mut bytes = Vec::new();
            rollouts::write_to(&rollouts, &mut bytes)?;
            write_atomic(&path, |file| file.write_all(&bytes))?;
            rollouts
        };
        stop_if(interrupted)?;
        self.scored(prompts, &rollouts)
    }

    fn sample(
        &self,
        name: &str,
        meta: CalibrationMeta,
        prompts: &[EncodedPrompt],
        samples: usize,
        progress: &mut Progress,
        interrupted: &AtomicBool,
    ) -> Result<Rollouts> {
        let ScorerInputs { recipe, tokenizer, .. } = self.inputs;
        let bar = progress.stage(name, prompts.len());
        let sampler = self.inputs.generator(self.base, name);
        let responses = ReferenceRewards {
            sampler: &sampler,
            tokenizer,
            reward: self.heads[0].as_ref(),
            samples,
            block: BATCHES_PER_BLOCK * recipe.batch,
        };
        let mut observe = |filled: &Filled| {
            bar.set(filled.prompts, format!("{samples} responses a prompt"));
            let stop = interrupted.load(Ordering::Relaxed);
            if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let rollouts = responses.rollouts(meta, prompts, &mut observe)?.context(
            "stopped; responses of the base are stored once all are there, and are drawn again",
        )?;
        bar.finish(format!("{} prompts, {samples} responses each", rollouts.len()));
        Ok(rollouts)
    }

    /// What responses and the rewards of the first head are made from.
    fn meta(&self) -> Result<CalibrationMeta> {
        let ScorerInputs { recipe, run, .. } = self.inputs;
        let paths = Paths { run };
        let first = &recipe.head[0].reward;
        let reward = identity::reward(first, |path| paths.model(path), |path| paths.resolve(path))?;
        let folder = paths.model(&recipe.model)?;
        let template = self.inputs.template_sha256.clone();
        identity::calibration(&folder, reward, template, &recipe.generation, recipe.seed)
    }

    fn scored(
        &self,
        prompts: &[EncodedPrompt],
        rollouts: &Rollouts,
    ) -> Result<Vec<ScoredResponse>> {
        let mut responses = Vec::new();
        for prompt in prompts {
            for response in rollouts.of(&prompt.text)? {
                let tokens = [prompt.tokens.as_slice(), &response.tokens].concat();
                let sequence = Sequence { tokens, prompt_length: prompt.tokens.len() };
                responses.push((prompt.text.clone(), sequence, Some(response.reward)));
            }
        }
        self.with_rewards(responses)
    }

    /// The responses that files give.
    fn completions(&self) -> Result<Vec<ScoredResponse>> {
        let tokenizer = &self.inputs.tokenizer;
        let given = self.inputs.completions.iter().map(|sequence| {
            let prompt = tokenizer.decode(&sequence.tokens[..sequence.prompt_length])?;
            Ok((prompt, sequence.clone(), None))
        });
        self.with_rewards(given.collect::<Result<_>>()?)
    }

    /// Rewards by every head; that of the first is there already for what a file holds.
    fn with_rewards(
        &self,
        responses: Vec<(String, Sequence, Option<f32>)>,
    ) -> Result<Vec<ScoredResponse>> {
        let tokenizer = &self.inputs.tokenizer;
        let text = |(_, sequence, _): &(String, Sequence, Option<f32>)| {
            let prompt = &sequence.tokens[..sequence.prompt_length];
            Ok(tokenizer.decode_response(prompt, sequence.response())?)
        };
        let texts = responses.iter().map(text).collect::<Result<Vec<String>>>()?;
        let pairs: Vec<(&str, &str)> = responses
            .iter()
            .zip(&texts)
            .map(|((prompt, ..), y)| (prompt.as_str(), y.as_str()))
            .collect();
        let mut rewards = vec![Vec::with_capacity(self.heads.len()); responses.len()];
        for (index, head) in self.heads.iter().enumerate() {
            let known = (index == 0).then(|| responses.iter().map(|(.., r)| *r).collect());
            let known: Option<Vec<f32>> = known.flatten();
            let found = known.map_or_else(|| head.score(&pairs), Ok)?;
            rewards.iter_mut().zip(found).for_each(|(all, reward)| all.push(reward));
        }
        let scored = responses.into_iter().zip(rewards);
        Ok(scored.map(|((_, sequence, _), rewards)| ScoredResponse { sequence, rewards }).collect())
    }
}

/// Values against rewards, one line a range of prefix lengths.
fn figure(report: &ScorerReport) -> Figure {
    const IDEAL: &str = "calibrated";
    let title = |range: &LengthReport| format!("{} to {} tokens", range.from, range.to);
    let shown: Vec<&LengthReport> =
        [0, report.by_length.len() / 2, report.by_length.len().saturating_sub(1)]
            .into_iter()
            .filter_map(|place| report.by_length.get(place))
            .collect();
    let values = || shown.iter().flat_map(|range| &range.calibration).map(|bin| bin.value);
    let low = values().fold(f64::INFINITY, f64::min);
    let high = values().fold(f64::NEG_INFINITY, f64::max);
    let point = |bin: &ValueBin| Point {
        name: report.name.clone(),
        x: bin.value,
        y: [bin.reward; 3],
        label: None,
    };
    let panel = |range: &&LengthReport| Panel {
        title: title(range),
        points: range.calibration.iter().map(point).collect(),
        curves: vec![Curve { name: IDEAL.to_owned(), points: vec![(low, low), (high, high)] }],
        bands: Vec::new(),
    };
    Figure {
        title: format!("{}: values of prefixes, and the rewards that came of them", report.name),
        legend: vec![IDEAL.to_owned(), report.name.clone()],
        note: "points: equally many held-out prefixes each, by value".to_owned(),
        axes: ["mean value", "mean reward"].map(str::to_owned),
        panels: shown.iter().map(panel).collect(),
    }
}
