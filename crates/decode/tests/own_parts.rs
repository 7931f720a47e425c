//! Models and scorers of one's own: they draw like others, and what breaks their promises is an error.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use infalign_decode::exact::{response_count, responses};
use infalign_decode::guided::{GuidedGenerator, PrefixScorer, ScorerSession, WeightedScorers};
use infalign_decode::{
    DecodeError, Decoder, EncodedPrompt, Generator, ProcedureDecoder, Sampler, Sampling,
};
use infalign_model::{LanguageModel, ModelError, Prompts, Session, TabularProblem, Tokenizer};
use infalign_transform::Procedure;

/// Logits of the next token by the last one, with nothing but what every model must have.
struct Bigram {
    rows: Vec<Vec<f32>>,
    /// How many logits its sessions leave out.
    missing: usize,
}

impl Bigram {
    fn logits(&self, last: &[u32]) -> Vec<f32> {
        last.iter().flat_map(|&token| self.rows[token as usize].clone()).collect()
    }
}

impl LanguageModel for Bigram {
    fn vocabulary(&self) -> usize {
        self.rows.len()
    }
    fn context(&self) -> usize {
        16
    }
    fn read(&self, prompts: &[&[u32]]) -> Result<Prompts, ModelError> {
        let last: Vec<u32> = prompts.iter().filter_map(|prompt| prompt.last().copied()).collect();
        Ok(Prompts::new(last.len(), self.logits(&last), last))
    }
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(Rows { model: self, last: Vec::new(), logits: Vec::new() })
    }
}

struct Rows<'a> {
    model: &'a Bigram,
    last: Vec<u32>,
    logits: Vec<f32>,
}

impl Rows<'_> {
    fn set(&mut self, last: Vec<u32>) {
        self.logits = self.model.logits(&last);
        self.logits.truncate(self.logits.len().saturating_sub(self.model.missing));
        self.last = last;
    }
}

impl Session for Rows<'_> {
    fn logits(&self) -> &[f32] {
        &self.logits
    }
    fn push(&mut self, tokens: &[u32]) -> Result<(), ModelError> {
        self.set(tokens.to_vec());
        Ok(())
    }
    fn select(&mut self, rows: &[usize]) {
        self.set(rows.iter().map(|&row| self.last[row]).collect());
    }
    fn join(&mut self, prompts: &Prompts, chosen: &[usize], _: usize) -> Result<(), ModelError> {
        let read = prompts.state::<Vec<u32>>()?;
        let entering = chosen.iter().map(|&prompt| read[prompt]);
        self.set(self.last.iter().copied().chain(entering).collect());
        Ok(())
    }
}

/// A model of `a` and `b`, its tokenizer and a prompt.
fn bigram(missing: usize) -> (Bigram, Tokenizer, EncodedPrompt) {
    let tokenizer = Tokenizer::of_words(["a b"]).unwrap();
    // Never an unknown word, nor a beginning, and most often another word than the last.
    let row = |last: usize| {
        let after = |token: usize| if token == last { 1.0 } else { 2.0 };
        let weights = [0.0, 0.0, 1.0, after(3), after(4)];
        weights.map(f32::ln).to_vec()
    };
    let model = Bigram { rows: (0..tokenizer.vocabulary()).map(row).collect(), missing };
    let prompt = EncodedPrompt::new("p", "a", &tokenizer).unwrap();
    (model, tokenizer, prompt)
}

fn sampling() -> Sampling {
    Sampling { max_tokens: 3, ..Sampling::default() }
}

#[test]
fn every_response_of_a_model_of_ones_own_is_listed_with_its_probability() {
    let (model, tokenizer, prompt) = bigram(0);
    let all = responses(&model, &prompt, &sampling(), tokenizer.stops()).unwrap();
    assert_eq!(Some(all.len()), response_count(&sampling(), tokenizer.stops(), 5));
    let probability =
        |log_probs: &[f32]| log_probs.iter().map(|p| f64::from(*p)).sum::<f64>().exp();
    let total: f64 = all.iter().map(|one| probability(&one.log_probs)).sum();
    assert!((total - 1.0).abs() < 1e-6, "{total}");
    let generator = Generator::new(&model, tokenizer.stops(), &sampling(), 1, "own", 8);
    for drawn in generator.generate(&[prompt], 0..50).unwrap().concat() {
        let listed = all.iter().find(|one| one.tokens == drawn.tokens).unwrap();
        assert_eq!(listed.finish, drawn.finish);
        let mut pairs = listed.log_probs.iter().zip(&drawn.log_probs);
        assert!(pairs.all(|(a, b)| (a - b).abs() < 1e-6), "{listed:?}, {drawn:?}");
    }
}

#[test]
fn the_responses_of_a_table_are_listed_as_it_has_them() {
    let text = r#"{"D": 3, "p": {"": [0.5, 0.25, 0.25], "a": [0, 0.25, 0.75], "b": [0.5, 0.5, 0]},
        "r": {"$": 0, "a$": 1, "ab$": 2, "ba$": 1, "bb$": 0}}"#;
    let problem = TabularProblem::parse(text, "test.json".as_ref()).unwrap();
    let tokenizer = problem.model().tokenizer().unwrap();
    let prompt = EncodedPrompt::new("p", "", &tokenizer).unwrap();
    let sampling = Sampling { max_tokens: 2, ..Sampling::default() };
    let all = responses(problem.model(), &prompt, &sampling, tokenizer.stops()).unwrap();
    let found: Vec<(&[u32], f32)> = all
        .iter()
        .map(|one| (one.tokens.as_slice(), one.log_probs.iter().sum::<f32>().exp()))
        .collect();
    let expected: [(&[u32], f32); 7] = [
        (&[2], 0.25),
        (&[0, 0], 0.0),
        (&[0, 1], 0.125),
        (&[0, 2], 0.375),
        (&[1, 0], 0.125),
        (&[1, 1], 0.125),
        (&[1, 2], 0.0),
    ];
    assert_eq!(found.len(), expected.len());
    for ((tokens, p), (of, q)) in found.into_iter().zip(expected) {
        assert!(tokens == of && (p - q).abs() < 1e-6, "{tokens:?}: {p}, {of:?}: {q}");
    }
}

/// A scorer that gives another number of values than it is asked for.
struct Miscounting {
    missing: usize,
    surplus: usize,
}

impl PrefixScorer for Miscounting {
    fn session(&self, _new_tokens: usize) -> Box<dyn ScorerSession + '_> {
        Box::new(MiscountingSession(self))
    }
    fn check(&self, _model: &dyn LanguageModel) -> Result<(), DecodeError> {
        Ok(())
    }
    fn greatest(&self) -> Option<f64> {
        None
    }
}

struct MiscountingSession<'a>(&'a Miscounting);

impl ScorerSession for MiscountingSession<'_> {
    fn join(&mut self, _entering: &[(&[u32], usize)]) -> Result<(), DecodeError> {
        Ok(())
    }
    fn push(&mut self, _tokens: &[u32]) -> Result<(), DecodeError> {
        Ok(())
    }
    fn select(&mut self, _rows: &[usize]) {}
    fn values(&self, _states: &[f32], next: &[&[u32]]) -> Result<Vec<f64>, DecodeError> {
        let count: usize = next.iter().map(|next| next.len()).sum();
        Ok(vec![0.0; count.saturating_sub(self.0.missing) + self.0.surplus])
    }
}

/// The error of a procedure that `scorer` guides.
fn refused(
    model: &dyn LanguageModel,
    tokenizer: &Tokenizer,
    prompt: &EncodedPrompt,
    (procedure, scorer): (&str, &dyn PrefixScorer),
) -> DecodeError {
    let generator = Generator::new(model, tokenizer.stops(), &sampling(), 1, "own", 8);
    let procedure = procedure.parse().unwrap();
    let guided = GuidedGenerator { generator, scorer, procedure, cancelled: None };
    let decoder = ProcedureDecoder::guided(Procedure::Sample, guided, tokenizer, None).unwrap();
    decoder.decode(std::slice::from_ref(prompt)).unwrap_err()
}

const PROCEDURES: [&str; 2] = ["cd-token:lambda=1", "cd-block:length=1,samples=2"];

#[test]
fn another_number_of_values_than_was_asked_for_is_refused() {
    let (model, tokenizer, prompt) = bigram(0);
    for (missing, surplus, found) in [(1, 0, [2, 1]), (0, 1, [4, 3])] {
        for (procedure, found) in PROCEDURES.into_iter().zip(found) {
            let alone = Miscounting { missing, surplus };
            let weighted: Box<dyn PrefixScorer> = Box::new(Miscounting { missing, surplus });
            let weighted = WeightedScorers::new(vec![(0.5, weighted)]).unwrap();
            for scorer in [&alone as &dyn PrefixScorer, &weighted] {
                let error = refused(&model, &tokenizer, &prompt, (procedure, scorer));
                assert!(matches!(error, DecodeError::Scorer { .. }), "{error}");
                let told = format!("it gives {found} values, but ");
                assert!(error.to_string().contains(&told), "{procedure}: {error}");
            }
        }
    }
}

#[test]
fn another_number_of_logits_than_rows_of_the_vocabulary_is_refused() {
    let (model, tokenizer, prompt) = bigram(1);
    let none = Miscounting { missing: 0, surplus: 0 };
    for (procedure, rows) in PROCEDURES.into_iter().zip([1, 2]) {
        let error = refused(&model, &tokenizer, &prompt, (procedure, &none));
        assert!(matches!(error, DecodeError::Batch { .. }), "{error}");
        let told = format!("gives {} logits in place of {rows} × 5", 5 * rows - 1);
        assert!(error.to_string().contains(&told), "{procedure}: {error}");
    }
    for missing in [1, 5] {
        let (model, tokenizer, prompt) = bigram(missing);
        let generator = Generator::new(&model, tokenizer.stops(), &sampling(), 1, "own", 1);
        let error = generator.generate(std::slice::from_ref(&prompt), 0..8).unwrap_err();
        let told = format!("gives {} logits in place of 1 × 5", 5 - missing);
        assert!(error.to_string().contains(&told), "{error}");
        let listed = responses(&model, &prompt, &sampling(), tokenizer.stops());
        assert!(listed.unwrap_err().to_string().contains("logits"));
    }
}
