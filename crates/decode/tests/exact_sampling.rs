//! The decoders draw from the exact distributions: generation on a tabular model, many times.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use infalign_decode::exact::ExactDecoder;
use infalign_decode::{Decoder, EncodedPrompt, Generator, ProcedureDecoder, Sampler, Sampling};
use infalign_model::{TabularLm, TabularProblem, Tokenizer};
use infalign_reward::TabularReward;

/// Two letters, at most four tokens, with rewards that tie.
const TABLE: &str = r#"{"D": 4,
    "p": {"": [0.5, 0.3, 0.2], "a": [0.25, 0.5, 0.25], "b": [0.4, 0.4, 0.2], "aa": [0.5, 0, 0.5], "ab": [0.2, 0.3, 0.5],
          "ba": [0.3, 0.3, 0.4], "bb": [0, 0, 1]},
    "r": {"$": 0, "a$": 1, "b$": -1, "aa$": 0.5, "ab$": 0.5, "ba$": 1, "bb$": 2, "aaa$": -2, "aba$": 1.5, "abb$": 0, "baa$": -1,
          "bab$": 0.25}}"#;

const DRAWS: usize = 20_000;

fn problem() -> TabularProblem {
    TabularProblem::parse(TABLE, "test.json".as_ref()).unwrap()
}

fn generator<'a>(model: &'a TabularLm, tokenizer: &'a Tokenizer) -> Generator<'a> {
    let sampling = Sampling { max_tokens: 4, ..Sampling::default() };
    Generator::new(model, tokenizer.stops(), &sampling, 11, "exact", 512)
}

fn prompts(tokenizer: &Tokenizer, n: usize) -> Vec<EncodedPrompt> {
    (0..n).map(|id| EncodedPrompt::new(&id.to_string(), "", tokenizer).unwrap()).collect()
}

#[test]
fn decoders_draw_from_the_exact_distribution() {
    let problem = problem();
    let tokenizer = problem.model().tokenizer().unwrap();
    let reward = TabularReward::new(&problem);
    let prompts = prompts(&tokenizer, DRAWS);
    for name in ["sample", "best-of:4", "worst-of:4"] {
        let procedure = name.parse().unwrap();
        let generator = generator(problem.model(), &tokenizer);
        let decoder =
            ProcedureDecoder::new(procedure, &generator, &tokenizer, Some(&reward)).unwrap();
        let mut counts: BTreeMap<String, f64> = BTreeMap::new();
        for decoded in decoder.decode(&prompts).unwrap() {
            *counts.entry(decoded.text + "$").or_default() += 1.0;
        }
        let exact = ExactDecoder::new(&problem).decode(procedure).unwrap();
        let mut seen = 0.0;
        for (response, p) in exact.responses() {
            let (mean, count) = (DRAWS as f64 * p, counts.get(&response).copied().unwrap_or(0.0));
            let sigma = (mean * (1.0 - p)).sqrt();
            assert!(
                (count - mean).abs() <= 5.0 * sigma + 1e-9,
                "{name}, {response}: {count} draws, {mean} expected, σ = {sigma}"
            );
            seen += count;
        }
        assert_eq!(seen, DRAWS as f64, "{name}: nothing else is drawn");
    }
}

#[test]
fn log_probs_of_generation_and_of_scoring_are_the_tables() {
    let problem = problem();
    let (model, tree) = (problem.model(), problem.model().tree());
    let tokenizer = model.tokenizer().unwrap();
    let prompts = prompts(&tokenizer, 200);
    let generated = generator(model, &tokenizer).generate(&prompts, 0..2).unwrap();
    for (prompt, response) in
        prompts.iter().zip(&generated).flat_map(|(p, r)| r.iter().map(move |r| (p, r)))
    {
        let (eos, letters) = response.tokens.split_last().unwrap();
        assert_eq!(*eos, tree.eos());
        let after = |i: usize| tree.number(&letters[..i]).unwrap();
        let of = |(i, token): (usize, &u32)| {
            model.next_probabilities(after(i)).unwrap()[*token as usize].ln()
        };
        let expected: Vec<f64> = response.tokens.iter().enumerate().map(of).collect();
        let scored = infalign_model::LanguageModel::log_probs(model, &[response.sequence(prompt)]);
        for log_probs in [&response.log_probs, &scored.unwrap()[0]] {
            assert_eq!(log_probs.len(), expected.len());
            let mut pairs = log_probs.iter().zip(&expected);
            assert!(pairs.all(|(got, expected)| (f64::from(*got) - expected).abs() < 2e-7));
        }
    }
}
