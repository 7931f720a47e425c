//! The calibration table: reference rewards of each prompt, and quantiles among them.

use std::collections::HashMap;

use crate::error::CalibrateError;
use crate::meta::CalibrationMeta;
use crate::{PromptKey, Row};

/// Per prompt, the sorted rewards of K responses of the reference policy, or quantiles of them.
///
/// ```
/// use infalign_calibrate::{Calibration, CalibrationMeta};
/// let mut calibration = Calibration::new(CalibrationMeta::default());
/// calibration.insert("a", "Once upon a time", vec![3.0, 1.0, 2.0, 2.0])?;
/// assert_eq!(calibration.quantile("Once upon a time", 9.0)?, 0.9);
/// // Many rewards of one prompt: look it up once.
/// let row = calibration.row("Once upon a time")?;
/// assert_eq!([1.0, 2.0].map(|reward| row.raw_quantile(reward)), [0.125, 0.5]);
/// # Ok::<(), infalign_calibrate::CalibrateError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    meta: CalibrationMeta,
    rows: Vec<Row>,
    places: HashMap<PromptKey, usize>,
}

impl Calibration {
    /// An empty table of rewards that are made as `meta` says.
    pub fn new(meta: CalibrationMeta) -> Self {
        Self { meta, rows: Vec::new(), places: HashMap::new() }
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
        self.meta.check(expected, "this calibration table")
    }

    /// Refuses a table that lacks one of the prompts, given by id and text.
    ///
    /// # Errors
    /// [`CalibrateError::Missing`] with their number and the first of them.
    pub fn check_holds<'a>(
        &self,
        prompts: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), CalibrateError> {
        let (mut count, mut missing) = (0, Vec::new());
        for (id, text) in prompts {
            count += 1;
            if self.get(text).is_none() {
                missing.push(id.to_owned());
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let n_missing = missing.len();
        missing.truncate(3);
        Err(CalibrateError::Missing { missing: n_missing, count, first: missing.join("`, `") })
    }

    /// Adds the reference rewards of one prompt, in any order.
    ///
    /// - `id`: for people, and of the random draws; `text`: the prompt as the model reads it.
    ///
    /// # Errors
    /// [`CalibrateError::NotFinite`], [`CalibrateError::TooFew`] for fewer than 2,
    /// [`CalibrateError::Duplicate`] for a prompt that is there already, [`CalibrateError::Compressed`] for a table of quantiles. The table is then
    /// unchanged.
    pub fn insert(
        &mut self,
        id: &str,
        text: &str,
        rewards: Vec<f32>,
    ) -> Result<(), CalibrateError> {
        check_rewards(id, &rewards, 2)?;
        if self.meta.quantiles.is_some() {
            return Err(CalibrateError::Compressed);
        }
        self.push(Row::of_rewards(id, PromptKey::of(text), rewards))
    }

    /// Adds the quantiles of a prompt's rewards at the levels (j − ½)/p.
    ///
    /// - `samples`: K, how many rewards they stand for, at least 2; `quantiles`: p of them, in any order.
    ///
    /// # Errors
    /// As for [`Calibration::insert`]; [`CalibrateError::Form`] for another number of quantiles than [`CalibrationMeta::quantiles`] says.
    pub fn insert_quantiles(
        &mut self,
        id: &str,
        text: &str,
        samples: usize,
        mut quantiles: Vec<f32>,
    ) -> Result<(), CalibrateError> {
        check_rewards(id, &quantiles, 2)?;
        if samples < 2 {
            return Err(CalibrateError::TooFew { prompt_id: id.to_owned(), found: samples });
        }
        if self.meta.quantiles != Some(quantiles.len()) {
            return Err(CalibrateError::Form {
                prompt_id: id.to_owned(),
                found: quantiles.len(),
                expected: self.meta.quantiles,
            });
        }
        quantiles.sort_unstable_by(f32::total_cmp);
        self.push(Row::of_quantiles(id, PromptKey::of(text), samples, quantiles))
    }

    /// Adds more reference rewards to those of a prompt, or the first ones.
    ///
    /// # Errors
    /// [`CalibrateError::Compressed`] where the rewards are quantiles already, and as for [`Calibration::insert`].
    pub fn extend(
        &mut self,
        id: &str,
        text: &str,
        rewards: Vec<f32>,
    ) -> Result<(), CalibrateError> {
        if self.meta.quantiles.is_some() {
            return Err(CalibrateError::Compressed);
        }
        let key = PromptKey::of(text);
        let Some(&place) = self.places.get(&key) else { return self.insert(id, text, rewards) };
        check_rewards(id, &rewards, 0)?;
        let row = &self.rows[place];
        let all = [row.values(), &rewards].concat();
        self.rows[place] = Row::of_rewards(row.id(), key, all);
        Ok(())
    }

    /// The same table with `count` quantiles in place of each prompt's rewards, at the levels (j − ½)/count.
    ///
    /// # Errors
    /// [`CalibrateError::Compressed`] for a table that holds quantiles already, [`CalibrateError::Quantiles`] for fewer than 2 or more than
    /// 65,536.
    pub fn compressed(&self, count: usize) -> Result<Self, CalibrateError> {
        if self.meta.quantiles.is_some() {
            return Err(CalibrateError::Compressed);
        }
        check_quantiles(count)?;
        let meta = CalibrationMeta { quantiles: Some(count), ..self.meta.clone() };
        let rows = self.rows.iter().map(|row| row.compressed(count)).collect();
        Ok(Self { meta, rows, places: self.places.clone() })
    }

    /// The row of a prompt.
    ///
    /// # Errors
    /// [`CalibrateError::UnknownPrompt`].
    pub fn row(&self, text: &str) -> Result<&Row, CalibrateError> {
        self.get(text).ok_or_else(|| CalibrateError::UnknownPrompt {
            prompt: text.chars().take(60).collect(),
            known: self.len(),
        })
    }

    /// The row of a prompt, if there is one.
    pub fn get(&self, text: &str) -> Option<&Row> {
        self.get_by_key(PromptKey::of(text))
    }

    /// The row of a prompt of which only the hash is at hand, if there is one.
    pub fn get_by_key(&self, key: PromptKey) -> Option<&Row> {
        self.places.get(&key).map(|&place| &self.rows[place])
    }

    /// The rows by the ids of their prompts.
    ///
    /// # Errors
    /// [`CalibrateError::SharedId`] for an id of several prompts, as merged tables of different data sets may have.
    pub fn by_id(&self) -> Result<HashMap<&str, &Row>, CalibrateError> {
        let mut rows = HashMap::with_capacity(self.len());
        for row in &self.rows {
            if rows.insert(row.id(), row).is_some() {
                return Err(CalibrateError::SharedId(row.id().to_owned()));
            }
        }
        Ok(rows)
    }

    /// Calibrated reward u of a response as [`Row::quantile`] has it, in (0, 1).
    ///
    /// - `reward`: rounded to f32 as the table's are, to 24 bits. Rewards that differ by less than 10⁻⁷ of their size may tie, and so may whole
    ///   numbers above 16,777,216; one beyond 3.4·10³⁸ is infinite. Where that matters, take a constant of the prompt off all of its rewards
    ///   before they are rounded, which leaves u as it is.
    ///
    /// # Errors
    /// [`CalibrateError::UnknownPrompt`], and [`CalibrateError::NotFinite`] for a reward that is NaN or infinite.
    pub fn quantile(&self, text: &str, reward: f32) -> Result<f64, CalibrateError> {
        let row = self.row(text)?;
        check_rewards(row.id(), &[reward], 0)?;
        Ok(row.quantile(reward))
    }

    /// How many prompts the table holds.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the table holds no prompt.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows in the order in which they were added.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(crate) fn push(&mut self, row: Row) -> Result<(), CalibrateError> {
        if self.places.contains_key(&row.key()) {
            return Err(CalibrateError::Duplicate(row.id().to_owned()));
        }
        self.places.insert(row.key(), self.rows.len());
        self.rows.push(row);
        Ok(())
    }
}

/// Refuses rewards without a rank, and fewer than `least`.
pub(crate) fn check_rewards(id: &str, rewards: &[f32], least: usize) -> Result<(), CalibrateError> {
    if let Some(&value) = rewards.iter().find(|reward| !reward.is_finite()) {
        return Err(CalibrateError::NotFinite { prompt_id: id.to_owned(), value });
    }
    let found = rewards.len();
    if found < least {
        return Err(CalibrateError::TooFew { prompt_id: id.to_owned(), found });
    }
    Ok(())
}

/// Refuses numbers of quantiles that make no distribution.
pub(crate) fn check_quantiles(count: usize) -> Result<(), CalibrateError> {
    if (2..=1 << 16).contains(&count) { Ok(()) } else { Err(CalibrateError::Quantiles(count)) }
}
