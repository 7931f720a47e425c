//! Calibration without a table: each response of a group against the others.

use infalign_stats::mid_rank;

/// Calibrated rewards of responses to one prompt, each by its rank among the others of the group, smoothed as those of a table are.
///
/// Equation: uᵢ = (Σ_{j≠i} w(rᵢ, rⱼ) + ½)/G, w = 1, ½ or 0 where rᵢ wins, ties or loses.
///
/// It costs no reference responses, but it estimates C_{r,π} under the policy π that the group comes from, not C_{r,π_ref}: for responses
/// of π itself u is uniform whatever π is, so its mean says nothing of progress, and the optimum of Φ(u) − β·KL is another one. The two
/// agree while π is near π_ref. With G responses u comes in steps of 1/G, or of half that with ties, and is as noisy as a table of
/// K = G − 1 rewards.
///
/// - `rewards`: G of them, finite.
///
/// Returns one number in (0, 1) for each; ½ for a group of one.
///
/// # Panics
/// With debug assertions, where one of several rewards is NaN; without them its u is NaN, and those of the others mean nothing.
///
/// ```
/// let u = infalign_calibrate::group_quantiles(&[1.0, 3.0, 3.0, 2.0]);
/// assert_eq!(u, [0.125, 0.75, 0.75, 0.375]);
/// ```
pub fn group_quantiles(rewards: &[f32]) -> Vec<f64> {
    let mut sorted = rewards.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    // Among all G, oneself ties and counts the ½ of the smoothing.
    rewards.iter().map(|&reward| mid_rank(&sorted, reward)).collect()
}
