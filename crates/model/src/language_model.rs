//! What generation needs of a model: next-token logits of a growing batch.

use std::any::Any;

use crate::{ModelError, Sequence};

/// A model that continues prompts and scores responses.
pub trait LanguageModel: Send + Sync {
    /// Number of tokens in the vocabulary.
    fn vocabulary(&self) -> usize;

    /// Longest sequence, prompt included, in tokens.
    fn context(&self) -> usize;

    /// Reads prompts, each of them once.
    ///
    /// # Errors
    /// [`ModelError`] when a prompt is empty or is nothing that the model can read.
    fn read(&self, prompts: &[&[u32]]) -> Result<Prompts, ModelError>;

    /// An empty batch.
    fn session(&self) -> Box<dyn Session + '_>;

    /// log π(token | everything before it) of every response token, in nats, at temperature 1 over the whole vocabulary.
    ///
    /// # Errors
    /// [`ModelError`] for sequences that do not fit the model.
    fn log_probs(&self, sequences: &[Sequence]) -> Result<Vec<Vec<f32>>, ModelError>;

    /// Whether every row of a session stands for itself: it leaves at no cost, and its numbers do not depend on the rows beside it, so that
    /// sessions may run beside each other.
    fn rows_are_independent(&self) -> bool;

    /// What a session keeps for a sequence of so many tokens, in bytes.
    fn cache_bytes(&self, tokens: usize) -> usize;

    /// A batch with a row for each prompt, which may take `new_tokens` tokens.
    ///
    /// # Errors
    /// As [`LanguageModel::read`] and [`Session::join`].
    fn start(
        &self,
        prompts: &[&[u32]],
        new_tokens: usize,
    ) -> Result<Box<dyn Session + '_>, ModelError> {
        let read = self.read(prompts)?;
        let mut session = self.session();
        session.join(&read, &(0..prompts.len()).collect::<Vec<_>>(), new_tokens)?;
        Ok(session)
    }
}

/// Prompts that a model has read, for any number of rows to continue.
pub struct Prompts {
    logits: Vec<f32>,
    count: usize,
    state: Box<dyn Any + Send + Sync>,
}

impl Prompts {
    /// - `count`: number of prompts.
    /// - `logits`: after each of them, `[count, vocabulary]`.
    /// - `state`: what the model's sessions continue from.
    pub fn new<T: Any + Send + Sync>(count: usize, logits: Vec<f32>, state: T) -> Self {
        Self { logits, count, state: Box::new(state) }
    }

    /// Logits of the first token after a prompt, `[vocabulary]`.
    pub fn logits(&self, prompt: usize) -> &[f32] {
        let vocabulary = self.logits.len() / self.count;
        &self.logits[prompt * vocabulary..(prompt + 1) * vocabulary]
    }

    /// What [`Prompts::new`] was given.
    ///
    /// # Errors
    /// [`ModelError::OtherPrompts`] when it was of another type.
    pub fn state<T: 'static>(&self) -> Result<&T, ModelError> {
        self.state.downcast_ref().ok_or(ModelError::OtherPrompts)
    }
}

/// A batch of sequences in generation.
pub trait Session: Send {
    /// Logits of each row's next token, row-major `[rows, vocabulary]`.
    fn logits(&self) -> &[f32];

    /// Each row's next token and its log-probability, drawn where the logits lie, so that [`Session::logits`] need not be fetched from there.
    /// None: such a session has them at hand.
    ///
    /// - `how`: of each row a number in [0, 1), at which the cumulative distribution over the whole vocabulary is inverted, and the temperature.
    fn draw(&self, how: &[[f32; 2]]) -> Option<Vec<(u32, f32)>> {
        let _ = how;
        None
    }

    /// Final hidden state of each row's last token, row-major `[rows, hidden]`; empty for a model that has none.
    fn states(&self) -> Vec<f32>;

    /// Appends one token to every row and computes the next logits.
    ///
    /// # Errors
    /// [`ModelError::TooLong`] when a row has no more room: it was joined for fewer tokens.
    fn push(&mut self, tokens: &[u32]) -> Result<(), ModelError>;

    /// Keeps the given rows in the given order. A row may be repeated: so several continue from the same place.
    fn select(&mut self, rows: &[usize]);

    /// Appends rows that continue the given prompts, each of which may be named more than once: so K responses share the pass over their
    /// prompt. Each may take `new_tokens` tokens.
    ///
    /// # Errors
    /// [`ModelError::TooLong`] when a prompt and the new tokens do not fit the model; then the batch stays as it was.
    fn join(
        &mut self,
        prompts: &Prompts,
        chosen: &[usize],
        new_tokens: usize,
    ) -> Result<(), ModelError>;
}
