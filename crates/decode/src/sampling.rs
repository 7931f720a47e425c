//! One token from one row of logits.

use std::collections::BTreeSet;

use infalign_backend::functions::softmax_weights;
use infalign_model::ModelError;
use infalign_transform::{Composed, Procedure};
use serde::{Deserialize, Serialize};

use crate::{DecodeError, Finish, StopTexts};

/// How tokens are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most probable token.
    pub temperature: f64,
    /// Only the k most probable tokens are drawn; 0 means all.
    pub top_k: usize,
    /// Only the smallest set of most probable tokens that holds this share of the probability is drawn; in (0, 1].
    pub top_p: f64,
    /// Longest response, in tokens.
    pub max_tokens: usize,
    /// Tokens that end a response, beside those that end the model's texts.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub stop_token_ids: BTreeSet<u32>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            max_tokens: 64,
            stop_token_ids: BTreeSet::new(),
        }
    }
}

/// A drawn token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// The token.
    pub token: u32,
    /// log π(token), in nats, of the model itself: at temperature 1 over the whole vocabulary, whatever the token was drawn from.
    pub log_prob: f32,
}

impl Draw {
    /// A token that was drawn by other means, with what the model says of it.
    ///
    /// - `weights`: room to work in.
    pub(crate) fn of(token: u32, logits: &[f32], weights: &mut Vec<f32>) -> Self {
        let partition = softmax_weights(logits, 1.0, weights);
        Self { token, log_prob: partition.log_prob(logits[token as usize]) }
    }
}

impl Sampling {
    /// Refuses settings that are out of range.
    ///
    /// # Errors
    /// [`DecodeError::Setting`] names the setting, its value and the range.
    pub fn check(&self) -> Result<(), DecodeError> {
        let refuse = |key, value, valid| Err(DecodeError::Setting { key, value, valid });
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return refuse("temperature", self.temperature, "at least 0");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top_p", self.top_p, "above 0 and at most 1");
        }
        if self.max_tokens == 0 {
            return refuse("max_tokens", 0.0, "at least 1");
        }
        Ok(())
    }

    /// Refuses a choice among draws that are all the same, at temperature 0.
    ///
    /// # Errors
    /// [`DecodeError::Setting`] for a procedure other than `sample`.
    pub fn check_choice(&self, procedure: Composed) -> Result<(), DecodeError> {
        if self.temperature > 0.0 || procedure == Procedure::Sample.into() {
            return Ok(());
        }
        Err(DecodeError::Setting {
            key: "temperature",
            value: self.temperature,
            valid: "above 0 for any procedure but `sample`: at 0 every draw is the most probable one, and nothing is left to choose among",
        })
    }

    /// Refuses tokens to stop at that a model has not.
    ///
    /// - `vocabulary`: how many tokens it has.
    ///
    /// # Errors
    /// [`DecodeError::Setting`] names the token.
    pub fn check_stops(&self, vocabulary: usize) -> Result<(), DecodeError> {
        let unknown = self.stop_token_ids.iter().find(|id| **id as usize >= vocabulary);
        unknown.map_or(Ok(()), |token| {
            Err(DecodeError::Setting {
                key: "stop_token_ids",
                value: f64::from(*token),
                valid: "a token of the model's vocabulary",
            })
        })
    }

    /// The same for a vocabulary of so many tokens: a `top_k` that leaves none of them out becomes 0, so that it counts as none.
    #[must_use]
    pub fn of_vocabulary(&self, tokens: usize) -> Self {
        let top_k = if self.top_k < tokens { self.top_k } else { 0 };
        Self { top_k, ..self.clone() }
    }

    /// Whether tokens are drawn from the model's own distribution: at temperature 1, from the whole vocabulary.
    pub fn is_of_the_model_itself(&self) -> bool {
        self.temperature == 1.0 && self.is_of_whole_vocabulary()
    }

    /// Whether no token is left out.
    pub(crate) fn is_of_whole_vocabulary(&self) -> bool {
        self.top_k == 0 && self.top_p == 1.0
    }

    /// Whether a token ends a response of a model whose texts end at `stops`.
    pub(crate) fn is_stop(&self, token: u32, stops: &BTreeSet<u32>) -> bool {
        stops.contains(&token) || self.stop_token_ids.contains(&token)
    }

    /// How many of some tokens would be a response: those up to the first that ends it, and no more than `max_tokens`.
    ///
    /// - `stops`: tokens that end the model's texts.
    pub fn length_of(&self, tokens: &[u32], stops: &BTreeSet<u32>) -> usize {
        let stop = tokens.iter().position(|token| self.is_stop(*token, stops));
        stop.map_or(tokens.len(), |stop| stop + 1).min(self.max_tokens)
    }

    /// Why a response ends with its last token, if it does.
    ///
    /// - `stops`: tokens that end the model's texts.
    ///
    /// # Errors
    /// [`ModelError`] when the tokenizer fails.
    pub(crate) fn finish(
        &self,
        prompt: &[u32],
        response: &[u32],
        stops: &BTreeSet<u32>,
        texts: Option<StopTexts<'_>>,
    ) -> Result<Option<Finish>, ModelError> {
        let by_token = response.last().is_some_and(|token| self.is_stop(*token, stops));
        if by_token || texts.map_or(Ok(false), |texts| texts.ended(prompt, response))? {
            return Ok(Some(Finish::Stop));
        }
        Ok((response.len() == self.max_tokens).then_some(Finish::Length))
    }

    /// Draws a token by inverting the cumulative distribution at `uniform` in [0, 1). Equal logits rank by token id. Of logits that are no numbers,
    /// or of no logits, the log-probability is none either, and the token means nothing.
    ///
    /// - `weights`: room to work in.
    pub fn draw(&self, logits: &[f32], uniform: f64, weights: &mut Vec<f32>) -> Draw {
        let partition = softmax_weights(logits, 1.0, weights);
        if logits.is_empty() || !partition.total.is_finite() {
            return Draw { token: 0, log_prob: f32::NAN };
        }
        let token = if self.temperature == 0.0 {
            logits.iter().position(|&l| l == partition.largest).unwrap_or(0)
        } else if self.temperature == 1.0 {
            self.choose(weights, partition.total, uniform)
        } else {
            let colder = softmax_weights(logits, self.coldness(), weights);
            self.choose(weights, colder.total, uniform)
        };
        Draw { token: token as u32, log_prob: partition.log_prob(logits[token]) }
    }

    /// What logits are multiplied by, for a temperature above 0: an infinite factor would make no number of the greatest logit's 0.
    fn coldness(&self) -> f32 {
        ((1.0 / self.temperature) as f32).min(f32::MAX)
    }

    /// The temperature in the precision of devices, which divide by it: above 0 it is no smaller than a reciprocal can be taken of.
    pub(crate) fn temperature_of_devices(&self) -> f32 {
        if self.temperature == 0.0 {
            return 0.0;
        }
        (self.temperature as f32).max(f32::MIN_POSITIVE)
    }

    /// What tokens are drawn from: those of positive probability in the order of the vocabulary, and their probabilities.
    pub(crate) fn distribution(&self, logits: &[f32], weights: &mut Vec<f32>) -> Vec<(u32, f64)> {
        if self.temperature == 0.0 {
            return vec![(self.draw(logits, 0.0, weights).token, 1.0)];
        }
        softmax_weights(logits, self.coldness(), weights);
        let mut order: Vec<usize> = if self.is_of_whole_vocabulary() {
            (0..weights.len()).collect()
        } else {
            self.most_probable(weights)
        };
        order.retain(|&token| weights[token] > 0.0);
        order.sort_unstable();
        let total: f64 = order.iter().map(|&token| f64::from(weights[token])).sum();
        let share = |token: usize| (token as u32, f64::from(weights[token]) / total);
        order.into_iter().map(share).collect()
    }

    fn choose(&self, weights: &[f32], total: f64, uniform: f64) -> usize {
        if self.is_of_whole_vocabulary() {
            invert(weights.iter().copied().map(f64::from), total, uniform)
        } else {
            self.draw_truncated(weights, uniform)
        }
    }

    /// The same from the most probable tokens only.
    fn draw_truncated(&self, weights: &[f32], uniform: f64) -> usize {
        let kept = self.most_probable(weights);
        let weight = |&token: &usize| f64::from(weights[token]);
        kept[invert(kept.iter().map(weight), kept.iter().map(weight).sum(), uniform)]
    }

    /// The tokens that top_k and top_p leave, the most probable first.
    fn most_probable(&self, weights: &[f32]) -> Vec<usize> {
        let mut ranks: Vec<Rank> = weights.iter().enumerate().map(Rank::of).collect();
        if self.top_k > 0 {
            sort_first(&mut ranks, self.top_k);
            ranks.truncate(self.top_k);
        }
        // The set is closed by the token with which it reaches its share.
        let limit = self.top_p * ranks.iter().map(|rank| rank.weight(weights)).sum::<f64>();
        let (mut mass, mut kept, mut sorted) = (0.0, 0, 0);
        while kept < ranks.len() && mass < limit {
            if kept == sorted {
                sorted = ranks.len().min(FEW_TOKENS.max(4 * kept));
                sort_first(&mut ranks[kept..], sorted - kept);
            }
            mass += ranks[kept].weight(weights);
            kept += 1;
        }
        ranks[..kept].iter().map(|rank| rank.token()).collect()
    }
}

/// The logits that a model gives, row by row.
///
/// # Errors
/// [`DecodeError::Batch`] for another number of logits than `rows` times `vocabulary`.
pub(crate) fn rows_of_logits(
    logits: &[f32],
    rows: usize,
    vocabulary: usize,
) -> Result<Vec<&[f32]>, DecodeError> {
    let (found, expected) = (logits.len(), rows * vocabulary);
    if found == expected {
        return Ok(logits.chunks(vocabulary.max(1)).collect());
    }
    let reason = format!(
        "the model gives {found} logits in place of {rows} × {vocabulary}, the number of its rows times its vocabulary"
    );
    Err(DecodeError::Batch { reason })
}

/// Of how many tokens the order is found first: most often those that top_p leaves are among them.
const FEW_TOKENS: usize = 64;

/// A token's place among all, the least first: above, the bits of its weight turned around, which order numbers that are not negative; below, the token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(u64);

impl Rank {
    fn of((token, weight): (usize, &f32)) -> Self {
        Self(u64::from(!weight.to_bits()) << 32 | token as u64)
    }

    fn token(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }

    fn weight(self, weights: &[f32]) -> f64 {
        f64::from(weights[self.token()])
    }
}

/// Moves the first ranks to the front, in order, without ordering the others.
fn sort_first(ranks: &mut [Rank], count: usize) {
    let count = count.min(ranks.len());
    if count < ranks.len() {
        ranks.select_nth_unstable(count);
    }
    ranks[..count].sort_unstable();
}

/// Index at which the running sum of the weights passes `uniform · total`; rounding never passes the last positive weight.
pub(crate) fn invert(weights: impl Iterator<Item = f64>, total: f64, uniform: f64) -> usize {
    let target = uniform * total;
    let (mut mass, mut last) = (0.0, 0);
    for (index, weight) in weights.enumerate() {
        mass += weight;
        if weight > 0.0 {
            last = index;
            if mass > target {
                break;
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stream;

    const LOGITS: [f32; 4] = [0.0, 1.0, -2.0, 1.0];

    /// Share of each token over a fine grid of uniforms.
    fn shares(sampling: Sampling, logits: &[f32]) -> Vec<f64> {
        let n = 40_000;
        let mut counts = vec![0.0; logits.len()];
        for i in 0..n {
            let uniform = (f64::from(i) + 0.5) / f64::from(n);
            let draw = sampling.draw(logits, uniform, &mut Vec::new());
            counts[draw.token as usize] += 1.0 / f64::from(n);
        }
        counts
    }

    fn softmax(logits: &[f64]) -> Vec<f64> {
        let total: f64 = logits.iter().map(|l| l.exp()).sum();
        logits.iter().map(|l| l.exp() / total).collect()
    }

    fn close(a: &[f64], b: &[f64]) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4), "{a:?} against {b:?}");
    }

    #[test]
    fn shares_are_the_tempered_softmax() {
        close(&shares(Sampling::default(), &LOGITS), &softmax(&[0.0, 1.0, -2.0, 1.0]));
        close(
            &shares(Sampling { temperature: 0.5, ..Sampling::default() }, &LOGITS),
            &softmax(&[0.0, 2.0, -4.0, 2.0]),
        );
    }

    #[test]
    fn greedy_and_truncation_keep_the_most_probable() {
        assert_eq!(
            Sampling { temperature: 0.0, ..Sampling::default() }
                .draw(&LOGITS, 0.9, &mut Vec::new())
                .token,
            1
        );
        close(
            &shares(Sampling { top_k: 2, ..Sampling::default() }, &LOGITS),
            &[0.0, 0.5, 0.0, 0.5],
        );
        close(
            &shares(Sampling { top_p: 0.3, ..Sampling::default() }, &LOGITS),
            &[0.0, 1.0, 0.0, 0.0],
        );
        let three = softmax(&[0.0, 1.0, 1.0]);
        close(
            &shares(Sampling { top_p: 0.95, ..Sampling::default() }, &LOGITS),
            &[three[0], three[1], 0.0, three[2]],
        );
    }

    #[test]
    fn what_is_left_is_a_prefix_of_all_tokens_in_order() {
        let mut stream = Stream::new(1, "weights", "", 0);
        // Some are equal, and most of the probability is in few.
        let weights: Vec<f32> =
            (0..3_000).map(|k| (stream.normal(k) * 4.0).round().exp() as f32).collect();
        let mut order: Vec<usize> = (0..weights.len()).collect();
        order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
        let mut lengths = BTreeSet::new();
        for top_k in [0, 1, 63, 64, 65, 1_000, 2_999, 3_000, 9_000] {
            for top_p in [1e-9, 0.3, 0.9, 0.999, 1.0] {
                let sampling = Sampling { top_k, top_p, ..Sampling::default() };
                let kept = sampling.most_probable(&weights);
                let most = if top_k == 0 { order.len() } else { top_k.min(order.len()) };
                assert_eq!(kept, order[..kept.len()], "{top_k}, {top_p}");
                assert!((1..=most).contains(&kept.len()), "{top_k}, {top_p}");
                let mass =
                    |count| order[..count].iter().map(|&t| f64::from(weights[t])).sum::<f64>();
                let limit = top_p * mass(most);
                assert!(mass(kept.len() - 1) < limit && mass(kept.len()) >= limit * (1.0 - 1e-12));
                lengths.insert(kept.len());
            }
        }
        assert!(lengths.len() > 10, "{lengths:?}");
    }

    #[test]
    fn log_probs_are_the_models_own() {
        for sampling in
            [Sampling::default(), Sampling { temperature: 0.3, top_k: 2, ..Sampling::default() }]
        {
            let draw = sampling.draw(&LOGITS, 0.2, &mut Vec::new());
            let expected = softmax(&LOGITS.map(f64::from))[draw.token as usize].ln();
            assert!((f64::from(draw.log_prob) - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn distributions_are_what_is_drawn_from() {
        let default = Sampling::default;
        let top_k = Sampling { top_k: 2, ..default() };
        for sampling in [
            default(),
            Sampling { temperature: 0.5, ..default() },
            top_k,
            Sampling { top_p: 0.95, temperature: 2.0, ..default() },
            Sampling { temperature: 0.0, ..default() },
        ] {
            let mut expected = vec![0.0; LOGITS.len()];
            for (token, p) in sampling.distribution(&LOGITS, &mut Vec::new()) {
                expected[token as usize] = p;
            }
            close(&shares(sampling, &LOGITS), &expected);
        }
    }

    #[test]
    fn the_least_temperatures_draw_the_most_probable_tokens() {
        for temperature in [1e-38, 2.9e-39, 1e-45, 1e-300, f64::from_bits(1)] {
            let sampling = Sampling { temperature, ..Sampling::default() };
            let equals = vec![(1, 0.5), (3, 0.5)];
            assert_eq!(sampling.distribution(&LOGITS, &mut Vec::new()), equals, "{temperature}");
            assert!((1.0 / sampling.temperature_of_devices()).is_finite(), "{temperature}");
            close(&shares(sampling, &LOGITS), &[0.0, 0.5, 0.0, 0.5]);
        }
    }

    #[test]
    fn impossible_tokens_are_never_drawn() {
        let logits = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
        for uniform in [0.0, 0.5, 1.0 - f64::EPSILON / 2.0] {
            assert_eq!(Sampling::default().draw(&logits, uniform, &mut Vec::new()).token, 1);
        }
    }

    #[test]
    fn logits_that_are_no_numbers_have_no_log_probability() {
        let infinite = [0.0, f32::INFINITY, 1.0];
        for logits in [&[f32::NAN; 3][..], &[f32::NEG_INFINITY; 3], &infinite, &[]] {
            for (top_k, top_p) in [(0, 1.0), (2, 1.0), (0, 0.5)] {
                for temperature in [0.0, 1.0, 0.5] {
                    let sampling = Sampling { temperature, top_k, top_p, ..Sampling::default() };
                    let draw = sampling.draw(logits, 0.3, &mut Vec::new());
                    assert!(draw.log_prob.is_nan(), "{sampling:?}");
                }
            }
        }
    }

    #[test]
    fn tokens_are_a_response_up_to_the_first_that_ends_it() {
        let sampling =
            Sampling { max_tokens: 4, stop_token_ids: BTreeSet::from([7]), ..Sampling::default() };
        for (tokens, length) in [
            (&[5, 2, 5][..], 2),
            (&[5, 7, 2], 2),
            (&[2], 1),
            (&[5; 3], 3),
            (&[5, 5, 5, 2], 4),
            (&[5, 5, 5, 5, 2], 4),
            (&[], 0),
        ] {
            assert_eq!(sampling.length_of(tokens, &BTreeSet::from([2])), length, "{tokens:?}");
        }
    }

    #[test]
    fn as_many_tokens_as_there_are_leave_none_out() {
        for (top_k, kept) in [(0, 0), (1, 1), (3, 3), (4, 0), (100_000, 0)] {
            let sampling = Sampling { top_k, ..Sampling::default() };
            let found = sampling.of_vocabulary(LOGITS.len());
            assert_eq!(found, Sampling { top_k: kept, ..sampling });
            assert_eq!(found.is_of_the_model_itself(), kept == 0);
        }
    }

    #[test]
    fn settings_out_of_range_are_named() {
        for (sampling, key) in [
            (Sampling { temperature: f64::NAN, ..Sampling::default() }, "temperature"),
            (Sampling { top_p: 0.0, ..Sampling::default() }, "top_p"),
            (Sampling { max_tokens: 0, ..Sampling::default() }, "max_tokens"),
        ] {
            assert!(sampling.check().unwrap_err().to_string().contains(key));
        }
    }
}
