//! Exact decoding against the reference values, which were computed in rational and 34-digit arithmetic.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "helpers of tests"
)]

use std::path::Path;

use infalign_decode::best_of_kl_bound;
use infalign_decode::exact::{ExactDecoder, ResponseDistribution, Values};
use infalign_model::TabularProblem;
use infalign_transform::Procedure;
use serde_json::Value;

/// Greatest absolute error allowed against the reference.
const TOLERANCE: f64 = 1e-13;

/// The reference file and the problem that it states, or a loud note and `None` where there is none.
fn reference() -> Option<(Value, TabularProblem)> {
    let data = std::env::var("INFALIGN_DATA").ok().filter(|data| !data.is_empty());
    let Some(data) = data else {
        eprintln!("SKIPPED toy_mdp.json: set INFALIGN_DATA to the data folder to compare with it");
        return None;
    };
    let path = format!("{data}/../reference/toy_mdp.json");
    let problem = TabularProblem::read(Path::new(&path)).unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    Some((serde_json::from_str(&text).unwrap(), problem))
}

/// A number written as a number, as text or as a fraction.
fn number(value: &Value) -> f64 {
    let Some(text) = value.as_str() else { return value.as_f64().unwrap() };
    match text.split_once('/') {
        Some((above, below)) => above.parse::<f64>().unwrap() / below.parse::<f64>().unwrap(),
        None => text.parse().unwrap(),
    }
}

#[track_caller]
fn close(what: &str, got: f64, expected: &Value) {
    let expected = number(expected);
    assert!((got - expected).abs() < TOLERANCE, "{what}: {got} against {expected}");
}

fn procedure(text: &str) -> Procedure {
    text.parse().unwrap()
}

/// Compares everything that each row of the file says of its distribution.
fn check(what: &str, row: &Value, problem: &TabularProblem, distribution: &ResponseDistribution) {
    let expected = row["dist"].as_object().unwrap();
    let got: Vec<(String, f64)> = distribution.responses().collect();
    assert_eq!(got.len(), expected.len());
    for (response, p) in got {
        close(&format!("{what}, {response}"), p, &expected[&response]);
    }
    let rewards = problem.rewards();
    close(what, distribution.expected(rewards), &row["E_reward"]);
    close(what, distribution.kl(), &row["KL_seq"]);
    close(what, distribution.win_rate(rewards).unwrap(), &row["win_rate_vs_base"]);
    close(what, distribution.expected_length(), &row["E_length_tokens_incl_EOS"]);
}

#[test]
fn values_and_the_base_policy() {
    let Some((file, problem)) = reference() else { return };
    let (tree, values) = (problem.model().tree(), Values::of(&problem));
    for (prefix, value) in file["V_star"].as_object().unwrap() {
        close(prefix, values.prefix(tree.find(prefix).unwrap()), &value["num"]);
    }
    for (response, reward) in file["r"].as_object().unwrap() {
        let number = tree.find(response.strip_suffix('$').unwrap()).unwrap();
        close(response, values.response(number), reward);
    }
    let base = ExactDecoder::new(&problem).decode(Procedure::Sample).unwrap();
    check("base", &file["base"], &problem, &base);
    assert_eq!(base.kl(), 0.0);
}

#[test]
fn tokenwise_controlled_decoding() {
    let Some((file, problem)) = reference() else { return };
    let (tree, values) = (problem.model().tree(), Values::of(&problem));
    for row in file["tokenwise_CD"].as_array().unwrap() {
        let lambda = number(&row["lambda"]);
        let what = format!("cd-token:lambda={lambda}");
        let distribution = ExactDecoder::new(&problem).decode(procedure(&what)).unwrap();
        check(&what, row, &problem, &distribution);
        let policy = values.tilt(problem.model(), lambda).unwrap();
        for (prefix, expected) in row["next_token"].as_object().unwrap() {
            let got = policy.next_probabilities(tree.find(prefix).unwrap()).unwrap();
            for (p, expected) in got.iter().zip(expected.as_array().unwrap()) {
                close(&format!("{what} after {prefix}"), *p, expected);
            }
        }
    }
}

#[test]
fn the_optimum_over_whole_responses() {
    let Some((file, problem)) = reference() else { return };
    let tree = problem.model().tree();
    for row in file["sequence_level_optimum"].as_array().unwrap() {
        let lambda = number(&row["lambda"]);
        let what = format!("optimum at λ = {lambda}");
        let optimum = ExactDecoder::new(&problem).optimum(lambda).unwrap();
        check(&what, row, &problem, &optimum);
        let objective = optimum.expected(problem.rewards()) - optimum.kl() / lambda;
        close(&what, objective, &row["objective_E[r]-KL/lambda"]);
        let soft = Values::soft(&problem, lambda).unwrap();
        close(&what, lambda * soft.prefix(0), &row["log_Z"]);
        for (prefix, expected) in row["soft_value"].as_object().unwrap() {
            close(prefix, soft.prefix(tree.find(prefix).unwrap()), expected);
        }
        // The tokenwise policy of the soft values is that optimum.
        let guided = ExactDecoder::with_values(&problem, soft).unwrap();
        let tokenwise = guided.decode(Procedure::CdToken { lambda, candidates: None }).unwrap();
        check(&what, row, &problem, &tokenwise);
    }
}

#[test]
fn blockwise_controlled_decoding() {
    let Some((file, problem)) = reference() else { return };
    for row in file["blockwise_CD"].as_array().unwrap() {
        let what = format!("cd-block:length={},samples={}", row["M"], row["K"]);
        let Procedure::CdBlock { length, samples } = procedure(&what) else { unreachable!() };
        let distribution = ExactDecoder::new(&problem).decode(procedure(&what)).unwrap();
        check(&what, row, &problem, &distribution);
        let blocks = distribution.expected_blocks(length);
        close(&what, blocks, &row["E_num_blocks"]);
        let bound = blocks * best_of_kl_bound(samples);
        close(&what, bound, &row["KL_bound"]);
        assert!(distribution.kl() <= bound);
    }
}

#[test]
fn several_rewards() {
    let Some((file, problem)) = reference() else { return };
    let (tree, file) = (problem.model().tree(), &file["multi_objective_tokenwise"]);
    let shorter = tree.lengths().into_iter().map(|length| -(length as f64)).collect();
    let second = TabularProblem::new(problem.model().clone(), shorter).unwrap();
    let values = [Values::of(&problem), Values::of(&second)];
    for (prefix, expected) in file["V2"].as_object().unwrap() {
        close(prefix, values[1].prefix(tree.find(prefix).unwrap()), expected);
    }
    for row in file["rows"].as_array().unwrap() {
        let weighted = |i: usize| values[i].clone().scaled(number(&row["w"][i]));
        let both = weighted(0).plus(&weighted(1)).unwrap();
        let decoder = ExactDecoder::with_values(&problem, both).unwrap();
        let cd = Procedure::CdToken { lambda: number(&row["lambda"]), candidates: None };
        let distribution = decoder.decode(cd).unwrap();
        check("two rewards", row, &problem, &distribution);
        close("second reward", distribution.expected(second.rewards()), &row["E_r2"]);
    }
}
