//! How a reward model does on examples held out.

use std::num::NonZeroUsize;

use infalign_model::SequenceClassifier;
use infalign_stats::{Interval, ReliabilityBin, correlation, reliability, wilson_interval};
use serde::{Deserialize, Serialize};

use super::{Examples, Pair};
use crate::TrainError;

/// Confidence level of every interval.
const LEVEL: f64 = 0.95;
/// Bins of the reliability curve.
const BINS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9);

/// How a reward model does on held-out examples.
///
/// The intervals are Wilson's, for independent pairs: no text is in two pairs, and what different pairs have in common, such as their
/// annotators, is not accounted for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RewardModelReport {
    /// Number of held-out examples.
    pub examples: usize,
    /// Number of pairs whose order is judged: those given; of ratings, each two texts in a row that were rated differently.
    pub pairs: usize,
    /// Share of the pairs in the right order; ties count ½.
    pub accuracy: Interval,
    /// For pairs: mean of −log σ(Δ), without margins, in nats; log 2 = 0.693 is that of a model that knows nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_loss: Option<f64>,
    /// For pairs: the probability σ(Δ) that the first text is the better one, in ten bins, and the share of pairs in which it is. The
    /// better text is the first of every second pair, so that there is something to tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reliability: Vec<ReliabilityBin>,
    /// For ratings: correlation of score and rating, where both vary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation: Option<f64>,
}

impl Examples {
    /// Refuses examples on which no reward model could be measured.
    ///
    /// # Errors
    /// [`TrainError::Data`] where there is no pair whose order could be judged.
    pub fn check_held_out(&self) -> Result<(), TrainError> {
        if self.is_empty() || matches!(self, Self::Rated(texts) if ordered(texts).next().is_none())
        {
            let what = format!(
                "{} examples are held out, of which no two can be compared; hold out a greater share, or give more data",
                self.len()
            );
            return Err(TrainError::Data(what));
        }
        Ok(())
    }
}

impl RewardModelReport {
    /// Scores the examples and compares the scores with what people said.
    ///
    /// # Errors
    /// As [`Examples::check_held_out`]; [`TrainError::Model`] for a text that does not fit the model.
    pub fn measure(model: &SequenceClassifier, held_out: &Examples) -> Result<Self, TrainError> {
        held_out.check_held_out()?;
        match held_out {
            Examples::Rated(texts) => Self::of_ratings(model, texts),
            Examples::Paired(pairs) => Self::of_pairs(model, pairs),
        }
    }

    fn of_ratings(
        model: &SequenceClassifier,
        texts: &[(Vec<u32>, f32)],
    ) -> Result<Self, TrainError> {
        let tokens: Vec<Vec<u32>> = texts.iter().map(|(text, _)| text.clone()).collect();
        let scores = model.scores(&tokens)?;
        let gaps: Vec<f64> =
            ordered(texts).map(|(better, worse)| gap(scores[better], scores[worse])).collect();
        let rated: Vec<(f64, f64)> = scores
            .iter()
            .zip(texts)
            .map(|(score, (_, rating))| (f64::from(*score), f64::from(*rating)))
            .collect();
        Ok(Self { correlation: correlation(&rated), ..Self::of_gaps(texts.len(), &gaps)? })
    }

    fn of_pairs(model: &SequenceClassifier, pairs: &[Pair]) -> Result<Self, TrainError> {
        let (better, worse): (Vec<_>, Vec<_>) =
            pairs.iter().map(|pair| (pair.better.clone(), pair.worse.clone())).unzip();
        let scores = model.scores(&better)?.into_iter().zip(model.scores(&worse)?);
        let gaps: Vec<f64> = scores.map(|(better, worse)| gap(better, worse)).collect();
        let log_loss = gaps.iter().map(|gap| -log_sigmoid(*gap)).sum::<f64>() / gaps.len() as f64;
        Ok(Self {
            log_loss: Some(log_loss),
            reliability: reliability(&forecasts(&gaps), 0.0..=1.0, BINS, LEVEL)?,
            ..Self::of_gaps(pairs.len(), &gaps)?
        })
    }

    /// What can be said of the differences between better and worse alone.
    fn of_gaps(examples: usize, gaps: &[f64]) -> Result<Self, TrainError> {
        let n_right = gaps.iter().map(|gap| right(*gap)).sum();
        Ok(Self {
            examples,
            pairs: gaps.len(),
            accuracy: wilson_interval(n_right, gaps.len(), LEVEL)?,
            log_loss: None,
            reliability: Vec::new(),
            correlation: None,
        })
    }
}

/// Each two texts in a row that were rated differently, by index, the better first. No text is in two pairs.
fn ordered(texts: &[(Vec<u32>, f32)]) -> impl Iterator<Item = (usize, usize)> {
    (1..texts.len()).step_by(2).filter_map(|second| {
        let (a, b) = (texts[second - 1].1, texts[second].1);
        (a != b).then_some(if a > b { (second - 1, second) } else { (second, second - 1) })
    })
}

/// The probability that the first of two texts is the better one, and 1 where it is, 0 where it is not. The better text is the first of
/// every second pair.
fn forecasts(gaps: &[f64]) -> Vec<(f64, f64)> {
    let forecast = |(index, gap): (usize, &f64)| match index % 2 {
        0 => (log_sigmoid(*gap).exp(), 1.0),
        _ => (log_sigmoid(-gap).exp(), 0.0),
    };
    gaps.iter().enumerate().map(forecast).collect()
}

fn gap(better: f32, worse: f32) -> f64 {
    f64::from(better) - f64::from(worse)
}

/// 1 for the right order, 0 for the wrong one, ½ for a tie.
fn right(gap: f64) -> f64 {
    if gap == 0.0 { 0.5 } else { f64::from(gap > 0.0) }
}

/// log σ(x), without overflow.
fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_paired_once_and_equal_ratings_left_out() {
        let texts: Vec<(Vec<u32>, f32)> =
            [1.0, 2.0, 3.0, 3.0, 5.0, 4.0, 9.0].map(|rating| (vec![0], rating)).to_vec();
        assert_eq!(ordered(&texts).collect::<Vec<_>>(), [(1, 0), (4, 5)]);
        let error = Examples::Rated(texts[2..4].to_vec()).check_held_out().unwrap_err();
        assert!(error.to_string().starts_with("2 examples are held out"), "{error}");
        assert!(Examples::Paired(Vec::new()).check_held_out().is_err());
    }

    #[test]
    fn log_sigmoid_holds_at_both_ends() {
        assert!((log_sigmoid(0.0) + std::f64::consts::LN_2).abs() < 1e-15);
        assert!((log_sigmoid(-2.0) + 2.126_928_011_042_973).abs() < 1e-12);
        assert_eq!((log_sigmoid(-800.0), log_sigmoid(800.0)), (-800.0, 0.0));
    }

    #[test]
    fn forecasts_lie_on_both_sides() {
        let three = 3_f64.ln();
        let forecasts = forecasts(&[three, three, -three]);
        for ((forecast, outcome), expected) in
            forecasts.iter().zip([(0.75, 1.0), (0.25, 0.0), (0.25, 1.0)])
        {
            assert!((forecast - expected.0).abs() < 1e-12 && *outcome == expected.1);
        }
    }

    #[test]
    fn a_tie_is_half_right() {
        let report = RewardModelReport::of_gaps(4, &[0.3, -0.1, 0.0, 2.0]).unwrap();
        assert_eq!((report.accuracy.estimate, report.pairs), (0.625, 4));
    }
}
