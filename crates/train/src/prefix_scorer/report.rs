//! How good the values of a prefix scorer are, by the rewards of responses that it has not seen.

use infalign_decode::DecodeError;
use infalign_model::{LanguageModel, ScorerModel, Sequence};
use serde::{Deserialize, Serialize};

use super::ScoredResponse;
use super::data::check;
use super::trace::{Wanted, trace};
use crate::TrainError;

/// Bins of values in a calibration curve.
const BINS: usize = 5;
/// Greatest number of ranges of prefix lengths.
const RANGES: usize = 8;

/// How good the values of one head are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScorerReport {
    /// The reward.
    pub name: String,
    /// Prefixes of all lengths together.
    #[serde(flatten)]
    pub all: LengthReport,
    /// Prefixes by their length.
    pub by_length: Vec<LengthReport>,
}

/// How good the values of prefixes of some lengths are. The reward of a response varies after a prefix, so that the error of the best values,
/// V*, is not 0 either.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LengthReport {
    /// Least length of the prefixes, in response tokens.
    pub from: usize,
    /// Greatest length.
    pub to: usize,
    /// How many prefixes.
    pub prefixes: usize,
    /// Root mean square of V − r.
    pub error: f64,
    /// The same for the mean reward in the place of every V.
    pub deviation: f64,
    /// Mean of V − r.
    pub bias: f64,
    /// Share of pairs of prefixes of equal length whose values are in the order of their responses' rewards; equal values count half. Pairs
    /// are of the first and the second response to a prompt, the third and the fourth, and so on, where their rewards differ. None where
    /// there is no such pair.
    pub accuracy: Option<f64>,
    /// Pairs.
    pub pairs: usize,
    /// Mean V and mean reward of equally many prefixes each, by ascending V.
    pub calibration: Vec<ValueBin>,
}

/// Prefixes of like values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValueBin {
    /// How many prefixes.
    pub prefixes: usize,
    /// Mean V.
    pub value: f64,
    /// Mean reward.
    pub reward: f64,
}

/// A prefix with its value and what came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Valued {
    length: usize,
    value: f64,
    reward: f64,
}

impl ScorerReport {
    /// Compares values with rewards, head by head.
    ///
    /// - base: what wrote the responses, and whose states a scorer without a trunk reads.
    /// - responses, samples: so many to each prompt, one prompt after the other.
    ///
    /// # Errors
    /// [`TrainError`] when a response is empty, has other rewards than the heads, or does not fit the models.
    pub fn measure(
        model: &ScorerModel,
        base: &dyn LanguageModel,
        responses: &[ScoredResponse],
        samples: usize,
    ) -> Result<Vec<Self>, TrainError> {
        check(responses, model.spec().heads.len())?;
        let values = values(model, base, responses)?;
        let report = |(head, reward): (usize, &infalign_model::ScoredReward)| {
            let of = |(one, values): (&ScoredResponse, &Vec<Vec<f64>>)| {
                let reward = f64::from(one.rewards[head]);
                let valued = |(t, values): (usize, &Vec<f64>)| Valued {
                    length: t + 1,
                    value: values[head],
                    reward,
                };
                values.iter().enumerate().map(valued).collect::<Vec<Valued>>()
            };
            let responses: Vec<Vec<Valued>> = responses.iter().zip(&values).map(of).collect();
            let longest = responses.iter().map(Vec::len).max().unwrap_or(0);
            let step = longest.div_ceil(RANGES).max(1);
            let ranges =
                (1..=longest).step_by(step).map(|from| (from, (from + step - 1).min(longest)));
            Self {
                name: reward.name.clone(),
                all: LengthReport::of(&responses, samples, (1, longest)),
                by_length: ranges
                    .map(|range| LengthReport::of(&responses, samples, range))
                    .collect(),
            }
        };
        Ok(model.spec().heads.iter().enumerate().map(report).collect())
    }
}

impl LengthReport {
    fn of(responses: &[Vec<Valued>], samples: usize, (from, to): (usize, usize)) -> Self {
        let within = |one: &&Valued| (from..=to).contains(&one.length);
        let mut valued: Vec<Valued> = responses.iter().flatten().filter(within).copied().collect();
        let count = valued.len().max(1) as f64;
        let mean = |of: &dyn Fn(&Valued) -> f64| valued.iter().map(of).sum::<f64>() / count;
        let mean_reward = mean(&|one| one.reward);
        let error = mean(&|one| (one.value - one.reward).powi(2)).sqrt();
        let deviation = mean(&|one| (one.reward - mean_reward).powi(2)).sqrt();
        let bias = mean(&|one| one.value - one.reward);
        let (right, pairs) = ordered(responses, samples, (from, to));
        valued.sort_by(|a, b| a.value.total_cmp(&b.value));
        let bins = valued.chunks(valued.len().div_ceil(BINS).max(1));
        let bin = |bin: &[Valued]| ValueBin {
            prefixes: bin.len(),
            value: bin.iter().map(|one| one.value).sum::<f64>() / bin.len() as f64,
            reward: bin.iter().map(|one| one.reward).sum::<f64>() / bin.len() as f64,
        };
        Self {
            from,
            to,
            prefixes: valued.len(),
            error,
            deviation,
            bias,
            accuracy: (pairs > 0).then(|| right / pairs as f64),
            pairs,
            calibration: bins.map(bin).collect(),
        }
    }
}

/// How many pairs of prefixes of equal length are in the right order, and how many there are: of the first and the second response to a
/// prompt, the third and the fourth, and so on, where their rewards differ.
fn ordered(responses: &[Vec<Valued>], samples: usize, (from, to): (usize, usize)) -> (f64, usize) {
    let (mut right, mut pairs) = (0.0, 0);
    for prompt in responses.chunks(samples.max(1)) {
        for pair in prompt.chunks_exact(2) {
            let both = pair[0].iter().zip(&pair[1]);
            let both = both.filter(|(a, _)| (from..=to).contains(&a.length));
            for (a, b) in both.filter(|(a, b)| a.reward != b.reward) {
                let order = (a.value - b.value) * (a.reward - b.reward);
                right += if order == 0.0 { 0.5 } else { f64::from(order > 0.0) };
                pairs += 1;
            }
        }
    }
    (right, pairs)
}

/// The values of every prefix of some responses as decoding has them: `[responses][tokens][heads]`.
fn values(
    model: &ScorerModel,
    base: &dyn LanguageModel,
    responses: &[ScoredResponse],
) -> Result<Vec<Vec<Vec<f64>>>, TrainError> {
    let (values, trunk) = model.clone().for_inference();
    let sequences: Vec<&Sequence> = responses.iter().map(|one| &one.sequence).collect();
    let traces = trace(trunk.as_deref().unwrap_or(base), &sequences, Wanted::States)?;
    let (hidden, heads) = (values.spec().hidden, values.spec().heads.len());
    let mut features = Vec::new();
    let mut all = Vec::with_capacity(responses.len());
    for (sequence, trace) in sequences.iter().zip(&traces) {
        if trace.len() != hidden * sequence.response().len() {
            let reason = format!("the base has no states of width {hidden}");
            return Err(TrainError::Decode(DecodeError::Scorer { reason }));
        }
        let tokens = trace.chunks_exact(hidden).zip(sequence.response());
        let of = |(state, &token): (&[f32], &u32)| {
            values.read(state, &mut features);
            (0..heads).map(|head| values.value(&features, token, head)).collect::<Vec<f64>>()
        };
        all.push(tokens.map(of).collect());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(values: &[f64], reward: f64) -> Vec<Valued> {
        let valued = |(t, &value): (usize, &f64)| Valued { length: t + 1, value, reward };
        values.iter().enumerate().map(valued).collect()
    }

    #[test]
    fn pairs_are_compared_at_equal_lengths() {
        let responses = [
            response(&[1.0, 2.0], 3.0),
            response(&[2.0, 1.0, 9.0], 0.0),
            response(&[0.5], 1.0),
            response(&[0.5], 2.0),
            response(&[0.0], 1.0),
            response(&[1.0], 1.0),
        ];
        assert_eq!(ordered(&responses, 2, (1, 9)), (1.5, 3));
        let report = LengthReport::of(&responses, 2, (2, 2));
        assert_eq!((report.prefixes, report.pairs, report.accuracy), (2, 1, Some(1.0)));
        assert!((report.bias - 0.0).abs() < 1e-12 && (report.error - 1.0).abs() < 1e-12);
        assert_eq!(report.calibration.len(), 2);
        assert!((report.deviation - 1.5).abs() < 1e-12);
    }

    #[test]
    fn the_bias_is_of_values_that_are_too_great_and_bins_ascend_by_value() {
        let responses = [response(&[3.0], 0.0), response(&[1.0], 2.0), response(&[2.0], 1.0)];
        let report = LengthReport::of(&responses, 1, (1, 1));
        // (3 − 1 + 1)/3.
        assert!((report.bias - 1.0).abs() < 1e-12, "{report:?}");
        let bin = |bin: &ValueBin| (bin.prefixes, bin.value, bin.reward);
        let bins: Vec<_> = report.calibration.iter().map(bin).collect();
        assert_eq!(bins, [(1, 1.0, 2.0), (1, 2.0, 1.0), (1, 3.0, 0.0)]);
    }
}
