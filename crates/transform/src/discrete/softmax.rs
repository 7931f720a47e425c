//! Soft best-of-n on tie groups: one of n responses, drawn with probability ∝ a = e^{r/τ}.
//!
//! With 1/x = ∫e^{−sx}ds the mean over the other n − 1 responses factors: with M(s) = Σ π·e^{−s·a},
//!
//! - T(π)(y) = n·π(y)·∫₀^∞ a_y·e^{−s·a_y}·M(s)^{n−1} ds;
//! - 𝓡(y) = n·∫ C_y·a_y·e^{−s·a_y}·M^{n−1} ds + n(n−1)·∫ A·e^{−s·a_y}·M^{n−2} ds, A = Σ C·π·a·e^{−s·a}.
//!
//! In log s both integrands are analytic in a strip, so that the trapezoid rule is exact to `f64`.

use super::ranked::power;
use crate::numerics::laplace::{NEGLIGIBLE, STEP, VANISHES};
use crate::numerics::log_of_share;

/// Groups whose log a differ by more than this + log n are as good as infinitely far apart.
const FAR: f64 = 100.0;

/// Soft best-of-n for the rewards of one prompt, n ≥ 2.
#[derive(Clone, Debug)]
pub(super) struct Softmax {
    n: f64,
    /// How many values of log s any group needs.
    n_nodes: usize,
    /// One a group.
    decays: Vec<Decay>,
}

/// e^{−s·a} of one group, at the nodes where it is neither 1 (all before) nor 0 (all after).
#[derive(Clone, Debug)]
struct Decay {
    /// The first of these nodes.
    first: usize,
    /// s·a, e^{−s·a} and 1 − e^{−s·a}.
    values: Vec<(f64, f64, f64)>,
}

/// What the integrands share at every node.
struct Shared {
    /// M(s)^{n−1}.
    others: Vec<f64>,
    /// s·A(s)·M(s)^{n−2}.
    rivals: Vec<f64>,
    /// The sum of `rivals` before each node, one entry more than nodes.
    rivals_before: Vec<f64>,
}

impl Softmax {
    /// - `rewards`: of the groups, ascending; `temperature`: τ > 0, in their units.
    pub(super) fn new(n: f64, temperature: f64, rewards: &[f64]) -> Self {
        let far = FAR + n.ln();
        let mut log_weight = 0.0;
        let (mut nodes, mut decays): (Vec<i64>, Vec<Decay>) = (Vec::new(), Vec::new());
        for (g, reward) in rewards.iter().enumerate().rev() {
            if let Some(better) = rewards.get(g + 1) {
                log_weight -= ((better - reward) / temperature).min(far);
            }
            let (first, last) = window(n, log_weight);
            let fresh = nodes.last().map_or(first, |node| first.max(node + 1));
            nodes.extend(fresh..=last);
            let value = |k: i64| {
                let x = (k as f64 * STEP + log_weight).exp();
                (x, (-x).exp(), -(-x).exp_m1())
            };
            let first_node = nodes.partition_point(|node| *node < first);
            decays.push(Decay { first: first_node, values: (first..=last).map(value).collect() });
        }
        decays.reverse();
        Softmax { n, n_nodes: nodes.len(), decays }
    }

    /// Probability of each group to be returned.
    pub(super) fn apply(&self, masses: &[f64]) -> Vec<f64> {
        let shared = self.shared(masses, &vec![0.0; masses.len()]);
        let taken = |(mass, decay): (&f64, &Decay)| mass * self.chosen(decay, &shared);
        masses.iter().zip(&self.decays).map(taken).collect()
    }

    /// 𝓡 of each group, less that of the group of greatest reward.
    ///
    /// - `wins`: C, the win rate of each group against T(π_ref).
    pub(super) fn coupled(&self, wins: &[f64], masses: &[f64]) -> Vec<f64> {
        // A constant in C is one in 𝓡, of n times its size: best without, so that digits remain.
        let wins: Vec<f64> = wins.iter().map(|win| win - 0.5).collect();
        let shared = self.shared(masses, &wins);
        let pairs = self.n * (self.n - 1.0);
        let value = |(win, decay): (&f64, &Decay)| {
            win * self.chosen(decay, &shared) + pairs * against_rivals(decay, &shared)
        };
        let values: Vec<f64> = wins.iter().zip(&self.decays).map(value).collect();
        let top = values[values.len() - 1];
        values.iter().map(|value| value - top).collect()
    }

    /// T(π)/π of a group.
    fn chosen(&self, decay: &Decay, shared: &Shared) -> f64 {
        let others = &shared.others[decay.first..];
        let term = |((x, left, _), others): (&(f64, f64, f64), &f64)| x * left * others;
        self.n * STEP * decay.values.iter().zip(others).map(term).sum::<f64>()
    }

    fn shared(&self, masses: &[f64], wins: &[f64]) -> Shared {
        let mut rivals = vec![0.0; self.n_nodes];
        for ((decay, mass), win) in self.decays.iter().zip(masses).zip(wins) {
            for (rival, (x, left, _)) in rivals[decay.first..].iter_mut().zip(&decay.values) {
                *rival += mass * left * x * win;
            }
        }
        let logs = self.log_means(masses);
        let mut rivals_before = vec![0.0];
        for (rival, log) in rivals.iter_mut().zip(&logs) {
            *rival *= power(*log, self.n - 2.0);
            rivals_before.push(rivals_before[rivals_before.len() - 1] + *rival);
        }
        let others = logs.iter().map(|log| power(*log, self.n - 1.0)).collect();
        Shared { others, rivals, rivals_before }
    }

    /// log M(s) at every node, from whichever of M and 1 − M has the digits.
    fn log_means(&self, masses: &[f64]) -> Vec<f64> {
        let (mut left, mut gone) = (vec![0.0; self.n_nodes], vec![0.0; self.n_nodes]);
        let (mut whole_until, mut gone_from) = (left.clone(), vec![0.0; self.n_nodes + 1]);
        for (decay, mass) in self.decays.iter().zip(masses) {
            whole_until[decay.first] += mass;
            gone_from[decay.first + decay.values.len()] += mass;
            for (k, (_, stays, goes)) in decay.values.iter().enumerate() {
                left[decay.first + k] += mass * stays;
                gone[decay.first + k] += mass * goes;
            }
        }
        let (mut whole, mut nothing) = (0.0, 0.0);
        for (left, until) in left.iter_mut().zip(&whole_until).rev() {
            *left += whole;
            whole += until;
        }
        for (gone, from) in gone.iter_mut().zip(&gone_from) {
            nothing += from;
            *gone += nothing;
        }
        left.iter().zip(&gone).map(|(&left, &gone)| log_of_share(left, gone)).collect()
    }
}

/// ∫ A·e^{−s·a}·M^{n−2} ds for the a of a group.
fn against_rivals(decay: &Decay, shared: &Shared) -> f64 {
    let rivals = &shared.rivals[decay.first..];
    let term = |((_, left, _), rival): (&(f64, f64, f64), &f64)| left * rival;
    let met = decay.values.iter().zip(rivals).map(term).sum::<f64>();
    STEP * (shared.rivals_before[decay.first] + met)
}

/// First and last multiple of the step at which s·a lies between the negligible and the vanishing.
fn window(n: f64, log_weight: f64) -> (i64, i64) {
    let first = ((NEGLIGIBLE / n).ln() - log_weight) / STEP;
    let last = (VANISHES.ln() - log_weight) / STEP;
    (first.floor() as i64, last.ceil() as i64)
}
