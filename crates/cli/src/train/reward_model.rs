//! Training a reward model: a task of its own, and the first stages of an align run.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use infalign_backend::Device;
use infalign_evaluate::{Curve, Figure, Panel, Point};
use infalign_model::{CausalLm, SequenceClassifier, Tokenizer};
use infalign_record::atomic::write_dir_atomic;
use infalign_stats::{Interval, ReliabilityBin, paired_difference};
use infalign_train::{
    BestCheckpoint, FitMetrics, RewardModelData, RewardModelReport, fitted_steps,
    train_reward_model,
};
use serde::Serialize;

use super::inputs::warn_of_warmup;
use super::made_by::MadeBy;
use super::reward_data::{Planted, RewardData, RewardDataReader};
use super::run_dir::RESULTS;
use super::without_effect::warn_of_validation;
use crate::encode::Encoder;
use crate::figure::write_figure;
use crate::files::write_json;
use crate::interrupt;
use crate::progress::Progress;
use crate::recipe::{Paths, RewardModelRecipe, RewardModelStage};

/// Confidence level of the phrase's effect.
const LEVEL: f64 = 0.95;

/// Everything that the training of a reward model reads, loaded and checked.
pub(crate) struct RewardModelInputs<'a> {
    pub(crate) stage: &'a RewardModelStage,
    base: CausalLm,
    tokenizer: Tokenizer,
    data: RewardData,
}

/// How a reward model does on what was held out.
#[derive(Serialize)]
pub(crate) struct Report {
    /// The checkpoint that validation examples chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    best: Option<BestCheckpoint>,
    /// Without a planted phrase.
    #[serde(flatten)]
    clean: RewardModelReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    planted: Option<PlantedReport>,
}

/// What a planted phrase does.
#[derive(Serialize)]
struct PlantedReport {
    /// On held-out texts into which the phrase is planted as into those trained on.
    #[serde(flatten)]
    like_training: RewardModelReport,
    /// What the phrase adds to the score of a held-out text.
    effect: Interval,
}

impl<'a> RewardModelInputs<'a> {
    /// Loads and checks all that a recipe trains.
    ///
    /// # Errors
    /// As [`RewardModelInputs::load`]; the message names the stage.
    pub(super) fn load_all(
        stages: &'a [RewardModelStage],
        paths: &Paths<'_>,
        device: &Device,
    ) -> Result<Vec<Self>> {
        let load = |stage: &'a RewardModelStage| {
            let loaded = Self::load(stage, paths, device);
            loaded.with_context(|| format!("[[reward_model]] {:?}", stage.name))
        };
        stages.iter().map(load).collect()
    }

    /// Loads and checks, and says what people are to know of the data.
    ///
    /// # Errors
    /// One sentence that names the key, or the file and its line.
    pub(crate) fn load(
        stage: &'a RewardModelStage,
        paths: &Paths<'_>,
        device: &Device,
    ) -> Result<Self> {
        let folder = paths.model(&stage.base)?;
        let base = CausalLm::load(&folder, device).context("base")?;
        let tokenizer = Tokenizer::load(&folder, base.config())?;
        if let Some(lora) = &stage.train.lora {
            // That its modules are there, before any work is begun.
            let model = SequenceClassifier::on(base.clone(), tokenizer.pad());
            model.with_new_adapter(lora.clone(), &mut || 0.0).context("train.lora")?;
        }
        let reader = RewardDataReader {
            stage,
            paths,
            tokenizer: &tokenizer,
            encoder: Encoder::new(&tokenizer),
            config: base.config(),
        };
        let data = reader.read()?;
        if let Some(validation) = &data.validation {
            let share = stage.validation;
            ensure!(
                !validation.is_empty(),
                "validation is {share}: nothing falls into so small a share; set more aside, or nothing"
            );
            ensure!(
                !data.training.is_empty(),
                "validation is {share}: nothing is left to learn from; set less aside"
            );
        }
        stage.train.check(&data.training).context("train")?;
        data.held_out.check_held_out().context("held_out")?;
        let key = format!("reward model {}: train", stage.name);
        warn_of_warmup(&key, &stage.train.optimizer, stage.train.steps);
        if data.validation.is_some() {
            let told = format!("reward model {}: validation is {}", stage.name, stage.validation);
            warn_of_validation(&told, stage.train.steps, stage.train.checkpoint_every);
        }
        data.notes.iter().for_each(|note| tell!("reward model {}: {note}", stage.name));
        Ok(Self { stage, base, tokenizer, data })
    }

    /// Trains the model into the folder `dir`, with `report.json` and, for pairs, `calibration-curve.svg` and `.png` beside it.
    ///
    /// # Errors
    /// What stopped the training; the newest checkpoint stays.
    pub(crate) fn train(
        &self,
        (dir, checkpoints): (&Path, &Path),
        seed: u64,
        progress: &mut Progress,
    ) -> Result<Report> {
        let config = &self.stage.train;
        // Of a damaged checkpoint, training tells.
        let done = fitted_steps(checkpoints).unwrap_or(0);
        let bar = progress.resumed(&self.title(), config.steps, done);
        let mut observe = |step: &FitMetrics| bar.set(step.step, format!("loss {:.3}", step.loss));
        let RewardData { training, validation, .. } = &self.data;
        let (model, best) = train_reward_model(
            SequenceClassifier::on(self.base.clone(), self.tokenizer.pad()),
            RewardModelData { training, validation: validation.as_ref() },
            config,
            seed,
            checkpoints,
            &mut observe,
            interrupt::flag(),
        )?;
        let report = self.report(&model, best)?;
        self.save(&model, &report, dir)?;
        bar.finish(report.summary());
        Ok(report)
    }

    fn save(&self, model: &SequenceClassifier, report: &Report, dir: &Path) -> Result<()> {
        write_dir_atomic(dir, |folder| {
            model.save(folder)?;
            self.tokenizer.save(folder)?;
            write_json(&folder.join("report.json"), report)?;
            let curve = &report.clean.reliability;
            if !curve.is_empty() {
                let figure = calibration_curve(&self.stage.name, curve);
                write_figure(folder, "calibration-curve", &figure)?;
            }
            Ok(())
        })
    }

    /// What the stage is called.
    pub(crate) fn title(&self) -> String {
        format!("reward model {}", self.stage.name)
    }

    fn report(&self, model: &SequenceClassifier, best: Option<BestCheckpoint>) -> Result<Report> {
        let clean = RewardModelReport::measure(model, &self.data.held_out)?;
        let planted = self.data.planted.as_ref();
        let planted = planted.map(|planted| self.planted(model, planted)).transpose()?;
        Ok(Report { best, clean, planted })
    }

    fn planted(&self, model: &SequenceClassifier, planted: &Planted) -> Result<PlantedReport> {
        let scores = |texts: &[Vec<u32>]| -> Result<Vec<f64>> {
            Ok(model.scores(texts)?.into_iter().map(f64::from).collect())
        };
        let (with, without) = (scores(&planted.with_phrase)?, scores(&planted.without)?);
        let effect = paired_difference(&with, &without, LEVEL)?;
        let like_training = RewardModelReport::measure(model, &planted.like_training)?;
        Ok(PlantedReport { like_training, effect })
    }
}

impl Report {
    /// One line for people.
    fn summary(&self) -> String {
        let RewardModelReport { examples, pairs, prompts, accuracy, log_loss, correlation, .. } =
            &self.clean;
        let Interval { estimate, low, high, .. } = accuracy;
        let mut text = format!(
            "held out {examples}: accuracy {estimate:.3} [{low:.3}, {high:.3}] on {pairs} pairs"
        );
        text += &prompts.map_or(String::new(), |prompts| format!(" of {prompts} prompts"));
        text += &log_loss.map_or(String::new(), |loss| format!(", log-loss {loss:.3}"));
        text += &correlation.map_or(String::new(), |value| format!(", correlation {value:.3}"));
        if let Some(PlantedReport { like_training, effect }) = &self.planted {
            let accuracy = like_training.accuracy.estimate;
            let effect = effect.estimate;
            text += &format!("; planted: accuracy {accuracy:.3}, the phrase adds {effect:+.3}");
        }
        text += &self.best.map_or(String::new(), |best| format!("; {best}"));
        text
    }
}

/// The reliability curve of a model that says how probable the order of a pair is.
fn calibration_curve(name: &str, bins: &[ReliabilityBin]) -> Figure {
    const IDEAL: &str = "calibrated";
    let point = |bin: &ReliabilityBin| Point {
        name: name.to_owned(),
        x: bin.forecast,
        y: [bin.observed.estimate, bin.observed.low, bin.observed.high],
        label: Some(bin.n.to_string()),
    };
    Figure {
        title: format!("{name}: what the reward model expects, and how it is"),
        legend: vec![IDEAL.to_owned(), name.to_owned()],
        note: "bars: 95 % intervals; numbers: pairs".to_owned(),
        axes: ["σ(difference of the scores)", "share of pairs whose first text was preferred"]
            .map(str::to_owned),
        panels: vec![Panel {
            title: "held-out pairs".to_owned(),
            points: bins.iter().map(point).collect(),
            curves: vec![Curve { name: IDEAL.to_owned(), points: vec![(0.0, 0.0), (1.0, 1.0)] }],
            ..Panel::default()
        }],
    }
}

/// `results.json` of a reward-model run.
#[derive(Serialize)]
struct Results<'a> {
    recipe: &'a str,
    seed: u64,
    reward_model: Report,
}

/// Makes `RUN/reward-model` and `RUN/results.json`; returns the results for a program, or a sentence about them.
///
/// # Errors
/// When the model cannot be trained or a file cannot be written.
pub(crate) fn execute(
    recipe: &RewardModelRecipe,
    inputs: &RewardModelInputs<'_>,
    run: &Path,
    json: bool,
) -> Result<String> {
    let dir = run.join("reward-model");
    let checkpoints = run.join("checkpoints");
    MadeBy::of(run)?.check_checkpoints(&checkpoints)?;
    let report = inputs.train((&dir, &checkpoints), recipe.seed, &mut Progress::new(1))?;
    let text = format!("{}: {}", dir.display(), report.summary());
    let results = Results { recipe: &recipe.stage.name, seed: recipe.seed, reward_model: report };
    write_json(&run.join(RESULTS), &results)?;
    Ok(if json { serde_json::to_string_pretty(&results)? } else { text })
}
