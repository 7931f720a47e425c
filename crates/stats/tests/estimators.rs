//! The estimator of inference-time win rates against exact values, against resampling, and with errors planted into it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and one tells a factor"
)]

use infalign_stats::{Kept, Selection, mean_and_standard_error};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Five rewards, some of which tie, and how likely a policy and a reference give each.
const REWARDS: [f64; 5] = [-1.0, 0.0, 0.5, 2.0, 3.0];
const POLICY: [f64; 5] = [0.1, 0.2, 0.25, 0.25, 0.2];
const REFERENCE: [f64; 5] = [0.3, 0.3, 0.2, 0.15, 0.05];

fn draw(random: &mut ChaCha8Rng, probabilities: &[f64; 5], samples: usize) -> Vec<f64> {
    let one = |random: &mut ChaCha8Rng| {
        let mut left = (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let place = probabilities.iter().position(|p| {
            left -= p;
            left < 0.0
        });
        REWARDS[place.unwrap_or(4)]
    };
    (0..samples).map(|_| one(random)).collect()
}

/// The distribution of what is kept of N independent draws, from the powers of the distribution function.
fn kept(probabilities: &[f64; 5], selection: Selection) -> [f64; 5] {
    let n = selection.samples() as i32;
    let at_most = |k: usize| probabilities[..k].iter().sum::<f64>();
    std::array::from_fn(|k| match selection {
        Selection::Worst(_) => (1.0 - at_most(k)).powi(n) - (1.0 - at_most(k + 1)).powi(n),
        _ => at_most(k + 1).powi(n) - at_most(k).powi(n),
    })
}

fn exact(selection: Selection) -> f64 {
    let (ours, theirs) = (kept(&POLICY, selection), kept(&REFERENCE, selection));
    let win = |i: usize, j: usize| f64::from(i > j) + 0.5 * f64::from(i == j);
    (0..5)
        .flat_map(|i| (0..5).map(move |j| (i, j)))
        .map(|(i, j)| ours[i] * theirs[j] * win(i, j))
        .sum()
}

type Estimator = fn(&[f64], &[f64], Selection, &mut ChaCha8Rng) -> f64;

fn u_statistic(ours: &[f64], theirs: &[f64], selection: Selection, _: &mut ChaCha8Rng) -> f64 {
    Kept::new(ours, selection).unwrap().win_rate(&Kept::new(theirs, selection).unwrap())
}

/// Estimates of one prompt, again and again.
fn estimates(
    estimator: Estimator,
    selection: Selection,
    samples: usize,
    rounds: usize,
) -> Vec<f64> {
    let mut random = ChaCha8Rng::seed_from_u64(samples as u64);
    let mut one = || {
        let (ours, theirs) =
            (draw(&mut random, &POLICY, samples), draw(&mut random, &REFERENCE, samples));
        estimator(&ours, &theirs, selection, &mut random)
    };
    (0..rounds).map(|_| one()).collect()
}

/// How many standard errors the mean of the estimates is from the exact value.
fn bias(estimator: Estimator, selection: Selection, samples: usize, rounds: usize) -> f64 {
    let (mean, standard_error) =
        mean_and_standard_error(&estimates(estimator, selection, samples, rounds)).unwrap();
    (mean - exact(selection)) / standard_error.max(1e-12)
}

#[test]
fn is_unbiased_for_every_n_and_m() {
    let mut worst = 0.0_f64;
    for n in [1, 2, 3, 4, 8, 16, 32] {
        for samples in [n, n + 1, 2 * n, 64, 256] {
            if samples < n {
                continue;
            }
            for selection in [Selection::Best(n), Selection::Worst(n)] {
                let bias = bias(u_statistic, selection, samples, 1_000);
                worst = worst.max(bias.abs());
                // 70 looks: the greatest of that many standard normal numbers is below 3.8 in 99 of 100 cases.
                assert!(bias.abs() < 3.8, "{selection:?} of {samples}: {bias} standard errors");
            }
        }
    }
    assert!(worst > 0.5, "the estimates vary");
}

fn select(values: &[f64], selection: Selection) -> f64 {
    match selection {
        Selection::Worst(_) => values.iter().copied().fold(f64::INFINITY, f64::min),
        _ => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    }
}

fn win(ours: f64, theirs: f64) -> f64 {
    f64::from(ours > theirs) + 0.5 * f64::from(ours == theirs)
}

/// What resampling does: groups of N without overlap, the k-th of one side against the k-th of the other.
fn groups(ours: &[f64], theirs: &[f64], selection: Selection, _: &mut ChaCha8Rng) -> f64 {
    let n = selection.samples();
    let pairs = ours.chunks_exact(n).zip(theirs.chunks_exact(n));
    let wins: Vec<f64> =
        pairs.map(|(a, b)| win(select(a, selection), select(b, selection))).collect();
    wins.iter().sum::<f64>() / wins.len() as f64
}

#[test]
fn varies_less_than_resampling() {
    for (selection, samples, least) in [
        (Selection::Best(4), 128, 1.2),
        (Selection::Worst(4), 128, 1.2),
        (Selection::Best(8), 32, 1.3),
        (Selection::Best(16), 16, 0.999),
    ] {
        let variance = |estimator: Estimator| {
            let (_, error) =
                mean_and_standard_error(&estimates(estimator, selection, samples, 2_000)).unwrap();
            error * error
        };
        let factor = variance(groups) / variance(u_statistic);
        println!("{selection:?} of {samples}: resampling varies {factor:.2} times as much");
        assert!(factor > least, "{selection:?} of {samples}: {factor}");
    }
}

/// M/N for N, as where the number of groups and their size are swapped.
fn swapped(ours: &[f64], theirs: &[f64], selection: Selection, random: &mut ChaCha8Rng) -> f64 {
    let n = selection.samples();
    let all = Selection::Best(ours.len() / n);
    u_statistic(ours, theirs, all, random)
}

fn tie_counts_one(ours: &[f64], theirs: &[f64], selection: Selection, r: &mut ChaCha8Rng) -> f64 {
    // Wins and ties together: what the other side does not win.
    let strict = |a: &[f64], b: &[f64]| {
        let nudged: Vec<f64> = a.iter().map(|value| value - 1e-9).collect();
        u_statistic(&nudged, b, selection, &mut r.clone())
    };
    1.0 - strict(theirs, ours)
}

/// Subsets drawn with replacement: the same response may be in one twice.
fn with_replacement(
    ours: &[f64],
    theirs: &[f64],
    selection: Selection,
    random: &mut ChaCha8Rng,
) -> f64 {
    let subset = |from: &[f64], random: &mut ChaCha8Rng| {
        let one = |random: &mut ChaCha8Rng| from[random.next_u32() as usize % from.len()];
        let drawn: Vec<f64> = (0..selection.samples()).map(|_| one(random)).collect();
        select(&drawn, selection)
    };
    let one = |random: &mut ChaCha8Rng| win(subset(ours, random), subset(theirs, random));
    (0..50).map(|_| one(random)).sum::<f64>() / 50.0
}

#[test]
fn planted_errors_are_caught() {
    let caught = |estimator: Estimator| bias(estimator, Selection::Best(4), 4, 20_000).abs() > 6.0;
    assert!(!caught(u_statistic), "the estimator itself passes");
    assert!(!caught(groups), "and so does resampling, which is unbiased, too");
    for (name, estimator) in [
        ("N and M swapped", swapped as Estimator),
        ("a tie counted 1", tie_counts_one),
        ("samples with replacement", with_replacement),
    ] {
        assert!(caught(estimator), "{name}");
    }
}
