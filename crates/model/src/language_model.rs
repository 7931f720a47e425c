//! What generation needs of a model: next-token logits of a growing batch.

use burn::tensor::{Bool, Int, Tensor, TensorData};

use crate::attention::{Context, View};
use crate::batch::check_tokens;
use crate::positions::Positions;
use crate::{CausalLm, KvCache, ModelError, Sequence};

/// A model that continues prompts and scores responses.
pub trait LanguageModel: Send + Sync {
    /// Number of tokens in the vocabulary.
    fn vocabulary(&self) -> usize;

    /// Longest sequence, prompt included, in tokens.
    fn context(&self) -> usize;

    /// Reads the prompts, one row each, and prepares for at most `new_tokens` more a row.
    ///
    /// # Errors
    /// [`ModelError`] when a prompt is empty or does not fit the model together with `new_tokens`.
    fn start<'a>(
        &'a self,
        prompts: &[&[u32]],
        new_tokens: usize,
    ) -> Result<Box<dyn Session + 'a>, ModelError>;

    /// log π(token | everything before it) of every response token, in nats, at temperature 1 over the whole vocabulary.
    ///
    /// # Errors
    /// [`ModelError`] for sequences that do not fit the model.
    fn log_probs(&self, sequences: &[Sequence]) -> Result<Vec<Vec<f32>>, ModelError>;
}

/// A batch of sequences in generation.
pub trait Session {
    /// Logits of each row's next token, row-major `[rows, vocabulary]`.
    fn logits(&self) -> &[f32];

    /// Appends one token to every row and computes the next logits.
    ///
    /// # Errors
    /// [`ModelError`] when more tokens are pushed than the session was started for.
    fn push(&mut self, tokens: &[u32]) -> Result<(), ModelError>;

    /// Keeps the given rows in the given order. A row may be repeated: so K responses share the pass over their prompt.
    fn select(&mut self, rows: &[usize]);
}

impl LanguageModel for CausalLm {
    fn vocabulary(&self) -> usize {
        self.config.vocab_size
    }

    fn context(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn start<'a>(
        &'a self,
        prompts: &[&[u32]],
        new_tokens: usize,
    ) -> Result<Box<dyn Session + 'a>, ModelError> {
        Ok(Box::new(TransformerSession::start(self.valid(), prompts, new_tokens)?))
    }

    fn log_probs(&self, sequences: &[Sequence]) -> Result<Vec<Vec<f32>>, ModelError> {
        CausalLm::log_probs(self, sequences)
    }
}

/// A session on a transformer: prompts stand right-aligned in the cache, so that every row writes the same column.
struct TransformerSession {
    model: CausalLm,
    cache: KvCache,
    /// First real column of each row.
    starts: Vec<usize>,
    logits: Vec<f32>,
}

impl TransformerSession {
    fn start(model: CausalLm, prompts: &[&[u32]], new_tokens: usize) -> Result<Self, ModelError> {
        let time = prompts.iter().map(|p| p.len()).max().unwrap_or(0);
        for (index, prompt) in prompts.iter().enumerate() {
            if prompt.is_empty() {
                return Err(ModelError::Empty { index });
            }
            check_tokens(prompt, &model.config)?;
        }
        let (length, limit) =
            (time.saturating_add(new_tokens), model.config.max_position_embeddings);
        if length > limit {
            return Err(ModelError::TooLong { length, limit });
        }
        let device = model.device();
        let cache = KvCache::new(&model.config, prompts.len(), time + new_tokens, &device);
        let starts = prompts.iter().map(|p| time - p.len()).collect();
        let mut session = Self { model, cache, starts, logits: Vec::new() };
        let mut ids = Vec::with_capacity(prompts.len() * time);
        for prompt in prompts {
            ids.extend(
                std::iter::repeat_n(0, time - prompt.len()).chain(prompt.iter().map(|&t| t as i32)),
            );
        }
        session.forward(ids, time);
        Ok(session)
    }

    /// Runs `time` new columns, ids row-major `[rows, time]`, and keeps the last column's logits.
    fn forward(&mut self, ids: Vec<i32>, time: usize) {
        let rows = self.starts.len();
        let filled = self.cache.length();
        let device = self.model.device();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [rows, time]), &device);
        let padded = self.starts.iter().any(|&start| start > 0);
        let positions = Positions::of_rows(&self.starts, filled, time, &device);
        let [rotation, local] = self.model.rotations(&positions);
        let window = self.model.window().filter(|window| filled + time > *window);
        let hidden = (padded || time > 1).then(|| self.mask(filled, time, None));
        let windowed = match window {
            Some(window) => Some(self.mask(filled, time, Some(window))),
            None => hidden.clone(),
        };
        let context = Context {
            positions: &positions,
            full: View { rotation: rotation.as_ref(), hidden },
            windowed: View { rotation: local.as_ref(), hidden: windowed },
        };
        let states = self.model.net.hidden(ids, &context, Some(&mut self.cache));
        let width = states.dims()[1];
        let last =
            states.reshape([rows, time, width]).narrow(1, time - 1, 1).reshape([rows, width]);
        self.logits = self.model.net.logits(last).into_data().iter::<f32>().collect();
    }

    /// True where a key is hidden from a new column: later columns, those that the window has left behind, and a row's padding (which sees
    /// only itself). `[rows, 1, time, keys]`.
    fn mask(&self, filled: usize, time: usize, window: Option<usize>) -> Tensor<4, Bool> {
        let keys = filled + time;
        let mut hidden = Vec::with_capacity(self.starts.len() * time * keys);
        for &start in &self.starts {
            for column in filled..keys {
                let first = window.map_or(0, |window| (column + 1).saturating_sub(window));
                hidden
                    .extend((0..keys).map(|key| {
                        key > column || ((key < start || key < first) && key != column)
                    }));
            }
        }
        Tensor::from_data(
            TensorData::new(hidden, [self.starts.len(), 1, time, keys]),
            &self.model.device(),
        )
    }
}

impl Session for TransformerSession {
    fn logits(&self) -> &[f32] {
        &self.logits
    }

    fn push(&mut self, tokens: &[u32]) -> Result<(), ModelError> {
        let (length, limit) = (self.cache.length() + 1, self.cache.capacity());
        if length > limit {
            return Err(ModelError::TooLong { length, limit });
        }
        self.forward(tokens.iter().map(|&t| t as i32).collect(), 1);
        Ok(())
    }

    fn select(&mut self, rows: &[usize]) {
        let ids: Vec<i32> = rows.iter().map(|&r| r as i32).collect();
        let ids =
            Tensor::<1, Int>::from_data(TensorData::new(ids, [rows.len()]), &self.model.device());
        self.cache.select(ids);
        self.starts = rows.iter().map(|&r| self.starts[r]).collect();
        let vocabulary = self.model.config.vocab_size;
        self.logits = rows
            .iter()
            .flat_map(|&r| self.logits[r * vocabulary..(r + 1) * vocabulary].iter().copied())
            .collect();
    }
}
