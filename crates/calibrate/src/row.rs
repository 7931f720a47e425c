//! One prompt's reference rewards, and quantiles among them.

use infalign_stats::mid_rank;

use crate::PromptKey;

/// What a table holds of one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    id: String,
    key: PromptKey,
    /// K.
    samples: usize,
    values: Values,
}

/// The rewards of a row, ascending and finite, 2 or more.
#[derive(Clone, Debug, PartialEq)]
enum Values {
    /// All K of them.
    Rewards(Box<[f32]>),
    /// Their quantiles at the levels (j − ½)/p, j = 1, …, p.
    Quantiles(Box<[f32]>),
}

impl Row {
    /// - `rewards`: finite, 2 or more, in any order.
    pub(crate) fn of_rewards(id: &str, key: PromptKey, mut rewards: Vec<f32>) -> Self {
        rewards.sort_unstable_by(f32::total_cmp);
        let samples = rewards.len();
        Self { id: id.to_owned(), key, samples, values: Values::Rewards(rewards.into()) }
    }

    /// - `quantiles`: finite, 2 or more, ascending; `samples`: the rewards that they stand for.
    pub(crate) fn of_quantiles(
        id: &str,
        key: PromptKey,
        samples: usize,
        quantiles: Vec<f32>,
    ) -> Self {
        Self { id: id.to_owned(), key, samples, values: Values::Quantiles(quantiles.into()) }
    }

    /// Names the prompt for people, and its random draws.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Names the prompt in the table.
    pub fn key(&self) -> PromptKey {
        self.key
    }

    /// K, the reference rewards that were sampled.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// The rewards or their quantiles, ascending.
    pub fn values(&self) -> &[f32] {
        match &self.values {
            Values::Rewards(values) | Values::Quantiles(values) => values,
        }
    }

    /// All K rewards, ascending; none where the row holds quantiles.
    pub fn rewards(&self) -> Option<&[f32]> {
        match &self.values {
            Values::Rewards(rewards) => Some(rewards),
            Values::Quantiles(_) => None,
        }
    }

    /// The mean of the rewards or their quantiles, and the sum of squared distances from it.
    pub fn moments(&self) -> (f64, f64) {
        let values = self.values().iter().map(|&value| f64::from(value));
        let mean = values.clone().sum::<f64>() / values.len() as f64;
        (mean, values.map(|value| (value - mean).powi(2)).sum())
    }

    /// Calibrated reward u of a response, smoothed into the open interval (0, 1).
    ///
    /// Equation: u = (K·Ĉ + ½)/(K + 1), Ĉ that of [`Row::raw_quantile`]. This departs from the plain Ĉ of InfAlign (arXiv 2412.19792) by
    /// at most 1/(2(K+1)), so that log u stays finite: the least u is ½/(K+1).
    ///
    /// - `reward`: finite; NaN gives NaN.
    pub fn quantile(&self, reward: f32) -> f64 {
        let k = self.samples as f64;
        (k * self.raw_quantile(reward) + 0.5) / (k + 1.0)
    }

    /// Calibrated reward of a response as the plain mid-rank Ĉ, in [0, 1].
    ///
    /// Equation: Ĉ = Σᵢ wᵢ/K, where wᵢ is 1 for a reference reward below `reward`, ½ for an equal one and 0 for one above: unbiased for
    /// C(x, y), with variance at most C(1−C)/K (InfAlign, arXiv 2412.19792, calibrated reward). Of quantiles, the level of `reward`,
    /// linear between them, the middle one where several are equal, and 0 or 1 beyond them.
    ///
    /// - `reward`: finite; NaN gives NaN.
    pub fn raw_quantile(&self, reward: f32) -> f64 {
        match &self.values {
            Values::Rewards(rewards) => mid_rank(rewards, reward),
            Values::Quantiles(quantiles) => level(quantiles, reward),
        }
    }

    /// The same row with its rewards as `count` quantiles, 2 or more; one that has quantiles stays as it is.
    pub(crate) fn compressed(&self, count: usize) -> Self {
        let Values::Rewards(rewards) = &self.values else { return self.clone() };
        let at = |j: usize| quantile_of(rewards, (j as f64 + 0.5) / count as f64);
        Self::of_quantiles(&self.id, self.key, self.samples, (0..count).map(at).collect())
    }
}

/// The quantile of sorted numbers at a level in (0, 1): linear between them, the i-th being at (i − ½)/K.
fn quantile_of(sorted: &[f32], level: f64) -> f32 {
    let place = (level * sorted.len() as f64 - 0.5).clamp(0.0, (sorted.len() - 1) as f64);
    let (below, share) = (place.floor() as usize, place.fract());
    let above = (below + 1).min(sorted.len() - 1);
    let (low, high) = (f64::from(sorted[below]), f64::from(sorted[above]));
    // In f64, since the difference of two f32 may be beyond f32.
    (low + share * (high - low)) as f32
}

/// The level of `value` among quantiles at (j − ½)/p.
fn level(quantiles: &[f32], value: f32) -> f64 {
    let count = quantiles.len() as f64;
    let below = quantiles.partition_point(|&q| q < value);
    let ties = quantiles[below..].partition_point(|&q| q == value);
    let (below_f, ties_f) = (below as f64, ties as f64);
    match ties {
        _ if value.is_nan() => f64::NAN,
        0 if below == 0 => 0.0,
        0 if below == quantiles.len() => 1.0,
        0 => {
            let (low, high) = (f64::from(quantiles[below - 1]), f64::from(quantiles[below]));
            (below_f - 0.5 + (f64::from(value) - low) / (high - low)) / count
        }
        _ => (below_f + 0.5 * ties_f) / count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(rewards: &[f32]) -> Row {
        Row::of_rewards("x", PromptKey::of("x"), rewards.to_vec())
    }

    #[test]
    fn as_many_quantiles_as_rewards_are_the_rewards() {
        let full = row(&[3.0, 1.0, 2.0, 2.0]);
        let compressed = full.compressed(4);
        assert_eq!(compressed.values(), full.values());
        for reward in [0.0, 1.0, 2.0, 3.0, 4.0] {
            assert_eq!(compressed.quantile(reward), full.quantile(reward), "{reward}");
        }
    }

    #[test]
    fn quantiles_are_linear_between_and_ties_are_in_the_middle() {
        let row = Row::of_quantiles("x", PromptKey::of("x"), 100, vec![0.0, 1.0, 1.0, 3.0]);
        let raw = [-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0].map(|reward| row.raw_quantile(reward));
        assert_eq!(raw, [0.0, 0.125, 0.25, 0.5, 0.75, 0.875, 1.0]);
        assert!(row.quantile(-1.0) > 0.0 && row.quantile(4.0) < 1.0);
        assert!(row.raw_quantile(f32::NAN).is_nan());
    }

    #[test]
    fn compression_moves_a_quantile_by_little() {
        let rewards: Vec<f32> = (0..1000).map(|i| ((i as f32 + 0.5) / 1000.0).ln()).collect();
        let (full, compressed) = (row(&rewards), row(&rewards).compressed(32));
        assert_eq!((compressed.values().len(), compressed.samples()), (32, 1000));
        let gap = |reward: &f32| (full.quantile(*reward) - compressed.quantile(*reward)).abs();
        let gap = rewards.iter().map(gap).fold(0.0, f64::max);
        assert!(gap < 1.0 / 32.0, "{gap}");
    }

    #[test]
    fn extreme_rewards_stay_finite() {
        let compressed = row(&[f32::MIN, f32::MAX]).compressed(3);
        assert_eq!(compressed.values(), [f32::MIN, 0.0, f32::MAX]);
        assert_eq!(compressed.raw_quantile(f32::MAX / 2.0), 2.0 / 3.0);
    }
}
