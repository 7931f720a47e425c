//! What a table holds, in numbers.

use serde::Serialize;

use crate::{CalibrateError, Calibration, Row};

/// A table in numbers; rewards in the units of the reward.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How many prompts it holds.
    pub prompts: usize,
    /// The least K of a prompt.
    pub least_samples: usize,
    /// The greatest K of a prompt.
    pub most_samples: usize,
    /// Mean reward over prompts.
    pub mean: f64,
    /// Standard deviation of the rewards of one prompt, pooled over prompts.
    pub spread_within: f64,
    /// Standard deviation of the mean reward from prompt to prompt: what calibration takes out.
    pub spread_between: f64,
    /// Probability that two responses to one prompt have the same reward, mean over prompts: 0 where rewards are continuous.
    pub ties: f64,
    /// Prompts of which all rewards are equal, so that they teach nothing.
    pub constant: usize,
    /// Half-width of the band that holds the calibrated rewards of one prompt as a whole with probability 0.95, at the least K.
    pub dkw: f64,
}

/// Level of the band of [`Summary::dkw`].
const DKW_LEVEL: f64 = 0.95;

impl Summary {
    /// Looks at every prompt of a table. Of quantiles, ties and spreads are those of the quantiles.
    ///
    /// # Errors
    /// [`CalibrateError::Nothing`] for an empty table.
    pub fn of(calibration: &Calibration) -> Result<Self, CalibrateError> {
        let rows = calibration.rows();
        let samples = || rows.iter().map(Row::samples);
        let (Some(least_samples), Some(most_samples)) = (samples().min(), samples().max()) else {
            return Err(CalibrateError::Nothing("prompts"));
        };
        let moments: Vec<(f64, f64)> = rows.iter().map(Row::moments).collect();
        let degrees: f64 = rows.iter().map(|row| row.values().len() as f64 - 1.0).sum();
        let within = moments.iter().map(|(_, squares)| squares).sum::<f64>() / degrees;
        let mean = moments.iter().map(|(mean, _)| mean).sum::<f64>() / rows.len() as f64;
        let between: f64 = moments.iter().map(|(of_prompt, _)| (of_prompt - mean).powi(2)).sum();
        let constant = |row: &&Row| row.values().first() == row.values().last();
        Ok(Self {
            prompts: rows.len(),
            least_samples,
            most_samples,
            mean,
            spread_within: within.sqrt(),
            spread_between: (between / (rows.len().max(2) - 1) as f64).sqrt(),
            ties: rows.iter().map(|row| ties(row.values())).sum::<f64>() / rows.len() as f64,
            constant: rows.iter().filter(constant).count(),
            dkw: dkw_band(least_samples, DKW_LEVEL),
        })
    }
}

/// Half-width of the band that holds the whole empirical distribution function of K samples with probability `level`.
///
/// Equation: √(log(2/(1 − level))/2K), by the inequality of Dvoretzky, Kiefer and Wolfowitz with Massart's constant.
fn dkw_band(samples: usize, level: f64) -> f64 {
    ((2.0 / (1.0 - level)).ln() / (2.0 * samples as f64)).sqrt()
}

/// Share of the pairs of ascending values that are equal.
fn ties(values: &[f32]) -> f64 {
    let pairs = |n: usize| (n * (n - 1)) as f64;
    let equal: f64 = values.chunk_by(|a, b| a == b).map(|group| pairs(group.len())).sum();
    equal / pairs(values.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CalibrationMeta;

    #[test]
    fn numbers_are_those_of_the_rewards() {
        let mut table = Calibration::new(CalibrationMeta::default());
        assert!(Summary::of(&table).is_err());
        table.insert("a", "a", vec![0.0, 2.0, 2.0]).unwrap();
        table.insert("b", "b", vec![5.0, 5.0]).unwrap();
        let summary = Summary::of(&table).unwrap();
        assert_eq!((summary.prompts, summary.least_samples, summary.most_samples), (2, 2, 3));
        assert_eq!(summary.constant, 1);
        assert!((summary.ties - 0.5 * (1.0 / 3.0 + 1.0)).abs() < 1e-15);
        assert!((summary.spread_within.powi(2) - (8.0 / 3.0) / 3.0).abs() < 1e-12);
        assert!((dkw_band(100, 0.95) - 0.1358).abs() < 1e-4);
        let gap: f64 = 5.0 - 4.0 / 3.0;
        assert!((summary.spread_between - gap / 2f64.sqrt()).abs() < 1e-12);
    }
}
