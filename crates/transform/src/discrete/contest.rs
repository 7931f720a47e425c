//! The game that a policy plays: it and π_ref respond through the same procedure, and rewards decide.

use super::groups::{TieGroups, midpoints};
use super::ranked::Ranked;
use super::rejection::Rejection;
use super::softmax::Softmax;
use crate::error::TransformError;
use crate::procedure::Procedure;
use crate::rank::{COLDEST, responses};

/// A procedure as a map from group masses to group masses.
#[derive(Clone, Debug)]
pub(super) enum Law {
    /// Best-of-N, worst-of-N, and sampling as N = 1.
    Ranked(Ranked),
    /// Soft best-of-n, n ≥ 2.
    Soft(Softmax),
    /// Rejection above a quantile in N ≥ 2 draws.
    Rejection(Rejection),
}

impl Law {
    pub(super) fn new(procedure: &Procedure, groups: &TieGroups) -> Result<Self, TransformError> {
        let ranked = |n: f64, rising| Law::Ranked(Ranked { n, rising });
        match *procedure {
            Procedure::Sample => Ok(ranked(1.0, true)),
            Procedure::BestOf(n) => Ok(ranked(responses(n)?, true)),
            Procedure::WorstOf(n) => Ok(ranked(responses(n)?, false)),
            Procedure::SoftBestOf { temperature, .. }
                if !temperature.is_finite() || temperature < COLDEST =>
            {
                Err(TransformError::Temperature(temperature))
            }
            Procedure::SoftBestOf { n, .. } if n.get() == 1 => Ok(ranked(1.0, true)),
            Procedure::SoftBestOf { n, temperature } => {
                Ok(Law::Soft(Softmax::new(responses(n)?, temperature, &groups.rewards)))
            }
            Procedure::Rejection { draws, .. } if draws.get() == 1 => Ok(ranked(1.0, true)),
            Procedure::Rejection { quantile, draws } => {
                Ok(Law::Rejection(Rejection { quantile, draws: responses(draws)? }))
            }
            _ => Err(TransformError::NotByRank(procedure.to_string())),
        }
    }

    /// Probability of each group to be returned.
    pub(super) fn apply(&self, masses: &[f64]) -> Vec<f64> {
        match self {
            Law::Ranked(ranked) => ranked.apply(masses),
            Law::Soft(softmax) => softmax.apply(masses),
            Law::Rejection(rejection) => rejection.apply(masses),
        }
    }
}

/// One procedure on both sides, against one reference. All vectors have an entry a tie group, by
/// ascending reward.
#[derive(Clone, Debug)]
pub(super) struct Contest<'a> {
    pub(super) law: Law,
    /// Masses of π_ref.
    pub(super) reference: &'a [f64],
    /// C_{r,T(π_ref)} of each group.
    pub(super) wins: Vec<f64>,
}

impl<'a> Contest<'a> {
    pub(super) fn new(law: Law, reference: &'a [f64]) -> Self {
        let wins = midpoints(&law.apply(reference));
        Contest { law, reference, wins }
    }

    /// W^T(π ≻ π_ref) = Σ C_{r,T(π_ref)}·T(π), ties counted half.
    pub(super) fn win_rate(&self, masses: &[f64]) -> f64 {
        self.law.apply(masses).iter().zip(&self.wins).map(|(taken, win)| taken * win).sum()
    }

    /// The group whose mid-rank lies where rejection begins to accept, and whether it is accepted.
    pub(super) fn edge(&self, masses: &[f64]) -> Option<(usize, bool)> {
        let Law::Rejection(rejection) = &self.law else { return None };
        let edge = rejection.edge(self.reference, masses)?;
        Some((edge, rejection.accepted(masses)[edge]))
    }

    /// 𝓡 = ∂W^T/∂π of each group, less that of the group of greatest reward.
    pub(super) fn coupled(&self, masses: &[f64]) -> Vec<f64> {
        match &self.law {
            Law::Ranked(ranked) => ranked.coupled(self.reference, masses),
            Law::Soft(softmax) => softmax.coupled(&self.wins, masses),
            Law::Rejection(rejection) => rejection.coupled(&self.wins, masses),
        }
    }
}
