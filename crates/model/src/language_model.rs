//! What generation needs of a model: next-token logits of a growing batch.

use std::any::Any;
use std::sync::Arc;

use infalign_backend::functions::softmax_weights;

use crate::{ModelError, Sequence};

/// A model that continues prompts and scores responses.
pub trait LanguageModel: Send + Sync {
    /// Number of tokens in the vocabulary.
    fn vocabulary(&self) -> usize;

    /// Longest sequence, prompt included, in tokens.
    fn context(&self) -> usize;

    /// Reads prompts, each of them once.
    ///
    /// - `prompts`: at least one; nobody asks for none.
    ///
    /// # Errors
    /// [`ModelError`] when a prompt is empty or is nothing that the model can read; a model of one's own fails by [`ModelError::other`].
    fn read(&self, prompts: &[&[u32]]) -> Result<Prompts, ModelError>;

    /// An empty batch.
    fn session(&self) -> Box<dyn Session + '_>;

    /// log π(token | everything before it) of every response token, in nats, at temperature 1 over the whole vocabulary: a list for each
    /// sequence, in their order. Without a pass of the model's own over whole sequences, a session reads them token by token.
    ///
    /// # Errors
    /// [`ModelError`] for sequences that do not fit the model, and [`ModelError::Other`].
    fn log_probs(&self, sequences: &[Sequence]) -> Result<Vec<Vec<f32>>, ModelError> {
        let score = |(index, sequence)| token_by_token(self, index, sequence);
        sequences.iter().enumerate().map(score).collect()
    }

    /// Whether every row of a session stands for itself: it leaves at no cost, and its numbers do not depend on the rows beside it, so that
    /// sessions may run beside each other. Where nothing else is said, they run one after the other.
    fn rows_are_independent(&self) -> bool {
        false
    }

    /// What a session keeps for a sequence of so many tokens, in bytes; 0 where that limits no batch.
    fn cache_bytes(&self, tokens: usize) -> usize {
        let _ = tokens;
        0
    }

    /// The most rows that a session takes where it has so many columns: as many as its longest row has tokens, and those that rows may still take.
    fn most_rows(&self, columns: usize) -> usize {
        let _ = columns;
        usize::MAX
    }

    /// A batch with a row for each prompt, of which there is at least one; each may take `new_tokens` tokens.
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

/// The log-probabilities of a response by a session that reads it.
fn token_by_token<M: LanguageModel + ?Sized>(
    model: &M,
    index: usize,
    sequence: &Sequence,
) -> Result<Vec<f32>, ModelError> {
    let Sequence { tokens, prompt_length } = sequence;
    let (length, limit, vocabulary) = (tokens.len(), model.context(), model.vocabulary());
    if *prompt_length == 0 {
        return Err(ModelError::Empty { index });
    }
    if length > limit {
        return Err(ModelError::TooLong { length, limit });
    }
    if let Some(&id) = tokens.iter().find(|id| **id as usize >= vocabulary) {
        return Err(ModelError::Token { id, vocabulary });
    }
    let (prompt, response) = tokens.split_at((*prompt_length).min(length));
    let Some((_, pushed)) = response.split_last() else { return Ok(Vec::new()) };
    let mut session = model.start(&[prompt], response.len())?;
    let (mut log_probs, mut weights) = (Vec::with_capacity(response.len()), Vec::new());
    for (place, token) in response.iter().enumerate() {
        // Of another number of logits than tokens there is no distribution either.
        let logits = session.logits();
        let logit = logits.get(*token as usize).filter(|_| logits.len() == vocabulary);
        let logit = logit.copied().unwrap_or(f32::NAN);
        let log_prob = softmax_weights(logits, 1.0, &mut weights).log_prob(logit);
        if log_prob.is_nan() {
            return Err(ModelError::Logits { tokens: prompt.len() + place });
        }
        log_probs.push(log_prob);
        if let Some(token) = pushed.get(place) {
            session.push(&[*token])?;
        }
    }
    Ok(log_probs)
}

/// Prompts that a model has read, for any number of rows to continue.
pub struct Prompts {
    logits: Arc<Vec<f32>>,
    count: usize,
    state: Box<dyn Any + Send + Sync>,
}

impl Prompts {
    /// - `count`: number of prompts.
    /// - `logits`: after each of them, `[count, vocabulary]`; none at all where nobody draws from them.
    /// - `state`: what the model's sessions continue from.
    pub fn new<T: Any + Send + Sync>(count: usize, logits: Vec<f32>, state: T) -> Self {
        Self { logits: Arc::new(logits), count, state: Box::new(state) }
    }

    /// Logits of the first token after a prompt, `[vocabulary]`; empty where [`Prompts::new`] was given none of it.
    pub fn logits(&self, prompt: usize) -> &[f32] {
        let vocabulary = self.logits.len() / self.count.max(1);
        self.logits.chunks(vocabulary.max(1)).take(self.count).nth(prompt).unwrap_or_default()
    }

    /// Those of all prompts, for rows that continue them.
    pub(crate) fn shared_logits(&self) -> &Arc<Vec<f32>> {
        &self.logits
    }

    /// What [`Prompts::new`] was given.
    ///
    /// # Errors
    /// [`ModelError::OtherPrompts`] when it was of another type.
    pub fn state<T: 'static>(&self) -> Result<&T, ModelError> {
        self.state.downcast_ref().ok_or(ModelError::OtherPrompts)
    }
}

/// A batch of sequences in generation: rows, which [`Session::join`] appends and [`Session::select`] keeps. A new one has none.
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
    fn states(&self) -> Vec<f32> {
        Vec::new()
    }

    /// Appends one token to every row and computes the next logits.
    ///
    /// - `tokens`: of the model's vocabulary, as many as there are rows.
    ///
    /// # Errors
    /// [`ModelError::TooLong`] when a row has no more room: it was joined for fewer tokens; and [`ModelError::Other`].
    fn push(&mut self, tokens: &[u32]) -> Result<(), ModelError>;

    /// Keeps the given rows in the given order. A row may be repeated: so several continue from the same place.
    ///
    /// - `rows`: each below the number of rows that there are; none empties the batch.
    fn select(&mut self, rows: &[usize]);

    /// Appends rows that continue the given prompts, each of which may be named more than once: so K responses share the pass over their
    /// prompt. Each may take `new_tokens` tokens. The rows that are there already stay before them.
    ///
    /// - `prompts`: what [`LanguageModel::read`] of the same model returned.
    /// - `chosen`: each below the number of prompts; none appends nothing.
    ///
    /// # Errors
    /// [`ModelError::TooLong`] when a prompt and the new tokens do not fit the model, and [`ModelError::Batch`] when there are more rows than
    /// [`LanguageModel::most_rows`]; then the batch stays as it was. And [`ModelError::Other`].
    fn join(
        &mut self,
        prompts: &Prompts,
        chosen: &[usize],
        new_tokens: usize,
    ) -> Result<(), ModelError>;
}
