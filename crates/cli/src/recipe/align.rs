//! `task = "align"`: train a policy by every method and compare them.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use infalign_decode::Sampling;
use infalign_reward::RewardConfig;
use infalign_train::CtrlConfig;
use infalign_transform::Procedure;
use serde::{Deserialize, Serialize};

use super::{Kind, Method, RewardModelStage};

/// A recipe that aligns one model by several methods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AlignRecipe {
    /// `align`.
    pub(crate) task: String,
    /// Name of the recipe, in tables and plots.
    pub(crate) name: String,
    /// Seed of every random draw.
    pub(crate) seed: u64,
    /// Directory of the reference policy π_ref.
    pub(crate) model: PathBuf,
    /// Largest number of responses generated together.
    #[serde(default = "batch")]
    pub(crate) batch: usize,
    /// Where prompts come from.
    pub(crate) prompts: PromptsConfig,
    /// Reward models to train first, into `$RUN/reward-models/NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) reward_model: Vec<RewardModelStage>,
    /// The reward.
    pub(crate) reward: RewardConfig,
    /// How responses are sampled.
    pub(crate) generation: Sampling,
    /// What rewards are calibrated against; for methods that CTRL trains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) calibration: Option<CalibrationConfig>,
    /// Stored reference responses; for methods that learn from such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rollouts: Option<RolloutsConfig>,
    /// The trainer of all methods that CTRL trains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) train: Option<CtrlConfig>,
    /// The methods to compare.
    pub(crate) method: Vec<Method>,
    /// What is measured.
    pub(crate) evaluation: Evaluation,
}

fn batch() -> usize {
    128
}

/// Prompts to train on and prompts held out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum PromptsConfig {
    /// Two JSONL files with `prompt`.
    Files {
        /// Prompts to train on.
        train: PathBuf,
        /// Prompts held out.
        test: PathBuf,
    },
    /// Openings of the stories of one text.
    StoryOpenings {
        /// The text.
        file: PathBuf,
        /// Words of an opening.
        words: usize,
        /// How many of the stories are held out, from the last.
        test: usize,
    },
}

impl AlignRecipe {
    /// Whether rewards are calibrated by a table.
    pub(crate) fn has_table(&self) -> bool {
        self.calibration.as_ref().is_some_and(|calibration| !calibration.group)
    }

    /// Refuses methods without what they need, and tables that no method needs.
    ///
    /// # Errors
    /// One sentence that names the method or the table.
    pub(crate) fn check_methods(&self) -> Result<()> {
        for Method { name, kind } in &self.method {
            kind.check().with_context(|| format!("[[method]] {name:?}"))?;
            if kind.is_ctrl() {
                for (table, given) in
                    [("train", self.train.is_some()), ("calibration", self.calibration.is_some())]
                {
                    let kind = kind.name();
                    ensure!(given, "method {name:?} is of kind \"{kind}\", which needs [{table}]");
                }
            }
            if let Some(needed) = kind.rollouts() {
                let samples = self.rollouts.map_or(0, |rollouts| rollouts.samples);
                ensure!(
                    samples >= needed,
                    "method {name:?} needs {needed} reference responses to a prompt, but rollouts.samples is {samples}"
                );
            }
            ensure!(
                self.has_table() || !kind.needs_table(),
                "calibration.group = true leaves no table of reference rewards, which method {name:?} needs: give calibration.samples or calibration.table"
            );
        }
        self.check_tables()
    }

    fn check_tables(&self) -> Result<()> {
        let any = |of: fn(&Kind) -> bool| self.method.iter().any(|method| of(&method.kind));
        let (ctrl, stored) = (any(Kind::is_ctrl), any(|kind| kind.rollouts().is_some()));
        for (table, given, used) in [
            ("train", self.train.is_some(), ctrl),
            ("calibration", self.calibration.is_some(), ctrl),
            ("rollouts", self.rollouts.is_some(), stored),
        ] {
            ensure!(used || !given, "[{table}] has no effect: no [[method]] uses it");
        }
        Ok(())
    }
}

/// What rewards are calibrated against: one of three.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CalibrationConfig {
    /// K: reference responses a prompt, sampled by the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) samples: Option<usize>,
    /// A table that `infalign calibrate` has made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) table: Option<PathBuf>,
    /// Whether the other responses of the same step take the place of reference responses.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) group: bool,
}

impl CalibrationConfig {
    /// Refuses none or several of the three, and too few samples.
    pub(crate) fn check(&self) -> Result<()> {
        let Self { samples, table, group } = self;
        let given = [samples.is_some(), table.is_some(), *group].into_iter().filter(|given| *given);
        ensure!(
            given.count() == 1,
            "[calibration] needs one of samples = K, table = \"FILE.parquet\" and group = true"
        );
        if let Some(samples) = samples {
            ensure!(*samples >= 2, "calibration.samples is {samples}: at least 2 are needed");
        }
        Ok(())
    }
}

/// Reference responses that are stored for methods that learn from such.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RolloutsConfig {
    /// Responses to each training prompt.
    pub(crate) samples: usize,
}

/// What is measured, on the prompts held out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Evaluation {
    /// Responses a prompt, from the policy and from the reference.
    pub(crate) samples: usize,
    /// Procedures, each on both sides.
    pub(crate) procedures: Vec<Procedure>,
    /// Method that the others are compared with, pair by pair.
    pub(crate) baseline: String,
    /// Another reward that judges the same responses; no policy is trained on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) judge: Option<RewardConfig>,
}
