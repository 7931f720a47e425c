//! What training leads to at any KL, in the continuous limit.

use crate::continuous::{Tilt, beta_for_kl};
use crate::error::TransformError;
use crate::procedure::Procedure;
use crate::transform::Transform;

/// What a policy is trained towards: at every KL the best policy for a transform, or for a win rate.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Theory {
    /// Of greatest E\[Φ(u)\] for its KL.
    Transform(Transform),
    /// Of greatest W^T for its KL, under this procedure T on both sides.
    WinRate(Procedure),
}

impl Theory {
    /// The policy at `kl` nats.
    ///
    /// # Errors
    /// Those of [`beta_for_kl`] and [`Optimum::for_kl`](crate::Optimum::for_kl).
    ///
    /// ```
    /// use infalign_transform::Theory;
    /// let best_of_4 = "best-of:4".parse()?;
    /// let wins = |theory: Theory| theory.at_kl(0.5)?.win_rate(&best_of_4);
    /// assert!(wins(Theory::WinRate(best_of_4))? > wins(Theory::Transform("exp:10".parse()?))?);
    /// # Ok::<(), infalign_transform::TransformError>(())
    /// ```
    pub fn at_kl(&self, kl: f64) -> Result<Tilt, TransformError> {
        match self {
            Self::Transform(transform) => Tilt::new(transform, beta_for_kl(transform, kl)?),
            Self::WinRate(procedure) => {
                let (transform, beta) = Transform::optimal_at_kl(procedure, kl)?;
                Tilt::new(&transform, beta)
            }
        }
    }
}
