//! What the noise of K reference rewards costs a policy that is trained on a transform of them.

use infalign_calibrate::noisy_transform;
use infalign_decode::Stream;
use infalign_transform::{Procedure, RankDensity, Table, Tilt, Transform, beta_for_kl};
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

/// Tables that are simulated for a mean over tables.
const TABLES: u64 = 256;

/// What a table of K rewards makes of a transform, in the continuous limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Noise {
    /// K.
    pub samples: usize,
    /// Greatest |E Φ(Ĉ) − Φ(u)| between u = 0.01 and 0.99, as a share of Φ(0.99) − Φ(0.01).
    pub bias: f64,
    /// Win rate under the procedure that the policy of Φ has, and one that has learned the table of each prompt has not, both at the same KL: a run
    /// keeps its table, so that training leads to π ∝ π_ref·e^{Φ(Ĉ)/β} with the Ĉ of that table. A mean over simulated tables, to about a tenth.
    /// None where no policy of K rewards goes as far: its greatest KL is 1 + ½ + … + 1/K nats in the mean.
    pub loss: Option<f64>,
    /// The same of a policy that cannot tell prompts apart, and is trained on E Φ(Ĉ), the mean over their tables: the least that K costs.
    pub least_loss: f64,
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
    let inner = u.iter().copied().filter(|u| (INNER.0..=INNER.1).contains(u));
    let off = |u: f64| (noisy_transform(phi, samples, u) - phi(u)).abs();
    let bias = inner.chain([INNER.0, INNER.1]).map(off).fold(0.0, f64::max);
    let trained = Transform::Table(Table::new(&u, &noisy)?.into());
    let best = win_rate(transform, procedure, kl)?;
    Ok(Noise {
        samples,
        bias: bias / (phi(INNER.1) - phi(INNER.0)),
        loss: by_tables(transform, procedure, kl, samples)?.map(|won| best - won),
        least_loss: best - win_rate(&trained, procedure, kl)?,
    })
}

/// The mean win rate of policies each of which has learned a table of its own, at one β and a mean KL of `kl` nats; none where that is out of reach.
fn by_tables(
    transform: &Transform,
    procedure: &Procedure,
    kl: f64,
    samples: usize,
) -> Result<Option<f64>, EvaluateError> {
    let rank = RankDensity::of(procedure)?;
    let count = samples as f64 + 1.0;
    // Less the greatest, so that nothing overflows.
    let phi: Vec<f64> = (0..=samples).map(|j| transform.raw((j as f64 + 0.5) / count)).collect();
    let phi: Vec<f64> = phi.iter().map(|value| value - phi[samples]).collect();
    let tables: Vec<Vec<f64>> = (0..TABLES).map(|table| gaps(samples, table)).collect();
    let mean_kl = |beta: f64| {
        let weights: Vec<f64> = phi.iter().map(|phi| (phi / beta).exp()).collect();
        tables.iter().map(|gaps| kl_of(gaps, &weights)).sum::<f64>() / TABLES as f64
    };
    // At the least β the top step alone leads to all that can be had: it may be a small part of the range.
    let top = phi.iter().rev().find(|value| **value < 0.0).map_or(0.0, |value| -value);
    let (mut low, mut high) = (top.min(-phi[0]) * 1e-2, -phi[0] * 1e6);
    if mean_kl(low) < kl {
        return Ok(None);
    }
    for _ in 0..60 {
        let middle = (low * high).sqrt();
        if mean_kl(middle) > kl { low = middle } else { high = middle }
    }
    let weights: Vec<f64> = phi.iter().map(|phi| (phi / high).exp()).collect();
    let won = tables.iter().map(|gaps| won(gaps, &weights, &rank)).sum::<f64>();
    Ok(Some(won / TABLES as f64))
}

/// The lengths of the gaps between the sorted rewards of a table, in ranks: K + 1 of them, which add up to 1.
fn gaps(samples: usize, table: u64) -> Vec<f64> {
    let mut stream = Stream::new(0, "table of the noise", "", table);
    let mut exponential = |place: usize| -(1.0 - stream.uniform(place as u64)).ln();
    let gaps: Vec<f64> = (0..=samples).map(&mut exponential).collect();
    let total: f64 = gaps.iter().sum();
    gaps.into_iter().map(|gap| gap / total).collect()
}

/// KL of the policy with these weights in the gaps.
fn kl_of(gaps: &[f64], weights: &[f64]) -> f64 {
    let z: f64 = gaps.iter().zip(weights).map(|(gap, weight)| gap * weight).sum();
    let of_gap = |(gap, weight): (&f64, &f64)| {
        let share = weight / z;
        if share > 0.0 { gap * share * share.ln() } else { 0.0 }
    };
    gaps.iter().zip(weights).map(of_gap).sum()
}

/// W of that policy: 1 − ∫ G(F(u))·g(u) du, F linear within a gap, by Gauss's rule of three points there.
fn won(gaps: &[f64], weights: &[f64], rank: &RankDensity) -> f64 {
    let points = [
        (0.5 - 0.15_f64.sqrt(), 5.0 / 18.0),
        (0.5, 8.0 / 18.0),
        (0.5 + 0.15_f64.sqrt(), 5.0 / 18.0),
    ];
    let z: f64 = gaps.iter().zip(weights).map(|(gap, weight)| gap * weight).sum();
    let (mut u, mut f, mut lost) = (0.0, 0.0, 0.0);
    for (gap, weight) in gaps.iter().zip(weights) {
        let rise = gap * weight / z;
        let at = |share: f64| {
            rank.cdf((f + share * rise).min(1.0)) * rank.at((u + share * gap).min(1.0))
        };
        lost += gap * points.iter().map(|(share, weight)| weight * at(*share)).sum::<f64>();
        u += gap;
        f += rise;
    }
    1.0 - lost
}

fn win_rate(transform: &Transform, procedure: &Procedure, kl: f64) -> Result<f64, EvaluateError> {
    let tilt = Tilt::new(transform, beta_for_kl(transform, kl)?)?;
    Ok(tilt.win_rate(procedure)?)
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
        let loss = noise(transform, procedure, kl, samples)?.loss;
        if loss.is_some_and(|loss| loss.abs() < NEGLIGIBLE) {
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
        assert!(rows.iter().all(|row| Some(row.least_loss) < row.loss), "{rows:?}");
        assert!(rows[0].least_loss > 0.02 && rows[3].least_loss.abs() < 1e-3, "{rows:?}");
        // By another program, as a mean over 4,000 tables.
        for (row, loss) in rows[1..].iter().zip([0.0402, 0.0127, 0.0033]) {
            assert!((row.loss.unwrap() - loss).abs() < 0.1 * loss + 5e-4, "{row:?} and not {loss}");
        }
        let enough = recommended_samples(&transform, &procedure, 0.5).unwrap().unwrap();
        assert!((128..=256).contains(&enough), "{enough}");
    }

    #[test]
    fn the_identity_needs_few_and_the_logarithm_is_bounded() {
        let procedure = "sample".parse().unwrap();
        // Φ_K of the identity is the identity on another scale: the same policies.
        let identity = noise(&"identity".parse().unwrap(), &procedure, 0.5, 4).unwrap();
        assert!(identity.least_loss.abs() < 1e-6 && identity.bias > 0.05, "{identity:?}");
        assert!((identity.loss.unwrap() - 0.028).abs() < 0.003, "each has its own: {identity:?}");
        let log = noise(&"log".parse().unwrap(), &procedure, 0.5, 64).unwrap();
        assert!(log.least_loss.abs() < 0.01 && log.bias < 0.2, "{log:?}");
    }

    #[test]
    fn the_ends_count_for_the_bias() {
        let (transform, procedure) = ("exp:10".parse().unwrap(), "best-of:4".parse().unwrap());
        // E e^{10û} at u = 0.99 of û = (k + ½)/9, k being binomial with 8 trials.
        let noisy = (5.0 / 9.0_f64).exp() * (0.01 + 0.99 * (10.0 / 9.0_f64).exp()).powi(8);
        let (low, high) = (0.1_f64.exp(), 9.9_f64.exp());
        let bias = noise(&transform, &procedure, 0.5, 8).unwrap().bias;
        assert!((bias - (high - noisy) / (high - low)).abs() < 1e-12, "{bias}");
    }

    #[test]
    fn more_rewards_lead_farther_also_where_the_transform_is_flat_at_the_top() {
        let (transform, procedure) = ("exp:-20".parse().unwrap(), "worst-of:4".parse().unwrap());
        let losses = [16, 64, 256].map(|k| noise(&transform, &procedure, 2.0, k).unwrap().loss);
        assert!(losses.iter().all(Option::is_some), "{losses:?}");
    }

    #[test]
    fn a_few_rewards_lead_only_so_far() {
        let (transform, procedure) = ("exp:10".parse().unwrap(), "best-of:4".parse().unwrap());
        // 1 + ½ + … + ⅛ = 2.718.
        let loss = |kl| noise(&transform, &procedure, kl, 8).unwrap().loss;
        assert!(loss(2.5).is_some());
        assert_eq!(loss(3.0), None);
    }
}
