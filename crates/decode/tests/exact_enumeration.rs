//! Exact decoding against brute force: every tuple of samples, one by one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use infalign_decode::DecodeError;
use infalign_decode::best_of_kl_bound;
use infalign_decode::exact::{ExactDecoder, Values};
use infalign_model::TabularProblem;
use infalign_transform::Procedure;

/// Two letters, at most three tokens. Rewards tie, and so do values that are sums: V(a) = V(b) = 0.3, of different terms.
const TABLE: &str = r#"{"D": 3,
    "p": {"": [0.3, 0.5, 0.2], "a": [0.5, 0.25, 0.25], "b": ["1/3", "1/3", "1/3"]},
    "r": {"$": 0.25, "a$": 0, "aa$": 0.1, "ab$": 1, "b$": 0.1, "ba$": 0.7, "bb$": 0.1}}"#;

fn problem(text: &str) -> TabularProblem {
    TabularProblem::parse(text, "test.json".as_ref()).unwrap()
}

/// What a procedure may return: a response (`ab$`) or a prefix (`ab`), its probability, its score.
type Outcome = (String, f64, f64);

/// The distribution of one of `n` draws, picked with the probabilities that `pick` gives to the scores of a tuple.
fn brute_force(
    outcomes: &[Outcome],
    n: usize,
    pick: &dyn Fn(&[f64]) -> Vec<f64>,
) -> BTreeMap<String, f64> {
    let mut result = BTreeMap::new();
    for tuple in 0..outcomes.len().pow(n as u32) {
        let place = |i: usize| &outcomes[tuple / outcomes.len().pow(i as u32) % outcomes.len()];
        let drawn: Vec<&Outcome> = (0..n).map(place).collect();
        let p: f64 = drawn.iter().map(|(_, p, _)| p).product();
        let scores: Vec<f64> = drawn.iter().map(|(_, _, score)| *score).collect();
        for ((text, _, _), share) in drawn.into_iter().zip(pick(&scores)) {
            *result.entry(text.clone()).or_default() += p * share;
        }
    }
    result
}

/// Evenly among the greatest scores; scores that differ by rounding are equal.
fn greatest(scores: &[f64]) -> Vec<f64> {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let tied: Vec<f64> = scores.iter().map(|s| f64::from(u8::from(most - s < 1e-9))).collect();
    let count: f64 = tied.iter().sum();
    tied.iter().map(|t| t / count).collect()
}

fn responses(problem: &TabularProblem) -> Vec<Outcome> {
    let tree = problem.model().tree();
    let outcome = |(tokens, p): (Vec<u32>, f64)| {
        let number = tree.number(&tokens[..tokens.len() - 1]).unwrap();
        (tree.response_text(number), p, problem.rewards()[number])
    };
    problem.model().responses().map(outcome).collect()
}

/// The blocks of at most `length` tokens after a prefix, with their values.
fn blocks(problem: &TabularProblem, start: &str, length: usize) -> Vec<Outcome> {
    let (tree, values) = (problem.model().tree(), Values::of(problem));
    let mut ends = Vec::new();
    let mut open = vec![(start.to_owned(), 1.0)];
    for _ in 0..length {
        for (prefix, p) in std::mem::take(&mut open) {
            let number = tree.find(&prefix).unwrap();
            let row = problem.model().next_probabilities(number).unwrap();
            for (letter, q) in ["a", "b"].iter().zip(row) {
                open.push((format!("{prefix}{letter}"), p * q));
            }
            ends.push((format!("{prefix}$"), p * row[2], values.response(number)));
        }
        open.retain(|(_, p)| *p > 0.0);
    }
    let value = |prefix: &str| values.prefix(tree.find(prefix).unwrap());
    ends.extend(open.into_iter().map(|(prefix, p)| (prefix.clone(), p, value(&prefix))));
    ends
}

fn blockwise(problem: &TabularProblem, length: usize, samples: usize) -> BTreeMap<String, f64> {
    let mut result = BTreeMap::new();
    let mut open = BTreeMap::from([(String::new(), 1.0)]);
    while let Some((start, reach)) = open.pop_first() {
        let next = brute_force(&blocks(problem, &start, length), samples, &greatest);
        for (end, p) in next {
            let all = if end.ends_with('$') { &mut result } else { &mut open };
            *all.entry(end).or_default() += reach * p;
        }
    }
    result
}

#[track_caller]
fn check(problem: &TabularProblem, procedure: &str, expected: &BTreeMap<String, f64>) {
    let distribution = ExactDecoder::new(problem).decode(procedure.parse().unwrap()).unwrap();
    let total: f64 = distribution.responses().map(|(_, p)| p).sum();
    assert!((total - 1.0).abs() < 1e-14, "{procedure} sums to {total}");
    for (response, p) in distribution.responses() {
        let expected = expected.get(&response).copied().unwrap_or(0.0);
        assert!((p - expected).abs() < 1e-13, "{procedure}, {response}: {p} against {expected}");
    }
}

#[test]
fn selections_are_those_of_all_tuples() {
    let problem = problem(TABLE);
    let all = responses(&problem);
    let least = |scores: &[f64]| greatest(&scores.iter().map(|s| -s).collect::<Vec<_>>());
    let soft = |scores: &[f64]| {
        let weights: Vec<f64> = scores.iter().map(|s| (s / 0.4).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.iter().map(|w| w / total).collect()
    };
    for n in 1..=4 {
        check(&problem, &format!("best-of:{n}"), &brute_force(&all, n, &greatest));
        check(&problem, &format!("worst-of:{n}"), &brute_force(&all, n, &least));
        let name = format!("soft-best-of:{n},temperature=0.4");
        check(&problem, &name, &brute_force(&all, n, &soft));
    }
}

#[test]
fn blocks_are_those_of_all_tuples() {
    let problem = problem(TABLE);
    let values = Values::of(&problem);
    let [a, b] = ["a", "b"].map(|text| values.prefix(problem.model().tree().find(text).unwrap()));
    assert!((a - 0.3).abs() < 1e-15 && (b - 0.3).abs() < 1e-15, "a tie: {a} and {b}");
    for length in 1..=3 {
        for samples in 1..=3 {
            let name = format!("cd-block:length={length},samples={samples}");
            check(&problem, &name, &blockwise(&problem, length, samples));
        }
    }
    let best = brute_force(&responses(&problem), 3, &greatest);
    check(&problem, "cd-block:length=3,samples=3", &best);
}

#[test]
fn two_blocks_of_one_token_by_hand() {
    // V(a) = 1, V($) = 0, V(b) = −1; then EOS is forced.
    let table = r#"{"D": 2, "p": {"": ["1/4", "1/4", "1/2"]}, "r": {"$": 0, "a$": 1, "b$": -1}}"#;
    let problem = problem(table);
    let expected = [("a$", 7.0 / 16.0), ("$", 0.5), ("b$", 1.0 / 16.0)];
    let expected: BTreeMap<String, f64> =
        expected.into_iter().map(|(text, p)| (text.to_owned(), p)).collect();
    check(&problem, "cd-block:length=1,samples=2", &expected);
    let decoder = ExactDecoder::new(&problem);
    let distribution = decoder.decode("cd-block:length=1,samples=2".parse().unwrap()).unwrap();
    assert_eq!(distribution.expected_blocks(NonZeroUsize::MIN), 1.5);
    assert_eq!(distribution.expected(problem.rewards()), 0.375);
    // The calibrated rewards of a$, $ and b$ are 7/8, 1/2 and 1/8.
    let win_rate = 7.0 / 16.0 * 0.875 + 0.5 * 0.5 + 0.125 / 16.0;
    assert_eq!(distribution.win_rate(problem.rewards()).unwrap(), win_rate);
    let kl = 7.0 / 16.0 * (7.0_f64 / 4.0).ln() + (1.0_f64 / 4.0).ln() / 16.0;
    assert!((distribution.kl() - kl).abs() < 1e-15);
    assert!(kl <= 1.5 * best_of_kl_bound(NonZeroUsize::new(2).unwrap()));
}

#[test]
fn values_transfer_to_another_base_policy() {
    let other = problem(
        r#"{"D": 3, "p": {"": [0.6, 0.2, 0.2], "a": [0.1, 0.1, 0.8], "b": [0.2, 0.3, 0.5]},
            "r": {"$": 0, "a$": 2, "aa$": 1, "ab$": 0, "b$": 1, "ba$": 1, "bb$": 3}}"#,
    );
    let problem = problem(TABLE);
    let values = Values::of(&other);
    // V of the other table: a → 1.7, b → 1.6; the base policy is this one.
    let decoder = ExactDecoder::with_values(&problem, values).unwrap();
    let weights = [0.3 * 3.4_f64.exp(), 0.5 * 3.2_f64.exp(), 0.2];
    let after_a = [0.5 * 2_f64.exp(), 0.25, 0.25 * 4_f64.exp()];
    let expected =
        weights[0] / weights.iter().sum::<f64>() * after_a[0] / after_a.iter().sum::<f64>();
    let distribution = decoder.decode("cd-token:lambda=2".parse().unwrap()).unwrap();
    let got = distribution.responses().find(|(text, _)| text == "aa$").unwrap().1;
    assert!((got - expected).abs() < 1e-15, "{got} against {expected}");
    let own = ExactDecoder::new(&problem).decode("cd-token:lambda=2".parse().unwrap()).unwrap();
    assert!((own.expected(problem.rewards()) - distribution.expected(problem.rewards())) > 0.05);
}

#[test]
fn what_cannot_be_enumerated_is_refused() {
    let problem = problem(TABLE);
    let decoder = ExactDecoder::new(&problem);
    for text in ["beam:width=2,branch=2,length=1", "majority:3"] {
        let procedure: Procedure = text.parse().unwrap();
        let sampled = decoder.decode(Procedure::Sample).unwrap();
        for refused in [decoder.decode(procedure), sampled.select(&procedure, problem.rewards())] {
            let reason = refused.unwrap_err().to_string();
            assert!(reason.contains("exact enumeration is not available"), "{reason}");
        }
    }
    for lambda in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(decoder.optimum(lambda), Err(DecodeError::Setting { .. })));
        assert!(matches!(Values::soft(&problem, lambda), Err(DecodeError::Setting { .. })));
    }
    let shallow = self::problem(r#"{"D": 2, "p": {"": [0.5, 0, 0.5]}, "r": {"$": 1, "a$": 2}}"#);
    let values = Values::of(&shallow);
    let error = ExactDecoder::with_values(&problem, values.clone()).unwrap_err();
    assert!(matches!(error, DecodeError::Shape { depth: 2, model_depth: 3, .. }), "{error}");
    assert!(Values::of(&problem).plus(&values).is_err());
    // The other table never draws b and has no reward for it, but this one does.
    let text = r#"{"D": 2, "p": {"": [0.25, 0.25, 0.5]}, "r": {"$": 1, "a$": 2, "b$": 3}}"#;
    let wider = self::problem(text);
    for procedure in ["cd-token:lambda=1", "cd-block:length=2,samples=2"] {
        let decoder = ExactDecoder::with_values(&wider, values.clone()).unwrap();
        let error = decoder.decode(procedure.parse().unwrap()).unwrap_err();
        assert!(matches!(error, DecodeError::NoValue { .. }), "{error}");
        assert!(error.to_string().contains("`b"), "{error}");
    }
}

#[test]
fn a_large_lambda_takes_the_best_token() {
    let problem = problem(TABLE);
    let decoder = ExactDecoder::new(&problem);
    let greedy = decoder.decode("cd-token:lambda=1e9".parse().unwrap()).unwrap();
    let optimum = decoder.optimum(1e9).unwrap();
    for (distribution, likeliest) in [(greedy, None), (optimum, Some("ab$"))] {
        assert!(distribution.kl().is_finite());
        let total: f64 = distribution.probabilities().iter().sum();
        assert!((total - 1.0).abs() < 1e-14);
        if let Some(text) = likeliest {
            assert_eq!(distribution.responses().find(|(t, _)| t == text).unwrap().1, 1.0);
        }
    }
}

#[test]
fn a_small_kl_keeps_its_digits() {
    // One token decides: KL = λ²·Var(r)/2 + λ³·(third cumulant)/3 + ….
    let one = r#"{"D": 2, "p": {"": [0.2, 0.3, 0.5]}, "r": {"$": 0, "a$": 1, "b$": 3}}"#;
    let problem = problem(one);
    let decoder = ExactDecoder::new(&problem);
    let [mean, square, cube] = [1, 2, 3].map(|k| 0.2 + 0.3 * 3_f64.powi(k));
    let variance = square - mean * mean;
    let third = cube - 3.0 * mean * square + 2.0 * mean.powi(3);
    for lambda in [1e-4, 1e-6, 1e-8] {
        let policy = decoder.decode(format!("cd-token:lambda={lambda}").parse().unwrap()).unwrap();
        let expected = lambda * lambda * (variance / 2.0 + lambda * third / 3.0);
        assert!((policy.kl() / expected - 1.0).abs() < 2e-7, "{} for {expected}", policy.kl());
    }
}
