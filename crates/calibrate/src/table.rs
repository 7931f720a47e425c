//! The calibration table: sorted reference rewards of each prompt, and quantiles among them.

use std::collections::HashMap;

use infalign_stats::mid_rank;

use crate::error::CalibrateError;
use crate::meta::CalibrationMeta;

/// Per prompt, the sorted rewards of K responses of the reference policy.
///
/// ```
/// use infalign_calibrate::{Calibration, CalibrationMeta, SCHEMA_VERSION};
/// let meta = CalibrationMeta {
///     schema_version: SCHEMA_VERSION,
///     model_sha256: "…".into(),
///     reward: "length".into(),
///     tokenizer_sha256: "…".into(),
///     sampling: "temperature 1".into(),
///     samples: 4,
/// };
/// let mut calibration = Calibration::new(meta);
/// calibration.insert("a", vec![3.0, 1.0, 2.0, 2.0])?;
/// assert_eq!(calibration.raw_quantile("a", 2.0)?, 0.5);
/// assert_eq!(calibration.quantile("a", 9.0)?, 0.9);
/// # Ok::<(), infalign_calibrate::CalibrateError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    meta: CalibrationMeta,
    prompts: Vec<Prompt>,
    places: HashMap<String, usize>,
}

/// One prompt's row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prompt {
    pub(crate) id: String,
    /// Ascending and finite, 2 or more.
    pub(crate) rewards: Vec<f32>,
}

impl Calibration {
    /// An empty table of rewards that were made as `meta` says.
    pub fn new(meta: CalibrationMeta) -> Self {
        Self { meta, prompts: Vec::new(), places: HashMap::new() }
    }

    /// What the rewards were made from.
    pub fn meta(&self) -> &CalibrationMeta {
        &self.meta
    }

    /// Refuses a table that was made from anything else than `expected`.
    ///
    /// # Errors
    /// [`CalibrateError::Mismatch`] naming the first field that differs.
    pub fn check(&self, expected: &CalibrationMeta) -> Result<(), CalibrateError> {
        self.meta.check(expected)
    }

    /// Adds the reference rewards of one prompt, in any order.
    ///
    /// # Errors
    /// [`CalibrateError::NotFinite`], [`CalibrateError::TooFew`] for fewer than 2,
    /// [`CalibrateError::Duplicate`] for a prompt that is there already. The table is then unchanged.
    pub fn insert(&mut self, prompt_id: &str, rewards: Vec<f32>) -> Result<(), CalibrateError> {
        if let Some(&value) = rewards.iter().find(|reward| !reward.is_finite()) {
            return Err(CalibrateError::NotFinite { prompt_id: prompt_id.to_owned(), value });
        }
        if rewards.len() < 2 {
            let found = rewards.len();
            return Err(CalibrateError::TooFew { prompt_id: prompt_id.to_owned(), found });
        }
        if self.places.contains_key(prompt_id) {
            return Err(CalibrateError::Duplicate(prompt_id.to_owned()));
        }
        let mut rewards = rewards;
        rewards.sort_unstable_by(f32::total_cmp);
        self.places.insert(prompt_id.to_owned(), self.prompts.len());
        self.prompts.push(Prompt { id: prompt_id.to_owned(), rewards });
        Ok(())
    }

    /// Calibrated reward u of a response, smoothed into the open interval (0, 1).
    ///
    /// Equation: u = (Σᵢ wᵢ + ½)/(K + 1), where wᵢ is 1 for a reference reward below `reward`, ½ for an
    /// equal one and 0 for one above. This departs from the plain Ĉ = Σᵢ wᵢ/K of InfAlign (arXiv
    /// 2412.19792) by at most 1/(2(K+1)), so that log u stays finite: the least u is ½/(K+1).
    ///
    /// # Errors
    /// [`CalibrateError::UnknownPrompt`], and [`CalibrateError::NotFinite`] for a reward that is NaN or
    /// infinite.
    pub fn quantile(&self, prompt_id: &str, reward: f32) -> Result<f64, CalibrateError> {
        let k = self.known(prompt_id)?.len() as f64;
        Ok((k * self.raw_quantile(prompt_id, reward)? + 0.5) / (k + 1.0))
    }

    /// Calibrated reward of a response as the plain mid-rank, in [0, 1].
    ///
    /// Equation: Ĉ = Σᵢ wᵢ/K, unbiased for C(x, y) with variance at most C(1−C)/K (InfAlign, arXiv
    /// 2412.19792, calibrated reward).
    ///
    /// # Errors
    /// As for [`Calibration::quantile`].
    pub fn raw_quantile(&self, prompt_id: &str, reward: f32) -> Result<f64, CalibrateError> {
        let rewards = self.known(prompt_id)?;
        if !reward.is_finite() {
            let prompt_id = prompt_id.to_owned();
            return Err(CalibrateError::NotFinite { prompt_id, value: reward });
        }
        Ok(mid_rank(rewards, reward))
    }

    /// The reference rewards of a prompt in ascending order.
    pub fn rewards(&self, prompt_id: &str) -> Option<&[f32]> {
        self.places.get(prompt_id).map(|&place| self.prompts[place].rewards.as_slice())
    }

    /// How many prompts the table holds.
    pub fn len(&self) -> usize {
        self.prompts.len()
    }

    /// Whether the table holds no prompt.
    pub fn is_empty(&self) -> bool {
        self.prompts.is_empty()
    }

    /// The prompts in the order in which they were added.
    pub fn prompt_ids(&self) -> impl Iterator<Item = &str> {
        self.prompts.iter().map(|prompt| prompt.id.as_str())
    }

    pub(crate) fn prompts(&self) -> &[Prompt] {
        &self.prompts
    }

    fn known(&self, prompt_id: &str) -> Result<&[f32], CalibrateError> {
        self.rewards(prompt_id).ok_or_else(|| CalibrateError::UnknownPrompt {
            prompt_id: prompt_id.to_owned(),
            known: self.len(),
        })
    }
}
