//! Coverage in simulations, and the parts of BCa against numbers that are worked out by hand.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::testing::SplitMix;
use crate::{mean_interval, paired_difference};

fn first(means: &[f64]) -> f64 {
    means[0]
}

/// Share of simulations whose interval holds the truth.
fn coverage(simulations: u64, mut covers: impl FnMut(u64) -> bool) -> f64 {
    (0..simulations).filter(|&seed| covers(seed)).count() as f64 / simulations as f64
}

#[test]
fn covers_the_mean_of_bounded_skewed_prompts() {
    // Win rates of prompts near the upper end, as of a strong policy: 1 − U⁴ has mean 0.8.
    let mut random = SplitMix(3);
    for (prompts, simulations) in [(50, 1_000), (200, 800), (2_000, 400)] {
        let share = coverage(simulations, |seed| {
            let x: Vec<f64> = (0..prompts).map(|_| 1.0 - random.uniform().powi(4)).collect();
            let resamples = Resamples::new(&[&x], 500, seed).unwrap();
            let interval = resamples.interval(0.95, first).unwrap();
            interval.low <= 0.8 && 0.8 <= interval.high
        });
        assert!((0.93..=0.97).contains(&share), "{share} with {prompts} prompts");
    }
}

#[test]
fn covers_the_mean_of_a_handful_of_prompts() {
    let mut random = SplitMix(8);
    for prompts in [2, 3, 5, 9, 10, 12] {
        let share = coverage(1_000, |seed| {
            let x: Vec<f64> = (0..prompts).map(|_| random.normal()).collect();
            let resamples = Resamples::new(&[&x], 500, seed).unwrap();
            let interval = resamples.interval(0.95, first).unwrap();
            interval.low <= 0.0 && 0.0 <= interval.high
        });
        assert!((0.925..=0.97).contains(&share), "{share} with {prompts} prompts");
    }
}

#[test]
fn covers_the_difference_of_paired_prompts() {
    let mut random = SplitMix(4);
    let share = coverage(1_000, |seed| {
        let draw = |random: &mut SplitMix| -> (f64, f64) {
            let ease = random.uniform();
            (ease, (ease + 0.2 * random.uniform() - 0.05).clamp(0.0, 1.2))
        };
        let (a, b): (Vec<f64>, Vec<f64>) = (0..60).map(|_| draw(&mut random)).unzip();
        let resamples = Resamples::new(&[&a, &b], 500, seed).unwrap();
        let interval = resamples.interval(0.95, |m| m[1] - m[0]).unwrap();
        // E(b − a) = 0.05 but for the clamp at 0: E max(0, −(ease + v)), v uniform on [−0.05, 0.15], is 0.05³/(6·0.2).
        let truth = 0.05 + 0.05_f64.powi(3) / (6.0 * 0.2);
        interval.low <= truth && truth <= interval.high
    });
    assert!((0.93..=0.97).contains(&share), "{share}");
}

#[test]
fn agrees_with_students_interval_where_that_is_right() {
    let mut random = SplitMix(5);
    let a: Vec<f64> = (0..400).map(|_| random.normal()).collect();
    let b: Vec<f64> = a.iter().map(|a| a + 0.3 + random.normal()).collect();
    let resamples = Resamples::new(&[&a, &b], 20_000, 1).unwrap();
    let bootstrap = resamples.interval(0.95, |m| m[1] - m[0]).unwrap();
    let student = paired_difference(&b, &a, 0.95).unwrap();
    assert!((bootstrap.estimate - student.estimate).abs() < 1e-12);
    for (ours, theirs) in [(bootstrap.low, student.low), (bootstrap.high, student.high)] {
        assert!((ours - theirs).abs() < 0.01, "{bootstrap:?} {student:?}");
    }
}

/// Of prompts with two outcomes many resamples tie with the estimate, whatever the outcomes are called.
#[test]
fn the_scale_of_outcomes_does_not_move_their_interval() {
    for (prompts, high) in [(20, 18), (40, 10), (100, 90)] {
        let of = |a: f64, b: f64| {
            let x: Vec<f64> = (0..prompts).map(|k| if k < high { b } else { a }).collect();
            let found = Resamples::new(&[&x], 2_000, 1).unwrap().interval(0.95, first).unwrap();
            [found.low, found.high].map(|end| (end - a) / (b - a))
        };
        let expected = of(0.0, 1.0);
        for (a, b) in [(0.1, 0.7), (0.3, 1.1), (0.0, 0.1), (-0.7, 0.2)] {
            let found = of(a, b);
            let near = found.iter().zip(expected).all(|(found, end)| (found - end).abs() < 1e-9);
            assert!(near, "{a} and {b}: {found:?} and not {expected:?}");
        }
    }
}

/// Two series that differ on one prompt of many, whose resamples tie at multiples of a difference that is small beside their means.
#[test]
fn the_scale_of_series_does_not_move_the_interval_of_their_difference() {
    let of = |a: f64, b: f64| {
        let scaled = |k: u32| a + (b - a) * f64::from(k * k % 11) / 10.0;
        let first: Vec<f64> = (0..1_000).map(scaled).collect();
        let mut second = first.clone();
        second[500] += 0.25 * (b - a);
        let resamples = Resamples::new(&[&first, &second], 2_000, 1).unwrap();
        let found = resamples.difference(0.95, 1, 0).unwrap();
        [found.low, found.high].map(|end| end / (b - a))
    };
    let expected = of(0.0, 1.0);
    for (a, b) in [(0.1, 0.7), (0.3, 1.1), (0.4, 0.5), (-0.7, 0.2)] {
        let found = of(a, b);
        let near = found.iter().zip(expected).all(|(found, end)| (found - end).abs() < 1e-9);
        assert!(near, "{a} and {b}: {found:?} and not {expected:?}");
    }
}

#[test]
fn below_ten_prompts_the_interval_of_a_mean_is_students() {
    for (prompts, same) in [(2_u32, true), (9, true), (10, false)] {
        let x: Vec<f64> = (0..prompts).map(|k| f64::from(k * k)).collect();
        let ours = Resamples::new(&[&x], 200, 1).unwrap().interval(0.95, first).unwrap();
        let student = mean_interval(&x, 0.95).unwrap();
        assert!((ours.estimate - student.estimate).abs() < 1e-12);
        let apart = (ours.low - student.low).abs().max((ours.high - student.high).abs());
        assert_eq!(apart < 1e-9, same, "{prompts}: {ours:?} {student:?}");
    }
}

#[test]
fn skewed_data_have_a_skewed_interval() {
    let mut random = SplitMix(6);
    let x: Vec<f64> = (0..80).map(|_| -(1.0 - random.uniform()).ln()).collect();
    let bca = Resamples::new(&[&x], 10_000, 1).unwrap().interval(0.95, first).unwrap();
    let student = mean_interval(&x, 0.95).unwrap();
    assert!(bca.high - bca.estimate > 1.1 * (bca.estimate - bca.low), "{bca:?}");
    assert!(bca.low > student.low && bca.high > student.high, "{bca:?} {student:?}");
}

#[test]
fn the_acceleration_is_the_skewness_of_the_deviations_over_six() {
    // Σd³ = 27 − 3 and Σd² = 12: 24/(6·12^{3/2}), in whatever unit.
    for unit in [1.0, 10.0] {
        let found = acceleration(&[-1.0, -1.0, -1.0, 3.0].map(|d: f64| d * unit));
        assert!((found - 0.096_225_045).abs() < 1e-8, "{found} in units of {unit}");
    }
}

#[test]
fn levels_are_of_students_quantiles_widened_and_accelerated() {
    let resamples = Resamples::new(&[&[0.0; 10]], 100, 0).unwrap();
    // Φ(z/(1 − az)) at z = ±2.262157·√(10/9): the resamples lie as far on either side, without bias.
    for (acceleration, expected) in
        [(0.0, [0.008_550_6, 0.991_449_4]), (0.05, [0.016_564_7, 0.996_608_4])]
    {
        let found = resamples.levels(0.95, (0.0, 0.0), &[-1.0, 1.0], acceleration);
        let near = found.iter().zip(expected).all(|(found, level)| (found - level).abs() < 1e-6);
        assert!(near, "{acceleration}: {found:?} and not {expected:?}");
    }
}

#[test]
fn an_interval_is_accelerated_by_the_skewness_of_its_prompts() {
    // Resamples spread evenly from −1 to 1, so that a level p is at 2p − 1, of a mean with Σd³ = 120 and Σd² = 40: a = 0.079057.
    let resamples = Resamples {
        values: vec![-1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, 4.0, 4.0],
        means: vec![0.0],
        replicates: (1_u32..1_000).map(|k| f64::from(k) / 500.0 - 1.0).collect(),
    };
    let found = resamples.interval(0.95, first).unwrap();
    let apart = (found.low + 0.955_177).abs().max((found.high - 0.996_702).abs());
    assert!(apart < 1e-5, "{found:?}");
}

#[test]
fn resamples_are_uniform_and_the_seeds_alone() {
    let (n, rounds) = (7, 20_000);
    let mut hits = [0; 8];
    for replicate in 0..rounds {
        for count in counts(n, 9, replicate) {
            hits[count as usize] += 1;
        }
    }
    // A prompt is in a resample Binomial(7, 1/7) times: 0 with (6/7)⁷, 1 with (6/7)⁶.
    let all = (n as u64 * rounds) as f64;
    for (times, expected) in [(0, (6f64 / 7.0).powi(7)), (1, (6f64 / 7.0).powi(6))] {
        let share = f64::from(hits[times]) / all;
        assert!((share - expected).abs() < 0.006, "{times}: {share} {expected}");
    }
    assert_eq!(counts(50, 1, 2), counts(50, 1, 2));
    assert_ne!(counts(50, 1, 2), counts(50, 1, 3));
    assert_ne!(counts(50, 1, 2), counts(50, 2, 2));
    assert_eq!(counts(50, 1, 2).iter().sum::<u32>(), 50);
}

#[test]
fn threads_and_further_series_change_nothing() {
    let mut random = SplitMix(7);
    let mut draw = || -> Vec<f64> { (0..30).map(|_| random.uniform()).collect() };
    let (a, b) = (draw(), draw());
    let alone = Resamples::new(&[&a], 300, 5).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let both = pool.install(|| Resamples::new(&[&b, &a], 300, 5)).unwrap();
    let second = both.interval(0.9, |means| means[1]).unwrap();
    assert_eq!(alone.interval(0.9, first).unwrap(), second);
}

#[test]
fn a_mean_and_a_difference_are_those_of_their_series_alone_to_the_last_bit() {
    let mut random = SplitMix(8);
    for prompts in [5, 30] {
        let mut draw = || -> Vec<f64> { (0..prompts).map(|_| random.uniform()).collect() };
        let all = [draw(), draw(), draw(), draw()];
        let of = |places: &[usize]| {
            let series: Vec<&[f64]> = places.iter().map(|&place| &all[place][..]).collect();
            Resamples::new(&series, 300, 5).unwrap()
        };
        let whole = of(&[0, 1, 2, 3]);
        assert_eq!(whole.mean(0.9, 2), whole.interval(0.9, |means| means[2]));
        assert_eq!(whole.mean(0.9, 2), of(&[2]).mean(0.9, 0));
        assert_eq!(whole.difference(0.9, 3, 1), whole.interval(0.9, |means| means[3] - means[1]));
        assert_eq!(whole.difference(0.9, 3, 1), of(&[1, 3]).difference(0.9, 1, 0));
        let missing = Err(StatsError::NoSeries { index: 4, count: 4 });
        assert_eq!(whole.mean(0.9, 4), missing);
        assert_eq!(whole.difference(0.9, 0, 4), missing);
    }
    let none = Resamples::new(&[], 100, 0).unwrap().mean(0.95, 0);
    assert_eq!(none, Err(StatsError::NoSeries { index: 0, count: 0 }));
}

#[test]
fn what_does_not_vary_has_no_width_and_what_is_undefined_is_an_error() {
    let resamples = Resamples::new(&[&[1.0; 5]], 100, 0).unwrap();
    let interval = resamples.interval(0.95, first).unwrap();
    assert_eq!((interval.low, interval.estimate, interval.high), (1.0, 1.0, 1.0));
    let none = Resamples::new(&[], 100, 0).unwrap().interval(0.95, |_| 0.0);
    assert_eq!(none, Err(StatsError::Undefined { defined: 0, of: 0 }));
    let undefined = resamples.interval(0.95, |_| f64::NAN);
    assert_eq!(undefined, Err(StatsError::Undefined { defined: 0, of: 100 }));
    // One resample in a hundred may be undefined; the prompts themselves are looked at first.
    let but_for = |lost: usize| {
        let calls = AtomicUsize::new(0);
        resamples.interval(0.95, |means| {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            if (1..=lost).contains(&call) { f64::NAN } else { means[0] }
        })
    };
    assert_eq!(but_for(1).unwrap().estimate, 1.0);
    assert_eq!(but_for(2), Err(StatsError::Undefined { defined: 98, of: 100 }));
    assert!(matches!(resamples.interval(1.0, first), Err(StatsError::Level(_))));
    assert!(matches!(Resamples::new(&[&[1.0]], 100, 0), Err(StatsError::TooFew { .. })));
    assert!(matches!(Resamples::new(&[&[1.0, 2.0]], 99, 0), Err(StatsError::TooFew { .. })));
    let unpaired = Resamples::new(&[&[1.0, 2.0], &[1.0]], 100, 0).err();
    assert_eq!(unpaired, Some(StatsError::Unpaired { first: 2, second: 1 }));
}
