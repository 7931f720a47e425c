//! How long the draw of a token takes on the processor, from vocabularies as large as models have.
#![allow(missing_docs, reason = "criterion's macros")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use infalign_decode::{Sampling, Stream};

fn draws(c: &mut Criterion) {
    let default = Sampling::default;
    let ways = [
        ("whole", default()),
        ("top_k 50", Sampling { top_k: 50, ..default() }),
        ("top_p 0.9", Sampling { top_p: 0.9, ..default() }),
        ("top_k 50, top_p 0.9", Sampling { top_k: 50, top_p: 0.9, ..default() }),
    ];
    for vocabulary in [32_000, 128_000] {
        let mut stream = Stream::new(0, "logits", "", 0);
        let logits: Vec<f32> = (0..vocabulary).map(|k| stream.normal(k) as f32 * 3.0).collect();
        for (name, sampling) in &ways {
            let (mut weights, mut at) = (Vec::new(), 0);
            c.bench_function(&format!("draw {name} of {vocabulary}"), |b| {
                b.iter(|| {
                    at += 1;
                    sampling.draw(black_box(&logits), stream.uniform(at), &mut weights)
                });
            });
        }
    }
}

criterion_group!(benches, draws);
criterion_main!(benches);
