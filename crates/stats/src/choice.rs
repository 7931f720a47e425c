//! What is kept of N responses, be it by their rewards or by their answers.

use crate::{Selection, StatsError, plurality_weights, selection_weights};

/// What one side keeps of its responses to a prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// By rewards.
    Ranked(Selection),
    /// The first that gives the most frequent answer of this many, 1 or more.
    Majority(usize),
}

impl Choice {
    /// How many responses it looks at: N.
    pub fn samples(self) -> usize {
        match self {
            Self::Ranked(selection) => selection.samples(),
            Self::Majority(n) => n,
        }
    }

    /// How likely each response to a prompt is to be kept of N of them, over all subsets of N: `[responses]`, summing to 1.
    ///
    /// - `rewards`: of the responses, N or more, finite; without effect on a majority.
    /// - `answers`: of the same in their order, those that give none as `None`; asked for by a majority alone.
    ///
    /// # Errors
    /// As [`selection_weights`] and [`plurality_weights`].
    ///
    /// ```
    /// use infalign_stats::Choice;
    /// let weights = Choice::Majority(2).weights(&[0.0, 1.0, 0.0], || vec![Some("7"), Some("8"), Some("7")])?;
    /// assert!((weights[1] - 1.0 / 3.0).abs() < 1e-12);
    /// # Ok::<(), infalign_stats::StatsError>(())
    /// ```
    pub fn weights<'a>(
        self,
        rewards: &[f64],
        answers: impl FnOnce() -> Vec<Option<&'a str>>,
    ) -> Result<Vec<f64>, StatsError> {
        match self {
            Self::Ranked(selection) => selection_weights(rewards, selection),
            Self::Majority(n) => plurality_weights(&answers(), n),
        }
    }
}
