//! Guided decoding draws from the exact distributions, whatever the batch, and counts what it does.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod tables;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use infalign_decode::exact::{ExactDecoder, Values};
use infalign_decode::guided::{
    GuidedGenerator, LearnedScorer, PrefixScorer, TabularScorer, WeightedScorers,
};
use infalign_decode::{
    DecodeError, Decoded, Decoder, EncodedPrompt, Event, Generator, Kl, KlKind, ProcedureDecoder,
    Sampler, Sampling, best_of_kl_bound,
};
use infalign_model::{ScoredReward, ScorerModel, ScorerSpec, TabularProblem, Tokenizer};
use infalign_reward::TabularReward;
use infalign_transform::{Composed, Outcomes, Procedure};
use tables::{Enumerated, assert_chance, beam, chi_square, majority, pruned};

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

fn boxed(scorer: &TabularScorer) -> Box<dyn PrefixScorer> {
    Box::new(scorer.clone())
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

#[test]
fn enumerable_procedures_draw_from_their_distributions() {
    let fixture = Fixture::new();
    for procedure in [
        "sample",
        "best-of:4",
        "worst-of:3",
        "soft-best-of:4,temperature=0.7",
        "rejection:quantile=0.7,draws=5",
        "rejection:quantile=0.9,draws=40",
        "rejection:quantile=0.99,draws=3",
        "cd-token:lambda=1.5",
        "cd-block:length=1,samples=3",
        "cd-block:length=2,samples=4",
        "cd-block:length=4,samples=2",
        "best-of:2 over cd-block:length=2,samples=2",
        "worst-of:2 over cd-token:lambda=1",
        "soft-best-of:3,temperature=1 over cd-block:length=3,samples=2",
    ] {
        fixture.check(procedure, &fixture.exact(procedure));
    }
}

#[test]
fn searches_draw_from_distributions_that_every_joint_draw_adds_up_to() {
    let fixture = Fixture::new();
    let tree = Enumerated::new(&fixture.problem);
    fixture.check("majority:3", &majority(&tree));
    for (width, branch, length) in [(2, 1, 1), (2, 2, 1), (2, 1, 2), (3, 1, 2)] {
        let procedure = format!("beam:width={width},branch={branch},length={length}");
        fixture.check(&procedure, &beam(&tree, width, branch, length));
    }
    for (n, length, keep) in [(3, 1, 0.5), (2, 2, 0.5), (3, 1, 0.7)] {
        let procedure = format!("pruned-best-of:{n},length={length},keep={keep}");
        fixture.check(&procedure, &pruned(&tree, n, length, keep));
    }
    // Nothing is pruned, and one beam is a block.
    fixture.check("pruned-best-of:4,length=1,keep=1", &fixture.exact("best-of:4"));
    let block = fixture.exact("cd-block:length=2,samples=3");
    fixture.check("beam:width=1,branch=3,length=2", &block);
    let enumerated = beam(&tree, 1, 3, 2);
    assert!(block.iter().all(|(y, p)| (enumerated.get(y).unwrap_or(&0.0) - p).abs() < 1e-12));
}

#[test]
fn searches_among_equals_draw_from_the_model() {
    let fixture = Fixture::new();
    let scorer = TabularScorer::new(Values::of(&fixture.problem).scaled(0.0));
    let fixture = Fixture { scorer, ..fixture };
    let model = fixture.exact("sample");
    for (width, branch, length) in [(2, 1, 1), (4, 1, 1), (2, 2, 1), (3, 2, 2)] {
        let procedure = format!("beam:width={width},branch={branch},length={length}");
        fixture.check(&procedure, &model);
    }
}

#[test]
fn limited_candidates_draw_from_the_limited_tilt_and_the_error_is_bounded() {
    let fixture = Fixture::new();
    let values = Values::of(&fixture.problem);
    let model = fixture.problem.model();
    let limited = |lambda: f64, most: usize| {
        let kept = |prefix: usize, token: u32| {
            let row = model.next_probabilities(prefix).unwrap();
            let mut order: Vec<usize> = (0..row.len()).collect();
            order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
            order[..most].contains(&(token as usize))
        };
        let weight = |prefix, token| match kept(prefix, token) {
            true => Ok(lambda * values.after(prefix, token)?),
            false => Ok(f64::NEG_INFINITY),
        };
        let tilted = model.tilted::<infalign_decode::DecodeError>(weight).unwrap();
        let text = |y| model.tree().response_text(y);
        let all = tilted.response_probabilities().into_iter().enumerate();
        all.map(|(y, p)| (text(y), p)).filter(|(_, p)| *p > 0.0).collect::<BTreeMap<_, _>>()
    };
    let procedure = "cd-token:lambda=1.5,candidates=2";
    let expected = limited(1.5, 2);
    fixture.check(procedure, &expected);
    let full = fixture.exact("cd-token:lambda=1.5");
    let moved: f64 =
        full.iter().map(|(y, p)| (p - expected.get(y).copied().unwrap_or(0.0)).abs() / 2.0).sum();
    let bounds: Vec<f64> =
        fixture.decode(procedure, 3, 512, 4_000).iter().map(|one| one.truncation).collect();
    let bound = bounds.iter().sum::<f64>() / bounds.len() as f64;
    assert!(moved > 0.05 && moved <= bound, "{moved} moved, {bound} at most");
    assert!(bounds.iter().all(|bound| (0.0..=1.0).contains(bound)));
    let whole = fixture.decode("cd-token:lambda=1.5", 3, 512, 50);
    assert!(whole.iter().all(|one| one.truncation == 0.0));
}

#[test]
fn a_selection_may_have_moved_by_what_any_of_its_candidates_lacks() {
    let fixture = Fixture::new();
    // At λ = 0, a token moves as much as the probability of what is left out: after "" and "b" it is $, of 0.2, after "a" $, of 0.25, after
    // "ab" a, of 0.2, and after "ba" b, of 0.3. Elsewhere there are no more than two tokens.
    let left_out = |one: &Decoded| -> f64 {
        match &one.text[..2] {
            "aa" => 0.45,
            "ab" => 0.65,
            "ba" => 0.7,
            _ => 0.4,
        }
    };
    let near = |one: &Decoded, expected: f64| (one.truncation - expected).abs() < 1e-6;
    let procedure = "cd-token:lambda=0,candidates=2";
    let guided = guided(fixture.generator(6, 512), &fixture.scorer, procedure.parse().unwrap());
    let decoder =
        ProcedureDecoder::guided(Procedure::Sample, guided, &fixture.tokenizer, None).unwrap();
    let pairs = decoder.decode_samples(&fixture.prompts(200), 2).unwrap();
    let kept = fixture.decode(&format!("best-of:2 over {procedure}"), 6, 512, 200);
    for (pair, kept) in pairs.iter().zip(&kept) {
        let sum: f64 = pair.iter().map(left_out).sum();
        assert!(pair.iter().all(|one| near(one, left_out(one))), "{pair:?}");
        assert!(near(kept, sum.min(1.0)), "{kept:?}, {sum}");
    }
    assert!(kept.iter().any(|one| one.truncation < 0.95));
    assert!(kept.iter().any(|one| one.truncation == 1.0));
}

#[test]
fn the_batch_changes_nothing_and_one_candidate_is_a_plain_sample() {
    let fixture = Fixture::new();
    for procedure in [
        "cd-token:lambda=1.5",
        "cd-block:length=2,samples=4",
        "beam:width=2,branch=2,length=1",
        "pruned-best-of:4,length=1,keep=0.5",
        "best-of:2 over cd-block:length=1,samples=2",
        "rejection:quantile=0.8,draws=7",
    ] {
        let expected = fixture.decode(procedure, 5, 1, 60);
        for batch in [7, 1000] {
            assert_eq!(fixture.decode(procedure, 5, batch, 60), expected, "{procedure}, {batch}");
        }
    }
    let plain = fixture.decode("sample", 5, 64, 60);
    for procedure in ["cd-block:length=2,samples=1", "cd-token:lambda=0"] {
        let guided = fixture.decode(procedure, 5, 64, 60);
        let pairs = plain.iter().zip(&guided);
        assert!(pairs.clone().all(|(a, b)| a.response == b.response), "{procedure}");
        let is_nothing = |kl: &[Kl]| kl.len() == 1 && kl[0].nats.abs() < 1e-12;
        assert!(pairs.clone().all(|(_, b)| is_nothing(&b.kl)), "{procedure}");
    }
}

#[test]
fn costs_and_kl_are_counted_and_labelled() {
    let fixture = Fixture::new();
    let mean = |all: &[Decoded], of: &dyn Fn(&Decoded) -> f64| {
        all.iter().map(of).sum::<f64>() / all.len() as f64
    };
    let exact = |procedure: &str| {
        ExactDecoder::new(&fixture.problem).decode(procedure.parse().unwrap()).unwrap()
    };
    let tokenwise = fixture.decode("cd-token:lambda=1.5", 1, 512, 20_000);
    assert!(tokenwise.iter().all(|one| one.kl.len() == 1 && one.kl[0].kind == KlKind::Exact));
    let kl = mean(&tokenwise, &|one| one.kl[0].nats);
    assert!((kl - exact("cd-token:lambda=1.5").kl()).abs() < 0.01, "{kl}");
    let letters = |one: &Decoded| one.response.tokens.len();
    assert!(tokenwise.iter().all(|one| one.cost.model_tokens == letters(one)));

    let (length, samples) = (2, 4);
    let procedure = format!("cd-block:length={length},samples={samples}");
    let (blocks, distribution) = (fixture.decode(&procedure, 1, 512, 20_000), exact(&procedure));
    assert!(blocks.iter().all(|one| one.kl[0].kind == KlKind::Bound));
    let bound = mean(&blocks, &|one| one.kl[0].nats);
    let per_block = best_of_kl_bound(samples.try_into().unwrap());
    let expected = distribution.expected_blocks(length.try_into().unwrap()) * per_block;
    assert!((bound - expected).abs() < 0.02 && bound >= distribution.kl(), "{bound}");
    let estimate = mean(&blocks, &|one| one.kl[1].nats);
    assert!(blocks.iter().all(|one| one.kl.len() == 2 && one.kl[1].kind == KlKind::Estimate));
    let [error, slack] = [estimate, bound].map(|kl| (kl - distribution.kl()).abs());
    assert!(error < slack && estimate < bound, "{estimate} against {}", distribution.kl());
    for one in &blocks {
        let n = letters(one).div_ceil(length);
        // The candidates of each block have a value, and the response's reward is asked for, too.
        assert_eq!(one.cost.scorer_calls, n * samples + 1, "{one:?}");
        assert!(one.cost.model_tokens <= n * samples * length);
        assert!((one.value.unwrap() - f64::from(one.score.unwrap())).abs() < 1e-6);
    }

    let best = fixture.decode("best-of:4", 1, 512, 4_000);
    let of_kind =
        |kind| move |one: &Decoded| one.kl.iter().find(|kl| kl.kind == kind).unwrap().nats;
    let kl = exact("best-of:4").kl();
    assert!((mean(&best, &of_kind(KlKind::Bound)) - per_block).abs() < 1e-12 && kl <= per_block);
    assert!(mean(&best, &of_kind(KlKind::Estimate)) < per_block);

    let composed = "best-of:2 over cd-token:lambda=1.5";
    let all = fixture.decode(composed, 1, 512, 4_000);
    let kl = exact("cd-token:lambda=1.5")
        .select(&"best-of:2".parse().unwrap(), fixture.problem.rewards())
        .unwrap()
        .kl();
    let bound = mean(&all, &of_kind(KlKind::Bound));
    assert!(bound >= kl && bound < kl + 0.3, "{bound} against {kl}");
}

#[test]
fn tokenwise_decoding_asks_for_the_value_of_every_possible_token() {
    let all = Fixture::new().decode("cd-token:lambda=1.5", 1, 512, 2_000);
    // The tokens that are possible after each prefix on the way, and the reward of the response.
    for (text, calls) in
        [("", 3 + 1), ("a", 3 + 3 + 1), ("aa", 3 + 3 + 2 + 1), ("bb", 3 + 3 + 1 + 1)]
    {
        let of_text = all.iter().filter(|one| one.text == text);
        let found: Vec<usize> = of_text.map(|one| one.cost.scorer_calls).collect();
        assert!(!found.is_empty(), "{text:?}");
        assert!(found.iter().all(|found| *found == calls), "{text:?}: {found:?}");
    }
}

#[test]
fn beams_that_never_branch_cost_at_most_a_choice_among_them() {
    // One of two paths is kept, however many blocks they have: log 2 + blocks · log 1.
    let bound = Kl { nats: 2.0_f64.ln(), kind: KlKind::Bound };
    for one in Fixture::new().decode("beam:width=2,branch=1,length=1", 1, 512, 50) {
        assert_eq!(one.kl, [bound], "{:?}", one.text);
    }
}

#[test]
fn pruned_candidates_cost_at_most_what_the_best_of_them_does() {
    let fixture = Fixture::new();
    let bound = best_of_kl_bound(3_usize.try_into().unwrap());
    for one in fixture.decode("pruned-best-of:3,length=1,keep=0.5", 1, 512, 50) {
        assert_eq!(one.kl, [Kl { nats: bound, kind: KlKind::Bound }], "{:?}", one.text);
    }
    let base = fixture.exact("sample");
    let law = pruned(&Enumerated::new(&fixture.problem), 3, 1, 0.5);
    let possible = law.iter().filter(|(_, q)| **q > 0.0);
    let kl: f64 = possible.map(|(y, q)| q * (q / base[y]).ln()).sum();
    assert!(kl > 0.0 && kl <= bound, "{kl} against {bound}");
    // Of a selection on top, the ratio of probabilities counts, which is at most 3.
    let nats = best_of_kl_bound(2_usize.try_into().unwrap()) + 3_f64.ln();
    for one in fixture.decode("best-of:2 over pruned-best-of:3,length=1,keep=0.5", 1, 512, 50) {
        assert_eq!(one.kl, [Kl { nats, kind: KlKind::Bound }], "{:?}", one.text);
    }
}

#[test]
fn responses_to_a_prompt_are_chosen_by_numbers_of_their_own() {
    let fixture = Fixture::new();
    let (generator, prompts) = (fixture.generator(1, 64), fixture.prompts(20));
    // So hot that each of the eight is as likely as the others.
    let procedure = "soft-best-of:8,temperature=1e6".parse().unwrap();
    let reward = Some(&fixture.reward as _);
    let decoder = ProcedureDecoder::new(procedure, &generator, &fixture.tokenizer, reward).unwrap();
    let kept = decoder.decode_samples(&prompts, 4).unwrap();
    let all = generator.generate(&prompts, 0..32).unwrap();
    // With one number for all, every eight would keep the response at the same place.
    let alike = kept.iter().zip(&all).all(|(kept, all)| {
        let at = |place: usize| {
            kept.iter().zip(all.chunks(8)).all(|(kept, eight)| kept.response == eight[place])
        };
        (0..8).any(at)
    });
    assert!(!alike);
}

#[test]
fn estimates_are_of_what_is_drawn_from_the_model_itself() {
    let fixture = Fixture::new();
    let (tokenizer, reward) = (&fixture.tokenizer, Some(&fixture.reward as _));
    let kinds = |decoder: ProcedureDecoder<'_>| {
        let decoded = decoder.decode(&fixture.prompts(1)).unwrap();
        decoded[0].kl.iter().map(|kl| kl.kind).collect::<Vec<_>>()
    };
    let best = |sampling: Sampling| {
        let generator = Generator { sampling, ..fixture.generator(1, 8) };
        let four = "best-of:4".parse().unwrap();
        kinds(ProcedureDecoder::new(four, &generator, tokenizer, reward).unwrap())
    };
    let blocks = |sampling: Sampling| {
        let generator = Generator { sampling, ..fixture.generator(1, 8) };
        let inner = "cd-block:length=2,samples=4".parse().unwrap();
        let guided = guided(generator, &fixture.scorer, inner);
        kinds(ProcedureDecoder::guided(Procedure::Sample, guided, tokenizer, reward).unwrap())
    };
    let own = || fixture.generator(1, 8).sampling;
    for kinds in [best(own()), blocks(own())] {
        assert_eq!(kinds, [KlKind::Bound, KlKind::Estimate]);
    }
    for other in [
        Sampling { temperature: 0.7, ..own() },
        Sampling { top_k: 2, ..own() },
        Sampling { top_p: 0.9, ..own() },
    ] {
        for kinds in [best(other.clone()), blocks(other)] {
            assert_eq!(kinds, [KlKind::Bound]);
        }
    }
}

#[test]
fn rejection_says_what_it_accepted_and_what_that_took() {
    let fixture = Fixture::new();
    let exact = |procedure: &str| {
        ExactDecoder::new(&fixture.problem).decode(procedure.parse().unwrap()).unwrap()
    };
    let (quantile, draws) = (0.8, 4);
    let all = fixture.decode(&format!("rejection:quantile={quantile},draws={draws}"), 3, 256, 4000);
    let accepted = all.iter().filter(|one| one.accepted == Some(true)).count() as f64;
    let good = |one: &Decoded| fixture.rank(one.score.unwrap()).unwrap() >= quantile;
    assert!(all.iter().all(|one| one.accepted == Some(good(one))));
    let plain = exact("sample");
    let p = plain.responses().filter(|(text, _)| {
        let response = text.trim_end_matches('$');
        let of_text = all.iter().find(|one| one.text == response);
        of_text.is_some_and(good)
    });
    let p: f64 = p.map(|(_, p)| p).sum();
    let share = 1.0 - (1.0 - p).powi(draws);
    let spread = (share * (1.0 - share) / all.len() as f64).sqrt();
    assert!((accepted / all.len() as f64 - share).abs() < 4.0 * spread, "{accepted}, {share}");
    // A draw costs a score; the rounds are of 1, 2 and the 1 that is left.
    assert!(all.iter().all(|one| [1, 3, 4].contains(&one.cost.scorer_calls)));
    assert!(all.iter().all(|one| one.accepted == Some(true) || one.cost.scorer_calls == 4));
    let kinds: Vec<KlKind> = all[0].kl.iter().map(|kl| kl.kind).collect();
    assert_eq!(kinds, [KlKind::Bound, KlKind::Estimate]);
    let exact = exact("rejection:quantile=0.8,draws=4").kl();
    assert!(exact <= all[0].kl[0].nats && all[0].kl[1].nats <= all[0].kl[0].nats);

    // Numbers of draws belong to a response, whatever others are asked for.
    let reward: &dyn infalign_reward::Reward = &fixture.reward;
    let generator = fixture.generator(3, 16);
    let ranks = |prompt: &EncodedPrompt, reward: f32| {
        fixture.rank(reward).filter(|_| prompt.id != "unknown")
    };
    let procedure: Procedure = "rejection:quantile=0.8,draws=4".parse().unwrap();
    let decoder = |reward| {
        ProcedureDecoder::new(procedure, &generator, &fixture.tokenizer, Some(reward)).unwrap()
    };
    let prompts = fixture.prompts(20);
    let three = decoder(reward).with_ranks(&ranks).decode_samples(&prompts, 3).unwrap();
    let one = decoder(reward).with_ranks(&ranks).decode_samples(&prompts, 1).unwrap();
    assert!(three.iter().zip(&one).all(|(three, one)| three.len() == 3 && three[0] == one[0]));
    assert!(three.iter().any(|three| three[0].response != three[1].response));
    let unknown = EncodedPrompt { id: "unknown".into(), ..prompts[0].clone() };
    let refused = decoder(reward).with_ranks(&ranks).decode(&[unknown]).unwrap_err().to_string();
    assert!(refused.contains("there is no calibration of it"), "{refused}");
    let refused = decoder(reward).decode(&prompts).unwrap_err().to_string();
    assert!(refused.contains("calibration table"), "{refused}");
}

#[test]
fn several_scorers_add_up_with_their_weights() {
    let fixture = Fixture::new();
    let other = TABLE.replace("\"$\": 0,", "\"$\": 3,").replace("\"bb$\": 2", "\"bb$\": -2");
    let other = TabularProblem::parse(&other, "other.json".as_ref()).unwrap();
    let second = TabularScorer::new(Values::of(&other));
    let sum =
        WeightedScorers::new(vec![(0.75, boxed(&fixture.scorer)), (0.5, boxed(&second))]).unwrap();
    let values = Values::of(&fixture.problem).scaled(0.75);
    let values = values.plus(&Values::of(&other).scaled(0.5)).unwrap();
    assert!(sum.greatest().unwrap() >= values.greatest());
    let together = TabularScorer::new(values);
    let run = |scorer: &dyn PrefixScorer, procedure: &str| {
        let procedure = procedure.parse().unwrap();
        let guided = guided(fixture.generator(2, 64), scorer, procedure);
        let decoder =
            ProcedureDecoder::guided(Procedure::Sample, guided, &fixture.tokenizer, None).unwrap();
        decoder.decode(&fixture.prompts(200)).unwrap()
    };
    for procedure in ["cd-block:length=2,samples=4", "cd-token:lambda=1"] {
        let texts = |scorer: &dyn PrefixScorer| {
            run(scorer, procedure).into_iter().map(|one| one.text).collect::<Vec<_>>()
        };
        assert_eq!(texts(&sum), texts(&together));
        assert_ne!(texts(&sum), texts(&fixture.scorer));
    }
    assert!(WeightedScorers::new(vec![(f64::NAN, boxed(&fixture.scorer))]).is_err());
    assert!(WeightedScorers::new(Vec::new()).is_err());
}

#[test]
fn the_greatest_value_by_a_negative_weight_is_that_of_the_least_reward() {
    let name = "reward".into();
    let reward = ScoredReward { name, mean: 0.0, scale: 1.0, least: -3.0, greatest: 2.0 };
    let spec = ScorerSpec {
        heads: vec![reward],
        vocabulary: 3,
        hidden: 1,
        width: 1,
        own_trunk: false,
        soft: None,
        base: "base".into(),
        base_sha256: String::new(),
    };
    let device = infalign_backend::device(None).unwrap();
    let (values, _) = ScorerModel::new(spec, None, &mut || 0.0, &device).unwrap().for_inference();
    let learned = |weight: f64| LearnedScorer::new(&values, None, &[weight]).unwrap().greatest();
    assert_eq!([learned(1.0), learned(-1.0)], [Some(2.0), Some(3.0)]);
    // A sum of scorers does not know their least values.
    let fixture = Fixture::new();
    let sum = |weight: f64| {
        WeightedScorers::new(vec![(weight, boxed(&fixture.scorer))]).unwrap().greatest()
    };
    assert!(sum(1.0).is_some());
    assert_eq!(sum(-1.0), None);
}

#[test]
fn watchers_hear_what_is_certain_and_may_break_off() {
    let fixture = Fixture::new();
    let heard = Mutex::new(BTreeMap::<usize, Vec<u32>>::new());
    let listen = |event: Event| {
        heard.lock().unwrap().entry(event.prompt).or_default().push(event.draw.token);
        ControlFlow::Continue(())
    };
    for procedure in
        ["cd-block:length=2,samples=3", "cd-token:lambda=1", "beam:width=2,branch=2,length=1"]
    {
        heard.lock().unwrap().clear();
        let generator = Generator { watch: Some(&listen), ..fixture.generator(4, 16) };
        let procedure = procedure.parse().unwrap();
        let guided = guided(generator, &fixture.scorer, procedure);
        let decoder =
            ProcedureDecoder::guided(Procedure::Sample, guided, &fixture.tokenizer, None).unwrap();
        let decoded = decoder.decode(&fixture.prompts(40)).unwrap();
        let told = heard.lock().unwrap();
        let tokens = decoded.into_iter().map(|one| one.response.tokens).enumerate();
        assert_eq!(*told, tokens.collect(), "{procedure}");
    }
    let stop = |_: Event| ControlFlow::Break(());
    let generator = Generator { watch: Some(&stop), ..fixture.generator(4, 16) };
    let procedure = "cd-token:lambda=1".parse().unwrap();
    let guided = guided(generator, &fixture.scorer, procedure);
    let decoder =
        ProcedureDecoder::guided(Procedure::Sample, guided, &fixture.tokenizer, None).unwrap();
    let refused = decoder.decode(&fixture.prompts(3)).unwrap_err();
    assert!(matches!(refused, DecodeError::Cancelled { .. }), "{refused}");
}

#[test]
fn what_nobody_wants_any_more_is_not_drawn() {
    let fixture = Fixture::new();
    let (cancelled, heard) = (AtomicBool::new(false), AtomicUsize::new(0));
    // The first token is the last that anybody wants.
    let listen = |_: Event| {
        heard.fetch_add(1, Ordering::Relaxed);
        cancelled.store(true, Ordering::Relaxed);
        ControlFlow::Continue(())
    };
    let generator = Generator { watch: Some(&listen), ..fixture.generator(4, 1) };
    let procedure = "cd-block:length=1,samples=2".parse().unwrap();
    let guided = guided(generator, &fixture.scorer, procedure);
    let guided = GuidedGenerator { cancelled: Some(&cancelled), ..guided };
    let decoder =
        ProcedureDecoder::guided(Procedure::Sample, guided, &fixture.tokenizer, None).unwrap();
    let refused = decoder.decode(&fixture.prompts(500)).unwrap_err();
    assert!(matches!(refused, DecodeError::Cancelled { .. }), "{refused}");
    assert_eq!(heard.load(Ordering::Relaxed), 1);
}

#[test]
fn what_cannot_be_is_refused() {
    let fixture = Fixture::new();
    let refused = |procedure: &str, scorer: &dyn PrefixScorer, reward: bool| {
        let Composed { selection, inner } = procedure.parse().unwrap();
        let reward = reward.then_some(&fixture.reward as _);
        let guided = guided(fixture.generator(1, 8), scorer, inner);
        let decoder = ProcedureDecoder::guided(selection, guided, &fixture.tokenizer, reward);
        let decoded = decoder.and_then(|decoder| decoder.decode(&fixture.prompts(1)));
        decoded.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let other =
        r#"{"D": 2, "p": {"": [0.5, 0, 0, 0.5], "a": [0, 0, 0, 1]}, "r": {"$": 0, "a$": 1}}"#;
    let other = TabularProblem::parse(other, "three.json".as_ref()).unwrap();
    let other = TabularScorer::new(Values::of(&other));
    for (procedure, scorer, reward, told) in [
        ("cd-token:lambda=1", &other as &dyn PrefixScorer, true, "vocabulary of 4 tokens"),
        ("best-of:2", &fixture.scorer, true, "no prefix scorer"),
        ("best-of:2 over cd-token:lambda=1", &fixture.scorer, false, "needs a reward"),
        ("pruned-best-of:2,length=1,keep=0.5", &fixture.scorer, false, "needs a reward"),
        ("cd-token:lambda=1e308", &fixture.scorer, true, "smaller λ"),
    ] {
        let message = refused(procedure, scorer, reward);
        assert!(message.contains(told), "{procedure}: {message}");
    }
    let generator = fixture.generator(1, 8);
    let needs = ProcedureDecoder::new(
        "cd-token:lambda=1".parse().unwrap(),
        &generator as &dyn Sampler,
        &fixture.tokenizer,
        None,
    );
    assert!(needs.err().unwrap().to_string().contains("needs a prefix scorer"));
}
