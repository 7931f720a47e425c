//! Forecasts against what came true: whether what is given 70 % happens seven times in ten.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::error::{StatsError, check};
use crate::{Interval, wilson_interval};

/// The forecasts of one bin.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Where the bin begins.
    pub low: f64,
    /// Where it ends; a forecast that lies there belongs to the next bin, but for the last.
    pub high: f64,
    /// Number of its forecasts, at least 1.
    pub n: usize,
    /// Their mean.
    pub forecast: f64,
    /// The share of them that came true, with Wilson's score interval.
    pub observed: Interval,
}

/// The reliability curve of forecasts: equal bins over `range`, of which empty ones are left out.
///
/// - `forecasts`: probabilities within `range`, each with 1 if it came true, 0 if not, ½ for a tie. They are taken as independent.
/// - `level`: nominal coverage of the intervals, strictly between 0 and 1.
///
/// # Errors
/// [`StatsError::Forecast`] for a forecast outside the range, and as for [`wilson_interval`].
pub fn reliability(
    forecasts: &[(f64, f64)],
    range: RangeInclusive<f64>,
    n_bins: NonZeroUsize,
    level: f64,
) -> Result<Vec<ReliabilityBin>, StatsError> {
    let (low, high) = (*range.start(), *range.end());
    let width = (high - low) / n_bins.get() as f64;
    let mut bins = vec![Vec::new(); n_bins.get()];
    for (index, &(forecast, outcome)) in forecasts.iter().enumerate() {
        if !range.contains(&forecast) {
            return Err(StatsError::Forecast { index, value: forecast, low, high });
        }
        let bin = ((forecast - low) / width) as usize;
        bins[bin.min(n_bins.get() - 1)].push((forecast, outcome));
    }
    let filled = bins.iter().enumerate().filter(|(_, bin)| !bin.is_empty());
    filled
        .map(|(index, bin)| {
            let n = bin.len();
            let outcomes: Vec<f64> = bin.iter().map(|(_, outcome)| *outcome).collect();
            check("outcomes", &outcomes, 1)?;
            Ok(ReliabilityBin {
                low: low + width * index as f64,
                high: low + width * (index + 1) as f64,
                n,
                forecast: bin.iter().map(|(forecast, _)| forecast).sum::<f64>() / n as f64,
                observed: wilson_interval(outcomes.iter().sum(), n, level)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::SplitMix;

    const TEN: NonZeroUsize = NonZeroUsize::new(10).unwrap();

    #[test]
    fn forecasts_fall_into_their_bins_and_empty_bins_are_left_out() {
        let forecasts = [(0.0, 0.0), (0.05, 1.0), (0.1, 0.5), (1.0, 1.0)];
        let bins = reliability(&forecasts, 0.0..=1.0, TEN, 0.95).unwrap();
        let summary: Vec<_> = bins.iter().map(|bin| (bin.n, bin.observed.estimate)).collect();
        assert_eq!(summary, [(2, 0.5), (1, 0.5), (1, 1.0)]);
        assert_eq!((bins[0].forecast, bins[2].high), (0.025, 1.0));
    }

    #[test]
    fn true_forecasts_lie_on_the_diagonal() {
        let mut random = SplitMix(43);
        let forecasts: Vec<(f64, f64)> = (0..20_000)
            .map(|_| {
                let forecast = 0.5 + 0.5 * random.uniform();
                (forecast, f64::from(random.uniform() < forecast))
            })
            .collect();
        let bins = reliability(&forecasts, 0.5..=1.0, TEN, 0.999).unwrap();
        assert_eq!(bins.len(), 10);
        for bin in bins {
            let Interval { low, high, .. } = bin.observed;
            assert!(low <= bin.forecast && bin.forecast <= high, "{bin:?}");
        }
    }

    #[test]
    fn what_no_bin_holds_is_refused() {
        for value in [0.4, f64::NAN] {
            let error = reliability(&[(value, 1.0)], 0.5..=1.0, TEN, 0.95).unwrap_err();
            assert!(error.to_string().starts_with("forecast 0 is "), "{error}");
        }
    }
}
