//! The optimum for any rank density, by shooting from the top.
//!
//! Stationarity, in v = 1 − u with A(v) = 1 − F and L(v) = log f, is
//!
//! A' = e^L, L' = −g(F(v))·g(v)/β, A(0) = 0, A(1) = 1.
//!
//! L(0) is found so that A ends at 1. From the top, where the policy concentrates, this is well
//! conditioned: whatever is left of it at the bottom no longer matters to A. Where g increases, A(1)
//! increases with L(0) and the stationary point is the only one; elsewhere L(0) is scanned, and the best
//! of the points found is taken.

use crate::numerics::legendre::{self, NODES, Row};
use crate::numerics::piecewise::{Tails, panel_at};
use crate::numerics::root;
use crate::rank::RankDensity;

/// Most pieces that one shot may take.
const MOST_PIECES: usize = 1_000;
/// Most Picard iterations a piece.
const MOST_ROUNDS: usize = 40;
/// Size of the last terms of a series, relative to the whole, that counts as converged.
const TAIL: f64 = 5e-14;
/// Most of v, and most of A to either side, that a piece spans, lest it pass over features of g.
const WIDEST: f64 = 0.1;
/// Halvings of one piece after which g must have a jump, that no piece converges on.
const MOST_HALVINGS: u32 = 50;
/// log f, in nats, below which no mass is left: L may then fall as fast as it likes.
const MASSLESS: f64 = -80.0;
/// Mass that no longer counts.
const NO_MASS: f64 = 1e-18;
/// A(1) by which a shot has clearly gone too far.
const TOO_MUCH: f64 = 2.0;
/// Greatest L(0), in nats.
const GREATEST_LOG: f64 = 600.0;
/// Points up to well beyond a root at which other roots are looked for.
const SCAN: u32 = 64;

/// A solution on its pieces, from the top down.
#[derive(Clone, Debug)]
pub(super) struct Shot {
    pieces: Vec<Piece>,
    /// Ends of the pieces as distances v from the top, ascending from 0 to 1.
    edges: Vec<f64>,
}

#[derive(Clone, Debug)]
struct Piece {
    start: State,
    width: f64,
    /// L − L(start), as a series.
    fall: Row,
    /// The mean of f between the start and v, as a series.
    mean: Row,
}

/// A and L at v.
#[derive(Clone, Copy, Debug)]
struct State {
    v: f64,
    above: f64,
    log: f64,
}

/// Every L(0) whose A(1) is 1, ascending; `total` is A(1) as a function of L(0).
pub(super) fn roots(total: impl Fn(f64) -> f64, increasing: bool) -> Vec<f64> {
    let gap = |log: f64| total(log).ln();
    let mut high = 1.0;
    while gap(high) < 0.0 {
        high *= 2.0;
        if high > GREATEST_LOG {
            return Vec::new();
        }
    }
    let steps = if increasing { 1 } else { SCAN };
    let high = if increasing { high } else { 2.0 * high + 8.0 };
    let ends = |k: u32| [k, k + 1].map(|k| high * f64::from(k) / f64::from(steps));
    (0..steps).map(ends).filter_map(|[low, high]| root::bracketed(gap, low, high)).collect()
}

impl Shot {
    /// Integrates from L(0) = `log` to the bottom, or until A has clearly gone too far.
    pub(super) fn fire(rank: &RankDensity, beta: f64, log: f64) -> Option<Self> {
        let top = rank.density(Tails { below: 1.0, above: 0.0 });
        let mut state = State { v: 0.0, above: 0.0, log };
        let mut width = WIDEST / (1.0 + top * top / beta);
        let mut halvings = 0;
        let mut shot = Shot { pieces: Vec::new(), edges: vec![0.0] };
        while state.v < 1.0 && state.above < TOO_MUCH {
            let last = state.v + 1.01 * width >= 1.0;
            width = if last { 1.0 - state.v } else { width };
            match Piece::integrate(rank, beta, state, width) {
                Some(piece) => {
                    state = piece.at(1.0);
                    state.v = if last { 1.0 } else { state.v };
                    shot.edges.push(state.v);
                    shot.pieces.push(piece);
                    width = (1.7 * width).min(WIDEST);
                    halvings = 0;
                }
                None => {
                    width *= 0.5;
                    halvings += 1;
                }
            }
            if shot.pieces.len() > MOST_PIECES || halvings > MOST_HALVINGS || !state.log.is_finite()
            {
                return None;
            }
        }
        Some(shot)
    }

    /// A(1), more than 1 as soon as that is certain.
    pub(super) fn total(&self) -> f64 {
        self.pieces.last().map_or(f64::NAN, |piece| piece.at(1.0).above)
    }

    pub(super) fn edges(&self) -> &[f64] {
        &self.edges
    }

    fn state(&self, v: f64) -> State {
        let piece = &self.pieces[panel_at(&self.edges, v)];
        State { v, ..piece.at(2.0 * (v - piece.start.v) / piece.width - 1.0) }
    }

    /// log f(1) − log f(1 − v), in nats, 0 or more.
    pub(super) fn depth(&self, v: f64) -> f64 {
        self.pieces[0].start.log - self.state(v).log
    }

    /// F and 1 − F at distance v from the top.
    pub(super) fn tails(&self, v: f64) -> Tails {
        let above = self.state(v).above.clamp(0.0, 1.0);
        Tails { below: 1.0 - above, above }
    }

    /// log f at distance v from the top, in nats.
    pub(super) fn log_density(&self, v: f64) -> f64 {
        self.state(v).log
    }
}

impl Piece {
    /// The solution over `width` from `start` by Picard iteration on the Gauss nodes; `None` where it
    /// does not converge on so wide a piece.
    fn integrate(rank: &RankDensity, beta: f64, start: State, width: f64) -> Option<Self> {
        let half = 0.5 * width;
        let steepness = legendre::points(start.v, start.v + width)
            .map(|v| rank.density(Tails { below: 1.0 - v, above: v }) / beta);
        let mut fall = [0.0; NODES];
        let mut density = [0.0; NODES];
        let mut rate = [0.0; NODES];
        for _ in 0..MOST_ROUNDS {
            density = fall.map(|fall| (start.log + fall).exp());
            let gained = legendre::integrals(&density);
            for i in 0..NODES {
                let above = start.above + half * gained[i];
                rate[i] =
                    -steepness[i] * rank.density(Tails { below: (1.0 - above).max(0.0), above });
            }
            let next = legendre::integrals(&rate).map(|integral| half * integral);
            // More than a few nats a piece never converge, unless there is no mass left.
            let deepest = if start.log < MASSLESS { f64::MAX } else { 1e3 };
            if !next.iter().all(|fall| fall.abs() < deepest) {
                return None;
            }
            let change = next.iter().zip(&fall).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            fall = next;
            if change < 1e-14 {
                break;
            }
        }
        let tail = |row: &Row| half * legendre::integral_and_tail(row).1;
        let steepest = rate.iter().map(|rate| half * rate.abs()).fold(0.2, f64::max);
        let gain = (half * density[0]).max(NO_MASS);
        let fine = tail(&rate) <= TAIL * steepest && tail(&density) <= TAIL * gain;
        // Where there is mass, few nats a piece keep its digits.
        let deep = gain > NO_MASS && fall.iter().any(|fall| *fall < -3.0);
        let wide = half * density[0] > WIDEST;
        (fine && !deep && !wide).then(|| Piece {
            start,
            width,
            fall: legendre::fit(&fall),
            mean: legendre::running_mean(&density),
        })
    }

    /// The solution at x in [−1, 1] along the piece.
    fn at(&self, x: f64) -> State {
        let gone = 0.5 * (1.0 + x) * self.width;
        State {
            v: self.start.v + gone,
            above: self.start.above + gone * legendre::value(&self.mean, x),
            log: self.start.log + legendre::value(&self.fall, x),
        }
    }
}
