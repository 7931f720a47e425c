//! Win rate against KL: what a transform reaches over all β, and what no transform exceeds.

use crate::beta::Beta;
use crate::continuous::{Tilt, beta_for_kl};
use crate::error::TransformError;
use crate::optimal::Optimum;
use crate::procedure::Procedure;
use crate::rank::RankDensity;
use crate::transform::Transform;

/// One β of a frontier.
#[derive(Clone, Debug, PartialEq)]
pub struct FrontierPoint {
    /// The KL coefficient, on the raw scale of the transform.
    pub beta: Beta,
    /// KL(π‖π_ref) in nats.
    pub kl: f64,
    /// Inference-time win rates over π_ref, one for each decoder that was asked for.
    pub win_rates: Vec<f64>,
}

/// The frontier of a transform: `count` policies from a KL of `from` to one of `to` nats, β spaced evenly
/// in its logarithm.
///
/// # Errors
/// As for [`beta_for_kl`].
///
/// ```
/// use infalign_transform::{RankDensity, frontier};
/// let ranks = [RankDensity::of(&"best-of:4".parse()?)?];
/// let points = frontier(&"exp:10".parse()?, &ranks, (0.01, 3.0), 40)?;
/// assert_eq!(points.len(), 40);
/// assert!(points.windows(2).all(|pair| pair[0].win_rates[0] < pair[1].win_rates[0]));
/// # Ok::<(), infalign_transform::TransformError>(())
/// ```
pub fn frontier(
    transform: &Transform,
    ranks: &[RankDensity],
    (from, to): (f64, f64),
    count: usize,
) -> Result<Vec<FrontierPoint>, TransformError> {
    let end = beta_for_kl(transform, to)?;
    betas(beta_for_kl(transform, from)?, end, count)
        .map(|beta| point(transform, beta?, ranks))
        .collect()
}

/// The same for the optimum of one decoder: no transform is above it at any KL.
///
/// # Errors
/// As for [`Optimum::for_kl`].
pub fn optimal_frontier(
    procedure: &Procedure,
    (from, to): (f64, f64),
    count: usize,
) -> Result<Vec<FrontierPoint>, TransformError> {
    let rank = RankDensity::of(procedure)?;
    let at = |kl| Optimum::for_kl(procedure, kl).map(|optimum| optimum.beta);
    let end = at(to)?;
    let point = |beta: Result<Beta, TransformError>| {
        let Optimum { beta, kl, win_rate, .. } = Optimum::under(&rank, beta?)?;
        Ok(FrontierPoint { beta, kl, win_rates: vec![win_rate] })
    };
    betas(at(from)?, end, count).map(point).collect()
}

/// Best-of-n itself as a policy: what aligning has to beat.
///
/// Equation: KL = log n − (n − 1)/n, the tilt of log u at β = 1/(n − 1).
///
/// # Errors
/// [`TransformError::Beta`] for n = 1, which is π_ref.
pub fn best_of_n(n: usize, ranks: &[RankDensity]) -> Result<FrontierPoint, TransformError> {
    point(&Transform::Log, Beta::new(1.0 / (n as f64 - 1.0))?, ranks)
}

fn point(
    transform: &Transform,
    beta: Beta,
    ranks: &[RankDensity],
) -> Result<FrontierPoint, TransformError> {
    let tilt = Tilt::new(transform, beta)?;
    let win_rates = ranks.iter().map(|rank| tilt.win_rate_under(rank)).collect();
    Ok(FrontierPoint { beta, kl: tilt.kl(), win_rates })
}

/// From `start` to `end`, evenly in the logarithm.
fn betas(
    start: Beta,
    end: Beta,
    count: usize,
) -> impl Iterator<Item = Result<Beta, TransformError>> {
    let (start, end, gaps) = (start.get(), end.get(), count.max(2) as f64 - 1.0);
    (0..count).map(move |k| Beta::new(start * ((end / start).ln() * k as f64 / gaps).exp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_optimum_is_above_and_best_of_n_lies_on_the_logarithm() {
        let procedure: Procedure = "worst-of:4".parse().unwrap();
        let rank = [RankDensity::of(&procedure).unwrap()];
        let range = (0.05, 2.0);
        let best = optimal_frontier(&procedure, range, 10).unwrap();
        assert!((best[0].kl / 0.05 - 1.0).abs() < 1e-9 && (best[9].kl / 2.0 - 1.0).abs() < 1e-9);
        for at in &best {
            let beta = beta_for_kl(&Transform::Identity, at.kl).unwrap();
            assert!(
                point(&Transform::Identity, beta, &rank).unwrap().win_rates[0] < at.win_rates[0]
            );
        }
        let four = best_of_n(4, &rank).unwrap();
        assert!((four.kl - (4f64.ln() - 0.75)).abs() < 1e-13);
        assert!(best_of_n(1, &rank).is_err());
    }
}
