//! Calibration of prompts that nothing was sampled for: their reward quantiles, predicted from what a model makes of the prompt.
//!
//! The head is linear and has a location and a scale: the j-th of p quantiles of the reward of a prompt with features h is
//! q_j = m(h) + e^{s(h)}·t_j, where m and s are ridge regressions of the mean and of the logarithm of the standard deviation of a prompt's
//! reference rewards, and t the quantiles of the standardised rewards of all prompts. So quantiles never cross, and two regressions are
//! all that has to be learned, of which some hundred prompts are enough. What a prompt does to the shape of its rewards is not predicted.
//!
//! One prompt in five, chosen by its key, is held out: the strength of the ridge is the one at which their calibrated rewards come out
//! best, and t is taken from them, so that the error of the prediction widens it as much as it has to.

use serde::{Deserialize, Serialize};

use crate::ridge::{Design, Regressions, Ridge};
use crate::table::check_quantiles;
use crate::{CalibrateError, PromptKey, Row};

/// Strengths of the ridge that are tried, in units of the variance of the features times the number of prompts.
const STRENGTHS: [f64; 9] = [1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 10.0, 1e6];
/// Least standard deviation of a prompt, as a share of the pooled one.
const LEAST_SPREAD: f64 = 1e-3;
/// Prompts that a head is fitted to at least.
const LEAST_PROMPTS: usize = 10;

/// Predicts the reward quantiles of a prompt from its features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantileHead {
    location: Ridge,
    log_scale: Ridge,
    /// Standardised quantiles at the levels (j − ½)/p, ascending.
    shape: Vec<f64>,
}

/// How well a head predicts, on prompts held out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadReport {
    /// Prompts fitted to.
    pub prompts: usize,
    /// Prompts held out.
    pub held_out: usize,
    /// Mean over reference responses to held-out prompts of |predicted − sampled calibrated reward|, in [0, 1]. The strength and the shape
    /// come from these prompts too, so that it is a little too small for others.
    pub error: f64,
    /// The same of one set of quantiles for all prompts: what knowing nothing of the prompt gives.
    pub error_without_features: f64,
    /// Strength of the ridge.
    pub strength: f64,
}

/// A prompt of the table with its features.
struct Example<'a> {
    features: &'a [f32],
    row: &'a Row,
    mean: f64,
    log_scale: f64,
}

impl QuantileHead {
    /// Fits a head to prompts.
    ///
    /// - `features`: a vector for each row, all of one length, finite; `rows`: of a table that holds all rewards.
    /// - `quantiles`: p, 2 or more.
    ///
    /// # Errors
    /// [`CalibrateError::TooFewPrompts`] below ten prompts or two held out, [`CalibrateError::Quantiles`], and [`CalibrateError::Features`]
    /// for features that are not finite or of different lengths.
    pub fn fit(
        features: &[Vec<f32>],
        rows: &[&Row],
        quantiles: usize,
    ) -> Result<(Self, HeadReport), CalibrateError> {
        check(features, rows, quantiles)?;
        let examples = examples(features, rows);
        let (held_out, used): (Vec<&Example<'_>>, Vec<&Example<'_>>) =
            examples.iter().partition(|example| is_held_out(example.row.key()));
        if used.len() < LEAST_PROMPTS || held_out.len() < 2 {
            return Err(CalibrateError::TooFewPrompts {
                used: used.len(),
                held_out: held_out.len(),
            });
        }
        let features: Vec<&[f32]> = used.iter().map(|example| example.features).collect();
        let design = Design::new(&features);
        let fitted = |strength: f64| {
            let regressions = design.regressions(strength);
            let head = Self::fitted(&used, &held_out, quantiles, &regressions);
            let error = head.error(&held_out);
            (strength, head, error)
        };
        let mut all: Vec<_> = STRENGTHS.into_iter().map(fitted).collect();
        let error_without_features = all[all.len() - 1].2;
        let best = (0..all.len()).min_by(|&a, &b| all[a].2.total_cmp(&all[b].2)).unwrap_or(0);
        let (strength, head, error) = all.swap_remove(best);
        let (prompts, held_out) = (used.len(), held_out.len());
        let report = HeadReport { prompts, held_out, error, error_without_features, strength };
        Ok((head, report))
    }

    /// Quantiles at the levels (j − ½)/p of the reward of a prompt with these features, ascending.
    ///
    /// # Errors
    /// [`CalibrateError::Width`] for another number of features than it was fitted to.
    pub fn quantiles(&self, features: &[f32]) -> Result<Vec<f32>, CalibrateError> {
        let (found, expected) = (features.len(), self.width());
        if found != expected {
            return Err(CalibrateError::Width { found, expected });
        }
        Ok(self.at(features))
    }

    /// Of features of the right width.
    fn at(&self, features: &[f32]) -> Vec<f32> {
        let (location, scale) = (self.location.at(features), self.log_scale.at(features).exp());
        self.shape.iter().map(|t| (location + scale * t) as f32).collect()
    }

    /// Whether its parts belong together and give so many quantiles, as those of [`QuantileHead::fit`] do and those of a damaged file need
    /// not.
    pub fn is_whole(&self, quantiles: usize) -> bool {
        let ascends = self.shape.is_sorted() && self.shape.iter().all(|t| t.is_finite());
        let widths = self.location.is_whole() && self.log_scale.is_whole();
        let same = self.location.width() == self.log_scale.width();
        ascends && widths && same && self.shape.len() == quantiles
    }

    /// Length of the features.
    pub fn width(&self) -> usize {
        self.location.width()
    }

    fn fitted(
        used: &[&Example<'_>],
        held_out: &[&Example<'_>],
        quantiles: usize,
        regressions: &Regressions<'_>,
    ) -> Self {
        let ridge = |target: fn(&Example<'_>) -> f64| {
            let targets: Vec<f64> = used.iter().map(|example| target(example)).collect();
            regressions.fit(&targets)
        };
        let (location, log_scale) = (ridge(|e| e.mean), ridge(|e| e.log_scale));
        let standardised = |example: &&Example<'_>| {
            let (m, s) = (location.at(example.features), log_scale.at(example.features).exp());
            example.row.values().iter().map(move |&r| (f64::from(r) - m) / s).collect::<Vec<f64>>()
        };
        let mut pooled: Vec<f64> = held_out.iter().flat_map(standardised).collect();
        pooled.sort_by(f64::total_cmp);
        let at =
            |j: usize| pooled[((j as f64 + 0.5) / quantiles as f64 * pooled.len() as f64) as usize];
        let shape = (0..quantiles).map(at).collect();
        Self { location, log_scale, shape }
    }

    /// Mean |predicted − sampled calibrated reward| of the reference responses to some prompts.
    fn error(&self, examples: &[&Example<'_>]) -> f64 {
        let of_prompt = |example: &&Example<'_>| {
            let row = example.row;
            let predicted =
                Row::of_quantiles("", row.key(), row.samples(), self.at(example.features));
            let gap = |&r: &f32| (predicted.quantile(r) - row.quantile(r)).abs();
            row.values().iter().map(gap).sum::<f64>() / row.values().len() as f64
        };
        examples.iter().map(of_prompt).sum::<f64>() / examples.len() as f64
    }
}

fn check(features: &[Vec<f32>], rows: &[&Row], quantiles: usize) -> Result<(), CalibrateError> {
    check_quantiles(quantiles)?;
    if rows.iter().any(|row| row.rewards().is_none()) {
        return Err(CalibrateError::Compressed);
    }
    let width = features.first().map_or(0, Vec::len);
    let fits = |vector: &Vec<f32>| vector.len() == width && vector.iter().all(|x| x.is_finite());
    match features.iter().position(|vector| !fits(vector)) {
        Some(index) => Err(CalibrateError::Features(index)),
        None if features.len() != rows.len() => {
            Err(CalibrateError::Features(features.len().min(rows.len())))
        }
        None => Ok(()),
    }
}

fn examples<'a>(features: &'a [Vec<f32>], rows: &[&'a Row]) -> Vec<Example<'a>> {
    let moments = |row: &Row| {
        let (mean, squares) = row.moments();
        (mean, (squares / row.values().len() as f64).sqrt())
    };
    let moments: Vec<(f64, f64)> = rows.iter().map(|row| moments(row)).collect();
    let squares: f64 = moments.iter().map(|(_, spread)| spread * spread).sum();
    let pooled = (squares / moments.len().max(1) as f64).sqrt();
    let least = if pooled > 0.0 { LEAST_SPREAD * pooled } else { 1.0 };
    let parts = features.iter().zip(rows).zip(moments);
    parts
        .map(|((features, &row), (mean, spread))| Example {
            features,
            row,
            mean,
            log_scale: spread.max(least).ln(),
        })
        .collect()
}

/// One prompt in five, by its key alone.
fn is_held_out(key: PromptKey) -> bool {
    key.bytes()[0].is_multiple_of(5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Calibration, CalibrationMeta};

    /// Numbers in [0, 1) from a fixed linear congruence.
    fn uniform(state: &mut u64) -> f64 {
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Prompts whose rewards are uniform around a place and with a width that two of eight features tell.
    fn problem(prompts: usize) -> (Vec<Vec<f32>>, Calibration) {
        let (mut state, mut table) = (3, Calibration::new(CalibrationMeta::default()));
        let features = (0..prompts).map(|prompt| {
            let h: Vec<f32> = (0..8).map(|_| uniform(&mut state) as f32 - 0.5).collect();
            let (place, width) = (5.0 * h[0], (2.0 * h[1]).exp());
            let rewards =
                (0..64).map(|_| place + width * (uniform(&mut state) as f32 - 0.5)).collect();
            table.insert("", &format!("prompt {prompt}"), rewards).unwrap();
            h
        });
        (features.collect(), table)
    }

    #[test]
    fn quantiles_of_other_prompts_are_predicted() {
        let (features, table) = problem(200);
        let rows: Vec<&Row> = table.rows().iter().collect();
        let (head, report) = QuantileHead::fit(&features, &rows, 32).unwrap();
        assert!(report.error < 0.05 && report.error_without_features > 0.2, "{report:?}");
        assert_eq!(report.prompts + report.held_out, 200);
        let mut h = vec![0.0; 8];
        h[0] = 0.4;
        let quantiles = head.quantiles(&h).unwrap();
        assert!(head.quantiles(&h[1..]).is_err(), "of another model");
        assert!(quantiles.is_sorted() && (quantiles[16] - 2.0).abs() < 0.1, "{quantiles:?}");
        let text = serde_json::to_string(&head).unwrap();
        assert_eq!(serde_json::from_str::<QuantileHead>(&text).unwrap(), head);
    }

    #[test]
    fn features_that_tell_nothing_are_left_alone() {
        let (features, table) = problem(60);
        // Each prompt gets another one's features.
        let mut shuffled = features.clone();
        shuffled.rotate_left(7);
        let rows: Vec<&Row> = table.rows().iter().collect();
        let (_, report) = QuantileHead::fit(&shuffled, &rows, 16).unwrap();
        assert!(
            report.error <= report.error_without_features && report.strength >= 0.1,
            "{report:?}"
        );
    }

    #[test]
    fn what_cannot_be_fitted_is_refused() {
        let (features, table) = problem(60);
        let rows: Vec<&Row> = table.rows().iter().collect();
        let few = QuantileHead::fit(&features[..5], &rows[..5], 16).unwrap_err();
        assert!(matches!(few, CalibrateError::TooFewPrompts { .. }), "{few}");
        let mut wrong = features.clone();
        wrong[3][1] = f32::NAN;
        assert!(matches!(QuantileHead::fit(&wrong, &rows, 16), Err(CalibrateError::Features(3))));
        assert!(matches!(
            QuantileHead::fit(&features, &rows, 1),
            Err(CalibrateError::Quantiles(1))
        ));
        // As many quantiles as there were rewards are quantiles still.
        for count in [4, table.rows()[0].samples()] {
            let compressed = table.compressed(count).unwrap();
            let rows: Vec<&Row> = compressed.rows().iter().collect();
            let refused = QuantileHead::fit(&features, &rows, 16);
            assert!(matches!(refused, Err(CalibrateError::Compressed)));
        }
    }
}
