//! What the noise of K reference rewards costs a policy that is trained on a transform of them.

use infalign_calibrate::noisy_transform;
use infalign_transform::{Beta, Procedure, Table, Tilt, Transform, beta_for_kl};
use serde::Serialize;

use crate::EvaluateError;

/// Greatest loss of win rate that goes unnoticed: the sampling error of some thousand prompts.
const NEGLIGIBLE: f64 = 0.005;
/// Numbers of samples that are recommended.
const CANDIDATES: [usize; 12] = [4, 8, 16, 32, 64, 100, 128, 200, 256, 512, 1000, 2000];
/// Intervals of the table that stands for Φ_K.
const INTERVALS: usize = 512;
/// Between which calibrated rewards the bias is looked at: the logarithm has no bounds beyond.
const INNER: (f64, f64) = (0.01, 0.99);

/// What a table of K rewards makes of a transform, in the continuous limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Noise {
    /// K.
    pub samples: usize,
    /// Greatest |E Φ(Ĉ) − Φ(u)| between u = 0.01 and 0.99, as a share of Φ(0.99) − Φ(0.01).
    pub bias: f64,
    /// Win rate under the procedure that the policy of Φ has and the one of Φ_K = E Φ(Ĉ) has not, both at the same KL.
    pub loss: f64,
}

/// The noise of `samples` rewards a prompt under `transform`, for policies at `kl` nats that are decoded by `procedure`.
///
/// # Errors
/// [`EvaluateError::Transform`] for a KL that is out of reach, or a procedure that does not act on ranks.
pub fn noise(
    transform: &Transform,
    procedure: &Procedure,
    kl: f64,
    samples: usize,
) -> Result<Noise, EvaluateError> {
    let phi = |u: f64| transform.raw(u);
    let grid = |k: usize| k as f64 / INTERVALS as f64;
    let u: Vec<f64> = (0..=INTERVALS).map(grid).collect();
    let noisy: Vec<f64> = u.iter().map(|&u| noisy_transform(phi, samples, u)).collect();
    let inner = u.iter().zip(&noisy).filter(|(u, _)| (INNER.0..=INNER.1).contains(*u));
    let bias = inner.map(|(&u, noisy)| (noisy - phi(u)).abs()).fold(0.0, f64::max);
    let trained = Transform::Table(Table::new(&u, &noisy)?.into());
    let loss = win_rate(transform, procedure, kl)? - win_rate(&trained, procedure, kl)?;
    Ok(Noise { samples, bias: bias / (phi(INNER.1) - phi(INNER.0)), loss })
}

fn win_rate(transform: &Transform, procedure: &Procedure, kl: f64) -> Result<f64, EvaluateError> {
    let beta = Beta::new(beta_for_kl(transform, kl)?)?;
    Ok(Tilt::new(transform, beta)?.win_rate(procedure)?)
}

/// The least K of a list from 4 to 2000 whose noise costs less than half a per cent of win rate; `None` if none does.
///
/// # Errors
/// As for [`noise`].
pub fn recommended_samples(
    transform: &Transform,
    procedure: &Procedure,
    kl: f64,
) -> Result<Option<usize>, EvaluateError> {
    for samples in CANDIDATES {
        if noise(transform, procedure, kl, samples)?.loss.abs() < NEGLIGIBLE {
            return Ok(Some(samples));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_falls_with_the_number_of_samples() {
        let (transform, procedure) = ("exp:10".parse().unwrap(), "best-of:4".parse().unwrap());
        let at = |k| noise(&transform, &procedure, 0.5, k).unwrap();
        let rows: Vec<Noise> = [4, 16, 64, 256].map(at).to_vec();
        assert!(
            rows.windows(2).all(|pair| pair[0].loss > pair[1].loss && pair[0].bias > pair[1].bias),
            "{rows:?}"
        );
        assert!(rows[0].loss > 0.02 && rows[3].loss.abs() < 1e-3, "{rows:?}");
        let enough = recommended_samples(&transform, &procedure, 0.5).unwrap().unwrap();
        assert!((8..=128).contains(&enough), "{enough}");
    }

    #[test]
    fn the_identity_needs_few_and_the_logarithm_is_bounded() {
        let procedure = "sample".parse().unwrap();
        // Φ_K of the identity is the identity on another scale: the same policies.
        let identity = noise(&"identity".parse().unwrap(), &procedure, 0.5, 4).unwrap();
        assert!(identity.loss.abs() < 1e-6 && identity.bias > 0.05, "{identity:?}");
        let log = noise(&"log".parse().unwrap(), &procedure, 0.5, 64).unwrap();
        assert!(log.loss.abs() < 0.01 && log.bias < 0.2, "{log:?}");
    }
}
