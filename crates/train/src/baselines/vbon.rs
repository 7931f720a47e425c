//! vBoN, variational best-of-N (Amini et al., arXiv 2407.06057): maximise E[(N − 1) log F(r(x, y))] − KL(π‖π_ref).
//!
//! F is the distribution function of the reward under π_ref, so that F(r) is the calibrated reward u: this is CTRL with Φ = log u at
//! β = 1/(N − 1), and is trained as such.
//! How it departs from the paper:
//! 1. F comes from the calibration table, with ties counted half and smoothed away from 0, instead of P(r(z) ≤ r(y)) from fresh samples.
//! 2. The solver is CTRL's.

use infalign_transform::Transform;

use crate::Objective;

/// Objective and β of CTRL that make it vBoN for best-of-`n`, n at least 2. Best-of-1 is π_ref, to which a β of ∞ leads: that is what n
/// below 2 gives.
///
/// ```
/// use infalign_train::baselines::vbon;
/// assert_eq!((vbon(5).1, vbon(1).1, vbon(0).1), (0.25, f64::INFINITY, f64::INFINITY));
/// ```
pub fn vbon(n: usize) -> (Objective, f64) {
    (Objective::Calibrated(Transform::Log), 1.0 / n.saturating_sub(1) as f64)
}
