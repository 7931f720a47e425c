//! Local maxima of W^T − β·KL under rejection, one set of accepted groups at a time.
//!
//! While the groups from k on are accepted, W^T = s·Σ_{g≥k} C·π + q·Σ_{g<k} C·π, with s and q
//! functions of the share a of accepted draws. At a given a this is linear in π, and the best policy is
//! π ∝ π_ref·e^{sC/β} from k on and π ∝ π_ref·e^{qC/β} before it, unless that accepts other groups:
//!
//! - the mid-rank of k is φ or more where π(k) ≥ 2(φ − (1 − a));
//! - that of k − 1 is less than φ where π(k − 1) > 2((1 − a) − φ).
//!
//! Where one of these fails, that mass takes its bound and the policy lies on an edge: the win rate jumps
//! there, and policies are compared with those beyond it. What is left is one function of a for each k,
//! with its derivative in closed form. Its maxima are found where that changes sign on a grid of the
//! log-odds of a.

use std::ops::Range;

use super::contest::Contest;
use super::groups::normalised;
use super::optimum::kl_divergence;
use super::rejection::{Factors, Rejection};
use super::shooting::log_add;
use crate::beta::Beta;
use crate::numerics::root;

/// Greatest log-odds of a; beyond it one of the shares is too small for a number.
const FARTHEST: f64 = 700.0;
/// Greatest log-odds on the grid. Beyond it s and q are constant, so that there is one maximum at most.
const SCANNED: i32 = 64;
/// Points of the grid per unit of log-odds.
const PER_UNIT: i32 = 32;
/// Most maxima that are worked out, the best on the grid first.
const REFINED: usize = 16;
/// How much more may be won beyond an edge, for rounding.
const ROUNDING: f64 = 1e-12;

/// Masses of the best local maxima, ascending by reward as `contest.reference` is.
pub(super) fn maxima(rejection: Rejection, contest: &Contest<'_>, beta: Beta) -> Vec<Vec<f64>> {
    let live: Vec<usize> =
        (0..contest.reference.len()).filter(|&g| contest.reference[g] > 0.0).collect();
    if live.len() < 2 {
        return vec![contest.reference.to_vec()];
    }
    let splits = Splits {
        rejection,
        log_reference: live.iter().map(|&g| contest.reference[g].ln()).collect(),
        strengths: live.iter().map(|&g| contest.wins[g] / beta.get()).collect(),
    };
    let place = |found: Vec<f64>| {
        let mut masses = vec![0.0; contest.reference.len()];
        live.iter().zip(found).for_each(|(&g, mass)| masses[g] = mass);
        masses
    };
    let objective = |bracket: &Bracket| {
        let masses = place(splits.masses(bracket.first, bracket.low));
        contest.win_rate(&masses) - beta.get() * kl_divergence(&masses, contest.reference)
    };
    let brackets = splits.brackets().into_iter().map(|bracket| (objective(&bracket), bracket));
    let mut ranked: Vec<(f64, Bracket)> = brackets.filter(|(value, _)| !value.is_nan()).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let refined = ranked.iter().take(REFINED).map(|(_, bracket)| place(splits.refine(bracket)));
    refined.filter(|masses| nothing_more_beyond(rejection, contest, masses)).collect()
}

/// Whether a policy on an edge wins no less than those beyond it.
fn nothing_more_beyond(rejection: Rejection, contest: &Contest<'_>, masses: &[f64]) -> bool {
    let Some(edge) = rejection.edge(contest.reference, masses) else { return true };
    let mut accepted = rejection.accepted(masses);
    accepted[edge] = !accepted[edge];
    let taken = rejection.taken(&accepted, masses);
    let beyond: f64 = taken.iter().zip(&contest.wins).map(|(taken, win)| taken * win).sum();
    beyond <= contest.win_rate(masses) + ROUNDING
}

/// λ·c of each group, c the derivative of the mid-rank of the group `edge` by each mass and λ its multiplier.
///
/// A policy is stationary on the edge where 𝓡 + λ·c − β·log(π/π_ref) is the same for all groups; λ makes
/// it as equal as may be, by least squares under π.
///
/// - `coupled`: 𝓡 of each group.
pub(super) fn constraint(
    edge: usize,
    coupled: &[f64],
    masses: &[f64],
    reference: &[f64],
    beta: Beta,
) -> Vec<f64> {
    let mut turns = vec![0.0; masses.len()];
    turns[..edge].fill(1.0);
    turns[edge] = 0.5;
    let live = || (0..masses.len()).filter(|&g| masses[g] > 0.0);
    let mean: f64 = live().map(|g| masses[g] * turns[g]).sum();
    let (mut along, mut square) = (0.0, 0.0);
    for g in live() {
        let excess = coupled[g] - beta.get() * (masses[g] / reference[g]).ln();
        along += masses[g] * (turns[g] - mean) * excess;
        square += masses[g] * (turns[g] - mean).powi(2);
    }
    let multiplier = -along / square;
    turns.iter().map(|turn| multiplier * turn).collect()
}

/// The groups of positive mass, which any of them may split into accepted ones and all before.
struct Splits {
    rejection: Rejection,
    /// log π_ref.
    log_reference: Vec<f64>,
    /// C/β.
    strengths: Vec<f64>,
}

/// Log-odds of a between which there is a maximum, with the groups from `first` on accepted.
struct Bracket {
    first: usize,
    low: f64,
    high: f64,
}

/// Sums over a run of groups weighted by π_ref·e^{fC/β}, f = s or q.
#[derive(Clone, Copy)]
struct Run {
    /// The logarithm of the sum of weights.
    log: f64,
    /// The mean of C/β.
    mean: f64,
}

/// Every split at one a.
struct Point {
    /// a and 1 − a.
    shares: [f64; 2],
    factors: Factors,
    /// Groups from k on, and groups before k.
    from: Vec<Run>,
    before: Vec<Run>,
}

/// The accepted groups of one split, or all others.
struct Side {
    mass: f64,
    /// The least mass of the group next to the edge, and twice more for every unit of `mass`.
    least: f64,
    /// That group alone, all groups of this side, and all but that one.
    next: Run,
    whole: Run,
    rest: Run,
}

impl Splits {
    /// Where the maxima are, for every split.
    fn brackets(&self) -> Vec<Bracket> {
        let (short, quantile) = (self.rejection.short(), self.rejection.quantile);
        let mut found = Vec::new();
        // All accepted or none: a is 1 or 0.
        if 2.0 * quantile < 1.0 {
            found.push(Bracket { first: 0, low: FARTHEST, high: FARTHEST });
        }
        if 2.0 * short > 1.0 {
            let first = self.strengths.len();
            found.push(Bracket { first, low: -FARTHEST, high: -FARTHEST });
        }
        if short > 0.0 && quantile < 1.0 {
            self.scan(&grid(short, quantile), &mut found);
        }
        found
    }

    /// Adds to `found` where the best of a split stops rising, some being accepted and some not.
    fn scan(&self, grid: &[f64], found: &mut Vec<Bracket>) {
        let mut rising = vec![true; self.strengths.len()];
        let mut low = grid[0];
        for &high in grid {
            let point = self.point(high);
            for (first, rising) in rising.iter_mut().enumerate().skip(1) {
                let rises = self.slope(&point, first) > 0.0;
                if *rising && !rises {
                    found.push(Bracket { first, low, high });
                }
                *rising = rises;
            }
            low = high;
        }
        let still = (1..rising.len()).filter(|&first| rising[first]);
        found.extend(still.map(|first| Bracket { first, low, high: low }));
    }

    /// Masses of groups at the maximum.
    fn refine(&self, bracket: &Bracket) -> Vec<f64> {
        let Bracket { first, low, high } = *bracket;
        let slope = |x: f64| self.slope(&self.point(x), first);
        let best = if low < high { root::bracketed(slope, low, high) } else { None };
        self.masses(first, best.unwrap_or(low))
    }

    fn point(&self, log_odds: f64) -> Point {
        let shares = shares(log_odds);
        let factors = self.rejection.factors(shares[0]);
        let [accepted, rejected] = [factors.accepted[0], factors.rejected[0]];
        let count = self.strengths.len();
        let mut from = vec![Run::EMPTY; count + 1];
        for g in (0..count).rev() {
            from[g] = from[g + 1].with(self.alone(g, accepted));
        }
        let mut before = vec![Run::EMPTY; count + 1];
        for g in 0..count {
            before[g + 1] = before[g].with(self.alone(g, rejected));
        }
        Point { shares, factors, from, before }
    }

    /// The derivative of the greatest (W^T − β·KL)/β by a, with groups from `first` > 0 on accepted.
    fn slope(&self, point: &Point, first: usize) -> f64 {
        let [mass, other] = point.shares;
        let [accepted, rejected] = [point.factors.accepted, point.factors.rejected];
        let from = Side {
            mass,
            least: 2.0 * (self.rejection.quantile - other),
            next: self.alone(first, accepted[0]),
            whole: point.from[first],
            rest: point.from[first + 1],
        };
        let before = Side {
            mass: other,
            least: 2.0 * (other - self.rejection.short()),
            next: self.alone(first - 1, rejected[0]),
            whole: point.before[first],
            rest: point.before[first - 1],
        };
        let ((gain, wins), (loss, other_wins)) = (from.gain(), before.gain());
        accepted[1] * wins + rejected[1] * other_wins + gain - loss
    }

    /// Masses of the best policy at one a, with groups from `first` on accepted.
    fn masses(&self, first: usize, log_odds: f64) -> Vec<f64> {
        let count = self.strengths.len();
        let [mass, other] = match first {
            0 => [1.0, 0.0],
            _ if first == count => [0.0, 1.0],
            _ => shares(log_odds),
        };
        let factors = self.rejection.factors(mass);
        let least = 2.0 * (other - self.rejection.short());
        let [accepted, rejected] = [factors.accepted[0], factors.rejected[0]];
        let next = first.saturating_sub(1);
        let mut masses = self.spread(0..first, rejected, other, (next, least));
        let least = 2.0 * (self.rejection.quantile - other);
        masses.extend(self.spread(first..count, accepted, mass, (0, least)));
        masses
    }

    /// `mass` shared out in proportion to π_ref·e^{factor·C/β}, one group having no less than its least.
    ///
    /// - `next`: the place of that group among `groups`, and its least mass.
    fn spread(
        &self,
        groups: Range<usize>,
        factor: f64,
        mass: f64,
        (next, least): (usize, f64),
    ) -> Vec<f64> {
        let share = |logs: &[f64], mass: f64| -> Vec<f64> {
            normalised(logs).iter().map(|share| share * mass).collect()
        };
        let mut logs: Vec<f64> = groups.map(|g| self.alone(g, factor).log).collect();
        let mut masses = share(&logs, mass);
        if masses.len() > 1 && masses[next] < least {
            logs[next] = f64::NEG_INFINITY;
            masses = share(&logs, (mass - least).max(0.0));
            masses[next] = least;
        }
        masses
    }

    /// One group as a run.
    fn alone(&self, group: usize, factor: f64) -> Run {
        let strength = self.strengths[group];
        Run { log: self.log_reference[group] + factor * strength, mean: strength }
    }
}

impl Run {
    const EMPTY: Run = Run { log: f64::NEG_INFINITY, mean: 0.0 };

    fn with(self, one: Run) -> Run {
        let log = log_add(self.log, one.log);
        Run { log, mean: self.mean + (one.log - log).exp() * (one.mean - self.mean) }
    }
}

impl Side {
    /// The derivative of the greatest f·ΣCπ/β − KL of this side by its mass, plus 1, and ΣCπ/β there.
    fn gain(&self) -> (f64, f64) {
        let own = self.mass * (self.next.log - self.whole.log).exp();
        if own >= self.least || self.rest.log == f64::NEG_INFINITY {
            return (self.whole.log - self.mass.ln(), self.mass * self.whole.mean);
        }
        let rest = (self.mass - self.least).max(0.0);
        // Of one unit more, this group takes two and the rest gives one.
        let gain = 2.0 * (self.next.log - self.least.ln()) - (self.rest.log - rest.ln());
        (gain, self.least * self.next.mean + rest * self.rest.mean)
    }
}

/// a and 1 − a from its log-odds.
fn shares(log_odds: f64) -> [f64; 2] {
    [1.0 / (1.0 + (-log_odds).exp()), 1.0 / (1.0 + log_odds.exp())]
}

/// Log-odds of a from the least to the greatest at which one group can be next to the edge on either side.
///
/// - `short`: the greatest mid-rank that is not accepted; `quantile`: the least that is.
fn grid(short: f64, quantile: f64) -> Vec<f64> {
    let log_odds = |a: f64, rest: f64| {
        if a <= 0.0 {
            -FARTHEST
        } else if rest <= 0.0 {
            FARTHEST
        } else {
            (a / rest).ln().clamp(-FARTHEST, FARTHEST)
        }
    };
    // a ≥ 1 − 2·short and 1 − a ≥ 2φ − 1: a bound on one mass is at most all there is of its side.
    let low = log_odds(1.0 - 2.0 * short, 2.0 * short);
    let high = log_odds(2.0 * (1.0 - quantile), 2.0 * quantile - 1.0);
    let scanned =
        (-SCANNED * PER_UNIT..=SCANNED * PER_UNIT).map(|k| f64::from(k) / f64::from(PER_UNIT));
    let between = scanned.filter(|x| low < *x && *x < high);
    std::iter::once(low).chain(between).chain(std::iter::once(high)).collect()
}
