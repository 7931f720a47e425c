//! How the numbers of prompts become intervals and tests.

use infalign_stats::{
    Interval, Resamples, mean_and_standard_error, mean_interval, of_share, paired_difference,
};
use serde::{Deserialize, Serialize};

use crate::EvaluateError;

/// How intervals are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Intervals {
    /// The bootstrap over prompts, bias-corrected and accelerated.
    Bca {
        /// Resamples.
        replicates: usize,
        /// Which resamples.
        seed: u64,
    },
    /// Student's t, in closed form. What has none, a win rate at a common KL, is resampled as by [`Intervals::Bca`].
    StudentT {
        /// Resamples.
        #[serde(default = "usual_replicates")]
        replicates: usize,
        /// Which resamples.
        #[serde(default)]
        seed: u64,
    },
}

/// Resamples where no other number is asked for.
fn usual_replicates() -> usize {
    10_000
}

impl Intervals {
    /// How many resamples, and which.
    pub(crate) fn resamples(&self) -> (usize, u64) {
        let (Self::Bca { replicates, seed } | Self::StudentT { replicates, seed }) = *self;
        (replicates, seed)
    }
}

/// Intervals and tests of a table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Nominal coverage of every interval; 1 less it is the level of every test.
    pub level: f64,
    /// How they are made.
    pub intervals: Intervals,
    /// The greatest difference of win rates, or of one from ½, that does not matter: what equivalence is tested against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
}

impl Statistics {
    /// 95 % intervals from 10,000 resamples, without a test of equivalence.
    pub fn new(seed: u64) -> Self {
        let intervals = Intervals::Bca { replicates: usual_replicates(), seed };
        Self { level: 0.95, intervals, margin: None }
    }
}

/// Numbers of the same prompts, which are resampled together.
pub(crate) struct Series<'a> {
    values: &'a [Vec<f64>],
    level: f64,
    /// None for intervals in closed form.
    resamples: Option<Resamples>,
}

impl<'a> Series<'a> {
    /// - values: `[series][prompts]`.
    pub(crate) fn new(
        values: &'a [Vec<f64>],
        statistics: &Statistics,
    ) -> Result<Self, EvaluateError> {
        let slices: Vec<&[f64]> = values.iter().map(Vec::as_slice).collect();
        let (replicates, seed) = statistics.intervals.resamples();
        Resamples::check(replicates)?;
        let resamples = match statistics.intervals {
            Intervals::Bca { .. } => Some(Resamples::new(&slices, replicates, seed)?),
            Intervals::StudentT { .. } => None,
        };
        Ok(Self { values, level: statistics.level, resamples })
    }

    /// Of the mean of a series.
    pub(crate) fn mean(&self, series: usize) -> Result<Interval, EvaluateError> {
        Ok(match &self.resamples {
            Some(resamples) => resamples.mean(self.level, series)?,
            None => mean_interval(&self.values[series], self.level)?,
        })
    }

    /// Of the mean of a series of win rates, or other numbers from 0 to 1.
    pub(crate) fn share(&self, series: usize) -> Result<Interval, EvaluateError> {
        Ok(of_share(&self.values[series], self.mean(series)?))
    }

    /// A series, each number less another.
    pub(crate) fn less(&self, series: usize, number: f64) -> Vec<f64> {
        self.values[series].iter().map(|value| value - number).collect()
    }

    /// Standard error of the mean of a series.
    pub(crate) fn standard_error(&self, series: usize) -> Result<f64, EvaluateError> {
        Ok(mean_and_standard_error(&self.values[series])?.1)
    }

    /// Of the mean of one series less that of another.
    pub(crate) fn difference(&self, a: usize, b: usize) -> Result<Interval, EvaluateError> {
        Ok(match &self.resamples {
            Some(resamples) => resamples.difference(self.level, a, b)?,
            None => paired_difference(&self.values[a], &self.values[b], self.level)?,
        })
    }
}

/// A difference from the other side.
pub(crate) fn reversed(Interval { estimate, low, high, level }: Interval) -> Interval {
    Interval { estimate: -estimate, low: -high, high: -low, level }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_by_students_t_are_read_without_resamples_as_they_were_written() {
        let was = Intervals::StudentT { replicates: 10_000, seed: 0 };
        assert_eq!(serde_json::from_str::<Intervals>(r#"{"kind":"student-t"}"#).unwrap(), was);
        let now = Intervals::StudentT { replicates: 300, seed: 4 };
        let json = serde_json::to_string(&now).unwrap();
        assert_eq!(json, r#"{"kind":"student-t","replicates":300,"seed":4}"#);
        assert_eq!(serde_json::from_str::<Intervals>(&json).unwrap(), now);
    }
}
