//! Local maxima of W^T − β·KL for procedures without a one-dimensional form, by damped iteration.
//!
//! One iteration moves log π by a share of the way to log(π_ref·e^{𝓡/β}): mirror ascent, whose fixed
//! points are the stationary points. The share follows Barzilai and Borwein, in the inner product
//! weighted by π in which the Jacobian is symmetric; it shrinks where the objective falls.

use super::contest::Contest;
use super::groups::normalised;
use super::optimum::kl_divergence;
use crate::beta::Beta;
use crate::numerics::greatest;

/// Residual at which an ascent stops.
const GOAL: f64 = 1e-13;
/// Residual that makes a policy stationary.
pub(super) const STATIONARY: f64 = 1e-10;
/// Most iterations of one ascent.
const LONGEST: usize = 2_000;
/// Share of the way below which nothing moves.
const LEAST_SHARE: f64 = 1e-12;
/// Most groups that an ascent starts towards; fewer where groups are many, each ascent taking longer.
const STARTS: usize = 16;
/// Groups times starts, about.
const WORK: usize = 16_000;
/// Iterations without progress after which a stationary policy counts as settled.
const PATIENCE: usize = 50;
/// How far the objective may fall in one iteration, for its rounding.
const ROUNDING: f64 = 1e-12;
/// Policies closer than this, in every probability, are the same.
const SAME: f64 = 1e-6;

/// Masses of the distinct local maxima found, or the least residual that was reached if there is none.
pub(super) fn maxima(contest: &Contest<'_>, beta: Beta) -> Result<Vec<Vec<f64>>, f64> {
    let mut found: Vec<Vec<f64>> = Vec::new();
    let mut least = f64::INFINITY;
    for start in starts(contest.reference) {
        let (masses, residual) = Ascent { contest, beta }.climb(&start);
        least = least.min(residual);
        let same = |other: &Vec<f64>| sup_distance(other, &masses) < SAME;
        if residual <= STATIONARY && !found.iter().any(same) {
            found.push(masses);
        }
    }
    if found.is_empty() { Err(least) } else { Ok(found) }
}

/// π_ref, and mixtures of it with one group each, evenly spread over the groups.
fn starts(reference: &[f64]) -> Vec<Vec<f64>> {
    let live: Vec<usize> = (0..reference.len()).filter(|&g| reference[g] > 0.0).collect();
    let count = live.len().min(STARTS).min((WORK / live.len().max(1)).max(2));
    let towards = |k: usize| {
        let chosen = live[k * (live.len() - 1) / (count - 1).max(1)];
        let mix = |(g, mass): (usize, &f64)| 0.1 * mass + if g == chosen { 0.9 } else { 0.0 };
        reference.iter().enumerate().map(mix).collect()
    };
    std::iter::once(reference.to_vec()).chain((0..count).map(towards)).collect()
}

/// Greatest |a − b|; NaN if any is.
pub(super) fn sup_distance(a: &[f64], b: &[f64]) -> f64 {
    greatest(a.iter().zip(b).map(|(a, b)| (a - b).abs()))
}

struct Ascent<'a> {
    contest: &'a Contest<'a>,
    beta: Beta,
}

/// One policy on the way, with the direction that leads on.
struct Point {
    logs: Vec<f64>,
    masses: Vec<f64>,
    /// log(π_ref·e^{𝓡/β}) − log π of mean 0 under π; 0 where π_ref is.
    direction: Vec<f64>,
    objective: f64,
    residual: f64,
}

impl Ascent<'_> {
    /// The policy of least residual on the way up from `start`, and that residual.
    fn climb(&self, start: &[f64]) -> (Vec<f64>, f64) {
        let mut point = self.point(start.iter().map(|mass| mass.ln()).collect());
        let mut best = (point.masses.clone(), point.residual);
        let mut share = 0.1f64.min(self.beta.get());
        let mut idle = 0;
        for _ in 0..LONGEST {
            idle += 1;
            let settled = best.1 <= STATIONARY && idle > PATIENCE;
            if settled || best.1 <= GOAL || share < LEAST_SHARE {
                break;
            }
            let walk = |(log, step): (&f64, &f64)| log + share * step;
            let next = self.point(point.logs.iter().zip(&point.direction).map(walk).collect());
            let falls = next.objective < point.objective - ROUNDING;
            if falls || next.objective.is_nan() {
                share *= 0.25;
                continue;
            }
            share = next_share(&point, &next, share);
            point = next;
            if point.residual < best.1 {
                best = (point.masses.clone(), point.residual);
                idle = 0;
            }
        }
        best
    }

    fn point(&self, logs: Vec<f64>) -> Point {
        let masses = normalised(&logs);
        let reference = self.contest.reference;
        let coupled = self.contest.coupled(&masses);
        let mut direction = vec![0.0; logs.len()];
        let live = || (0..masses.len()).filter(|&g| reference[g] > 0.0);
        for g in live() {
            direction[g] = reference[g].ln() + coupled[g] / self.beta.get() - logs[g];
        }
        let mean: f64 = live().map(|g| masses[g] * direction[g]).sum();
        live().for_each(|g| direction[g] -= mean);
        let kl = kl_divergence(&masses, reference);
        let objective = self.contest.win_rate(&masses) - self.beta.get() * kl;
        let step: Vec<f64> = logs.iter().zip(&direction).map(|(log, step)| log + step).collect();
        let residual = sup_distance(&normalised(&step), &masses);
        Point { logs, masses, direction, objective, residual }
    }
}

/// The share that a linear map with the last change of direction would want, within reason.
fn next_share(last: &Point, next: &Point, share: f64) -> f64 {
    let (mut along, mut bend) = (0.0, 0.0);
    for (g, weight) in next.masses.iter().enumerate() {
        let step = last.direction[g];
        along += weight * step * step;
        bend += weight * step * (last.direction[g] - next.direction[g]);
    }
    let wanted = share * along / bend;
    if wanted > 0.0 { wanted.clamp(1e-6, 2.0) } else { (2.0 * share).min(1.0) }
}
