//! How long the exact engine takes: points of a curve, optima, the search for β, and a whole figure.
#![allow(missing_docs, clippy::unwrap_used, reason = "criterion's macros; inputs are constants")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use infalign_transform::{
    Beta, Optimum, Outcomes, Procedure, RankDensity, Tilt, Transform, beta_for_kl, frontier,
    optimal_frontier,
};

const PROCEDURES: [&str; 5] = ["sample", "best-of:2", "best-of:4", "best-of:32", "worst-of:4"];

fn curve_points(c: &mut Criterion) {
    for (name, kl) in
        [("identity", 0.5), ("log", 0.5), ("exp:10", 0.5), ("exp:-10", 3.0), ("exp:200", 10.0)]
    {
        let transform: Transform = name.parse().unwrap();
        let beta = beta_for_kl(&transform, kl).unwrap();
        for procedure in PROCEDURES {
            let rank = RankDensity::of(&procedure.parse().unwrap()).unwrap();
            c.bench_function(&format!("curve point {name} {procedure}"), |b| {
                b.iter(|| {
                    let tilt = Tilt::new(black_box(&transform), beta).unwrap();
                    (tilt.kl(), tilt.win_rate_under(&rank))
                });
            });
        }
        let soft: Procedure = "soft-best-of:4,temperature=0.1".parse().unwrap();
        c.bench_function(&format!("curve point {name} {soft}"), |b| {
            b.iter(|| Tilt::new(black_box(&transform), beta).unwrap().win_rate(&soft).unwrap());
        });
        c.bench_function(&format!("beta_for_kl {name}"), |b| {
            b.iter(|| beta_for_kl(black_box(&transform), kl).unwrap());
        });
    }
}

fn optima(c: &mut Criterion) {
    for (procedure, beta) in [
        ("best-of:4", 0.1),
        ("worst-of:4", 0.1),
        ("best-of:10000", 1e-3),
        ("worst-of:10000", 1e-3),
        ("rejection:quantile=0.8,draws=4", 0.1),
    ] {
        let procedure: Procedure = procedure.parse().unwrap();
        let beta = Beta::new(beta).unwrap();
        c.bench_function(&format!("optimum {procedure}"), |b| {
            b.iter(|| Optimum::new(black_box(&procedure), beta).unwrap());
        });
        c.bench_function(&format!("optimum for KL {procedure}"), |b| {
            b.iter(|| Optimum::for_kl(black_box(&procedure), 0.02).unwrap());
        });
    }
}

/// Eight transforms and the optimum, 40 β, 5 procedures.
fn figure(c: &mut Criterion) {
    let transforms =
        ["identity", "log", "exp:5", "exp:10", "exp:20", "exp:-5", "exp:-10", "exp:-20"];
    let transforms = transforms.map(|name| name.parse::<Transform>().unwrap());
    let procedures = PROCEDURES.map(|name| name.parse::<Procedure>().unwrap());
    let ranks = procedures.map(|procedure| RankDensity::of(&procedure).unwrap());
    let range = (1e-3, 3.0);
    let mut group = c.benchmark_group("figure");
    group.sample_size(10);
    group.bench_function("frontiers", |b| {
        b.iter(|| {
            for transform in &transforms {
                black_box(frontier(transform, &ranks, range, 40).unwrap());
            }
            for procedure in &procedures {
                black_box(optimal_frontier(procedure, range, 40).unwrap());
            }
        });
    });
    group.finish();
}

fn discrete(c: &mut Criterion) {
    for size in [7, 1000] {
        let probabilities = vec![1.0 / f64::from(size); size as usize];
        let rewards = (0..size).map(f64::from).collect();
        let outcomes = Outcomes::new(probabilities, rewards).unwrap();
        for procedure in ["best-of:4", "worst-of:4"] {
            let procedure: Procedure = procedure.parse().unwrap();
            c.bench_function(&format!("discrete optimum {size} {procedure}"), |b| {
                b.iter(|| {
                    outcomes.optimum(black_box(&procedure), Beta::new(0.1).unwrap()).unwrap()
                });
            });
        }
    }
}

criterion_group!(benches, curve_points, optima, figure, discrete);
criterion_main!(benches);
