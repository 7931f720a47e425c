//! Optima for any rank density: against those with a known equation, and against their certificate.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use infalign_transform::{
    Beta, Optimum, RankDensity, RankEstimate, Tilt, Transform, TransformError, beta_for_kl,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn beta(value: f64) -> Beta {
    Beta::new(value).unwrap()
}

fn power(base: f64, n: i32) -> f64 {
    f64::from(n) * base.powi(n - 1)
}

fn assert_same(what: &str, found: &Optimum, known: &Optimum) {
    assert!(found.residual < 1e-10, "{what}: residual {}", found.residual);
    assert!((found.kl / known.kl - 1.0).abs() < 1e-10, "{what}: {} for {}", found.kl, known.kl);
    let error = found.win_rate / known.win_rate - 1.0;
    assert!(error.abs() < 1e-11, "{what}: {} for {}", found.win_rate, known.win_rate);
    for u in [0.0, 0.1, 0.5, 0.9, 0.999, 1.0] {
        let error = (found.phi(u) - known.phi(u)).abs() / known.phi(0.0).abs();
        assert!(error < 1e-10, "{what}: Φ({u}) = {} for {}", found.phi(u), known.phi(u));
        assert!((found.cdf(u) - known.cdf(u)).abs() < 1e-10, "{what}: F({u})");
    }
}

#[test]
fn shooting_finds_the_optima_of_the_universal_curves() {
    for n in [2, 4, 32, 200] {
        let (best, worst) = (format!("best-of:{n}"), format!("worst-of:{n}"));
        let densities = [
            (best, RankDensity::from_fn(move |u| power(u, n)).unwrap()),
            (worst, RankDensity::from_fn(move |u| power(1.0 - u, n)).unwrap()),
        ];
        for (procedure, rank) in densities {
            // The equation's stiffness is n²/β; digits are lost in proportion.
            let least = f64::from(n * n) / 1e7;
            for at in [1e3, 10.0, 1.0, 0.1, 0.01, 1e-3].into_iter().filter(|at| *at > least) {
                let known = Optimum::new(&procedure.parse().unwrap(), beta(at)).unwrap();
                let found = Optimum::under(&rank, beta(at)).unwrap();
                assert_same(&format!("{procedure} at β = {at}"), &found, &known);
            }
        }
    }
}

#[test]
fn soft_best_of_n_has_an_optimum_for_listed_responses_only() {
    let procedure = "soft-best-of:4,temperature=0.1".parse().unwrap();
    let refused = Optimum::new(&procedure, beta(0.1)).unwrap_err();
    assert!(matches!(refused, TransformError::NotByOwnRanks(_)), "{refused}");
    assert_eq!(Optimum::for_kl(&procedure, 0.5).unwrap_err(), refused);
    let transform = "optimal:soft-best-of:4,temperature=0.1,beta=0.1".parse::<Transform>();
    assert_eq!(transform.unwrap_err(), refused);
}

#[test]
fn an_optimum_is_found_by_its_kl() {
    for (procedure, residual) in
        [("sample", 1e-12), ("worst-of:7", 1e-12), ("best-of:10000", 1e-10)]
    {
        for kl in [1e-6, 0.3, 3.0, 20.0] {
            let found = Optimum::for_kl(&procedure.parse().unwrap(), kl).unwrap();
            assert!((found.kl / kl - 1.0).abs() < 1e-8, "{procedure}: {} for {kl}", found.kl);
            assert!(found.residual < residual, "{procedure} at {kl}: {}", found.residual);
        }
    }
}

/// At small β all mass is at the top, from which Φ falls at g(1)² to begin with.
#[test]
fn optima_at_small_beta_are_those_of_the_greatest_slope() {
    // One of two by the softmax of their ranks at τ = 0.1, as if a policy's own.
    let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
    let rank = RankDensity::from_fn(|u| softplus(10.0 * u) - softplus(10.0 * u - 10.0)).unwrap();
    let optimum = Optimum::under(&rank, beta(1e-10)).unwrap();
    let top = optimum.rank.at(1.0);
    // The mass leaves rank 1 as it is gathered, so that g(F) falls from g(1) to g(0) on the way.
    let slope = (optimum.phi(1.0 - 1e-14) / -1e-14) / top;
    assert!((slope / top - 1.0).abs() < 0.05, "{slope} for {top}");
    assert!(optimum.win_rate < 1.0 && 1.0 - optimum.win_rate < 1e-9);
    assert!(optimum.residual < 1e-12, "{}", optimum.residual);
}

#[test]
fn the_best_of_several_stationary_points_is_taken() {
    // Both tails, as far from the middle as can be: three stationary points at β = 0.1.
    let rank = RankDensity::from_fn(|u| 12.0 * (u - 0.5) * (u - 0.5)).unwrap();
    let best = Optimum::under(&rank, beta(0.1)).unwrap();
    assert!((best.objective - 0.664_743_558_5).abs() < 1e-9, "{}", best.objective);
}

#[test]
fn steps_of_any_height_and_place_have_optima_or_are_refused() {
    let certified = |rank: &RankDensity| {
        let best = Optimum::under(rank, beta(0.3)).unwrap();
        assert!(best.objective.is_finite() && best.residual < 1e-9, "{best:?}");
        best
    };
    let plain = certified(&RankDensity::steps(&[0.0, 0.5, 1.0], &[1.0, 3.0]).unwrap());
    for scale in [1e300, 1e-300] {
        let rank = RankDensity::steps(&[0.0, 0.5, 1.0], &[scale, 3.0 * scale]).unwrap();
        assert!((certified(&rank).objective - plain.objective).abs() < 1e-12);
    }
    certified(&RankDensity::steps(&[0.0, 0.5, 1.0], &[1e-300, 1e300]).unwrap());
    certified(&RankDensity::steps(&[0.0, 1.0 - 1e-15, 1.0], &[1.0, 2.0]).unwrap());
    // From the top, these edges cannot be told apart.
    let refused = RankDensity::steps(&[0.0, 1e-300, 1.0], &[1.0, 2.0]).unwrap_err();
    assert!(matches!(refused, TransformError::RankDensity { .. }), "{refused}");
}

#[test]
fn decoders_that_do_not_prefer_the_top_have_optima_too() {
    // The median of three, a second best of four, and one that keeps the middle tenth.
    let densities = [
        RankDensity::from_fn(|u| 6.0 * u * (1.0 - u)).unwrap(),
        RankDensity::from_fn(|u| 12.0 * u * u * (1.0 - u)).unwrap(),
        RankDensity::steps(&[0.0, 0.45, 0.55, 1.0], &[0.0, 1.0, 0.0]).unwrap(),
    ];
    for (k, rank) in densities.into_iter().enumerate() {
        for b in [3.0, 0.3, 0.05] {
            let best = Optimum::under(&rank, beta(b)).unwrap();
            assert!(best.residual < 1e-9, "{k} at {b}: {}", best.residual);
            for other in ["identity", "log", "exp:5", "exp:-5", "exp:20", "exp:-20"] {
                let other: Transform = other.parse().unwrap();
                let tilt = Tilt::new(&other, beta_for_kl(&other, best.kl).unwrap()).unwrap();
                let won = tilt.win_rate_under(&rank);
                assert!(won <= best.win_rate + 1e-10, "{k} at {b}: {other} wins {won}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    /// Best-of-N: W = (β/N)(f(1) − 1), KL = log f(1) + f(1) − 1 − N/β. Worst-of-N: W = 1 − (β/N)(1 − f(0)),
    /// KL = log f(0) + f(0) − 1 + N/β.
    #[test]
    fn invariants_of_the_universal_curves(n in 2usize..10_000, log_beta in -7.0..7.0f64, rising: bool) {
        let (b, size) = (log_beta.exp(), n as f64);
        let name = if rising { "best-of" } else { "worst-of" };
        let optimum = Optimum::new(&format!("{name}:{n}").parse().unwrap(), beta(b)).unwrap();
        prop_assert!(optimum.residual < 1e-12);
        // f(1) of best-of-N, f(0) of worst-of-N.
        let end = if rising { optimum.win_rate * size / b + 1.0 } else { 1.0 - (1.0 - optimum.win_rate) * size / b };
        if end < 1e-3 {
            // Worst-of-N at small β: all but 1 − β/N is won.
            let lost = (1.0 - optimum.win_rate) * size / b;
            prop_assert!((0.998..1.0 + 1e-8).contains(&lost), "{lost}");
            return Ok(());
        }
        let kl = end.ln() + end - 1.0 - if rising { size / b } else { -size / b };
        let scale = (end - 1.0).abs() + size / b + 1.0;
        prop_assert!((optimum.kl - kl).abs() < 1e-10 * scale, "{} for {kl}", optimum.kl);
    }

    #[test]
    fn a_random_increasing_density_is_certified(a in 0.0..5.0f64, b in 0.0..5.0f64, c in 0.01..1.0f64, log_beta in -5.0..3.0f64) {
        let rank = RankDensity::from_fn(|u| c + a * u * u + b * (4.0 * (u - 1.0)).exp()).unwrap();
        let optimum = Optimum::under(&rank, beta(log_beta.exp())).unwrap();
        prop_assert!(optimum.residual < 1e-12, "{}", optimum.residual);
        prop_assert!((0.5..=1.0).contains(&optimum.win_rate));
    }
}

#[test]
fn an_extreme_beta_is_refused() {
    let rank = RankDensity::from_fn(|u| u * u).unwrap();
    let error = Optimum::under(&rank, beta(1e-290)).unwrap_err();
    assert!(matches!(error, TransformError::NoOptimum { .. }), "{error}");
}

/// Draws from [0, 1), the same at every run.
fn uniforms(seed: u64) -> impl FnMut() -> f64 {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};
    let mut stream = ChaCha8Rng::seed_from_u64(seed);
    move || (stream.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

fn best(ranks: &[f64]) -> f64 {
    ranks.iter().copied().fold(0.0, f64::max)
}

#[test]
fn the_estimate_recovers_the_optimum_of_best_of_4() {
    let estimate = RankEstimate::of_decoder(100, 4, 400_000, uniforms(1), best).unwrap();
    for b in [0.3, 0.1] {
        let exact = Optimum::new(&"best-of:4".parse().unwrap(), beta(b)).unwrap();
        let found = estimate.optimum(beta(b)).unwrap();
        assert!(found.optimum.residual < 1e-11, "{}", found.optimum.residual);
        for (k, u) in found.u.iter().enumerate() {
            let (error, noise) = (found.phi[k] - exact.phi(*u), found.standard_error[k]);
            // Bins of 0.01 blur Φ* by 2e-3 at most; the rest is noise.
            assert!(error.abs() < 4.5 * noise + 2e-3, "Φ({u}) at {b}: {error} ± {noise}");
        }
        // What counts: the policy that it leads to is as good as the best one.
        let tilt = Tilt::new(&found.transform().unwrap(), beta(b)).unwrap();
        let objective = tilt.win_rate_under(&exact.rank) - b * tilt.kl();
        assert!(exact.objective - objective < 2e-4, "{} for {}", objective, exact.objective);
    }
}

#[test]
fn intervals_of_the_estimate_cover() {
    let (bins, repetitions, b) = (10, 1000, 0.1);
    // The exact means of g = 4u³ over the bins, and the optimum of those steps.
    let edges: Vec<f64> = (0..=bins).map(|k| f64::from(k) / f64::from(bins)).collect();
    let heights: Vec<f64> =
        edges.windows(2).map(|e| (e[1].powi(4) - e[0].powi(4)) * f64::from(bins)).collect();
    let steps = RankDensity::steps(&edges, &heights).unwrap();
    let exact = Optimum::under(&steps, beta(b)).unwrap().curve(&edges).phi;
    let (mut of_g, mut of_phi) = (0, 0);
    for repetition in 0..repetitions {
        let estimate = RankEstimate::of_decoder(10, 4, 4000, uniforms(repetition), best).unwrap();
        // The upper five bins, which hold 94 of 100 ranks.
        let intervals = estimate.densities(0.95).unwrap();
        let covers = |k: usize| intervals[k].low <= heights[k] && heights[k] <= intervals[k].high;
        of_g += (5..10).filter(|&k| covers(k)).count();
        let found = estimate.optimum(beta(b)).unwrap();
        // Student's t for 19 degrees of freedom.
        let within = |k: usize| (found.phi[k] - exact[k]).abs() <= 2.093 * found.standard_error[k];
        of_phi += (0..10).filter(|&k| within(k)).count();
    }
    let shares = [of_g as f64 / 5000.0, of_phi as f64 / 10_000.0];
    assert!(shares.iter().all(|share| (0.93..=0.97).contains(share)), "{shares:?}");
}

#[test]
fn intervals_cover_where_prompts_have_tables_of_their_own() {
    // A table of nine of the reference's own calibrates all responses to a prompt, so their ranks err together. That j of the nine lie below the
    // best of four responses has the probability 4·K!/(K + 4)!·(j + 1)(j + 2)(j + 3), K = 9.
    let (table_of, bins) = (9, 10);
    let heights = (0..bins).map(|j| 40.0 * f64::from((j + 1) * (j + 2) * (j + 3)) / 17_160.0);
    let heights: Vec<f64> = heights.collect();
    let mut uniform = uniforms(77);
    let mut covered = 0;
    for _ in 0..1000 {
        let prompt = |uniform: &mut dyn FnMut() -> f64| -> Vec<f64> {
            let table: Vec<f64> = (0..table_of).map(|_| uniform()).collect();
            let mut rank = || {
                let best = (0..4).map(|_| uniform()).fold(0.0, f64::max);
                let below = table.iter().filter(|value| **value < best).count();
                (below as f64 + uniform()) / f64::from(bins)
            };
            (0..50).map(|_| rank()).collect()
        };
        let prompts: Vec<Vec<f64>> = (0..40).map(|_| prompt(&mut uniform)).collect();
        let prompts: Vec<&[f64]> = prompts.iter().map(Vec::as_slice).collect();
        let estimate = RankEstimate::of_clusters(bins as usize, &prompts).unwrap();
        let intervals = estimate.densities(0.95).unwrap();
        let covers = |k: usize| intervals[k].low <= heights[k] && heights[k] <= intervals[k].high;
        covered += (5..10).filter(|&k| covers(k)).count();
    }
    let share = covered as f64 / 5000.0;
    assert!((0.92..=0.97).contains(&share), "{share}");
}

#[test]
fn ranks_that_say_nothing_are_refused() {
    for (bins, ranks, what) in [
        (0, vec![0.5; 100], "100 ranks in 0 bins"),
        (5, vec![0.5; 39], "39 ranks in 5 bins; it takes a bin, and at least 40 ranks"),
        (50, vec![0.5; 100], "100 ranks in 50 bins; it takes a bin, and at least 200 ranks"),
        (5, vec![1.5; 100], "rank 1.5 at index 0"),
        (5, vec![f64::NAN; 100], "rank NaN at index 0"),
    ] {
        let error = RankEstimate::new(bins, &ranks).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
    let one = RankEstimate::of_clusters(5, &[&[0.5; 100], &[]]).unwrap_err().to_string();
    assert!(one.contains("of one prompt"), "{one}");
    let estimate = RankEstimate::new(5, &[0.5; 100]).unwrap();
    assert!(matches!(estimate.densities(1.0), Err(TransformError::Ranks(_))));
}
