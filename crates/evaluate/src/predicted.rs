//! What the continuous limit expects of a policy at its KL.

use infalign_transform::{Procedure, Theory, Tilt, TransformError};

use crate::EvaluateError;

/// Win rate of what training leads to at `kl` nats, in the continuous limit; none for a procedure that has no rank density, as `soft-best-of`,
/// whose τ is in units of a reward that the limit does not know, and `majority`, which does not go by rewards, and for a KL that the transform does
/// not lead to, as one that is flat at the top has a greatest.
///
/// # Errors
/// [`EvaluateError::Transform`] where an integral fails.
pub fn predicted_win_rate(
    theory: &Theory,
    kl: f64,
    procedure: &Procedure,
) -> Result<Option<f64>, EvaluateError> {
    if !procedure.has_rank_density() {
        return Ok(None);
    }
    let trained = Trained::at_kl(theory, kl)?;
    Ok(trained.map(|trained| trained.win_rate(procedure)).transpose()?)
}

/// What training leads to at some KL; none: still the reference.
pub(crate) struct Trained(Option<Tilt>);

impl Trained {
    /// None for a KL that the transform does not lead to.
    pub(crate) fn at_kl(theory: &Theory, kl: f64) -> Result<Option<Self>, TransformError> {
        // Two equal policies differ from 0 by rounding alone.
        if kl < 1e-9 {
            return Ok(Some(Self(None)));
        }
        match theory.at_kl(kl) {
            Err(TransformError::UnreachableKl { .. }) => Ok(None),
            policy => Ok(Some(Self(Some(policy?)))),
        }
    }

    /// Over the reference, under a procedure that has a rank density.
    pub(crate) fn win_rate(&self, procedure: &Procedure) -> Result<f64, TransformError> {
        self.0.as_ref().map_or(Ok(0.5), |policy| policy.win_rate(procedure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_trained_on_a_win_rate_is_expected_at_the_optimum_of_its_decoder() {
        let best_of_4 = "best-of:4".parse().unwrap();
        let predicted = |theory: Theory, procedure: &str| {
            predicted_win_rate(&theory, 0.5, &procedure.parse().unwrap()).unwrap()
        };
        let optimum = infalign_transform::Optimum::for_kl(&best_of_4, 0.5).unwrap();
        let found = predicted(Theory::WinRate(best_of_4), "best-of:4").unwrap();
        assert!((found - optimum.win_rate).abs() < 1e-9);
        let by_transform = predicted(Theory::Transform("exp:10".parse().unwrap()), "best-of:4");
        assert!(by_transform.unwrap() < found);
        assert!(predicted(Theory::WinRate(best_of_4), "worst-of:4").unwrap() < 0.7);
        for unknown in ["soft-best-of:4,temperature=1", "majority:4"] {
            assert_eq!(predicted(Theory::WinRate(best_of_4), unknown), None);
        }
    }
}
