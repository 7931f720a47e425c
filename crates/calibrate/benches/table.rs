//! Speed of lookups and of loading a table: `cargo bench -p infalign-calibrate --bench table`. On Linux also the memory that a table takes.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a program that prints a table"
)]

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use infalign_calibrate::{Calibration, CalibrationMeta, store};

/// Rewards of the table that is loaded.
const PROMPTS: usize = 100_000;
const SAMPLES: usize = 100;

/// Numbers in [0, 1) from a fixed linear congruence.
fn uniform(state: &mut u64) -> f32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 40) as f32 / (1u64 << 24) as f32
}

fn table(prompts: usize) -> Calibration {
    let (mut state, mut table) = (1, Calibration::new(CalibrationMeta::default()));
    for prompt in 0..prompts {
        let rewards = (0..SAMPLES).map(|_| uniform(&mut state)).collect();
        table.insert(&format!("{prompt:016x}"), &format!("prompt {prompt}"), rewards).unwrap();
    }
    table
}

fn lookups(criterion: &mut Criterion) {
    let (mut state, table) = (2, table(1_000));
    let rewards: Vec<f32> = (0..1_000).map(|_| uniform(&mut state)).collect();
    let mut group = criterion.benchmark_group("quantiles at K = 100");
    group.throughput(Throughput::Elements(rewards.len() as u64));
    let row = table.row("prompt 500").unwrap();
    group.bench_function("of one prompt", |bencher| {
        bencher.iter(|| rewards.iter().map(|&reward| row.quantile(black_box(reward))).sum::<f64>());
    });
    group.bench_function("of a thousand prompts", |bencher| {
        let pairs = || table.rows().iter().zip(&rewards);
        bencher.iter(|| pairs().map(|(row, &reward)| row.quantile(black_box(reward))).sum::<f64>());
    });
    group.finish();
}

/// A line of /proc/self/status, in MiB.
fn resident(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(key))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? >> 10)
}

fn loading(_: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.parquet");
    store::write_to(&table(PROMPTS), std::fs::File::create(&path).unwrap()).unwrap();
    let before = resident("VmRSS");
    // From here on the peak counts.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let mut seconds: Vec<f64> = (0..5)
        .map(|_| {
            let start = Instant::now();
            assert_eq!(store::read(&path).unwrap().len(), PROMPTS);
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    println!("{PROMPTS} prompts × {SAMPLES} rewards load in {:.2} s (median of 5)", seconds[2]);
    if let (Some(before), Some(peak)) = (before, resident("VmHWM")) {
        println!("peak memory {peak} MiB, of which {before} MiB were there before");
    }
}

criterion_group!(benches, lookups, loading);
criterion_main!(benches);
