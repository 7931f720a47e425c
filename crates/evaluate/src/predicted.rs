//! What the continuous limit expects of a policy at its KL.

use infalign_transform::{Procedure, Theory, TransformError};

use crate::EvaluateError;

/// Win rate of what training leads to at `kl` nats, in the continuous limit; none for `soft-best-of`, whose τ is in units of a reward that
/// the limit does not know, and for a KL that the transform does not lead to, as one that is flat at the top has a greatest.
///
/// # Errors
/// [`EvaluateError::Transform`] where an integral fails.
pub fn predicted_win_rate(
    theory: &Theory,
    kl: f64,
    procedure: &Procedure,
) -> Result<Option<f64>, EvaluateError> {
    if matches!(procedure, Procedure::SoftBestOf { .. }) {
        return Ok(None);
    }
    // Two equal policies differ from 0 by rounding alone.
    if kl < 1e-9 {
        return Ok(Some(0.5));
    }
    match theory.at_kl(kl) {
        Err(TransformError::UnreachableKl { .. }) => Ok(None),
        policy => Ok(Some(policy?.win_rate(procedure)?)),
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
        assert_eq!(predicted(Theory::WinRate(best_of_4), "soft-best-of:4,temperature=1"), None);
    }
}
