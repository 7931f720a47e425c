//! Every local maximum of W^T − β·KL under best-of-N and worst-of-N, by shooting.
//!
//! Along the order in which the procedure passes groups over, with Sᵢ = P₁ + … + Pᵢ, a policy is
//! stationary where
//!
//! Pᵢ₊₁/qᵢ₊₁ = Pᵢ/qᵢ · exp(slopeᵢ·Sᵢ^{N−1}/β), q the masses of π_ref,
//!
//! and ΣP = 1: the first mass decides all others, and the stationary points are the roots of one
//! function of its logarithm. In the coordinates Sᵢ the objective couples only neighbours; the leading
//! minors of its Hessian have the signs of d log Sᵢ/d log P₁, so that a root is a strict local maximum
//! if and only if every Sᵢ rises with P₁. Under best-of-N all do, which leaves one root. Under
//! worst-of-N there may be several: enclosures in interval arithmetic cut the range until every piece
//! holds none, or no more than one.

use super::groups::normalised;
use super::ranked::{Ranked, log_cumulative, power};
use crate::beta::Beta;
use crate::numerics::root;

/// A sum of masses whose logarithm is above this is too much, whatever follows.
const TOO_MUCH: f64 = 1.0;
/// What is returned for the logarithm of any greater sum: root finding interpolates finite numbers.
const BOUND: f64 = 100.0;
/// Rounding that enclosures leave room for, in log ΣP.
const SLACK: f64 = 1e-9;
/// Pieces narrower than this share of their position are not cut further.
const NARROWEST: f64 = 1e-14;

/// The chain of groups of positive mass, in the order of passing over.
#[derive(Clone, Debug)]
struct Ladder {
    /// N − 1.
    power: f64,
    /// log q₁.
    log_first: f64,
    /// One rung between each pair of neighbours.
    rungs: Vec<Rung>,
}

#[derive(Clone, Copy, Debug)]
struct Rung {
    /// log(qᵢ₊₁/qᵢ).
    log_ratio: f64,
    /// slopeᵢ/β.
    strength: f64,
}

/// What is known of the roots between two values of log P₁.
enum Verdict {
    /// No maximum.
    Empty,
    /// At most one root.
    Monotone,
    /// Nothing yet.
    Open,
}

/// Masses of every strict local maximum, ascending by reward as `reference` is.
pub(super) fn maxima(ranked: Ranked, reference: &[f64], beta: Beta) -> Vec<Vec<f64>> {
    let ordered = ranked.ordered(reference);
    let masses: Vec<f64> = ordered.iter().copied().filter(|mass| *mass > 0.0).collect();
    let rung = |(pair, slope): (&[f64], f64)| Rung {
        log_ratio: (pair[1] / pair[0]).ln(),
        strength: slope / beta.get(),
    };
    let slopes = ranked.slopes(&masses);
    let ladder = Ladder {
        power: ranked.n - 1.0,
        log_first: masses[0].ln(),
        rungs: masses.windows(2).zip(slopes).map(rung).collect(),
    };
    let place = |start: f64| {
        let mut found = ladder.masses(start).into_iter();
        let mut next = |mass: &f64| if *mass > 0.0 { found.next().unwrap_or(0.0) } else { 0.0 };
        ranked.ordered(&ordered.iter().map(&mut next).collect::<Vec<f64>>())
    };
    ladder.starts().into_iter().map(place).collect()
}

impl Ladder {
    /// log P₁ at every strict local maximum.
    fn starts(&self) -> Vec<f64> {
        if self.power == 0.0 {
            // All masses are multiples of the first, which scaling to a sum of 1 settles.
            return vec![0.0];
        }
        // Exponents of one sign, of at most Σ strength, bound the first mass on both sides.
        let lift: f64 = self.rungs.iter().map(|rung| rung.strength.max(0.0)).sum();
        let falls = self.rungs.iter().any(|rung| rung.strength < 0.0);
        let highest = if falls { 0.0 } else { self.log_first + SLACK };
        let mut open = vec![(self.log_first - lift - SLACK, highest)];
        let mut starts = Vec::new();
        while let Some((low, high)) = open.pop() {
            let narrow = high - low <= (NARROWEST * low.abs()).max(f64::MIN_POSITIVE);
            match self.examine(low, high) {
                Verdict::Empty => {}
                Verdict::Open if !narrow => {
                    let middle = 0.5 * (low + high);
                    open.extend([(low, middle), (middle, high)]);
                }
                Verdict::Open | Verdict::Monotone => starts.extend(self.rising_root(low, high)),
            }
        }
        // ΣP rises at a root where an even number of the Sᵢ fall, too: no maximum.
        starts.retain(|start| !falls || !matches!(self.examine(*start, *start), Verdict::Empty));
        starts
    }

    /// The root in (low, high] at which ΣP rises through 1, if there is one.
    fn rising_root(&self, low: f64, high: f64) -> Option<f64> {
        if self.log_sum(low) < 0.0 && self.log_sum(high) >= 0.0 {
            root::bracketed(|start| self.log_sum(start), low, high)
        } else {
            None
        }
    }

    /// log ΣP; where it is more than [`TOO_MUCH`], a number between that and [`BOUND`].
    fn log_sum(&self, start: f64) -> f64 {
        let (mut log_mass, mut log_sum) = (start, start);
        for rung in &self.rungs {
            if log_sum >= TOO_MUCH {
                return log_sum.min(BOUND);
            }
            log_mass += rung.log_ratio + rung.strength * power(log_sum, self.power);
            log_sum = log_add(log_sum, log_mass);
        }
        log_sum.min(BOUND)
    }

    /// The masses that follow from the first, in the order of passing over, made to sum to 1.
    fn masses(&self, start: f64) -> Vec<f64> {
        let (mut log_mass, mut log_sum) = (start, start);
        let mut logs = vec![start];
        for rung in &self.rungs {
            log_mass += rung.log_ratio + rung.strength * power(log_sum, self.power);
            log_sum = log_add(log_sum, log_mass);
            logs.push(log_mass);
        }
        // Where exponents rise, rounding of the first mass grows along the chain; Newton undoes it.
        if self.rungs.iter().all(|rung| rung.strength >= 0.0) {
            self.correct(&mut logs);
            self.correct(&mut logs);
        }
        normalised(&logs)
    }

    /// One Newton step for all log Pᵢ at once, under ΣP = 1.
    ///
    /// The linear equations δᵢ₊₁ = δᵢ + defectᵢ + (N−1)·exponentᵢ·(Σ_{j≤i} Pⱼδⱼ)/Sᵢ are a chain as well:
    /// each δ is a `free` part plus a multiple, `led`, of the first one.
    fn correct(&self, logs: &mut [f64]) {
        let masses = normalised(logs);
        let log_sums = log_cumulative(&masses);
        let (mut free, mut led) = (0.0, 1.0);
        let (mut free_sum, mut led_sum) = (0.0, masses[0]);
        let mut steps = vec![(free, led)];
        for (i, rung) in self.rungs.iter().enumerate() {
            let exponent = rung.strength * power(log_sums[i], self.power);
            let defect = rung.log_ratio + exponent - (logs[i + 1] - logs[i]);
            let turn = self.power * exponent * (-log_sums[i]).exp();
            free += defect + turn * free_sum;
            led += turn * led_sum;
            free_sum += masses[i + 1] * free;
            led_sum += masses[i + 1] * led;
            steps.push((free, led));
        }
        let first = -free_sum / led_sum;
        if first.is_finite() {
            logs.iter_mut().zip(&steps).for_each(|(log, (free, led))| *log += free + led * first);
        }
    }

    /// Encloses every Sᵢ and its derivative for starts between `low` and `high`.
    ///
    /// Bounds hold at the roots in the piece alone, where no Sᵢ exceeds 1.
    fn examine(&self, low: f64, high: f64) -> Verdict {
        let (mut mass, mut sum) = (Span(low, high), Span(low, high));
        let (mut mass_slope, mut sum_slope) = (Span(1.0, 1.0), Span(1.0, 1.0));
        for rung in &self.rungs {
            let weights = Span(power(sum.0, self.power), power(sum.1, self.power));
            let exponent = weights.times(Span(rung.strength, rung.strength));
            let before = sum;
            mass = Span(mass.0 + rung.log_ratio + exponent.0, mass.1 + rung.log_ratio + exponent.1);
            mass.1 = mass.1.min(0.0);
            sum = Span(log_add(sum.0, mass.0), log_add(sum.1, mass.1).min(0.0));
            if sum.0 > SLACK {
                return Verdict::Empty;
            }
            let turn = exponent.times(sum_slope).times(Span(self.power, self.power));
            mass_slope = Span(mass_slope.0 + turn.0, mass_slope.1 + turn.1);
            let share = Span(
                (mass.0 - log_add(before.1, mass.0)).exp(),
                (mass.1 - log_add(before.0, mass.1)).exp(),
            );
            sum_slope = share.mean(sum_slope, mass_slope);
            if sum_slope.1 < 0.0 {
                return Verdict::Empty;
            }
        }
        match sum {
            Span(_, most) if most < -SLACK => Verdict::Empty,
            _ if sum_slope.0 > 0.0 => Verdict::Monotone,
            _ => Verdict::Open,
        }
    }
}

/// Every number between two.
#[derive(Clone, Copy, Debug)]
struct Span(f64, f64);

impl Span {
    fn times(self, other: Self) -> Self {
        let corners = [
            product(self.0, other.0),
            product(self.0, other.1),
            product(self.1, other.0),
            product(self.1, other.1),
        ];
        let least = corners.iter().copied().fold(f64::INFINITY, f64::min);
        Span(least, corners.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }

    /// (1 − share)·a + share·b for every share in `self`.
    fn mean(self, a: Self, b: Self) -> Self {
        let at = |share: f64, a: f64, b: f64| product(1.0 - share, a) + product(share, b);
        let least = at(self.0, a.0, b.0).min(at(self.1, a.0, b.0));
        Span(least, at(self.0, a.1, b.1).max(at(self.1, a.1, b.1)))
    }
}

/// a·b, with 0·∞ = 0: what a vanished mass does counts for nothing.
fn product(a: f64, b: f64) -> f64 {
    if a == 0.0 || b == 0.0 { 0.0 } else { a * b }
}

/// log(e^a + e^b).
pub(super) fn log_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}
