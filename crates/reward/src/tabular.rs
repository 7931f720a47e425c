//! The rewards of a tabular model's responses, looked up.

use infalign_model::{PrefixTree, TabularProblem};

use crate::{Reward, RewardError};

/// The reward of each complete response of a [`TabularProblem`], found by the text of the response without EOS, such as `ab`.
///
/// A response that was cut short before its EOS is scored as if it had ended there: let as many tokens be drawn as the table is deep.
#[derive(Clone, Debug)]
pub struct TabularReward {
    tree: PrefixTree,
    rewards: Vec<f64>,
}

impl TabularReward {
    /// The rewards of a problem.
    pub fn new(problem: &TabularProblem) -> Self {
        Self { tree: problem.model().tree(), rewards: problem.rewards().to_vec() }
    }
}

impl Reward for TabularReward {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        let score = |(_, response): &(&str, &str)| {
            let reward = self.tree.find(response).map(|number| self.rewards[number]);
            reward
                .filter(|reward| reward.is_finite())
                .map(|reward| reward as f32)
                .ok_or_else(|| RewardError::NotInTable { response: (*response).to_owned() })
        };
        pairs.iter().map(score).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_looked_up() {
        let text = r#"{"D": 2, "p": {"": [0.5, 0, 0.5]}, "r": {"$": "1/4", "a$": -2}}"#;
        let problem = TabularProblem::parse(text, "small.json".as_ref()).unwrap();
        let reward = TabularReward::new(&problem);
        assert_eq!(reward.score(&[("x", "a"), ("", "")]).unwrap(), [-2.0, 0.25]);
        for response in ["b", "aa", "a$", " a"] {
            let error = reward.score(&[("", response)]).unwrap_err().to_string();
            assert!(error.contains(&format!("{response:?}")), "{error}");
        }
    }
}
