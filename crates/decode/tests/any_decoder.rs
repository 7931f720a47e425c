//! A transform for a decoder that has no formula: the best of four responses, each of them the best of blocks by a prefix score.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail by panicking")]

use infalign_decode::exact::{ExactDecoder, ResponseDistribution, Values, rank_estimate};
use infalign_decode::{
    DecodeError, Decoded, Decoder, EncodedPrompt, Finish, Generator, ProcedureDecoder, Response,
    Sampling, Stream,
};
use infalign_model::TabularProblem;
use infalign_reward::TabularReward;
use infalign_transform::{Beta, Optimum, Outcomes, Procedure, Transform, beta_for_kl};

/// Three letters, at most four tokens; the reward of a response is a sum of its letters' with a premium on `cab`.
fn problem() -> TabularProblem {
    let mut rows = serde_json::Map::new();
    let mut rewards = serde_json::Map::new();
    let mut prefixes = vec![String::new()];
    for prefix in &prefixes {
        rewards.insert(format!("{prefix}$"), serde_json::json!(reward(prefix)));
        rows.insert(prefix.clone(), serde_json::json!([0.4, 0.25, 0.15, 0.2]));
    }
    for _ in 0..3 {
        let longer: Vec<String> = prefixes
            .iter()
            .flat_map(|p| ["a", "b", "c"].map(|letter| format!("{p}{letter}")))
            .collect();
        for prefix in &longer {
            rewards.insert(format!("{prefix}$"), serde_json::json!(reward(prefix)));
            if prefix.len() < 3 {
                rows.insert(prefix.clone(), serde_json::json!([0.35, 0.3, 0.15, 0.2]));
            }
        }
        prefixes = longer;
    }
    let table = serde_json::json!({ "D": 4, "p": rows, "r": rewards });
    TabularProblem::parse(&table.to_string(), "letters.json".as_ref()).unwrap()
}

fn reward(prefix: &str) -> f64 {
    let places = prefix.chars().zip([1.0, 0.83, 0.71]);
    let worth = |c| match c {
        'a' => -0.9,
        'b' => 0.1,
        _ => 1.1,
    };
    let sum: f64 = places.map(|(c, w)| w * worth(c)).sum();
    sum + if prefix == "cab" { 2.0 } else { 0.0 }
}

const BLOCKS: &str = "cd-block:length=2,samples=2";

/// The best of four blockwise decoded responses of a policy, guided by the values of the reference policy.
fn best_of_blocks(policy: &TabularProblem, values: &Values) -> ResponseDistribution {
    let blocks = ExactDecoder::with_values(policy, values.clone()).unwrap();
    let blocks = blocks.decode(BLOCKS.parse().unwrap()).unwrap();
    blocks.select(&"best-of:4".parse().unwrap(), policy.rewards()).unwrap()
}

/// The same by drawing: four responses, of which the best is returned.
struct BestOfBlocks<'a> {
    problem: &'a TabularProblem,
    blocks: ResponseDistribution,
}

impl Decoder for BestOfBlocks<'_> {
    fn decode(&self, prompts: &[EncodedPrompt]) -> Result<Vec<Decoded>, DecodeError> {
        let tree = self.problem.model().tree();
        let mut decoded = Vec::new();
        for prompt in prompts {
            let draw = |sample| {
                let mut rest = Stream::new(5, "blocks", &prompt.id, sample).uniform(0);
                let place = self.blocks.probabilities().iter().position(|p| {
                    rest -= p;
                    rest < 0.0
                });
                place.unwrap_or(0)
            };
            let rewards = self.problem.rewards();
            let best = (0..4).map(draw).max_by(|a, b| rewards[*a].total_cmp(&rewards[*b])).unwrap();
            let tokens = [tree.tokens(best), vec![tree.eos()]].concat();
            let response =
                Response { log_probs: vec![0.0; tokens.len()], tokens, finish: Finish::Stop };
            let text = tree.text(best);
            decoded.push(Decoded::new(text, response));
        }
        Ok(decoded)
    }
}

#[test]
fn what_a_decoder_returns_tells_its_response_to_rank() {
    let problem = problem();
    let blocks = ExactDecoder::new(&problem).decode(BLOCKS.parse().unwrap()).unwrap();
    let decoder = BestOfBlocks { problem: &problem, blocks };
    let estimate = rank_estimate(&decoder, &problem, 20, 60_000, 3).unwrap();
    let exact = best_of_blocks(&problem, &Values::of(&problem));
    let exact = exact.rank_density(problem.rewards()).unwrap();
    for (bin, interval) in estimate.densities(0.9999).unwrap().iter().enumerate() {
        let [low, high] = [bin, bin + 1].map(|k| exact.cdf(k as f64 / 20.0));
        let mean = 20.0 * (high - low);
        assert!(
            interval.low - 1e-3 <= mean && mean <= interval.high + 1e-3,
            "bin {bin}: {mean} {interval:?}"
        );
    }
    let estimate = rank_estimate(&decoder, &problem, 200, 60_000, 3).unwrap();
    let beta = Beta::new(0.2).unwrap();
    let (found, known) = (estimate.optimum(beta).unwrap(), Optimum::under(&exact, beta).unwrap());
    for (k, u) in found.u.iter().enumerate() {
        let error = (found.phi[k] - known.phi(*u)).abs();
        // The bins blur Φ*, which has a scale of −Φ*(0).
        assert!(error < 0.03 * -known.phi(0.0) + 4.5 * found.standard_error[k], "Φ({u}): {error}");
    }
}

#[test]
fn a_known_decoder_is_recognised() {
    let problem = problem();
    let tokenizer = problem.model().tokenizer().unwrap();
    let reward = TabularReward::new(&problem);
    let sampling = Sampling { max_tokens: 4, ..Sampling::default() };
    let generator = Generator::new(problem.model(), tokenizer.stops(), &sampling, 1, "ranks", 512);
    for name in ["sample", "best-of:4", "worst-of:4"] {
        let procedure: Procedure = name.parse().unwrap();
        let decoder =
            ProcedureDecoder::new(procedure, &generator, &tokenizer, Some(&reward)).unwrap();
        let estimate = rank_estimate(&decoder, &problem, 10, 20_000, 9).unwrap();
        let exact = ExactDecoder::new(&problem).decode(procedure).unwrap();
        let exact = exact.rank_density(problem.rewards()).unwrap();
        for (bin, interval) in estimate.densities(0.9999).unwrap().iter().enumerate() {
            let [low, high] = [bin, bin + 1].map(|k| exact.cdf(k as f64 / 10.0));
            let mean = 10.0 * (high - low);
            assert!(
                interval.low - 2e-3 <= mean && mean <= interval.high + 2e-3,
                "{name}, bin {bin}"
            );
        }
    }
}

/// Inference-time win rate and KL of the policy ∝ p·e^{Φ(C)/β}, T on both sides.
fn played(problem: &TabularProblem, transform: &Transform, beta: Beta) -> (f64, f64) {
    let base = problem.model();
    let outcomes =
        Outcomes::new(base.response_probabilities(), problem.rewards().to_vec()).unwrap();
    let scale = transform.scale();
    let transformed: Vec<f64> = outcomes.calibrated().iter().map(|&u| transform.apply(u)).collect();
    let rewarded = TabularProblem::new(base.clone(), transformed).unwrap();
    let lambda = scale / beta.get();
    let policy = Values::soft(&rewarded, lambda).unwrap().tilt(base, lambda).unwrap();
    let policy = TabularProblem::new(policy, problem.rewards().to_vec()).unwrap();
    let values = Values::of(problem);
    let [ours, theirs] = [&policy, problem].map(|p| best_of_blocks(p, &values));
    let against =
        Outcomes::new(theirs.probabilities().to_vec(), problem.rewards().to_vec()).unwrap();
    let won = against.calibrated().iter().zip(ours.probabilities()).map(|(c, p)| c * p).sum();
    let aligned = policy.model().response_probabilities();
    (won, outcomes.kl(&aligned).unwrap())
}

#[test]
fn the_transform_for_the_decoder_beats_the_identity_under_it() {
    let problem = problem();
    let values = Values::of(&problem);
    let rank = best_of_blocks(&problem, &values).rank_density(problem.rewards()).unwrap();
    let beta = Beta::new(0.3).unwrap();
    let optimum = Optimum::under(&rank, beta).unwrap();
    let u: Vec<f64> = (0..=400).map(|k| f64::from(k) / 400.0).collect();
    let table = infalign_transform::Table::new(&u, &optimum.curve(&u).phi).unwrap();
    let (ours, kl) = played(&problem, &Transform::Table(table.into()), beta);
    // The identity at the same KL, found by bisection: atoms take it off the continuous limit.
    let (mut low, mut high) = (1e-3, 1e3);
    let start = beta_for_kl(&Transform::Identity, kl).unwrap().get();
    for _ in 0..60 {
        let middle = f64::sqrt(low * high);
        let at = played(&problem, &Transform::Identity, Beta::new(start * middle).unwrap());
        if at.1 > kl { low = middle } else { high = middle }
    }
    let (identity, same) = played(&problem, &Transform::Identity, Beta::new(start * low).unwrap());
    assert!((same / kl - 1.0).abs() < 1e-9);
    eprintln!("Φ* of the decoder wins {ours:.4}, the identity {identity:.4}, at {kl:.4} nats");
    assert!(ours > identity + 0.01, "{ours} against {identity} at {kl} nats");
}
