//! The KL estimate against enumeration: weighted by the policy's probabilities, it is the KL of the whole distributions.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::ops::ControlFlow;

use infalign_decode::Stream;
use infalign_evaluate::{KlSample, kl_per_response};
use infalign_model::{CausalLm, Sequence, TransformerConfig};

const LENGTH: usize = 3;
const END: u32 = 2;

fn model(seed: u64) -> CausalLm {
    let mut normal = Stream::new(seed, "weights", "", 0).normals(1);
    let config = TransformerConfig::llama(5, 16, 24, 2, 2, 8);
    let device = infalign_backend::device(None).unwrap();
    CausalLm::random(config, &mut || 12.0 * normal(), &device).unwrap()
}

/// Every response to the prompt `1 3`: those that end, and those that are cut at [`LENGTH`].
fn responses() -> Vec<Sequence> {
    let (mut open, mut all) = (vec![vec![1, 3]], Vec::new());
    for length in 1..=LENGTH {
        let longer = open.iter().flat_map(|prefix: &Vec<u32>| {
            (0..5).map(move |token| [prefix.as_slice(), &[token]].concat())
        });
        let (ended, rest): (Vec<_>, Vec<_>) =
            longer.partition(|tokens| length == LENGTH || tokens.last() == Some(&END));
        all.extend(ended);
        open = rest;
    }
    all.into_iter().map(|tokens| Sequence { tokens, prompt_length: 2 }).collect()
}

fn go_on(_: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn models_that_it_cannot_compare_are_refused() {
    for (vocabulary, context, told) in [
        (6, 8, "the models have 5 and 6 logits for a token"),
        (5, 4, "5 tokens does not fit the model's context of 4"),
    ] {
        let config = TransformerConfig::llama(vocabulary, 16, 24, 2, 2, context);
        let device = infalign_backend::device(None).unwrap();
        let reference = CausalLm::random(config, &mut || 0.0, &device).unwrap();
        let error =
            kl_per_response(&model(1), &reference, &responses(), &go_on).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn its_expectation_is_the_kl_of_the_distributions() {
    let (policy, reference) = (model(1), model(2));
    let all = responses();
    let log_prob = |model: &CausalLm| -> Vec<f64> {
        model
            .log_probs(&all)
            .unwrap()
            .iter()
            .map(|tokens| tokens.iter().map(|&l| f64::from(l)).sum())
            .collect()
    };
    let (ours, theirs) = (log_prob(&policy), log_prob(&reference));
    assert!((ours.iter().map(|l| l.exp()).sum::<f64>() - 1.0).abs() < 1e-5);
    let exact: f64 = ours.iter().zip(&theirs).map(|(p, q)| p.exp() * (p - q)).sum();
    let rows = kl_per_response(&policy, &reference, &all, &go_on).unwrap();
    let expected = |of: fn(&KlSample) -> f64| -> f64 {
        ours.iter().zip(&rows).map(|(p, kl)| p.exp() * of(kl)).sum()
    };
    let estimators = [|kl: &KlSample| kl.exact, |kl: &KlSample| kl.k1, |kl: &KlSample| kl.k3];
    for (name, of) in ["exact", "k1", "k3"].into_iter().zip(estimators) {
        let found = expected(of);
        assert!(exact > 0.1 && (exact - found).abs() < 1e-3 * exact, "{name}: {found} not {exact}");
    }
    assert!(rows.iter().all(|kl| kl.exact > 0.0 && kl.k3 > -1e-6));
    assert!(rows.iter().any(|kl| kl.k1 < 0.0), "a log-ratio has either sign");
    let log_ratios = ours.iter().zip(&theirs).map(|(p, q)| p - q);
    assert!(rows.iter().zip(log_ratios).all(|(kl, ratio)| (kl.k1 - ratio).abs() < 1e-3));
    let itself = kl_per_response(&policy, &policy, &all, &go_on).unwrap();
    assert!(itself.iter().all(|kl| kl.exact.abs() < 1e-5 && kl.k1 == 0.0 && kl.k3 == 0.0));
}
