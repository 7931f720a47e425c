//! How long the exact engine takes: points of a curve, optima, and the search for β.
#![allow(missing_docs, clippy::unwrap_used, reason = "criterion's macros; inputs are constants")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use infalign_transform::{Beta, Optimum, Procedure, Tilt, Transform, beta_for_kl};

fn curve_points(c: &mut Criterion) {
    for (name, kl) in
        [("identity", 0.5), ("log", 0.5), ("exp:10", 0.5), ("exp:-10", 3.0), ("exp:200", 10.0)]
    {
        let transform: Transform = name.parse().unwrap();
        let beta = Beta::new(beta_for_kl(&transform, kl).unwrap()).unwrap();
        for procedure in ["best-of:4", "worst-of:32", "soft-best-of:4,temperature=0.1"] {
            let procedure: Procedure = procedure.parse().unwrap();
            c.bench_function(&format!("curve point {name} {procedure}"), |b| {
                b.iter(|| {
                    let tilt = Tilt::new(black_box(&transform), beta);
                    (tilt.kl(), tilt.win_rate(&procedure).unwrap())
                });
            });
        }
        c.bench_function(&format!("beta_for_kl {name}"), |b| {
            b.iter(|| beta_for_kl(black_box(&transform), kl).unwrap());
        });
    }
}

fn optima(c: &mut Criterion) {
    for (procedure, beta) in
        [("best-of:4", 0.1), ("worst-of:4", 0.1), ("best-of:10000", 1e-3), ("worst-of:10000", 1e-3)]
    {
        let procedure: Procedure = procedure.parse().unwrap();
        let beta = Beta::new(beta).unwrap();
        c.bench_function(&format!("optimum {procedure}"), |b| {
            b.iter(|| Optimum::new(black_box(&procedure), beta).unwrap());
        });
        c.bench_function(&format!("optimum for KL {procedure}"), |b| {
            b.iter(|| Optimum::for_kl(black_box(&procedure), 0.5).unwrap());
        });
    }
}

criterion_group!(benches, curve_points, optima);
criterion_main!(benches);
