//! `task = "scorer"`: train a prefix scorer.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use infalign_decode::Sampling;
use infalign_reward::RewardConfig;
use infalign_train::{ScorerConfig, ScorerMethod};
use infalign_transform::{Composed, Procedure};
use serde::{Deserialize, Serialize};

use super::align::batch;
use super::{PromptsConfig, RewardModelStage};
use crate::values::twice;

/// What results call the judge.
const JUDGE: &str = "judge";

/// A recipe that trains a prefix scorer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScorerRecipe {
    task: Task,
    /// Name of the recipe.
    pub(crate) name: String,
    /// Seed of every random draw.
    pub(crate) seed: u64,
    /// The base, whose responses are valued.
    pub(crate) model: PathBuf,
    /// A model with the base's tokenizer from which the scorer's own trunk starts; the base's frozen states are read, where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trunk: Option<PathBuf>,
    /// Largest number of responses generated together.
    #[serde(default = "batch")]
    pub(crate) batch: usize,
    /// Where prompts come from.
    pub(crate) prompts: PromptsConfig,
    /// Reward models to train first, into `$RUN/reward-models/NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) reward_model: Vec<RewardModelStage>,
    /// The rewards, a head each.
    pub(crate) head: Vec<Head>,
    /// Another reward that judges responses; no scorer learns it, and nothing is chosen by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) judge: Option<RewardConfig>,
    /// How responses are sampled.
    pub(crate) generation: Sampling,
    /// Responses of the base.
    pub(crate) rollouts: ScorerRollouts,
    /// Responses of other origin, for CD-Q; each is cut where the base's own would end, at a token that ends responses or `generation.max_tokens`, and rewarded for what is left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) completions: Vec<PathBuf>,
    /// The trainer.
    pub(crate) train: ScorerConfig,
    /// Another model with the base's tokenizer, which procedures draw from in place of the base; the scorer reads on what it was trained on, its own trunk or the base's states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) evaluation_base: Option<PathBuf>,
    /// What procedures are run with the scorer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) evaluation: Vec<ScorerEvaluation>,
    /// Trained policies, which stand beside what procedures make of the base.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) policy: Vec<ScorerPolicy>,
}

/// The task that every such recipe has.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Task {
    Scorer,
}

/// A reward that the scorer has a head for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Head {
    /// Names the head.
    pub(crate) name: String,
    /// Its reward.
    pub(crate) reward: RewardConfig,
}

/// Responses of the base.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScorerRollouts {
    /// Responses to each training prompt.
    pub(crate) samples: usize,
    /// Responses to each prompt held out, on which the values are measured.
    pub(crate) held_out: usize,
    /// How many of the training prompts, the last ones, are not learned from: the loss of their responses chooses the checkpoint that is kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) validation: usize,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Procedures that are run on the prompts held out, with some weights of the rewards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScorerEvaluation {
    /// Responses to each prompt.
    pub(crate) samples: usize,
    /// Name of a head → its weight, for procedures that go by values or rewards; 0 for those that are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) weights: BTreeMap<String, f64>,
    /// The procedures.
    pub(crate) procedures: Vec<Composed>,
}

/// A policy that was trained from the base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScorerPolicy {
    /// Names its method; several of one name, of plain samples alone, are points of one front, such as one for each KL.
    pub(crate) name: String,
    /// The policy.
    pub(crate) model: PathBuf,
    /// Responses to each prompt held out.
    pub(crate) samples: usize,
    /// What is run with it, guided by the scorer of the base where that guides; plain sampling, where nothing is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    procedures: Vec<Composed>,
    /// Name of a head → its weight, for procedures that go by values or rewards.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) weights: BTreeMap<String, f64>,
}

impl ScorerPolicy {
    fn check(&self, heads: &[Head]) -> Result<()> {
        ensure!(!self.name.trim().is_empty(), "it has no name: name its method");
        self.evaluation().check(heads)
    }

    /// The procedures, as they would be run with the base.
    pub(crate) fn evaluation(&self) -> ScorerEvaluation {
        let Self { samples, weights, mut procedures, .. } = self.clone();
        if procedures.is_empty() {
            procedures.push(Procedure::Sample.into());
        }
        ScorerEvaluation { samples, weights, procedures }
    }
}

impl ScorerEvaluation {
    /// Whether nothing but plain sampling is run.
    fn is_plain(&self) -> bool {
        self.procedures.iter().all(|procedure| *procedure == Procedure::Sample.into())
    }

    fn check(&self, heads: &[Head]) -> Result<()> {
        ensure!(self.samples >= 1, "samples is 0: at least 1 is needed");
        ensure!(
            !self.procedures.is_empty(),
            "procedures is empty: name what is run, such as \"sample\""
        );
        if let Some(procedure) = self.procedures.iter().find(|one| one.needs_ranks()) {
            bail!("{procedure} needs a calibration table, which this recipe has not: leave it out");
        }
        if let Some(procedure) = twice(&self.procedures) {
            bail!("procedures has {procedure} twice: leave one out");
        }
        let goes_by_them = |one: &Composed| one.needs_reward() || one.is_guided();
        if self.weights.is_empty() && !self.procedures.iter().any(goes_by_them) {
            return Ok(());
        }
        ensure!(
            !self.is_plain(),
            "weights have no effect on plain samples: leave them out, or name other procedures"
        );
        self.check_weights(heads)
    }

    fn check_weights(&self, heads: &[Head]) -> Result<()> {
        for (name, weight) in &self.weights {
            let known: Vec<&str> = heads.iter().map(|head| head.name.as_str()).collect();
            ensure!(
                known.contains(&name.as_str()),
                "weights has {name:?}, which is no [[head]]: there are {known:?}"
            );
            // Rewards are weighed in f32.
            ensure!(
                (*weight as f32).is_finite(),
                "weights.{name} is {weight:?}: give a number between {:e} and {:e}",
                f32::MIN,
                f32::MAX
            );
        }
        ensure!(
            self.weights.values().any(|weight| *weight as f32 != 0.0),
            "weights has no weight but 0: nothing would be chosen by"
        );
        Ok(())
    }
}

impl ScorerRecipe {
    /// Refuses what contradicts itself.
    ///
    /// # Errors
    /// One sentence that names the key.
    pub(crate) fn check(&self) -> Result<()> {
        self.generation.check().context("[generation]")?;
        ensure!(self.batch >= 1, "batch is 0: at least 1 response has to be generated at a time");
        self.train.check().context("[train]")?;
        ensure!(!self.head.is_empty(), "the recipe has no [[head]]: give at least one reward");
        let ScorerRollouts { samples, held_out, .. } = self.rollouts;
        ensure!(
            samples >= 1 && held_out >= 2,
            "rollouts.samples is {samples} and rollouts.held_out is {held_out}: at least 1 and 2 are needed"
        );
        ensure!(
            self.completions.is_empty() || self.train.method == ScorerMethod::CdQ,
            "completions are not responses of the base, which cd-fudge learns from: leave them out, or take method = \"cd-q\""
        );
        ensure!(
            self.evaluation_base.is_none() || !self.evaluation.is_empty(),
            "evaluation_base has no effect without an [[evaluation]]: leave it out, or say what is run"
        );
        self.check_judge()?;
        self.check_policies()?;
        for evaluation in &self.evaluation {
            evaluation.check(&self.head).context("[[evaluation]]")?;
        }
        Ok(())
    }

    fn check_judge(&self) -> Result<()> {
        if self.judge.is_none() {
            return Ok(());
        }
        ensure!(
            self.head.iter().all(|head| head.name != JUDGE),
            "[[head]] {JUDGE:?} stands beside [judge], which results call so: give the head another name"
        );
        ensure!(
            !self.evaluation.is_empty() || !self.policy.is_empty(),
            "judge has no effect without an [[evaluation]] or a [[policy]]: leave it out, or say what is run"
        );
        Ok(())
    }

    /// The rewards by which responses are measured, with their names: the heads' and the judge's.
    pub(crate) fn measures(&self) -> impl Iterator<Item = (&str, &RewardConfig)> {
        let judge = self.judge.iter().map(|judge| (JUDGE, judge));
        self.head.iter().map(|head| (head.name.as_str(), &head.reward)).chain(judge)
    }

    fn check_policies(&self) -> Result<()> {
        for policy in &self.policy {
            policy.check(&self.head).with_context(|| format!("[[policy]] {:?}", policy.name))?;
        }
        for (place, policy) in self.policy.iter().enumerate() {
            let twin = self.policy[..place].iter().find(|other| other.name == policy.name);
            ensure!(
                twin.is_none_or(|twin| {
                    twin.evaluation().is_plain() && policy.evaluation().is_plain()
                }),
                "there are two [[policy]] {:?}, and procedures are run with one of them: give each a name of its own, or their points would be one front",
                policy.name
            );
        }
        ensure!(
            self.policy.is_empty() || self.evaluation_base.is_none(),
            "[[policy]] cannot stand beside evaluation_base: the KL of a policy is to model, and that of procedures then to another base"
        );
        Ok(())
    }

    /// Every model that the recipe reads.
    pub(super) fn models_mut(&mut self) -> Vec<&mut PathBuf> {
        let mut models = vec![&mut self.model];
        models.extend(self.trunk.as_mut());
        models.extend(self.evaluation_base.as_mut());
        models.extend(self.policy.iter_mut().map(|policy| &mut policy.model));
        models.extend(self.head.iter_mut().flat_map(|head| head.reward.models_mut()));
        models.extend(self.judge.iter_mut().flat_map(RewardConfig::models_mut));
        models.extend(self.reward_model.iter_mut().map(|stage| &mut stage.base));
        models
    }

    /// Every other file that the recipe reads.
    pub(super) fn files_mut(&mut self) -> Vec<&mut PathBuf> {
        let mut files = self.prompts.files_mut();
        files.extend(self.head.iter_mut().flat_map(|head| head.reward.files_mut()));
        files.extend(self.judge.iter_mut().flat_map(RewardConfig::files_mut));
        files.extend(self.reward_model.iter_mut().flat_map(RewardModelStage::files_mut));
        files.extend(self.completions.iter_mut());
        files
    }
}
