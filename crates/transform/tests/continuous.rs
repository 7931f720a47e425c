//! The continuous-language engine against closed forms, and over the whole range of its arguments.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use infalign_transform::{
    Beta, Exponent, Function, Outcomes, Procedure, Table, Tilt, Transform, TransformError,
    beta_for_kl,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn tilt(transform: &str, beta: f64) -> Tilt {
    Tilt::new(&transform.parse().unwrap(), Beta::new(beta).unwrap()).unwrap()
}

fn wins(tilt: &Tilt, procedure: &str) -> f64 {
    tilt.win_rate(&procedure.parse().unwrap()).unwrap()
}

fn assert_close(what: &str, got: f64, expected: f64) {
    let error = (got / expected - 1.0).abs();
    assert!(error < 1e-11, "{what}: {got} against {expected}, relative error {error:.1e}");
}

#[test]
fn logarithm_has_one_best_of_n_win_rate() {
    for beta in [10.0, 1.0, 0.1, 1e-3] {
        let (tilt, a) = (tilt("log", beta), 1.0 + 1.0 / beta);
        assert_close("KL", tilt.kl(), a.ln() - (a - 1.0) / a);
        for procedure in ["sample", "best-of:2", "best-of:32", "best-of:10000"] {
            assert_close(procedure, wins(&tilt, procedure), a / (a + 1.0));
        }
        // N∫(1 − u^a)^N (1−u)^{N−1} at N = 2, term by term.
        let beta_function = |x: f64| 1.0 / (x * (x + 1.0));
        let worst = 1.0 - 4.0 * beta_function(a + 1.0) + 2.0 * beta_function(2.0 * a + 1.0);
        assert_close("worst-of:2", wins(&tilt, "worst-of:2"), worst);
    }
}

#[test]
fn identity_has_its_closed_forms() {
    for beta in [3.0f64, 0.5, 0.05, 1e-4] {
        let (tilt, c) = (tilt("identity", beta), 1.0 / beta);
        for u in [0.0, 1e-9, 0.3, 0.9, 1.0] {
            let cdf = (c * (u - 1.0)).exp() * (-c * u).exp_m1() / (-c).exp_m1();
            assert!((tilt.cdf(u) - cdf).abs() < 1e-14);
        }
        let mean = 1.0 / -(-c).exp_m1() - beta;
        assert_close("sample", wins(&tilt, "sample"), mean);
    }
    assert_eq!((tilt("identity", 1.0).cdf(-1.0), tilt("identity", 1.0).cdf(2.0)), (0.0, 1.0));
}

#[test]
fn rejection_bends_where_the_policy_comes_to_the_quantile() {
    for (beta, quantile, draws) in [(9.9252, 0.051, 7), (0.5, 0.487, 17), (0.05, 0.9, 4)] {
        let (c, q, n) = (1.0 / beta, quantile, f64::from(draws));
        // g is flat on either side of the quantile, and so is F integrated in closed form between it and where F reaches it.
        let (low, high) = (f64::powf(q, n - 1.0), (1.0 - f64::powf(q, n)) / (1.0 - q));
        let bend = (q * f64::exp_m1(c)).ln_1p() / c;
        let of_f = |u: f64| ((c * u).exp() / c - u) / f64::exp_m1(c);
        let won = |a: f64, b: f64, g: f64| g * (b - a - low * (of_f(b) - of_f(a)));
        let above = high * high * (1.0 - bend - (of_f(1.0) - of_f(bend)));
        let expected = won(0.0, q, low) + won(q, bend, high) + above;
        let procedure = format!("rejection:quantile={quantile},draws={draws}");
        assert_close(&procedure, wins(&tilt("identity", beta), &procedure), expected);
    }
}

/// Equivalent Python code, 40 digits (60 for t > 0):
/// `E = lambda u: mp.ei(s*mp.exp(t*u)/beta)/t; F = lambda u: (E(u) - E(0))/(E(1) - E(0))`, then
/// `KL = mp.quad(f*log f)`, `mp.quad(lambda y: 1 - F(y**(1/N))**N)` for best-of-N and
/// `mp.quad(lambda z: (1 - F(1 - z**(1/N)))**N)` for worst-of-N, on graded and uniform panels.
/// Columns: t, β, KL, then best-of-N and worst-of-N for N = 1, 4, 100, 10000.
#[rustfmt::skip]
const EXTREMES: [(f64, f64, f64, [f64; 8]); 12] = [
    (200.0, 1e90, 6.463618423698646e-10, [
        0.5000017887468061, 0.5000017887468061, 0.5000069466113224, 0.5000010324666124,
        0.5000899950991062, 0.500000907948026, 0.5001779669373677, 0.5000009034534585]),
    (200.0, 1e87, 0.0008988331466460788, [
        0.5021638667860392, 0.5021638667860392, 0.5083726324442249, 0.5012505414478505,
        0.6003205126647186, 0.5010997234054103, 0.6711807357849209, 0.5010942795286996]),
    (200.0, 1e84, 10.878393097462974, [
        0.9999930612722964, 0.9999930612722964, 0.9999930685453323, 1.0,
        0.9999930708662769, 1.0, 0.9999930709619492, 1.0]),
    (200.0, 3e80, 18.99289680801758, [
        0.9999999979241535, 0.9999999979241535, 0.9999999979241542, 1.0,
        0.9999999979241544, 1.0, 0.9999999979241544, 1.0]),
    (-200.0, 0.5, 0.002266137667194387, [
        0.5032794126079108, 0.5032794126079108, 0.5018908942788627, 0.5127746641096219,
        0.5016628502768088, 0.6760228108628802, 0.5016546188474261, 0.8763787654280659]),
    (-200.0, 1e-20, 0.258936872038741, [
        0.6165454808358674, 0.6165454808358674, 0.5751443136864232, 0.826899673941275,
        0.5663029533010235, 0.999999999997781, 0.5659805100030472, 1.0]),
    (-200.0, 1e-60, 1.1667431064267855, [
        0.8467636823186253, 0.8467636823186253, 0.7893069098360405, 0.9955676226085021,
        0.7664523396124776, 1.0, 0.7655079700781577, 1.0]),
    (-200.0, 1e-88, 7.051674378095177, [
        0.9996809281122492, 0.9996809281122492, 0.999666979338866, 0.9999999999993396,
        0.9996620055369737, 1.0, 0.9996617941478575, 1.0]),
    (-200.0, 1e-92, 16.136160373712816, [
        0.9999999638706533, 0.9999999638706533, 0.9999999638704585, 1.0,
        0.9999999638703961, 1.0, 0.9999999638703936, 1.0]),
    (10.0, 1e9, 9.703596575140831e-12, [
        0.5000008811221492, 0.5000008811221492, 0.5000022572373302, 0.5000006273231381,
        0.5000047185369401, 0.5000005531416938, 0.5000049534732839, 0.5000005504164665]),
    (-10.0, 3e-12, 17.834994052413258, [
        0.9999999933920611, 0.9999999933920611, 0.9999999933920608, 1.0,
        0.9999999933920607, 1.0, 0.9999999933920607, 1.0]),
    (40.0, 1e16, 5.752694947667898, [
        0.9988305796299767, 0.9988305796299767, 0.9988760324825964, 0.9999999566500508,
        0.9988890650021798, 0.9999999466588556, 0.9988895894408079, 0.9999999461308312]),
];

#[test]
fn exponentials_hold_at_the_ends_of_their_range() {
    for (t, beta, kl, win_rates) in EXTREMES {
        let tilt = tilt(&format!("exp:{t}"), beta);
        assert_close(&format!("t = {t}, β = {beta}: KL"), tilt.kl(), kl);
        let names = [1, 4, 100, 10_000].map(|n| [format!("best-of:{n}"), format!("worst-of:{n}")]);
        for (procedure, expected) in names.concat().iter().zip(win_rates) {
            assert_close(
                &format!("t = {t}, β = {beta}: {procedure}"),
                wins(&tilt, procedure),
                expected,
            );
        }
    }
}

#[test]
fn every_kl_is_reached_and_an_impossible_one_is_refused() {
    for transform in ["identity", "log", "exp:5", "exp:-10", "exp:200", "exp:-200", "exp:0.001"] {
        let transform: Transform = transform.parse().unwrap();
        for kl in [1e-20, 1e-6, 0.1, 1.0, 20.0, 100.0] {
            let beta = beta_for_kl(&transform, kl).unwrap();
            assert_close(&format!("{transform}"), Tilt::new(&transform, beta).unwrap().kl(), kl);
        }
        assert!(matches!(beta_for_kl(&transform, 0.0), Err(TransformError::Kl(_))));
        let error = beta_for_kl(&transform, 1e4).unwrap_err();
        let TransformError::UnreachableKl { supremum, .. } = error else { panic!("{error}") };
        assert!(supremum > 100.0 && supremum < 1e4);
    }
}

#[test]
fn soft_best_of_n_lies_between_sampling_and_best_of_n() {
    for transform in ["log", "exp:10", "exp:-10"] {
        let beta = beta_for_kl(&transform.parse().unwrap(), 0.5).unwrap().get();
        let tilt = tilt(transform, beta);
        let soft = |t: f64| wins(&tilt, &format!("soft-best-of:4,temperature={t}"));
        assert!((soft(1e-3) - wins(&tilt, "best-of:4")).abs() < 1e-3);
        assert!((soft(1e5) - wins(&tilt, "sample")).abs() < 1e-4);
        // A policy against itself wins half.
        let flat = Tilt::new(&Transform::Identity, Beta::new(1e12).unwrap()).unwrap();
        assert!((wins(&flat, "soft-best-of:4,temperature=0.2") - 0.5).abs() < 1e-11);
    }
}

/// Weights e^{u/τ} on both sides, by another program: M and what is kept by quadrature on 60 panels and more.
#[test]
fn soft_best_of_n_weighs_the_rank_under_the_reference() {
    for (transform, procedure, expected) in [
        ("exp:10", "soft-best-of:4,temperature=0.1", 0.826597435834),
        ("exp:10", "soft-best-of:4,temperature=0.3", 0.782596232174),
        ("identity", "soft-best-of:4,temperature=0.1", 0.740944840443),
        ("log", "soft-best-of:4,temperature=0.1", 0.711796945091),
        ("log", "soft-best-of:64,temperature=0.05", 0.551225691427),
    ] {
        let beta = beta_for_kl(&transform.parse().unwrap(), 0.5).unwrap().get();
        let won = wins(&tilt(transform, beta), procedure);
        assert!((won - expected).abs() < 1e-9, "{transform}, {procedure}: {won}");
    }
    let cold = Procedure::SoftBestOf { n: 4_usize.try_into().unwrap(), temperature: 1e-5 };
    let refused = tilt("identity", 1.0).win_rate(&cold).unwrap_err();
    assert_eq!(refused, TransformError::Temperature(1e-5));
}

/// Many equally likely responses come near to the continuous limit.
#[test]
fn soft_best_of_n_is_the_limit_of_listed_responses() {
    let (count, n) = (400, "soft-best-of:4,temperature=0.1");
    let u: Vec<f64> = (0..count).map(|k| (f64::from(k) + 0.5) / f64::from(count)).collect();
    let outcomes = Outcomes::new(vec![1.0 / f64::from(count); u.len()], u.clone()).unwrap();
    let transform: Transform = "exp:10".parse().unwrap();
    let beta = beta_for_kl(&transform, 0.5).unwrap().get();
    let weights: Vec<f64> = u.iter().map(|&u| (transform.raw(u) / beta).exp()).collect();
    let whole: f64 = weights.iter().sum();
    let policy: Vec<f64> = weights.iter().map(|weight| weight / whole).collect();
    let listed = outcomes.win_rate(&n.parse().unwrap(), &policy).unwrap();
    let limit = wins(&tilt("exp:10", beta), n);
    assert!((listed - limit).abs() < 2e-4, "{listed} and {limit}");
}

#[test]
fn procedures_of_a_language_model_have_no_integral() {
    let procedure: Procedure = "cd-token:lambda=2".parse().unwrap();
    let error = tilt("identity", 1.0).win_rate(&procedure).unwrap_err().to_string();
    assert!(error.starts_with("the win rate of `cd-token:lambda=2` depends on"), "{error}");
}

#[test]
fn the_range_of_a_function_ends_where_its_digits_do() {
    let square = Transform::Function(Function::new(|u| u * u).unwrap());
    for kl in [1e-6, 0.5, 10.0] {
        let beta = beta_for_kl(&square, kl).unwrap();
        assert_close("u²", Tilt::new(&square, beta).unwrap().kl(), kl);
    }
    let error = beta_for_kl(&square, 600.0).unwrap_err();
    let TransformError::UnreachableKl { supremum, .. } = error else { panic!("{error}") };
    assert!((10.0..600.0).contains(&supremum), "{supremum}");
}

#[test]
fn a_policy_beyond_the_range_of_numbers_is_refused() {
    for (transform, beta) in [
        ("exp:200", 1e-300),
        ("exp:500", 1e-100),
        ("exp:5", 1e-320),
        ("exp:-5", 1e-320),
        ("identity", 1e-310),
        ("log", 1e-310),
    ] {
        let transform: Transform = transform.parse().unwrap();
        match Tilt::new(&transform, Beta::new(beta).unwrap()) {
            Ok(tilt) => {
                let won = wins(&tilt, "best-of:4");
                assert!(
                    tilt.kl().is_finite() && (0.5..=1.0).contains(&won),
                    "{transform} {beta:e}"
                );
            }
            Err(error) => assert!(error.to_string().contains("β ="), "{error}"),
        }
    }
    let refused = Tilt::new(&"exp:500".parse().unwrap(), Beta::new(1e-100).unwrap()).unwrap_err();
    assert!(matches!(refused, TransformError::Extreme { .. }), "{refused}");
    for range in [1e308, 1e-320] {
        let table = Table::new(&[0.0, 1.0], &[-range, range]);
        assert!(table.unwrap_err().to_string().contains("beyond the range of numbers"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn win_rates_are_shares_and_kl_falls_with_beta(
        t in -200.0..200.0f64, log_kl in -13.0..3.0f64, n in 1usize..10_000,
    ) {
        prop_assume!(t != 0.0);
        let transform = Transform::Exp(Exponent::new(t).unwrap());
        let beta = beta_for_kl(&transform, log_kl.exp()).unwrap();
        let tilt = Tilt::new(&transform, beta).unwrap();
        for procedure in [format!("best-of:{n}"), format!("worst-of:{n}")] {
            let won = wins(&tilt, &procedure);
            prop_assert!((0.5..=1.0 + 1e-13).contains(&won), "{procedure}: {won}");
        }
        let flatter = Tilt::new(&transform, Beta::new(beta.get() * 1.01).unwrap()).unwrap();
        prop_assert!(flatter.kl() < tilt.kl());
    }

    #[test]
    fn one_response_is_the_same_however_it_is_kept(t in -200.0..200.0f64, log_kl in -13.0..3.0f64) {
        prop_assume!(t != 0.0);
        let transform = Transform::Exp(Exponent::new(t).unwrap());
        let beta = beta_for_kl(&transform, log_kl.exp()).unwrap();
        let tilt = Tilt::new(&transform, beta).unwrap();
        prop_assert!((wins(&tilt, "best-of:1") - wins(&tilt, "worst-of:1")).abs() < 1e-13);
        prop_assert_eq!(wins(&tilt, "best-of:1"), wins(&tilt, "sample"));
    }

    /// F = u^a with a = 1 + 1/β: the same best-of-N win rate for every N, and best-of-n itself at β = 1/(n − 1).
    #[test]
    fn logarithm_at_random(n in 1usize..10_000, log_beta in -7.0..7.0f64) {
        let (tilt, a) = (tilt("log", log_beta.exp()), 1.0 + (-log_beta).exp());
        let won = wins(&tilt, &format!("best-of:{n}"));
        prop_assert!((won / (a / (a + 1.0)) - 1.0).abs() < 1e-11, "{won} at a = {a}");
        let kl = a.ln() - (a - 1.0) / a;
        prop_assert!((tilt.kl() - kl).abs() < 1e-13 * (1.0 + kl) && (tilt.cdf(0.3) - 0.3f64.powf(a)).abs() < 1e-14);
let worst = wins(&tilt, &format!("worst-of:{n}"));
        prop_assert!(worst >= won - 1e-12, "{worst} below {won}");
    }

    #[test]
    fn cdf_rises_from_0_to_1(t in -200.0..200.0f64, log_kl in -13.0..3.0f64) {
        prop_assume!(t != 0.0);
        let transform = Transform::Exp(Exponent::new(t).unwrap());
        let beta = beta_for_kl(&transform, log_kl.exp()).unwrap();
        let tilt = Tilt::new(&transform, beta).unwrap();
        let values: Vec<f64> = (0..=200).map(|k| tilt.cdf(f64::from(k) / 200.0)).collect();
        prop_assert!(values.windows(2).all(|pair| pair[0] <= pair[1] + 1e-14));
        prop_assert!(values[0].abs() < 1e-14 && (values[200] - 1.0).abs() < 1e-13);
    }
}

/// A jump is written as two rows as near to each other as can be: f is h on the upper part and h·e^{−1/β} below it.
#[test]
fn tables_may_jump_anywhere() {
    for place in [0.3, 0.5, 0.9] {
        let u = [0.0, place, place + 2.3e-16, 1.0];
        let jump = Transform::Table(Table::new(&u, &[0.0, 0.0, 1.0, 1.0]).unwrap().into());
        for beta in [0.01, 0.1, 1.0] {
            let tilt = Tilt::new(&jump, Beta::new(beta).unwrap()).unwrap();
            let below = place * f64::exp(-1.0 / beta);
            let z = below + 1.0 - place;
            let kl = -z.ln() - below / z / beta;
            assert!((tilt.kl() / kl - 1.0).abs() < 1e-12, "{place}, {beta}: {} {kl}", tilt.kl());
        }
    }
}

#[test]
fn tables_as_steep_as_the_logarithm_end() {
    for first in [1e-16, 1e-15, 1e-12] {
        let table = Table::new(&[0.0, first, 1e-3, 1.0], &[-1000.0, -36.0, -6.9, 0.0]).unwrap();
        let tilt = Tilt::new(&Transform::Table(table.into()), Beta::new(1.0).unwrap()).unwrap();
        assert!(tilt.kl() > 0.0 && tilt.kl() < 10.0, "{first:e}: {}", tilt.kl());
    }
}
