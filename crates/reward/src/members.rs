//! Several rewards of the same pairs, put together pair by pair: what sums and ensembles have in common.

use std::fmt;

use crate::{Reward, RewardError, scored};

/// At least one reward.
pub(crate) struct Members(Vec<Box<dyn Reward>>);

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rewards", self.0.len())
    }
}

impl Members {
    /// - `kind`, `key`: of the configuration that lists the rewards, for the error.
    ///
    /// # Errors
    /// [`RewardError::Empty`] where there is none.
    pub(crate) fn new(
        rewards: Vec<Box<dyn Reward>>,
        kind: &'static str,
        key: &'static str,
    ) -> Result<Self, RewardError> {
        if rewards.is_empty() { Err(RewardError::Empty { kind, key }) } else { Ok(Self(rewards)) }
    }

    /// For each pair, what `combine` makes of its rewards, which come in the order of the members.
    ///
    /// # Errors
    /// The error of a member, or [`RewardError::NotFinite`] for a result that is beyond the range of f32.
    pub(crate) fn score(
        &self,
        pairs: &[(&str, &str)],
        combine: impl Fn(&[f64]) -> f64,
    ) -> Result<Vec<f32>, RewardError> {
        let all = self
            .0
            .iter()
            .map(|member| scored(member.as_ref(), pairs))
            .collect::<Result<Vec<_>, _>>()?;
        let score = |(idx, (_, response)): (usize, &(&str, &str))| {
            let rewards: Vec<f64> = all.iter().map(|of_member| f64::from(of_member[idx])).collect();
            let score = combine(&rewards) as f32;
            let refused = || RewardError::NotFinite { response: (*response).to_owned(), score };
            score.is_finite().then_some(score).ok_or_else(refused)
        };
        pairs.iter().enumerate().map(score).collect()
    }
}
