//! What is asked of a model: how often prompts are read, how many rows a batch has, and who draws.

use std::sync::atomic::{AtomicUsize, Ordering};

use infalign_decode::{DecodeError, EncodedPrompt, Generator, Sampler, Sampling};
use infalign_model::{LanguageModel, ModelError, Prompts, Sequence, Session};

use super::fixture::fixture;

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
