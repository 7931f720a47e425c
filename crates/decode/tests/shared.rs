//! The promises of an engine that many callers share: it gives each of them what they would have had alone, and lets them go.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod fixture;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fixture::{Fixture, fixture};
use infalign_decode::{
    DecodeError, Draws, EncodedPrompt, Engine, Event, Finish, Generator, Load, Response, Sampler,
    Sampling, SharedGenerator, SharedWatch,
};
use infalign_model::{LanguageModel, ModelError, Prompts, Sequence, Session};

fn engine(model: impl LanguageModel + 'static, batch: usize) -> Engine {
    Engine::start(Arc::new(model), batch).unwrap()
}

fn draws(fixture: &Fixture, seed: u64, max_tokens: usize) -> Arc<Draws> {
    Arc::new(Draws {
        tokenizer: Arc::new(fixture.tokenizer.clone()),
        stops: fixture.tokenizer.stops().clone(),
        stop_texts: Vec::new(),
        sampling: Sampling { max_tokens, ..Sampling::default() },
        seed,
        stage: "test".to_owned(),
    })
}

fn shared<'a>(engine: &'a Engine, draws: Arc<Draws>) -> SharedGenerator<'a> {
    SharedGenerator { engine, draws, watch: None, reads_logits: true, cancelled: Arc::default() }
}

fn alone(fixture: &Fixture, seed: u64, max_tokens: usize, samples: usize) -> Vec<Vec<Response>> {
    let packed = fixture.model.clone().for_inference();
    let sampling = Sampling { max_tokens, ..Sampling::default() };
    let generator =
        Generator { model: packed.as_ref(), sampling, seed, ..fixture.generator(usize::MAX) };
    generator.generate(&fixture.prompts(), 0..samples).unwrap()
}

fn wait_until(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(60), "it never came");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// On the CPU bit for bit; with tensors, whose logits depend on the batch in their last digits, token for token.
#[test]
fn callers_beside_each_other_get_what_each_would_have_alone() {
    let fixture = fixture();
    let settings: Vec<(u64, usize, usize)> =
        (0..8).map(|k| (k, 3 + 2 * k as usize, 1 + k as usize % 3)).collect();
    let expected: Vec<_> =
        settings.iter().map(|&(seed, tokens, n)| alone(&fixture, seed, tokens, n)).collect();
    let packed: Arc<dyn LanguageModel> = fixture.model.clone().for_inference().into();
    let tensors: Arc<dyn LanguageModel> = Arc::new(fixture.model.clone());
    for (model, exact) in [(packed, true), (tensors, false)] {
        for batch in [1, 5, 64] {
            let engine = Engine::start(model.clone(), batch).unwrap();
            let ask = |&(seed, tokens, n): &(u64, usize, usize)| {
                shared(&engine, draws(&fixture, seed, tokens)).generate(&fixture.prompts(), 0..n)
            };
            let found: Vec<_> = std::thread::scope(|scope| {
                let callers: Vec<_> =
                    settings.iter().map(|setting| scope.spawn(move || ask(setting))).collect();
                callers.into_iter().map(|caller| caller.join().unwrap().unwrap()).collect()
            });
            for (found, expected) in
                found.iter().flatten().flatten().zip(expected.iter().flatten().flatten())
            {
                assert_eq!((&found.tokens, found.finish), (&expected.tokens, expected.finish));
                assert!(!exact || found.log_probs == expected.log_probs, "batch {batch}");
            }
            assert_eq!(engine.load(), Load { running: 0, waiting: 0 });
        }
    }
}

/// A model with room for very long responses, slow enough to be met in the middle of them.
struct Slow {
    model: Box<dyn LanguageModel>,
    /// Prompts after which `read` panics, or fails.
    panics: bool,
    refuses: u32,
    reads: AtomicUsize,
}

impl Slow {
    fn new(fixture: &Fixture) -> Self {
        let model = fixture.model.clone().for_inference();
        Self { model, panics: false, refuses: u32::MAX, reads: AtomicUsize::new(0) }
    }
}

impl LanguageModel for Slow {
    fn vocabulary(&self) -> usize {
        self.model.vocabulary()
    }
    fn context(&self) -> usize {
        self.model.context()
    }
    fn read(&self, prompts: &[&[u32]]) -> Result<Prompts, ModelError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if prompts.iter().any(|prompt| prompt.contains(&self.refuses)) {
            assert!(!self.panics, "as it was told to");
            return Err(ModelError::Empty { index: 0 });
        }
        self.model.read(prompts)
    }
    fn session(&self) -> Box<dyn Session + '_> {
        self.model.session()
    }
    fn log_probs(&self, sequences: &[Sequence]) -> Result<Vec<Vec<f32>>, ModelError> {
        self.model.log_probs(sequences)
    }
    fn rows_are_independent(&self) -> bool {
        true
    }
    fn cache_bytes(&self, tokens: usize) -> usize {
        self.model.cache_bytes(tokens)
    }
}

/// Never ends by itself, and takes its time.
fn endless(fixture: &Fixture) -> (Arc<Draws>, SharedWatch) {
    let mut draws = Arc::into_inner(draws(fixture, 1, 50)).unwrap();
    draws.stops.clear();
    let watch = |_: Event<'_>| {
        std::thread::sleep(Duration::from_millis(5));
        ControlFlow::Continue(())
    };
    (Arc::new(draws), Arc::new(watch))
}

#[test]
fn a_caller_who_goes_away_leaves_the_batch_and_the_queue() {
    let fixture = fixture();
    let engine = engine(Slow::new(&fixture), 2);
    let cancelled = Arc::new(AtomicBool::new(false));
    let (draws, watch) = endless(&fixture);
    let generator = SharedGenerator {
        engine: &engine,
        draws,
        watch: Some(watch),
        reads_logits: true,
        cancelled: cancelled.clone(),
    };
    let prompts = fixture.prompts();
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| generator.generate(&prompts, 0..20));
        wait_until(|| engine.load() == Load { running: 2, waiting: 118 });
        let start = Instant::now();
        cancelled.store(true, Ordering::Relaxed);
        let refused = caller.join().unwrap().unwrap_err();
        assert!(matches!(refused, DecodeError::Cancelled { .. }), "{refused}");
        // Fifty tokens of 120 responses, two at a time, would take 15 seconds.
        assert!(start.elapsed() < Duration::from_secs(5));
    });
    wait_until(|| engine.load() == Load { running: 0, waiting: 0 });
    assert!(engine.is_working());
}

#[test]
fn who_has_heard_enough_gets_no_more() {
    let fixture = fixture();
    let engine = engine(Slow::new(&fixture), 1);
    let (draws, watch) = endless(&fixture);
    let generator = SharedGenerator { watch: Some(watch), ..shared(&engine, draws) };
    let handed = Mutex::new(Vec::new());
    generator
        .generate_each(&fixture.prompts(), 0..1, &|prompt, _| {
            handed.lock().unwrap().push(prompt);
            ControlFlow::Break(())
        })
        .unwrap();
    assert_eq!(*handed.lock().unwrap(), [0]);
    wait_until(|| engine.load() == Load { running: 0, waiting: 0 });
}

#[test]
fn what_one_caller_does_wrong_is_no_other_s_harm() {
    let fixture = fixture();
    let bad = fixture.tokenizer.encode("h").unwrap()[1];
    let engine = engine(Slow { refuses: bad, ..Slow::new(&fixture) }, 64);
    let prompts = fixture.prompts();
    let [good, bad]: [Vec<EncodedPrompt>; 2] = [false, true]
        .map(|with| prompts.iter().filter(|p| p.tokens.contains(&bad) == with).cloned().collect());
    std::thread::scope(|scope| {
        let fails = scope.spawn(|| shared(&engine, draws(&fixture, 3, 12)).generate(&bad, 0..9));
        let works = scope.spawn(|| shared(&engine, draws(&fixture, 3, 12)).generate(&good, 0..9));
        assert!(fails.join().unwrap().is_err());
        assert_eq!(works.join().unwrap().unwrap().len(), good.len());
    });
    let too_long = shared(&engine, draws(&fixture, 3, 64)).generate(&good, 0..1).unwrap_err();
    assert!(too_long.to_string().contains("context"), "{too_long}");
    // The caller hears of a failure at once; what it left in a batch goes with the next step of that batch.
    wait_until(|| engine.load() == Load { running: 0, waiting: 0 });
}

#[test]
fn a_panic_within_the_engine_leaves_nobody_waiting() {
    let fixture = fixture();
    let bad = fixture.tokenizer.encode("h").unwrap()[1];
    let engine = engine(Slow { refuses: bad, panics: true, ..Slow::new(&fixture) }, 4);
    let (draws, watch) = endless(&fixture);
    let generator = SharedGenerator { watch: Some(watch), ..shared(&engine, draws) };
    let found = generator.generate(&fixture.prompts(), 0..4);
    assert!(matches!(found, Err(DecodeError::Stopped)), "{found:?}");
    wait_until(|| !engine.is_working());
    let next = generator.generate(&fixture.prompts(), 0..1);
    assert!(matches!(next, Err(DecodeError::Stopped)), "{next:?}");
}

#[test]
fn an_engine_can_be_dropped_while_it_works() {
    let fixture = fixture();
    let engine = engine(Slow::new(&fixture), 3);
    let (draws, watch) = endless(&fixture);
    let heard = Arc::new(AtomicUsize::new(0));
    let count = heard.clone();
    let watch: SharedWatch = Arc::new(move |event| {
        count.fetch_add(1, Ordering::Relaxed);
        watch(event)
    });
    // Nobody receives the responses: the first that is finished ends the rest.
    let generator = SharedGenerator { watch: Some(watch), ..shared(&engine, draws) };
    let finished = |_, responses: Vec<Response>| {
        assert!(responses.iter().all(|response| response.finish == Finish::Length));
        ControlFlow::Break(())
    };
    generator.generate_each(&fixture.prompts(), 0..1, &finished).unwrap();
    drop(engine);
    let before = heard.load(Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(heard.load(Ordering::Relaxed), before);
}
