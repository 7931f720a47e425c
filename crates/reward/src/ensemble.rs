//! Several rewards as one that trusts none of them alone, so that the errors of one are less worth exploiting.

use serde::{Deserialize, Serialize};

use crate::members::Members;
use crate::{Reward, RewardError};

/// How the rewards of an ensemble's members become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The least of them.
    Minimum,
    /// Their mean less k times their standard deviation, which is that of the members alone: n in the denominator, not n − 1.
    MeanMinusStd,
}

/// Several rewards of the same response, pooled.
#[derive(Debug)]
pub struct Ensemble {
    members: Members,
    by: Pooling,
    /// 0 where the standard deviation does not count.
    k: f64,
}

impl Ensemble {
    /// - `k`: how much the standard deviation counts, at least 0; for [`Pooling::MeanMinusStd`], and only there.
    ///
    /// # Errors
    /// [`RewardError`] for no members at all, and for a `k` that is missing, out of range, or not for this pooling.
    pub fn new(
        members: Vec<Box<dyn Reward>>,
        by: Pooling,
        k: Option<f64>,
    ) -> Result<Self, RewardError> {
        let members = Members::new(members, "ensemble", "of")?;
        let k = match (by, k) {
            (Pooling::MeanMinusStd, Some(k)) if k >= 0.0 && k.is_finite() => k,
            (Pooling::MeanMinusStd, Some(value)) => {
                return Err(RewardError::Setting {
                    key: "k",
                    value,
                    valid: "finite, and at least 0",
                });
            }
            (Pooling::Mean | Pooling::Minimum, None) => 0.0,
            _ => return Err(RewardError::Deviation),
        };
        Ok(Self { members, by, k })
    }

    fn pool(&self, rewards: &[f64]) -> f64 {
        let mean = mean_of(rewards.iter().copied());
        match self.by {
            Pooling::Mean => mean,
            Pooling::Minimum => rewards.iter().copied().fold(f64::INFINITY, f64::min),
            Pooling::MeanMinusStd => {
                let variance = mean_of(rewards.iter().map(|reward| (reward - mean).powi(2)));
                mean - self.k * variance.sqrt()
            }
        }
    }
}

impl Reward for Ensemble {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        self.members.score(pairs, |rewards| self.pool(rewards))
    }
}

fn mean_of(numbers: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = numbers.len() as f64;
    numbers.sum::<f64>() / n
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Length, LengthUnit, Lexicon};

    /// Words, characters, and 1 for each `a`.
    fn members() -> Vec<Box<dyn Reward>> {
        let a = Lexicon::new(&[("a".to_owned(), 1.0)].into()).unwrap();
        let length = |unit| -> Box<dyn Reward> { Box::new(Length { unit }) };
        vec![length(LengthUnit::Words), length(LengthUnit::Characters), Box::new(a)]
    }

    fn score(by: Pooling, k: Option<f64>) -> Vec<f32> {
        let pairs = [("x", "a b"), ("x", "")];
        Ensemble::new(members(), by, k).unwrap().score(&pairs).unwrap()
    }

    /// The rewards of `a b` are 2, 3 and 1: mean 2, variance (0 + 1 + 1)/3.
    #[test]
    fn rewards_are_pooled_for_each_response() {
        assert_eq!(score(Pooling::Mean, None), [2.0, 0.0]);
        assert_eq!(score(Pooling::Minimum, None), [1.0, 0.0]);
        let expected = (2.0 - 1.5 * (2.0_f64 / 3.0).sqrt()) as f32;
        assert_eq!(score(Pooling::MeanMinusStd, Some(1.5)), [expected, 0.0]);
        assert_eq!(score(Pooling::MeanMinusStd, Some(0.0)), [2.0, 0.0]);
    }

    #[test]
    fn k_belongs_to_the_standard_deviation() {
        let refuse = |by, k| Ensemble::new(members(), by, k).err().unwrap().to_string();
        assert!(refuse(Pooling::Mean, Some(1.0)).contains("mean-minus-std"));
        assert!(refuse(Pooling::Minimum, Some(1.0)).contains("mean-minus-std"));
        assert!(refuse(Pooling::MeanMinusStd, None).contains("mean-minus-std"));
        assert!(refuse(Pooling::MeanMinusStd, Some(-1.0)).contains("`k` is -1"));
        let message = Ensemble::new(Vec::new(), Pooling::Mean, None).err().unwrap().to_string();
        assert!(message.contains("`ensemble`") && message.contains("`of`"), "{message}");
    }
}
