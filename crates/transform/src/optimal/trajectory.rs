//! The optimum for best-of-N and worst-of-N: one universal curve per N, followed up to the β asked for.
//!
//! Stationarity of W − β·KL is a differential equation for the distribution function F. Scaling takes
//! β out of it: with Y'' = Y'(xY)^{N−1}, Y(0) = 0, Y'(0) = 1,
//!
//! - best-of-N: F(u) = Y(bu)/Y(b);
//! - worst-of-N: 1 − F(1 − w) = Y(bw)/Y(b), with −Y' in place of Y' on the right;
//! - β = N²/(b^N·Y(b)^{N−1}), which falls strictly as b grows.
//!
//! So the stationary point is unique for every β, hence it is the maximum, and one forward integration
//! that stops at β finds it: no iteration, no shooting. Near its pole Y changes over ever shorter x;
//! the pieces shrink with it, and their widths, not the sums of them, carry the digits.

use super::series::{Equation, Piece, State};
use crate::numerics::piecewise::{Tails, panel_at};
use crate::numerics::root;

/// Most pieces that one integration may take.
const MOST_PIECES: usize = 20_000;

/// Greatest log β: beyond it, Y − x is less than `f64` can hold.
const GREATEST_LOG_BETA: f64 = 460.0;

/// A solved optimum on its pieces.
#[derive(Clone, Debug)]
pub(super) struct Trajectory {
    equation: Equation,
    pieces: Vec<Piece>,
    /// Ends of the pieces as distances v from the top, ascending from 0 to 1.
    edges: Vec<f64>,
    end: State,
    /// log(Y(b)/b), which takes Y' to the density f.
    log_mean: f64,
}

impl Trajectory {
    /// Integrates until β(b) = e^`log_beta`; `None` where `f64` cannot hold the solution.
    pub(super) fn solve(n: f64, rising: bool, log_beta: f64) -> Option<Self> {
        if log_beta > GREATEST_LOG_BETA {
            return None;
        }
        let equation = Equation { power: n - 1.0, sign: if rising { 1.0 } else { -1.0 } };
        let goal = 2.0 * n.ln() - log_beta;
        let passed = |state: State| n * state.x.ln() + (n - 1.0) * state.y.ln() - goal;
        // Within the first stretch Y = x to the last digit, so that b^{2N−1} = N²/β there.
        let first = equation.near_zero_reach().min((goal / (2.0 * n - 1.0)).exp());
        let mut state = equation.near_zero(first);
        let mut pieces = Vec::new();
        let mut guess = 0.5 * first;
        let tolerance = 1e-13 * goal.abs().max(1.0);
        while passed(state) < -tolerance {
            let piece = equation.step(state, guess);
            let ended = passed(piece.at(1.0)) >= 0.0;
            let piece = if ended {
                let tau = root::bracketed(|tau| passed(piece.at(tau)), 0.0, 1.0)?;
                piece.cut(tau)
            } else {
                piece
            };
            (state, guess) = (piece.at(1.0), piece.width);
            pieces.push(piece);
            if ended {
                break;
            }
            if pieces.len() == MOST_PIECES || !(state.x + state.log_slope).is_finite() {
                return None;
            }
        }
        Some(Self::assemble(equation, first, pieces, state))
    }

    fn assemble(equation: Equation, first: f64, pieces: Vec<Piece>, end: State) -> Self {
        let widths = std::iter::once(first).chain(pieces.iter().map(|piece| piece.width));
        let mut widths: Vec<f64> = widths.collect();
        if equation.sign > 0.0 {
            widths.reverse();
        }
        let mut edges = vec![0.0];
        edges.extend(widths.iter().scan(0.0, |sum, width| {
            *sum += width / end.x;
            Some(*sum)
        }));
        let last = edges.len() - 1;
        edges[last] = 1.0;
        Trajectory { equation, pieces, edges, end, log_mean: end.log_mean_slope() }
    }

    pub(super) fn edges(&self) -> &[f64] {
        &self.edges
    }

    /// Y(x), x and log Y' at distance v from the top.
    fn state(&self, v: f64) -> State {
        let (count, rising) = (self.edges.len() - 1, self.equation.sign > 0.0);
        let place = panel_at(&self.edges, v);
        let (near, far) = (self.edges[place], self.edges[place + 1]);
        let along = (v - near) / (far - near);
        let (index, tau) = if rising { (count - 1 - place, 1.0 - along) } else { (place, along) };
        match index.checked_sub(1) {
            Some(piece) => self.pieces[piece].at(tau),
            None => self.equation.near_zero(self.end.x * if rising { 1.0 - v } else { v }),
        }
    }

    /// log f at distance v from the top, in nats.
    pub(super) fn log_density(&self, v: f64) -> f64 {
        self.state(v).log_slope - self.log_mean
    }

    /// log f(1) − log f(1 − v), in nats, 0 or more.
    pub(super) fn depth(&self, v: f64) -> f64 {
        let top = if self.equation.sign > 0.0 { self.end.log_slope } else { 0.0 };
        top - self.state(v).log_slope
    }

    /// F and 1 − F at distance v from the top.
    pub(super) fn tails(&self, v: f64) -> Tails {
        let share = self.state(v).y / self.end.y;
        if self.equation.sign > 0.0 {
            Tails { below: share, above: 1.0 - share }
        } else {
            Tails { below: 1.0 - share, above: share }
        }
    }

    /// W = (β/N)(f(1) − 1) for best-of-N, 1 − (β/N)(1 − f(0)) for worst-of-N.
    pub(super) fn win_rate(&self, beta: f64) -> f64 {
        let gain =
            (self.end.log_slope - self.log_mean).exp_m1() * beta / (self.equation.power + 1.0);
        // Rounding must not carry a share past 1.
        if self.equation.sign > 0.0 { gain.min(1.0) } else { 1.0 + gain }
    }
}
