//! The weighted sum of rewards.

use crate::members::Members;
use crate::{Reward, RewardError};

/// Σ weight · reward over its parts.
#[derive(Debug)]
pub struct WeightedSum {
    weights: Vec<f64>,
    parts: Members,
}

impl WeightedSum {
    /// Rewards with their weights, of either sign.
    ///
    /// # Errors
    /// [`RewardError`] for no parts at all, or a weight that is not finite.
    pub fn new(parts: Vec<(f32, Box<dyn Reward>)>) -> Result<Self, RewardError> {
        let (weights, rewards): (Vec<f32>, Vec<_>) = parts.into_iter().unzip();
        if let Some(idx) = weights.iter().position(|weight| !weight.is_finite()) {
            let entry = format!("parts[{idx}]");
            return Err(RewardError::Weight { entry, weight: weights[idx] });
        }
        let parts = Members::new(rewards, "sum", "parts")?;
        Ok(Self { weights: weights.into_iter().map(f64::from).collect(), parts })
    }
}

impl Reward for WeightedSum {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        let sum =
            |rewards: &[f64]| rewards.iter().zip(&self.weights).map(|(r, w)| r * w).sum::<f64>();
        self.parts.score(pairs, sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Length, LengthUnit};

    fn length(unit: LengthUnit) -> Box<dyn Reward> {
        Box::new(Length { unit })
    }

    #[test]
    fn parts_are_weighed_and_added() {
        let parts = vec![(2.0, length(LengthUnit::Words)), (-0.5, length(LengthUnit::Characters))];
        let sum = WeightedSum::new(parts).unwrap();
        assert_eq!(sum.score(&[("x", "one two"), ("", "")]).unwrap(), [0.5, 0.0]);
    }

    #[test]
    fn what_is_no_sum_is_refused() {
        let message = WeightedSum::new(Vec::new()).err().unwrap().to_string();
        assert!(message.contains("`sum`") && message.contains("`parts`"), "{message}");
        let one = |weight| WeightedSum::new(vec![(weight, length(LengthUnit::Words))]);
        let message = one(f32::INFINITY).err().unwrap().to_string();
        assert!(message.contains("`parts[0]` is inf"), "{message}");
        let message = one(f32::MAX).unwrap().score(&[("", "a b")]).unwrap_err().to_string();
        assert!(message.contains("\"a b\""), "{message}");
    }
}
