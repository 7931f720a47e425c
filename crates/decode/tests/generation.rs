//! The promises of the engine: what is generated does not depend on what it is generated with.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use fixture::fixture;
use infalign_decode::{
    DecodeError, Decoder, EncodedPrompt, Event, Finish, Generator, ProcedureDecoder, Response,
    Sampler, Sampling, StopTexts,
};
use infalign_model::{LanguageModel, ModelError, Prompts, Sequence, Session};
use infalign_reward::{Lexicon, Reward, RewardError};
use infalign_transform::Procedure;

#[test]
fn responses_do_not_depend_on_batch_order_or_threads() {
    let fixture = fixture();
    let prompts = fixture.prompts();
    let expected = fixture.generator(1).generate(&prompts, 0..9).unwrap();
    let tokens =
        |all: &[Vec<Response>]| all.iter().flatten().map(|r| r.tokens.clone()).collect::<Vec<_>>();
    for batch in [2, 7, 54, 1000] {
        assert_eq!(
            tokens(&fixture.generator(batch).generate(&prompts, 0..9).unwrap()),
            tokens(&expected),
            "batch {batch}"
        );
    }
    let reversed: Vec<EncodedPrompt> = prompts.iter().rev().cloned().collect();
    let mut backwards = fixture.generator(20).generate(&reversed, 0..9).unwrap();
    backwards.reverse();
    assert_eq!(tokens(&backwards), tokens(&expected), "another order");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let alone = pool.install(|| fixture.generator(7).generate(&prompts, 0..9).unwrap());
    assert_eq!(
        alone,
        fixture.generator(7).generate(&prompts, 0..9).unwrap(),
        "one thread: equal bit for bit"
    );
    let halves = [0..4, 4..9].map(|part| fixture.generator(7).generate(&prompts, part).unwrap());
    let whole: Vec<Vec<Response>> =
        halves[0].iter().zip(&halves[1]).map(|(a, b)| [a.as_slice(), b].concat()).collect();
    assert_eq!(tokens(&whole), tokens(&expected), "in two parts");
}

#[test]
fn log_probs_are_those_that_scoring_computes() {
    let fixture = fixture();
    let prompts = fixture.prompts();
    let responses = fixture.generator(10).generate(&prompts, 0..5).unwrap();
    for (prompt, responses) in prompts.iter().zip(&responses) {
        let sequences: Vec<_> = responses.iter().map(|r| r.sequence(prompt)).collect();
        for (response, scored) in responses.iter().zip(fixture.model.log_probs(&sequences).unwrap())
        {
            assert_eq!(response.tokens.len(), scored.len());
            assert!(response.log_probs.iter().zip(&scored).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }
}

#[test]
fn responses_end_at_a_stop_or_at_the_limit() {
    let fixture = fixture();
    let stops = fixture.tokenizer.stops();
    let responses = fixture.generator(64).generate(&fixture.prompts(), 0..40).unwrap();
    let (mut stopped, mut cut) = (0, 0);
    for response in responses.iter().flatten() {
        let (last, before) = response.tokens.split_last().unwrap();
        assert!(before.iter().all(|token| !stops.contains(token)), "nothing follows a stop");
        if stops.contains(last) {
            stopped += 1;
        } else {
            cut += 1;
            assert_eq!(response.tokens.len(), 12);
        }
    }
    assert!(stopped > 0 && cut > 0, "the test must see both: {stopped} stopped, {cut} cut");
}

#[test]
fn samples_follow_the_models_distribution() {
    let fixture = fixture();
    let prompt = fixture.prompts().swap_remove(0);
    let n = 4_000;
    let one = Generator {
        sampling: Sampling { max_tokens: 1, ..Sampling::default() },
        ..fixture.generator(500)
    };
    let responses = one.generate(std::slice::from_ref(&prompt), 0..n).unwrap().swap_remove(0);
    let mut counts: BTreeMap<u32, f64> = BTreeMap::new();
    for response in &responses {
        *counts.entry(response.tokens[0]).or_default() += 1.0;
    }
    let session = fixture.model.start(&[&prompt.tokens], 1).unwrap();
    let total: f64 = session.logits().iter().map(|l| f64::from(*l).exp()).sum();
    // Pearson's statistic over the tokens that are expected at least five times.
    let expected = session
        .logits()
        .iter()
        .enumerate()
        .map(|(token, l)| (token as u32, n as f64 * f64::from(*l).exp() / total));
    let likely: Vec<(u32, f64)> = expected.filter(|(_, count)| *count >= 5.0).collect();
    let statistic: f64 = likely
        .iter()
        .map(|(token, count)| (counts.get(token).copied().unwrap_or(0.0) - count).powi(2) / count)
        .sum();
    assert!(likely.len() > 3 && statistic < 40.0, "{statistic} over {} tokens", likely.len());
}

#[test]
fn best_and_worst_of_n_select_among_the_same_samples() {
    let fixture = fixture();
    let prompts = fixture.prompts();
    let lexicon = Lexicon::new(&[("a".to_owned(), 1.0), ("h".to_owned(), -0.5)].into()).unwrap();
    let decode = |procedure: &str| {
        let reward: &dyn Reward = &lexicon;
        let generator = fixture.generator(11);
        let decoder = ProcedureDecoder::new(
            procedure.parse().unwrap(),
            &generator,
            &fixture.tokenizer,
            Some(reward),
        )
        .unwrap();
        decoder.decode(&prompts).unwrap()
    };
    let candidates = fixture.generator(11).generate(&prompts, 0..6).unwrap();
    for (index, (best, worst)) in
        decode("best-of:6").into_iter().zip(decode("worst-of:6")).enumerate()
    {
        let texts: Vec<String> = candidates[index]
            .iter()
            .map(|r| fixture.tokenizer.decode_response(&prompts[index].tokens, &r.tokens).unwrap())
            .collect();
        let pairs: Vec<(&str, &str)> = texts.iter().map(|t| ("", t.as_str())).collect();
        let scores = lexicon.score(&pairs).unwrap();
        assert_eq!(best.score, scores.iter().copied().reduce(f32::max));
        assert_eq!(worst.score, scores.iter().copied().reduce(f32::min));
        assert!(candidates[index].contains(&best.response) && texts.contains(&best.text));
        assert_eq!(
            best.cost.model_tokens,
            candidates[index].iter().map(|r| r.tokens.len()).sum::<usize>()
        );
        assert_eq!(best.cost.scorer_calls, 6);
    }
}

#[test]
fn what_cannot_be_decoded_is_refused() {
    let fixture = fixture();
    let decoder = |procedure: &str| {
        ProcedureDecoder::new(
            procedure.parse().unwrap(),
            &fixture.generator(1),
            &fixture.tokenizer,
            None,
        )
        .err()
        .unwrap()
        .to_string()
    };
    assert!(decoder("best-of:2").contains("reward"));
    assert!(decoder("cd-token:lambda=1").contains("cd-token"));
    let long = Generator {
        sampling: Sampling { max_tokens: 62, ..Sampling::default() },
        ..fixture.generator(1)
    };
    let error = long.generate(&fixture.prompts(), 0..1).unwrap_err();
    assert!(
        matches!(error, DecodeError::Prompt { .. }) && error.to_string().contains("64"),
        "{error}"
    );
    // By its first words, too, since a file may leave the id to a hash.
    let long_winded = fixture.prompts().remove(0);
    let words = "the rain in Spain stays mainly in the plin";
    let text = EncodedPrompt { text: words.into(), ..long_winded };
    let error = long.generate(&[text], 0..1).unwrap_err().to_string();
    assert!(error.contains("(\"the rain in Spain stays mainly in the pl\" …): "), "{error}");
    let empty = EncodedPrompt { id: "none".into(), text: String::new(), tokens: Vec::new() };
    assert!(
        fixture.generator(1).generate(&[empty], 0..1).unwrap_err().to_string().contains("none")
    );
}

/// A model that counts what is read, and lets sessions draw themselves.
struct Counting<'a> {
    model: &'a dyn LanguageModel,
    /// Prompts that were read.
    prompts: AtomicUsize,
    /// The most padded tokens that were read at once.
    most: AtomicUsize,
    /// Whether its sessions draw themselves.
    draws: bool,
    /// How often they did.
    drawn: AtomicUsize,
    /// What they say of every token in place of its log-probability.
    says: Option<f32>,
    /// The most rows that they take.
    rows: usize,
}

impl<'a> Counting<'a> {
    fn of(model: &'a dyn LanguageModel) -> Self {
        let [prompts, most, drawn] = [0, 0, 0].map(AtomicUsize::new);
        Self { model, prompts, most, draws: false, drawn, says: None, rows: usize::MAX }
    }
}

impl LanguageModel for Counting<'_> {
    fn vocabulary(&self) -> usize {
        self.model.vocabulary()
    }
    fn context(&self) -> usize {
        self.model.context()
    }
    fn read(&self, prompts: &[&[u32]]) -> Result<Prompts, ModelError> {
        self.prompts.fetch_add(prompts.len(), Ordering::Relaxed);
        let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        self.most.fetch_max(prompts.len() * longest, Ordering::Relaxed);
        self.model.read(prompts)
    }
    fn session(&self) -> Box<dyn Session + '_> {
        let session = self.model.session();
        if self.draws { Box::new(DrawingSession(session, self)) } else { session }
    }
    fn log_probs(&self, sequences: &[Sequence]) -> Result<Vec<Vec<f32>>, ModelError> {
        self.model.log_probs(sequences)
    }
    fn rows_are_independent(&self) -> bool {
        self.model.rows_are_independent()
    }
    fn cache_bytes(&self, tokens: usize) -> usize {
        self.model.cache_bytes(tokens)
    }
    fn most_rows(&self, _: usize) -> usize {
        self.rows
    }
}

#[test]
fn a_prompt_is_read_once_however_many_responses_it_has() {
    let fixture = fixture();
    let packed = fixture.model.clone().for_inference();
    let models: [&dyn LanguageModel; 2] = [&fixture.model, packed.as_ref()];
    for model in models {
        let model = Counting::of(model);
        let prompts = fixture.prompts();
        let generator = Generator { model: &model, ..fixture.generator(8) };
        let responses = generator.generate(&prompts, 0..64).unwrap();
        assert_eq!(model.prompts.load(Ordering::Relaxed), prompts.len());
        let all: Vec<Vec<u32>> = responses.into_iter().flatten().map(|r| r.tokens).collect();
        let plain = fixture.generator(1).generate(&prompts, 0..64).unwrap();
        let plain: Vec<Vec<u32>> = plain.into_iter().flatten().map(|r| r.tokens).collect();
        assert_eq!(all, plain);
    }
}

#[test]
fn prompts_of_a_large_batch_are_not_all_read_at_once() {
    let fixture = fixture();
    let model = Counting::of(&fixture.model);
    let prompt = |k: usize| EncodedPrompt {
        id: k.to_string(),
        text: String::new(),
        tokens: vec![1; if k == 7 { 40 } else { 1 + k % 3 }],
    };
    let prompts: Vec<EncodedPrompt> = (0..900).map(prompt).collect();
    let sampling = Sampling { max_tokens: 1, ..Sampling::default() };
    let generator = Generator { model: &model, sampling, ..fixture.generator(900) };
    assert_eq!(generator.generate(&prompts, 0..1).unwrap().len(), 900);
    // One long prompt would have made it 900 · 40.
    let most = model.most.load(Ordering::Relaxed);
    assert!((10_000..=16_384).contains(&most), "{most}");
    assert_eq!(model.prompts.load(Ordering::Relaxed), 900);
}

#[test]
fn a_batch_has_no_more_rows_than_the_model_takes() {
    let fixture = fixture();
    let model = Counting { rows: 3, ..Counting::of(&fixture.model) };
    let prompt =
        |k: usize| EncodedPrompt { id: k.to_string(), text: String::new(), tokens: vec![1] };
    let prompts: Vec<EncodedPrompt> = (0..20).map(prompt).collect();
    let generator = Generator { model: &model, ..fixture.generator(20) };
    assert_eq!(generator.generate(&prompts, 0..1).unwrap().len(), 20);
    // Each with a token of its own.
    assert_eq!(model.most.load(Ordering::Relaxed), 3);
}

#[test]
fn packed_responses_are_the_same_bits_in_any_batch_on_any_number_of_threads() {
    let fixture = fixture();
    let packed = fixture.model.clone().for_inference();
    let of = |batch: usize, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let generator = Generator { model: packed.as_ref(), ..fixture.generator(batch) };
        pool.install(|| generator.generate(&fixture.prompts(), 0..9).unwrap())
    };
    let expected = of(1, 1);
    for (batch, threads) in [(3, 1), (54, 1), (7, 2), (54, 3), (1000, 8)] {
        assert_eq!(of(batch, threads), expected, "batch {batch}, {threads} threads");
    }
    let sequences: Vec<Sequence> = fixture
        .prompts()
        .iter()
        .zip(&expected)
        .flat_map(|(prompt, responses)| responses.iter().map(|r| r.sequence(prompt)))
        .collect();
    let scored = packed.log_probs(&sequences).unwrap();
    let drawn: Vec<Vec<f32>> = expected.into_iter().flatten().map(|r| r.log_probs).collect();
    assert_eq!(scored, drawn, "what is drawn has the log-probabilities that scoring gives it");
}

#[test]
fn a_stop_text_ends_a_response_and_is_no_part_of_it() {
    let fixture = fixture();
    let prompts = fixture.prompts();
    let plain = fixture.generator(50).generate(&prompts, 0..9).unwrap();
    let texts = ["c".to_owned(), "a b".to_owned(), String::new()];
    let stop_texts = Some(StopTexts { tokenizer: &fixture.tokenizer, texts: &texts });
    let generator = Generator { stop_texts, ..fixture.generator(50) };
    let decoder =
        ProcedureDecoder::new(Procedure::Sample, &generator, &fixture.tokenizer, None).unwrap();
    let decoded = decoder.decode_samples(&prompts, 9).unwrap();
    let mut stopped = 0;
    for (prompt, (decoded, plain)) in prompts.iter().zip(decoded.iter().zip(&plain)) {
        for (decoded, plain) in decoded.iter().zip(plain) {
            let text = fixture.tokenizer.decode_response(&prompt.tokens, &plain.tokens).unwrap();
            let end = ["c", "a b"].iter().filter_map(|stop| text.find(stop)).min();
            assert_eq!(decoded.text, text[..end.unwrap_or(text.len())]);
            assert!(plain.tokens.starts_with(&decoded.response.tokens));
            if end.is_some() {
                assert_eq!(decoded.response.finish, Finish::Stop);
                stopped += 1;
            }
        }
    }
    assert!(stopped > 5, "{stopped}");
}

#[test]
fn a_stop_token_ends_a_response_and_is_its_last() {
    let fixture = fixture();
    let prompts = fixture.prompts();
    let plain = fixture.generator(50).generate(&prompts, 0..9).unwrap();
    let long = plain.iter().flatten().find(|response| response.tokens.len() > 3).unwrap();
    let stop = long.tokens[1];
    let stop_token_ids = BTreeSet::from([stop]);
    let own = fixture.generator(50);
    let generator =
        Generator { sampling: Sampling { stop_token_ids, ..own.sampling.clone() }, ..own };
    let stopped = generator.generate(&prompts, 0..9).unwrap();
    for (stopped, plain) in stopped.iter().flatten().zip(plain.iter().flatten()) {
        let end = plain.tokens.iter().position(|token| *token == stop);
        let length = end.map_or(plain.tokens.len(), |end| end + 1);
        assert_eq!(stopped.tokens, plain.tokens[..length]);
        assert_eq!(stopped.finish, if end.is_some() { Finish::Stop } else { plain.finish });
    }
    let unknown = BTreeSet::from([10_000]);
    let sampling = Sampling { stop_token_ids: unknown, ..Sampling::default() };
    let error = Generator { sampling, ..fixture.generator(50) }.generate(&prompts, 0..1);
    assert!(error.unwrap_err().to_string().contains("stop_token_ids is 10000"));
}

#[test]
fn tokens_are_told_as_they_come_and_a_response_can_be_broken_off() {
    let fixture = fixture();
    let prompts = fixture.prompts();
    let packed = fixture.model.clone().for_inference();
    let all = Generator { model: packed.as_ref(), ..fixture.generator(50) };
    let plain = all.generate(&prompts, 0..3).unwrap();
    let told = Mutex::new(vec![vec![Vec::new(); 3]; prompts.len()]);
    let watch = |event: Event| {
        let mut told = told.lock().unwrap();
        let tokens = &mut told[event.prompt][event.sample];
        tokens.push(event.draw.token);
        if event.sample == 1 && tokens.len() == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let generator = Generator { watch: Some(&watch), batch: 4, ..all };
    let broken = generator.generate(&prompts, 0..3).unwrap();
    for (prompt, (broken, plain)) in broken.iter().zip(&plain).enumerate() {
        for (sample, (broken, plain)) in broken.iter().zip(plain).enumerate() {
            assert_eq!(told.lock().unwrap()[prompt][sample], broken.tokens);
            if sample == 1 && plain.tokens.len() > 2 {
                assert_eq!(broken.tokens, plain.tokens[..2]);
                assert_eq!(broken.finish, Finish::Cancelled);
            } else {
                assert_eq!(broken, plain);
            }
        }
    }
}

#[test]
fn prompts_are_handed_over_whole_and_the_rest_can_be_broken_off() {
    let fixture = fixture();
    let prompts = fixture.prompts();
    let plain = fixture.generator(7).generate(&prompts, 2..6).unwrap();
    for most in 1..=prompts.len() {
        let handed = Mutex::new(BTreeMap::new());
        let finished = |prompt: usize, responses: Vec<Response>| {
            let mut handed = handed.lock().unwrap();
            assert!(handed.insert(prompt, responses).is_none(), "once");
            if handed.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        fixture.generator(3).generate_each(&prompts, 2..6, &finished).unwrap();
        let handed = handed.into_inner().unwrap();
        assert_eq!(handed.len(), most, "nothing comes after a break");
        for (prompt, responses) in handed {
            let tokens =
                |all: &[Response]| all.iter().map(|r| r.tokens.clone()).collect::<Vec<_>>();
            assert_eq!(tokens(&responses), tokens(&plain[prompt]), "in order");
        }
    }
}

/// A reward that fails at the second prompt.
struct FailsAt<'a>(&'a str);

impl Reward for FailsAt<'_> {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        match pairs.iter().find(|(prompt, _)| *prompt == self.0) {
            Some(_) => Err(RewardError::Deviation),
            None => Ok(vec![0.0; pairs.len()]),
        }
    }
}

#[test]
fn what_was_decoded_before_a_failure_is_handed_over() {
    let fixture = fixture();
    let prompts = fixture.prompts();
    let (generator, reward) = (fixture.generator(1), FailsAt("d e f g h"));
    let procedure: Procedure = "best-of:2".parse().unwrap();
    let decoder =
        ProcedureDecoder::new(procedure, &generator, &fixture.tokenizer, Some(&reward)).unwrap();
    let mut handed = Vec::new();
    let mut done = |prompt, decoded: Vec<_>| {
        handed.push((prompt, decoded.len()));
        ControlFlow::Continue(())
    };
    assert!(decoder.decode_each(&prompts, 3, &mut done).is_err());
    assert_eq!(handed, [(0, 3), (1, 3)]);
}

#[test]
fn samples_that_rejection_found_before_a_failure_are_handed_over() {
    let fixture = fixture();
    let [good, bad] = [0, 2].map(|place| fixture.prompts().swap_remove(place));
    let prompt = |n: usize| {
        let EncodedPrompt { text, tokens, .. } = if n == 99 { &bad } else { &good };
        EncodedPrompt { id: n.to_string(), text: text.clone(), tokens: tokens.clone() }
    };
    let prompts: Vec<EncodedPrompt> = (0..100).map(prompt).collect();
    let (generator, reward) = (fixture.generator(50), FailsAt(&bad.text));
    let procedure: Procedure = "rejection:quantile=0.5,draws=3".parse().unwrap();
    let decoder =
        ProcedureDecoder::new(procedure, &generator, &fixture.tokenizer, Some(&reward)).unwrap();
    let ranks = |_: &EncodedPrompt, _: f32| Some(1.0);
    let decoder = decoder.with_ranks(&ranks);
    let mut handed = BTreeMap::new();
    let mut done = |prompt, decoded: Vec<_>| {
        assert!(handed.insert(prompt, decoded).is_none(), "once");
        ControlFlow::Continue(())
    };
    assert!(decoder.decode_each(&prompts, 2, &mut done).is_err());
    assert!(!handed.is_empty(), "all samples of some prompts come before any of the last");
    let alone = decoder.decode_samples(&prompts[..handed.len()], 2).unwrap();
    assert_eq!(handed.into_values().collect::<Vec<_>>(), alone, "the first prompts, and no others");
}

#[test]
fn a_memory_limit_sets_the_batch() {
    let model = fixture().model;
    let row = model.cache_bytes(40);
    assert_eq!(model.cache_bytes(80), 2 * row);
    assert_eq!(Generator::batch_within(&model, 10 * row as u64, 40), 10);
    assert_eq!(Generator::batch_within(&model, 1, 40), 1);
}

/// A session that draws itself, as those on other devices than the CPU do, and counts how often.
struct DrawingSession<'a>(Box<dyn Session + 'a>, &'a Counting<'a>);

impl Session for DrawingSession<'_> {
    fn logits(&self) -> &[f32] {
        self.0.logits()
    }
    fn draw(&self, how: &[[f32; 2]]) -> Option<Vec<(u32, f32)>> {
        self.1.drawn.fetch_add(1, Ordering::Relaxed);
        let rows = self.0.logits().chunks(self.1.model.vocabulary()).zip(how);
        let draw = |(logits, how): (&[f32], &[f32; 2])| {
            assert!(how[1] == 0.0 || how[1].is_normal(), "a device divides by {}", how[1]);
            let sampling = Sampling { temperature: how[1].into(), ..Sampling::default() };
            let draw = sampling.draw(logits, how[0].into(), &mut Vec::new());
            (draw.token, self.1.says.unwrap_or(draw.log_prob))
        };
        Some(rows.map(draw).collect())
    }
    fn states(&self) -> Vec<f32> {
        self.0.states()
    }
    fn push(&mut self, tokens: &[u32]) -> Result<(), ModelError> {
        self.0.push(tokens)
    }
    fn select(&mut self, rows: &[usize]) {
        self.0.select(rows);
    }
    fn join(&mut self, read: &Prompts, chosen: &[usize], tokens: usize) -> Result<(), ModelError> {
        self.0.join(read, chosen, tokens)
    }
}

#[test]
fn a_session_that_draws_itself_draws_the_same() {
    let fixture = fixture();
    let prompts = fixture.prompts();
    let model = |says| Counting { draws: true, says, ..Counting::of(&fixture.model) };
    for (top_k, temperature) in [(0, 1.0), (0, 0.0), (0, 0.7), (0, 1e-40), (2, 1.0)] {
        let sampling = Sampling { top_k, temperature, ..fixture.generator(7).sampling };
        let plain = Generator { sampling: sampling.clone(), ..fixture.generator(7) };
        let expected = plain.generate(&prompts, 0..9).unwrap();
        let drawing = model(None);
        let own = Generator { model: &drawing, sampling, ..fixture.generator(7) };
        assert_eq!(own.generate(&prompts, 0..9).unwrap(), expected, "{top_k}, {temperature}");
        let drawn = drawing.drawn.load(Ordering::Relaxed);
        assert_eq!(drawn > 0, top_k == 0, "it draws from the whole vocabulary alone");
    }
    let lost = model(Some(f32::NAN));
    let own = Generator { model: &lost, ..fixture.generator(7) };
    let error = own.generate(&prompts, 0..3).unwrap_err();
    assert!(matches!(error, DecodeError::Prompt { .. }), "{error}");
}
