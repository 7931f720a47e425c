//! Generation with tensors, on any device: rows stand right-aligned in the cache, so that every row writes the same column.

use std::cell::OnceCell;
use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};
use infalign_backend::kernels;

use crate::batch::check_texts;
use crate::cache::KvCache;
use crate::positions::Positions;
use crate::tensors::{indices, numbers};
use crate::{CausalLm, LanguageModel, ModelError, Prompts, Sequence, Session, TransformerConfig};

impl LanguageModel for CausalLm {
    fn vocabulary(&self) -> usize {
        self.config.vocab_size
    }

    fn context(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn read(&self, prompts: &[&[u32]]) -> Result<Prompts, ModelError> {
        check_texts(prompts, &self.config)?;
        let time = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        self.check_rows(prompts.len(), time)?;
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

    fn cache_bytes(&self, tokens: usize) -> usize {
        let f32s = self.config.cache_bytes(tokens);
        f32s / size_of::<f32>() * self.net.embed_tokens.val().dtype().size()
    }

    fn most_rows(&self, columns: usize) -> usize {
        if infalign_backend::is_cpu(&self.device()) {
            return usize::MAX;
        }
        most_rows(&self.config, columns)
    }
}

impl CausalLm {
    fn check_rows(&self, rows: usize, columns: usize) -> Result<(), ModelError> {
        match infalign_backend::is_cpu(&self.device()) {
            true => Ok(()),
            false => check_rows(&self.config, rows, columns),
        }
    }
}

/// Refuses more rows than kernels of GPUs can count the numbers of.
fn check_rows(config: &TransformerConfig, rows: usize, columns: usize) -> Result<(), ModelError> {
    let most = most_rows(config, columns);
    if rows > most { Err(ModelError::Batch { rows, most }) } else { Ok(()) }
}

fn most_rows(config: &TransformerConfig, columns: usize) -> usize {
    kernels::MOST_NUMBERS / widest_row(config, columns)
}

/// Numbers of a row in the largest tensor of a step: logits, keys or values of a block, or what its feed-forward layer has within.
fn widest_row(config: &TransformerConfig, columns: usize) -> usize {
    let keys = (config.kv_heads() * config.head_width()).saturating_mul(columns);
    config.vocab_size.max(config.intermediate_size).max(keys)
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

/// Logits of the rows, `[rows, vocabulary]`, which stay where they are until somebody asks for them.
#[derive(Default)]
struct Logits {
    /// Those that the last push computed.
    pushed: Option<Tensor<2>>,
    /// Where each row has its own.
    rows: Vec<Place>,
    numbers: OnceCell<Vec<f32>>,
}

/// Where the logits of a row are.
#[derive(Clone)]
enum Place {
    /// In this row of what the last push computed.
    Pushed(usize),
    /// In this row of what the prompts have, one of which it continues: it has joined since.
    Read(Arc<Vec<f32>>, usize),
}

impl Logits {
    fn of(pushed: Tensor<2>) -> Self {
        let rows = (0..pushed.dims()[0]).map(Place::Pushed).collect();
        Self { pushed: Some(pushed), rows, numbers: OnceCell::new() }
    }

    /// All of them, where the last push computed them.
    fn tensor(&self) -> Option<Tensor<2>> {
        let pushed = self.pushed.as_ref()?;
        let pushed_row = |place: &Place| match place {
            Place::Pushed(row) => Some(*row),
            Place::Read(..) => None,
        };
        let rows: Vec<usize> = self.rows.iter().map(pushed_row).collect::<Option<_>>()?;
        if rows.iter().copied().eq(0..pushed.dims()[0]) {
            return Some(pushed.clone());
        }
        Some(pushed.clone().select(0, indices(&rows, &pushed.device())))
    }

    fn numbers(&self, vocabulary: usize) -> &[f32] {
        self.numbers.get_or_init(|| {
            if let Some(tensor) = self.tensor() {
                return numbers(tensor);
            }
            let pushed = self.pushed.clone().map(numbers).unwrap_or_default();
            let rows = self.rows.iter().map(|place| {
                let (all, row) = match place {
                    Place::Pushed(row) => (&pushed, *row),
                    Place::Read(prompts, prompt) => (&**prompts, *prompt),
                };
                &all[row * vocabulary..(row + 1) * vocabulary]
            });
            rows.collect::<Vec<&[f32]>>().concat()
        })
    }

    /// Those of more rows behind them, which continue the chosen prompts.
    fn join(&mut self, prompts: &Prompts, chosen: &[usize]) {
        let read = |&prompt: &usize| Place::Read(prompts.shared_logits().clone(), prompt);
        self.rows.extend(chosen.iter().map(read));
        self.numbers = OnceCell::new();
    }

    fn select(&self, rows: &[usize]) -> Self {
        // An empty batch holds nothing.
        if rows.is_empty() {
            return Self::default();
        }
        let rows = rows.iter().map(|&row| self.rows[row].clone()).collect();
        Self { pushed: self.pushed.clone(), rows, numbers: OnceCell::new() }
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

    /// Columns up to the last one filled that any row has a token in.
    fn columns(&self) -> usize {
        self.cache.length() - self.cache.starts().iter().copied().min().unwrap_or(0)
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
        let states = model.hidden_at(ids, &positions, Some(&mut self.cache));
        let width = states.dims()[1];
        self.states =
            states.reshape([rows, time, width]).narrow(1, time - 1, 1).reshape([rows, width]);
        model.net.logits(self.states.clone())
    }
}

impl Session for TransformerSession {
    fn logits(&self) -> &[f32] {
        self.logits.numbers(self.model.config.vocab_size)
    }

    fn draw(&self, how: &[[f32; 2]]) -> Option<Vec<(u32, f32)>> {
        self.logits.tensor().and_then(|logits| kernels::draw(&logits, how))
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
        self.logits = self.logits.select(rows);
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
        let read = prompts.state::<Rows>()?;
        let held = self.rows.as_ref();
        let rows = chosen.len() + held.map_or(0, |held| held.left.len());
        let room = new_tokens.max(held.map_or(0, Rows::room));
        let columns = read.columns().max(held.map_or(0, Rows::columns)).saturating_add(room);
        self.model.check_rows(rows, columns)?;
        let mut read = read.select(chosen);
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
        self.logits.join(prompts, chosen);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_as_wide_as_its_widest_tensor() {
        let config = TransformerConfig::llama(100, 8, 120, 1, 2, 64);
        assert_eq!(widest_row(&config, 3), 120);
        // A key of 8 numbers for each column.
        assert_eq!(widest_row(&config, 60), 480);
        let config = TransformerConfig { vocab_size: 900, ..config };
        assert_eq!(widest_row(&config, 60), 900);
    }

    #[test]
    fn rows_of_more_numbers_than_kernels_count_are_refused() {
        let config = TransformerConfig::llama(1_000, 8, 120, 1, 2, 64);
        check_rows(&config, 4_294_967, 60).unwrap();
        let refused = check_rows(&config, 4_294_968, 60);
        let told = ModelError::Batch { rows: 4_294_968, most: 4_294_967 };
        assert_eq!(refused.unwrap_err().to_string(), told.to_string());
        // The keys of 1,000 columns.
        check_rows(&config, 536_870, 1_000).unwrap();
        assert!(matches!(check_rows(&config, 536_871, 1_000), Err(ModelError::Batch { .. })));
    }

    #[test]
    fn logits_are_the_rows_own_and_stay_where_they_are_until_they_are_read() {
        let (config, mut k) = (TransformerConfig::llama(8, 8, 12, 1, 2, 16), 0.0_f32);
        let mut next = || {
            k += 1.0;
            30.0 * k.sin()
        };
        let device = infalign_backend::device(None).unwrap();
        let model = CausalLm::random(config, &mut next, &device).unwrap().valid();
        let read = model.read(&[&[1, 3], &[1, 4, 5]]).unwrap();
        let [a, b] = [0, 1].map(|prompt| read.logits(prompt));
        let mut session = TransformerSession { model, rows: None, logits: Logits::default() };
        session.join(&read, &[1, 0, 1], 4).unwrap();
        assert_eq!(session.logits(), [b, a, b].concat());
        session.push(&[6, 6, 7]).unwrap();
        let all = session.logits().to_vec();
        let [c, d, e] = [0, 1, 2].map(|row| &all[8 * row..8 * (row + 1)]);
        let rows = [a, b, c, d, e];
        assert!((1..5).all(|i| !rows[..i].contains(&rows[i])), "no two are alike: {rows:?}");
        session.select(&[2, 0]);
        assert_eq!(numbers(session.logits.tensor().unwrap()), [e, c].concat(), "to draw from");
        session.join(&read, &[0, 1], 4).unwrap();
        assert!(session.logits.numbers.get().is_none(), "nobody has read them");
        assert!(session.logits.tensor().is_none(), "nor are they all where the last push was");
        assert_eq!(session.logits(), [e, c, a, b].concat());
        session.select(&[3, 1, 1, 2]);
        assert!(session.logits.numbers.get().is_none(), "nor again");
        assert_eq!(session.logits(), [b, c, c, a].concat());
        session.select(&[]);
        assert!(session.logits().is_empty() && session.logits.pushed.is_none());
    }
}
