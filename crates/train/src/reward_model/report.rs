//! How a reward model does on examples held out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroUsize;

use infalign_model::SequenceClassifier;
use infalign_stats::{
    Interval, ReliabilityBin, clustered_wilson_interval, correlation, reliability, wilson_interval,
};
use serde::{Deserialize, Serialize};

use super::{Examples, Pair};
use crate::TrainError;

/// Confidence level of every interval.
const LEVEL: f64 = 0.95;
/// Bins of the reliability curve.
const BINS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9);

/// How a reward model does on held-out examples.
///
/// The interval of the accuracy is Wilson's. Pairs of ratings are taken as independent: no text is in two of them. Of given pairs the prompts
/// are ([`clustered_wilson_interval`]). What prompts have in common, such as annotators, is not accounted for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RewardModelReport {
    /// Number of held-out examples.
    pub examples: usize,
    /// Number of pairs whose order is judged: those given; of ratings, each two texts in a row that were rated differently.
    pub pairs: usize,
    /// For given pairs: number of prompts that they answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts: Option<usize>,
    /// Share of the pairs in the right order; ties count ½.
    pub accuracy: Interval,
    /// For pairs: mean of −log σ(Δ), without margins, in nats; log 2 = 0.693 is that of a model that knows nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_loss: Option<f64>,
    /// For pairs: the probability σ(Δ) that the first text is the better one, in ten bins, and the share of pairs in which it is. The
    /// better text is the first of every second pair, so that there is something to tell. The intervals take the pairs as independent: where
    /// prompts have several, they are too narrow.
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
        let n_right = gaps.iter().map(|gap| right(*gap)).sum();
        Ok(Self {
            examples: texts.len(),
            pairs: gaps.len(),
            prompts: None,
            accuracy: wilson_interval(n_right, gaps.len(), LEVEL)?,
            log_loss: None,
            reliability: Vec::new(),
            correlation: correlation(&rated),
        })
    }

    fn of_pairs(model: &SequenceClassifier, pairs: &[Pair]) -> Result<Self, TrainError> {
        let texts = distinct(pairs);
        let scores: HashMap<&Vec<u32>, f32> = texts.iter().zip(model.scores(&texts)?).collect();
        let gap_of = |pair: &Pair| gap(scores[&pair.better], scores[&pair.worse]);
        let gaps: Vec<f64> = pairs.iter().map(gap_of).collect();
        let log_loss = gaps.iter().map(|gap| -log_sigmoid(*gap)).sum::<f64>() / gaps.len() as f64;
        let prompts = by_prompt(pairs, &gaps);
        Ok(Self {
            examples: pairs.len(),
            pairs: pairs.len(),
            prompts: Some(prompts.len()),
            accuracy: clustered_wilson_interval(&prompts, LEVEL)?,
            log_loss: Some(log_loss),
            reliability: reliability(&forecasts(&gaps), 0.0..=1.0, BINS, LEVEL)?,
            correlation: None,
        })
    }
}

/// Every text of the pairs once, the shorter ones first: texts of like length go together, so that little is padded.
fn distinct(pairs: &[Pair]) -> Vec<Vec<u32>> {
    let texts: BTreeSet<&Vec<u32>> =
        pairs.iter().flat_map(|pair| [&pair.better, &pair.worse]).collect();
    let mut texts: Vec<Vec<u32>> = texts.into_iter().cloned().collect();
    texts.sort_by_key(Vec::len);
    texts
}

/// Of each prompt, how many of its pairs are in the right order, where ties count ½, and how many it has.
fn by_prompt(pairs: &[Pair], gaps: &[f64]) -> Vec<(f64, usize)> {
    let mut prompts: BTreeMap<usize, (f64, usize)> = BTreeMap::new();
    for (pair, gap) in pairs.iter().zip(gaps) {
        let (n_right, n) = prompts.entry(pair.prompt).or_default();
        *n_right += right(*gap);
        *n += 1;
    }
    prompts.into_values().collect()
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

    fn pair(prompt: usize, better: &[u32], worse: &[u32]) -> Pair {
        Pair { better: better.to_vec(), worse: worse.to_vec(), margin: 0.0, prompt }
    }

    #[test]
    fn pairs_are_counted_by_prompt_and_a_tie_is_half_right() {
        let pairs = [7, 3, 7, 3].map(|prompt| pair(prompt, &[1], &[2]));
        assert_eq!(by_prompt(&pairs, &[0.3, -0.1, 0.0, 2.0]), [(1.0, 2), (1.5, 2)]);
    }

    #[test]
    fn a_text_of_several_pairs_is_scored_once() {
        let [short, middle, long] = [&[9][..], &[2, 2], &[1, 2, 3]];
        let pairs = [pair(0, long, short), pair(0, short, middle), pair(1, middle, long)];
        assert_eq!(distinct(&pairs), [short, middle, long]);
    }
}
