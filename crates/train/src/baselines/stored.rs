//! From reference rollouts to what offline methods learn from.

use infalign_calibrate::rollouts::{ReferenceResponse, Rollouts};
use infalign_decode::EncodedPrompt;
use infalign_model::Sequence;
use serde::{Deserialize, Serialize};

use super::ResponsePair;
use crate::TrainError;
use crate::fit::check_counts;

/// How rewards make preferences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Labels {
    /// The higher reward is preferred; a tie counts half for each.
    #[default]
    Reward,
    /// The first is preferred with probability σ(r − r′), as Bradley and Terry have it.
    BradleyTerry,
}

impl Labels {
    /// Probability that a response with reward `first` is preferred to one with reward `second`.
    pub(crate) fn preference(self, first: f32, second: f32) -> f64 {
        let difference = f64::from(first) - f64::from(second);
        match self {
            Self::Reward if difference == 0.0 => 0.5,
            Self::Reward => f64::from(u8::from(difference > 0.0)),
            Self::BradleyTerry => 1.0 / (1.0 + (-difference).exp()),
        }
    }
}

/// Independent pairs: the first response of each prompt with its second, the third with the fourth, and so on.
///
/// # Errors
/// [`TrainError::Calibrate`] for a prompt without rollouts.
pub fn pairs(
    rollouts: &Rollouts,
    prompts: &[EncodedPrompt],
    labels: Labels,
) -> Result<Vec<ResponsePair>, TrainError> {
    in_groups(rollouts, prompts, 2, |prompt, group| {
        let [first, second] = [0, 1].map(|i| &group[i]);
        let preference = labels.preference(first.reward, second.reward);
        pair(prompt, first, second, preference)
    })
}

/// The best of each group of N responses of a prompt, taken in the order in which they were drawn; of equals the first, which is as good as
/// a random one, since they are independent.
///
/// # Errors
/// As [`pairs`], and [`TrainError::Setting`] where N is 0.
pub fn best_of_n(
    rollouts: &Rollouts,
    prompts: &[EncodedPrompt],
    n: usize,
) -> Result<Vec<Sequence>, TrainError> {
    in_groups(rollouts, prompts, n, |prompt, group| prompt.followed_by(&best(group).tokens))
}

/// The best of each group of N responses of a prompt against the worst; of equals the first is the best and the last the worst.
///
/// # Errors
/// As [`best_of_n`].
pub fn best_worst_pairs(
    rollouts: &Rollouts,
    prompts: &[EncodedPrompt],
    n: usize,
) -> Result<Vec<ResponsePair>, TrainError> {
    in_groups(rollouts, prompts, n, |prompt, group| pair(prompt, best(group), worst(group), 1.0))
}

/// What `make` makes of each whole group of `n` responses to a prompt, in the order of prompts and responses.
fn in_groups<T>(
    rollouts: &Rollouts,
    prompts: &[EncodedPrompt],
    n: usize,
    make: impl Fn(&EncodedPrompt, &[ReferenceResponse]) -> T,
) -> Result<Vec<T>, TrainError> {
    check_counts(&[("n", n)])?;
    let mut made = Vec::new();
    for prompt in prompts {
        let groups = rollouts.of(&prompt.text)?.chunks_exact(n);
        made.extend(groups.map(|group| make(prompt, group)));
    }
    Ok(made)
}

/// The first of the responses with the greatest reward; the group is not empty.
fn best(group: &[ReferenceResponse]) -> &ReferenceResponse {
    group.iter().fold(&group[0], |best, next| if next.reward > best.reward { next } else { best })
}

/// The last of the responses with the least reward; the group is not empty.
fn worst(group: &[ReferenceResponse]) -> &ReferenceResponse {
    group
        .iter()
        .fold(&group[0], |worst, next| if next.reward <= worst.reward { next } else { worst })
}

fn pair(
    prompt: &EncodedPrompt,
    first: &ReferenceResponse,
    second: &ReferenceResponse,
    preference: f64,
) -> ResponsePair {
    ResponsePair {
        responses: [first, second].map(|response| prompt.followed_by(&response.tokens)),
        reference: Some([first.log_prob(), second.log_prob()]),
        preference,
    }
}

#[cfg(test)]
mod tests {
    use infalign_calibrate::CalibrationMeta;

    use super::*;

    /// One prompt, whose response number i is the token i with log-probability −i.
    fn rollouts(rewards: &[f32]) -> (Rollouts, [EncodedPrompt; 1]) {
        let mut rollouts = Rollouts::new(CalibrationMeta::default(), rewards.len());
        let response = |(i, &reward): (usize, &f32)| ReferenceResponse {
            tokens: vec![i as u32],
            log_probs: vec![-(i as f32)],
            reward,
        };
        rollouts.insert("x", "x", rewards.iter().enumerate().map(response).collect()).unwrap();
        (rollouts, [EncodedPrompt { id: "x".into(), text: "x".into(), tokens: vec![9] }])
    }

    /// The last tokens of sequences.
    fn last(sequences: &[Sequence]) -> Vec<u32> {
        sequences.iter().map(|s| s.response()[0]).collect()
    }

    #[test]
    fn pairs_are_independent_and_ties_count_half() {
        let (rollouts, prompts) = rollouts(&[1.0, 2.0, 5.0, 5.0, 3.0, -1.0, 7.0]);
        let pairs = pairs(&rollouts, &prompts, Labels::Reward).unwrap();
        let preferences: Vec<f64> = pairs.iter().map(|pair| pair.preference).collect();
        assert_eq!(preferences, [0.0, 0.5, 1.0]);
        assert_eq!(last(&pairs[1].responses), [2, 3]);
        assert_eq!(pairs[1].reference, Some([-2.0, -3.0]));
        assert_eq!((pairs[0].responses[0].tokens[0], pairs[0].responses[0].prompt_length), (9, 1));
        assert!(pairs.len() == 3, "the last response has no partner");
        let p = Labels::BradleyTerry.preference(2.0, 1.0);
        assert!((p - 0.731_058_578_630_005).abs() < 1e-12, "{p}");
    }

    #[test]
    fn the_best_and_the_worst_are_those_of_whole_groups() {
        let (rollouts, prompts) = rollouts(&[1.0, 3.0, 3.0, 2.0, 4.0, 4.0, 4.0, 4.0, 9.0]);
        assert_eq!(last(&best_of_n(&rollouts, &prompts, 4).unwrap()), [1, 4]);
        let pairs = best_worst_pairs(&rollouts, &prompts, 4).unwrap();
        let ends: Vec<Vec<u32>> = pairs.iter().map(|pair| last(&pair.responses)).collect();
        assert_eq!(ends, [[1, 0], [4, 7]]);
    }

    #[test]
    fn a_prompt_without_rollouts_is_an_error() {
        let (rollouts, [mut prompt]) = rollouts(&[1.0, 2.0]);
        prompt.text = "another".into();
        assert!(pairs(&rollouts, &[prompt], Labels::Reward).is_err());
    }
}
