//! The discrete optimum under rejection, whose win rate jumps, against scans of all policies.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use infalign_transform::discrete::Edge;
use infalign_transform::{Beta, DiscreteOptimum, Outcomes, Procedure};

/// Probabilities of rewards 0, 1, …, a procedure and a β.
struct Problem {
    outcomes: Outcomes,
    procedure: Procedure,
    beta: f64,
}

impl Problem {
    fn new(probabilities: &[f64], quantile: f64, draws: u32, beta: f64) -> Self {
        let rewards = (0u32..).map(f64::from).take(probabilities.len()).collect();
        let procedure = format!("rejection:quantile={quantile},draws={draws}").parse().unwrap();
        Problem {
            outcomes: Outcomes::new(probabilities.to_vec(), rewards).unwrap(),
            procedure,
            beta,
        }
    }

    fn optimum(&self) -> DiscreteOptimum {
        self.outcomes.optimum(&self.procedure, Beta::new(self.beta).unwrap()).unwrap()
    }

    fn objective(&self, policy: &[f64]) -> f64 {
        let kl = self.outcomes.kl(policy).unwrap();
        self.outcomes.win_rate(&self.procedure, policy).unwrap() - self.beta * kl
    }

    /// The greatest objective of a grid of policies that is refined about its eight best.
    fn scanned(&self) -> f64 {
        let count = self.outcomes.rewards().len();
        let steps = if count == 2 { 1000 } else { 50 };
        let valued = |policy: Vec<f64>| (self.objective(&policy), policy);
        let mut grid: Vec<(f64, Vec<f64>)> =
            around(&vec![0.5; count], 0.5, steps).into_iter().map(valued).collect();
        grid.sort_by(|a, b| b.0.total_cmp(&a.0));
        grid.truncate(8);
        let refined = grid.into_iter().map(|mut best| {
            let mut width = 1.0 / f64::from(steps);
            while width > 1e-10 {
                let near = around(&best.1, width, 5).into_iter().map(valued);
                best = near.fold(best, |best, one| if one.0 > best.0 { one } else { best });
                width *= 0.5;
            }
            best.0
        });
        refined.fold(f64::NEG_INFINITY, f64::max)
    }
}

/// Policies whose probabilities, but for the last, are up to `width` from those of `centre`, in `steps` steps each way.
fn around(centre: &[f64], width: f64, steps: i32) -> Vec<Vec<f64>> {
    let mut policies = vec![Vec::new()];
    for middle in &centre[..centre.len() - 1] {
        let moved = |k: i32| middle + width * f64::from(k) / f64::from(steps);
        let longer = |policy: Vec<f64>| {
            (-steps..=steps).map(move |k| [policy.clone(), vec![moved(k)]].concat())
        };
        policies = policies.into_iter().flat_map(longer).collect();
    }
    let whole = |mut policy: Vec<f64>| {
        let rest = 1.0 - policy.iter().sum::<f64>();
        let valid = policy.iter().all(|p| *p >= 0.0) && rest > -1e-12;
        policy.push(rest.max(0.0));
        valid.then_some(policy)
    };
    policies.into_iter().filter_map(whole).collect()
}

/// Numbers in [0, 1), the same every time.
fn uniform() -> impl FnMut() -> f64 {
    let mut state: u64 = 5;
    move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[test]
fn the_best_policy_on_an_edge_is_found() {
    for (probabilities, quantile, draws, beta, objective, reward) in [
        (&[0.9, 0.1][..], 0.985, 50, 0.5, 0.822_699_769_927, 1.0),
        (&[0.6, 0.4], 0.7, 4, 0.05, 0.547_945_348_919, 1.0),
        (&[0.6, 0.4], 0.7, 4, 0.1, 0.543_890_697_838, 1.0),
        (&[0.98, 0.01, 0.01], 0.985, 50, 0.05, 0.698_436_835_483, 2.0),
        (&[0.01, 0.98, 0.01], 0.985, 50, 0.05, 0.693_113_025_920, 2.0),
    ] {
        let problem = Problem::new(probabilities, quantile, draws, beta);
        let best = problem.optimum();
        assert!((best.objective - objective).abs() < 1e-11, "{best:?}");
        assert!((best.objective - problem.scanned()).abs() < 1e-7, "{best:?}");
        assert_eq!(best.edge, Some(Edge { reward, accepted: true }));
        // The best reward has mid-rank φ where its probability is 2(1 − φ).
        let top = best.policy.last().unwrap();
        assert!((top - 2.0 * (1.0 - quantile)).abs() < 1e-12, "{best:?}");
        assert!(best.residual < 1e-12, "{best:?}");
    }
}

#[test]
fn where_no_policy_is_the_best_the_one_returned_is_just_short_of_the_edge() {
    // From mid-rank 0.3 on reward 1 is accepted, too, and reward 2 is returned less often.
    let problem = Problem::new(&[0.3, 0.3, 0.4], 0.3, 20, 0.1);
    let best = problem.optimum();
    let edge = best.edge.unwrap();
    assert!(!edge.accepted, "{best:?}");
    let group = best.policy.iter().zip(problem.outcomes.rewards());
    let below: f64 = group.clone().filter(|(_, r)| **r < edge.reward).map(|(p, _)| p).sum();
    let own: f64 = group.filter(|(_, r)| **r == edge.reward).map(|(p, _)| p).sum();
    let short = 0.3 - (below + 0.5 * own);
    assert!((short - 2e-9).abs() < 1e-12, "{short}: {best:?}");
    assert!(best.residual < 1e-12, "{best:?}");
    // Policies nearer to it win more, by what 2e-9 can make.
    let scanned = problem.scanned();
    assert!((best.objective - scanned).abs() < 1e-7, "{best:?} {scanned}");
}

#[test]
fn no_policy_of_a_scan_is_better() {
    let mut uniform = uniform();
    let (mut inside, mut edges) = (0, 0);
    for i in 0..24 {
        let weights: Vec<f64> = (0..2 + i % 2).map(|_| (4.0 * uniform()).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let probabilities: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
        let (quantile, draws) = (uniform(), 2 + (30.0 * uniform()) as u32);
        let problem = Problem::new(&probabilities, quantile, draws, (-3.0 * uniform()).exp());
        let (best, scanned) = (problem.optimum(), problem.scanned());
        let what = format!("{:?} {}, β = {}", problem.outcomes, problem.procedure, problem.beta);
        assert!((best.objective - scanned).abs() < 1e-7, "{what}: {best:?}, scan {scanned}");
        let own = problem.objective(&best.policy);
        assert!((best.objective - own).abs() < 1e-13, "{what}: {best:?}, {own}");
        assert!(best.residual < 1e-11 && best.stationary_points >= 1, "{what}: {best:?}");
        *if best.edge.is_some() { &mut edges } else { &mut inside } += 1;
    }
    assert!(inside >= 5 && edges >= 5, "{inside} inside, {edges} on edges");
}

#[test]
fn one_draw_is_one_sample() {
    let problem = Problem::new(&[0.2, 0.5, 0.3], 0.6, 1, 0.2);
    let sampled = problem.outcomes.optimum(&Procedure::Sample, Beta::new(0.2).unwrap()).unwrap();
    assert_eq!(problem.optimum(), sampled);
}

#[test]
fn ties_and_what_cannot_be_drawn_change_nothing() {
    let plain = Problem::new(&[0.98, 0.01, 0.01], 0.985, 50, 0.05);
    let outcomes = Outcomes::new(
        vec![0.005, 0.0, 0.98, 0.005, 0.0, 0.01],
        vec![1.0, -7.0, 0.0, 1.0, 1.5, 2.0],
    );
    let tied = Problem { outcomes: outcomes.unwrap(), ..Problem::new(&[1.0], 0.985, 50, 0.05) };
    let (a, b) = (plain.optimum(), tied.optimum());
    assert!((a.objective - b.objective).abs() < 1e-13, "{a:?} {b:?}");
    assert_eq!((a.edge, a.stationary_points), (b.edge, b.stationary_points));
    assert!((a.policy[1] - b.policy[0] - b.policy[3]).abs() < 1e-12, "{a:?} {b:?}");
    assert_eq!((b.policy[1], b.policy[4]), (0.0, 0.0));
}
