//! The logarithm of the response's length, by which controlled decoding is made to write longer responses.

use crate::{LengthUnit, Reward, RewardError};

/// log(|y| / T_max), the length reward of Controlled Decoding (arXiv 2310.17022): from −log T_max to 0, in nats.
///
/// |y| is at least 1, so that an empty response has a finite reward, and at most T_max.
#[derive(Clone, Copy, Debug)]
pub struct LogLength {
    unit: LengthUnit,
    most: usize,
}

impl LogLength {
    /// - `unit`: what |y| counts.
    /// - `most`: T_max, at least 1. Longer responses count as this long.
    ///
    /// # Errors
    /// [`RewardError::Setting`] where `most` is 0.
    pub fn new(unit: LengthUnit, most: usize) -> Result<Self, RewardError> {
        if most == 0 {
            return Err(RewardError::Setting { key: "most", value: 0.0, valid: "at least 1" });
        }
        Ok(Self { unit, most })
    }
}

impl Reward for LogLength {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        let score = |response: &str| {
            let length = self.unit.count(response).clamp(1, self.most);
            (length as f64 / self.most as f64).ln() as f32
        };
        Ok(pairs.iter().map(|(_, response)| score(response)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected numbers are the logarithms of the fractions that the comments name.
    #[test]
    fn lengths_become_logarithms_of_shares() {
        let reward = LogLength::new(LengthUnit::Words, 4).unwrap();
        let pairs =
            ["one two", "a b c d", "a b c d e f", "one", ""].map(|response| ("x", response));
        let expected = [
            -std::f32::consts::LN_2,       // 2/4
            0.0,                           // 4/4
            0.0,                           // 6 words count as 4
            -2.0 * std::f32::consts::LN_2, // 1/4
            -2.0 * std::f32::consts::LN_2, // no word counts as 1
        ];
        assert_eq!(reward.score(&pairs).unwrap(), expected);
        let reward = LogLength::new(LengthUnit::Characters, 10).unwrap();
        let half = reward.score(&[("", "né e ")]).unwrap()[0];
        assert_eq!(half, -std::f32::consts::LN_2, "5 characters of 10");
    }

    #[test]
    fn no_length_is_no_share() {
        let message = LogLength::new(LengthUnit::Words, 0).unwrap_err().to_string();
        assert!(message.contains("`most` is 0"), "{message}");
    }
}
