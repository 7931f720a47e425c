//! A table of 20 methods on 2,000 prompts with 128 responses each, and all 190 comparisons with 10,000 resamples of the prompts.
#![allow(missing_docs, reason = "criterion's macros")]

use criterion::{Criterion, criterion_group, criterion_main};
use infalign_stats::{Kept, Resamples, Selection, StatsError, holm, t_test};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

const PROMPTS: usize = 2_000;
const SAMPLES: usize = 128;
const METHODS: usize = 20;

/// `[prompts][samples]`, ties included.
fn rewards(method: u64) -> Vec<Vec<f64>> {
    let mut random = ChaCha8Rng::seed_from_u64(method);
    let mut reward = || f64::from(random.next_u32() % 500) + method as f64;
    (0..PROMPTS).map(|_| (0..SAMPLES).map(|_| reward()).collect()).collect()
}

/// The sum of all ends of intervals and adjusted p-values.
fn table(methods: &[Vec<Vec<f64>>], reference: &[Vec<f64>]) -> Result<f64, StatsError> {
    let best = Selection::Best(4);
    let kept = |rewards: &[Vec<f64>]| -> Result<Vec<Kept>, StatsError> {
        rewards.par_iter().map(|rewards| Kept::new(rewards, best)).collect()
    };
    let theirs = kept(reference)?;
    let mut series = Vec::with_capacity(METHODS);
    for rewards in methods {
        let ours = kept(rewards)?;
        series.push(ours.iter().zip(&theirs).map(|(a, b)| a.win_rate(b)).collect::<Vec<f64>>());
    }
    let slices: Vec<&[f64]> = series.iter().map(Vec::as_slice).collect();
    let resamples = Resamples::new(&slices, 10_000, 1)?;
    let row = |k: usize| resamples.mean(0.95, k);
    let rows: Vec<_> = (0..METHODS).into_par_iter().map(row).collect::<Result<_, _>>()?;
    let pairs: Vec<(usize, usize)> =
        (0..METHODS).flat_map(|a| (0..a).map(move |b| (a, b))).collect();
    let compare = |&(a, b): &(usize, usize)| {
        let differences: Vec<f64> = series[a].iter().zip(&series[b]).map(|(x, y)| x - y).collect();
        Ok((resamples.difference(0.95, a, b)?, t_test(&differences, 0.0)?))
    };
    let comparisons: Vec<_> = pairs.par_iter().map(compare).collect::<Result<_, StatsError>>()?;
    let adjusted = holm(&comparisons.iter().map(|(_, p)| *p).collect::<Vec<_>>());
    let intervals = rows.iter().chain(comparisons.iter().map(|(interval, _)| interval));
    Ok(intervals.map(|one| one.low + one.high).sum::<f64>() + adjusted.iter().sum::<f64>())
}

fn whole_table(criterion: &mut Criterion) {
    let methods: Vec<_> = (1..=METHODS as u64).map(rewards).collect();
    let reference = rewards(0);
    let mut group = criterion.benchmark_group("table");
    group.sample_size(10);
    group.bench_function("20 methods, 2,000 prompts, 128 samples, 10,000 resamples", |bencher| {
        bencher.iter(|| table(&methods, &reference));
    });
    group.finish();
}

criterion_group!(benches, whole_table);
criterion_main!(benches);
