//! Generation with tensors, on any device: rows stand right-aligned in the cache, so that every row writes the same column.

use burn::tensor::{Bool, Int, Tensor, TensorData};

use crate::attention::{Context, Mask, View};
use crate::batch::check_tokens;
use crate::cache::KvCache;
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
                prompts.len(),
                time,
                (&model.device(), model.net.embed_tokens.val().dtype()),
            ),
            starts: prompts.iter().map(|prompt| time - prompt.len()).collect(),
            left: vec![0; prompts.len()],
            states: Tensor::zeros([prompts.len(), model.config.hidden_size], &model.device()),
        };
        let padded = |prompt: &&[u32]| {
            let padding = std::iter::repeat_n(0, time - prompt.len());
            padding.chain(prompt.iter().map(|&id| id as i32)).collect::<Vec<i32>>()
        };
        let logits = rows.forward(&model, prompts.iter().flat_map(padded).collect(), time);
        Ok(Prompts::new(prompts.len(), logits, rows))
    }

    fn session(&self) -> Box<dyn Session + '_> {
        let model = self.valid();
        Box::new(TransformerSession { model, rows: None, logits: Vec::new() })
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
    /// First real column of each row.
    starts: Vec<usize>,
    /// Tokens that each row may still take.
    left: Vec<usize>,
    /// Hidden states of the last column, `[rows, hidden]`.
    states: Tensor<2>,
}

/// A batch in generation; None as long as it has no row.
struct TransformerSession {
    model: CausalLm,
    rows: Option<Rows>,
    logits: Vec<f32>,
}

impl Rows {
    /// The given rows, without the columns that are none of theirs.
    fn select(&self, rows: &[usize]) -> Self {
        let first = rows.iter().map(|&row| self.starts[row]).min().unwrap_or(0);
        Self {
            cache: self.cache.select(rows, first),
            starts: rows.iter().map(|&row| self.starts[row] - first).collect(),
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
        let cache = self.cache.join(&other.cache, self.room().max(other.room()));
        let moved = |rows: &Self| {
            let by = cache.length() - rows.cache.length();
            rows.starts.iter().map(|start| start + by).collect::<Vec<usize>>()
        };
        let starts = [moved(self), moved(other)].concat();
        let states = Tensor::cat(vec![self.states.clone(), other.states.clone()], 0);
        Self { cache, starts, left: [self.left.as_slice(), &other.left].concat(), states }
    }

    /// Runs `time` new columns, ids row-major `[rows, time]`, and returns the last column's logits `[rows, vocabulary]`.
    fn forward(&mut self, model: &CausalLm, ids: Vec<i32>, time: usize) -> Vec<f32> {
        let rows = self.starts.len();
        let filled = self.cache.length();
        let device = model.device();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [rows, time]), &device);
        let padded = self.starts.iter().any(|&start| start > 0);
        let positions = Positions::of_rows(&self.starts, filled, time, &device);
        let [rotation, local] = model.rotations(&positions);
        let window = model.window().filter(|window| filled + time > *window);
        let mask = |window| self.mask(filled, time, window, model);
        let hidden = (padded || time > 1).then(|| mask(None));
        let windowed = match window {
            Some(window) => Some(mask(Some(window))),
            None => hidden.clone(),
        };
        let context = Context {
            positions: &positions,
            full: View { rotation: rotation.as_ref(), mask: Mask::Hidden(hidden.map(Box::new)) },
            windowed: View { rotation: local.as_ref(), mask: Mask::Hidden(windowed.map(Box::new)) },
        };
        let states = model.net.hidden(ids, &context, Some(&mut self.cache));
        let width = states.dims()[1];
        self.states =
            states.reshape([rows, time, width]).narrow(1, time - 1, 1).reshape([rows, width]);
        model.net.logits(self.states.clone()).into_data().iter::<f32>().collect()
    }

    /// True where a key is hidden from a new column: later columns, those that the window has left behind, and a row's padding (which sees
    /// only itself). `[rows, 1, time, keys]`.
    fn mask(
        &self,
        filled: usize,
        time: usize,
        window: Option<usize>,
        model: &CausalLm,
    ) -> Tensor<4, Bool> {
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
        let data = TensorData::new(hidden, [self.starts.len(), 1, time, keys]);
        Tensor::from_data(data, &model.device())
    }
}

impl Session for TransformerSession {
    fn logits(&self) -> &[f32] {
        &self.logits
    }

    fn states(&self) -> Vec<f32> {
        let states = self.rows.as_ref().map(|rows| rows.states.clone().into_data());
        states.map(|states| states.iter::<f32>().collect()).unwrap_or_default()
    }

    fn push(&mut self, tokens: &[u32]) -> Result<(), ModelError> {
        let Some(rows) = &mut self.rows else { return Ok(()) };
        let full = |(start, left): (&usize, &usize)| (*left == 0).then_some(*start);
        if let Some(start) = rows.starts.iter().zip(&rows.left).find_map(full) {
            let limit = rows.cache.length() - start;
            return Err(ModelError::TooLong { length: limit + 1, limit });
        }
        rows.left.iter_mut().for_each(|left| *left -= 1);
        let ids = tokens.iter().map(|&t| t as i32).collect();
        self.logits = rows.forward(&self.model, ids, 1);
        Ok(())
    }

    fn select(&mut self, rows: &[usize]) {
        let vocabulary = self.model.config.vocab_size;
        let logits = |&r: &usize| self.logits[r * vocabulary..(r + 1) * vocabulary].iter().copied();
        self.logits = rows.iter().flat_map(logits).collect();
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
                let all: Vec<usize> = (0..rows.starts.len()).collect();
                rows.select(&all).join(&read)
            }
            None => Rows { cache: read.cache.with_room(new_tokens), ..read },
        });
        chosen.iter().for_each(|&row| self.logits.extend_from_slice(prompts.logits(row)));
        Ok(())
    }
}

/// Row numbers as a tensor.
fn indices(rows: &[usize], device: &burn::tensor::Device) -> Tensor<1, Int> {
    let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let count = rows.len();
    Tensor::from_data(TensorData::new(rows, [count]), device)
}
