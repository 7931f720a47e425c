//! Guided decoding draws from the exact distributions, whatever the batch, and counts what it does.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod costs;
mod distributions;
mod refusals;
mod scorers;
#[path = "../tables/mod.rs"]
mod tables;

use std::collections::BTreeMap;

use infalign_decode::exact::{ExactDecoder, Values};
use infalign_decode::guided::{GuidedGenerator, PrefixScorer, TabularScorer};
use infalign_decode::{Decoded, Decoder, EncodedPrompt, Generator, ProcedureDecoder, Sampling};
use infalign_model::{TabularProblem, Tokenizer};
use infalign_reward::TabularReward;
use infalign_transform::{Composed, Outcomes, Procedure};
use tables::{assert_chance, chi_square};

/// Two letters, at most four tokens, with rewards that tie.
const TABLE: &str = r#"{"D": 4,
    "p": {"": [0.5, 0.3, 0.2], "a": [0.25, 0.5, 0.25], "b": [0.4, 0.4, 0.2], "aa": [0.5, 0, 0.5], "ab": [0.2, 0.3, 0.5],
          "ba": [0.3, 0.3, 0.4], "bb": [0, 0, 1]},
    "r": {"$": 0, "a$": 1, "b$": -1, "aa$": 0.5, "ab$": 0.5, "ba$": 1, "bb$": 2, "aaa$": -2, "aba$": 1.5, "abb$": 0, "baa$": -1,
          "bab$": 0.25}}"#;

const DRAWS: usize = 2_000;
const SEEDS: u64 = 10;

struct Fixture {
    problem: TabularProblem,
    tokenizer: Tokenizer,
    reward: TabularReward,
    scorer: TabularScorer,
    /// Rewards of the table's responses and their ranks.
    ranks: Vec<(f32, f64)>,
}

fn guided<'a>(
    generator: Generator<'a>,
    scorer: &'a dyn PrefixScorer,
    procedure: Procedure,
) -> GuidedGenerator<'a> {
    GuidedGenerator { generator, scorer, procedure, cancelled: None }
}

impl Fixture {
    fn new() -> Self {
        let problem = TabularProblem::parse(TABLE, "test.json".as_ref()).unwrap();
        let tokenizer = problem.model().tokenizer().unwrap();
        let reward = TabularReward::new(&problem);
        let scorer = TabularScorer::new(Values::of(&problem));
        let base = problem.model().response_probabilities();
        let possible: Vec<usize> = (0..base.len()).filter(|&y| base[y] > 0.0).collect();
        let of = |list: &[f64]| possible.iter().map(|&y| list[y]).collect::<Vec<f64>>();
        let rewards = of(problem.rewards());
        let ranks = Outcomes::new(of(&base), rewards.clone()).unwrap().calibrated();
        let ranks = rewards.iter().map(|reward| *reward as f32).zip(ranks).collect();
        Self { problem, tokenizer, reward, scorer, ranks }
    }

    /// The rank of a reward among those of the table's own responses.
    fn rank(&self, reward: f32) -> Option<f64> {
        self.ranks.iter().find(|(known, _)| *known == reward).map(|(_, rank)| *rank)
    }

    fn generator(&self, seed: u64, batch: usize) -> Generator<'_> {
        let (model, stops) = (self.problem.model(), self.tokenizer.stops());
        let sampling = Sampling { max_tokens: 4, ..Sampling::default() };
        Generator::new(model, stops, &sampling, seed, "guided", batch)
    }

    fn prompts(&self, n: usize) -> Vec<EncodedPrompt> {
        let prompt = |id: usize| EncodedPrompt::new(&id.to_string(), "", &self.tokenizer).unwrap();
        (0..n).map(prompt).collect()
    }

    fn decode(&self, procedure: &str, seed: u64, batch: usize, draws: usize) -> Vec<Decoded> {
        let Composed { selection, inner } = procedure.parse().unwrap();
        let generator = self.generator(seed, batch);
        let (tokenizer, reward) = (&self.tokenizer, Some(&self.reward as _));
        let decoder = if inner == Procedure::Sample {
            ProcedureDecoder::new(selection, &generator, tokenizer, reward).unwrap().with_seed(seed)
        } else {
            let guided = guided(generator, &self.scorer, inner);
            ProcedureDecoder::guided(selection, guided, tokenizer, reward).unwrap()
        };
        let ranks = |_: &EncodedPrompt, reward: f32| self.rank(reward);
        decoder.with_ranks(&ranks).decode(&self.prompts(draws)).unwrap()
    }

    /// Draws by ten seeds, which together have to agree with the probabilities.
    fn check(&self, procedure: &str, expected: &BTreeMap<String, f64>) {
        let (mut statistic, mut freedom) = (0.0, 0.0);
        for seed in 0..SEEDS {
            let mut counts = BTreeMap::new();
            for decoded in self.decode(procedure, seed, 512, DRAWS) {
                *counts.entry(decoded.text + "$").or_insert(0.0) += 1.0;
            }
            let (of_seed, k) = chi_square(procedure, expected, &counts);
            (statistic, freedom) = (statistic + of_seed, freedom + k);
        }
        assert_chance(procedure, statistic, freedom);
    }

    /// The exact distribution of a procedure that can be enumerated, alone or with a selection on top.
    fn exact(&self, procedure: &str) -> BTreeMap<String, f64> {
        let Composed { selection, inner } = procedure.parse().unwrap();
        let exact = ExactDecoder::new(&self.problem).decode(inner).unwrap();
        exact.select(&selection, self.problem.rewards()).unwrap().responses().collect()
    }
}
