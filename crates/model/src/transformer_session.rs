//! Generation with tensors, on any device: rows stand right-aligned in the cache, so that every row writes the same column.

use std::cell::OnceCell;

use burn::tensor::{DType, Int, Tensor, TensorData};
use infalign_backend::kernels;

use crate::attention::{Context, View};
use crate::batch::check_tokens;
use crate::cache::{KvCache, indices};
use crate::positions::Positions;
use crate::{CausalLm, LanguageModel, ModelError, Prompts, Sequence, Session};

impl LanguageModel for CausalLm {
    fn vocabulary(&self) -> usize {
        self.config.vocab_size
    }

    fn context(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn read(&self, prompts: &[&[u32]]) -> Result<Prompts, ModelError> {
        for (index, prompt) in prompts.iter().enumerate() {
            if prompt.is_empty() {
                return Err(ModelError::Empty { index });
            }
            check_tokens(prompt, &self.config)?;
        }
        let time = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        let model = self.valid();
        let mut rows = Rows {
            cache: KvCache::new(
                &model.config,
                prompts.iter().map(|prompt| time - prompt.len()).collect(),
                time,
                (&model.device(), model.net.embed_tokens.val().dtype()),
            ),
            left: vec![0; prompts.len()],
            states: Tensor::zeros([prompts.len(), model.config.hidden_size], &model.device()),
        };
        let padded = |prompt: &&[u32]| {
            let padding = std::iter::repeat_n(0, time - prompt.len());
            padding.chain(prompt.iter().map(|&id| id as i32)).collect::<Vec<i32>>()
        };
        let logits = rows.forward(&model, prompts.iter().flat_map(padded).collect(), time);
        Ok(Prompts::new(prompts.len(), numbers(logits), rows))
    }

    fn session(&self) -> Box<dyn Session + '_> {
        let model = self.valid();
        Box::new(TransformerSession { model, rows: None, logits: Logits::default() })
    }

    fn log_probs(&self, sequences: &[Sequence]) -> Result<Vec<Vec<f32>>, ModelError> {
        CausalLm::log_probs(self, sequences)
    }

    fn rows_are_independent(&self) -> bool {
        false
    }

    fn cache_bytes(&self, tokens: usize) -> usize {
        let f32s = self.config.cache_bytes(tokens);
        f32s / size_of::<f32>() * self.net.embed_tokens.val().dtype().size()
    }
}

/// Sequences and their cache.
#[derive(Clone)]
struct Rows {
    cache: KvCache,
    /// Tokens that each row may still take.
    left: Vec<usize>,
    /// Hidden states of the last column, `[rows, hidden]`.
    states: Tensor<2>,
}

/// A batch in generation; None as long as it has no row.
struct TransformerSession {
    model: CausalLm,
    rows: Option<Rows>,
    logits: Logits,
}

/// Logits of the rows, `[rows, vocabulary]`, on the device until somebody asks for them.
#[derive(Default)]
struct Logits {
    tensor: Option<Tensor<2>>,
    numbers: OnceCell<Vec<f32>>,
}

impl Logits {
    fn of(tensor: Tensor<2>) -> Self {
        Self { tensor: Some(tensor), numbers: OnceCell::new() }
    }

    fn numbers(&self) -> &[f32] {
        self.numbers.get_or_init(|| self.tensor.clone().map(numbers).unwrap_or_default())
    }

    /// With those of more rows behind them.
    fn extended<'a>(&self, more: impl Iterator<Item = &'a [f32]>) -> Self {
        let mut all = self.numbers().to_vec();
        more.for_each(|row| all.extend_from_slice(row));
        Self { tensor: None, numbers: OnceCell::from(all) }
    }

    fn select(&self, rows: &[usize], vocabulary: usize) -> Self {
        if let (Some(tensor), None) = (&self.tensor, self.numbers.get()) {
            return Self::of(tensor.clone().select(0, indices(rows, &tensor.device())));
        }
        let all = self.numbers();
        let row = |&r: &usize| all[r * vocabulary..(r + 1) * vocabulary].iter().copied();
        Self {
            tensor: None,
            numbers: OnceCell::from(rows.iter().flat_map(row).collect::<Vec<_>>()),
        }
    }
}

impl Rows {
    /// The given rows, without the columns that are none of theirs.
    fn select(&self, rows: &[usize]) -> Self {
        Self {
            cache: self.cache.select(rows),
            left: rows.iter().map(|&row| self.left[row]).collect(),
            states: self.states.clone().select(0, indices(rows, &self.states.device())),
        }
    }

    /// Columns that the rows may still take.
    fn room(&self) -> usize {
        self.left.iter().copied().max().unwrap_or(0)
    }

    /// The rows of both, those of `other` last.
    fn join(&self, other: &Self) -> Self {
        Self {
            cache: self.cache.join(&other.cache, self.room().max(other.room())),
            left: [self.left.as_slice(), &other.left].concat(),
            states: Tensor::cat(vec![self.states.clone(), other.states.clone()], 0),
        }
    }

    /// Runs `time` new columns, ids row-major `[rows, time]`, and returns the last column's logits `[rows, vocabulary]`.
    fn forward(&mut self, model: &CausalLm, ids: Vec<i32>, time: usize) -> Tensor<2> {
        let rows = self.left.len();
        let device = model.device();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [rows, time]), &device);
        let (starts, filled) = (self.cache.starts(), self.cache.length());
        let positions = Positions::of_rows(starts, filled, time, &device);
        let [full, local] = model.angles(&positions);
        let context = Context {
            positions: &positions,
            full: View { angles: full.as_ref(), window: None },
            windowed: View { angles: local.as_ref(), window: model.window() },
        };
        let states = model.net.hidden(ids, &context, Some(&mut self.cache));
        let width = states.dims()[1];
        self.states =
            states.reshape([rows, time, width]).narrow(1, time - 1, 1).reshape([rows, width]);
        model.net.logits(self.states.clone())
    }
}

/// The numbers of a tensor, one by one only where they are not f32 already.
fn numbers(tensor: Tensor<2>) -> Vec<f32> {
    let numbers = tensor.cast(DType::F32).into_data().try_into_vec();
    numbers.unwrap_or_else(|error| unreachable!("f32 were asked for: {error}"))
}

impl Session for TransformerSession {
    fn logits(&self) -> &[f32] {
        self.logits.numbers()
    }

    fn draw(&self, how: &[[f32; 2]]) -> Option<Vec<(u32, f32)>> {
        self.logits.tensor.as_ref().and_then(|logits| kernels::draw(logits, how))
    }

    fn states(&self) -> Vec<f32> {
        self.rows.as_ref().map(|rows| numbers(rows.states.clone())).unwrap_or_default()
    }

    fn push(&mut self, tokens: &[u32]) -> Result<(), ModelError> {
        let Some(rows) = &mut self.rows else { return Ok(()) };
        let full = |(start, left): (&usize, &usize)| (*left == 0).then_some(*start);
        if let Some(start) = rows.cache.starts().iter().zip(&rows.left).find_map(full) {
            let limit = rows.cache.length() - start;
            return Err(ModelError::TooLong { length: limit + 1, limit });
        }
        rows.left.iter_mut().for_each(|left| *left -= 1);
        let ids = tokens.iter().map(|&t| t as i32).collect();
        // Not held beside the next.
        self.logits = Logits::default();
        self.logits = Logits::of(rows.forward(&self.model, ids, 1));
        Ok(())
    }

    fn select(&mut self, rows: &[usize]) {
        self.logits = self.logits.select(rows, self.model.config.vocab_size);
        self.rows = self.rows.take().filter(|_| !rows.is_empty()).map(|own| own.select(rows));
    }

    fn join(
        &mut self,
        prompts: &Prompts,
        chosen: &[usize],
        new_tokens: usize,
    ) -> Result<(), ModelError> {
        if chosen.is_empty() {
            return Ok(());
        }
        let mut read = prompts.state::<Rows>()?.select(chosen);
        let (length, limit) =
            (read.cache.length().saturating_add(new_tokens), self.model.context());
        if length > limit {
            return Err(ModelError::TooLong { length, limit });
        }
        read.left = vec![new_tokens; chosen.len()];
        self.rows = Some(match self.rows.take() {
            Some(rows) => {
                let all: Vec<usize> = (0..rows.left.len()).collect();
                rows.select(&all).join(&read)
            }
            None => Rows { cache: read.cache.with_room(new_tokens), ..read },
        });
        self.logits = self.logits.extended(chosen.iter().map(|&row| prompts.logits(row)));
        Ok(())
    }
}
