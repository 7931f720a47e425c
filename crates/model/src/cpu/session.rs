//! Generation and scoring on the CPU.

use rayon::prelude::*;

use super::model::{CpuModel, Scratch, Token};
use super::row::Row;
use crate::batch::{check_sequences, check_texts};
use crate::{LanguageModel, ModelError, Prompts, Sequence, Session};

impl LanguageModel for CpuModel {
    fn vocabulary(&self) -> usize {
        self.config.vocab_size
    }

    fn context(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn read(&self, prompts: &[&[u32]]) -> Result<Prompts, ModelError> {
        check_texts(prompts, &self.config)?;
        let mut read = Vec::with_capacity(prompts.len());
        let (mut logits, mut scratch) = (Vec::new(), Scratch::default());
        for prompt in prompts {
            let mut row = [Row::default()];
            let hidden = self.pass(&mut row, prompt, &mut scratch);
            let state = hidden[hidden.len() - self.config.hidden_size..].to_vec();
            if !self.states_only {
                logits.extend(self.logits(&state));
            }
            let [mut row] = row;
            row.share();
            read.push(ReadPrompt { row, state });
        }
        Ok(Prompts::new(prompts.len(), logits, read))
    }

    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(CpuSession {
            model: self,
            rows: Vec::new(),
            left: Vec::new(),
            logits: Vec::new(),
            states: Vec::new(),
            scratch: Scratch::default(),
        })
    }

    fn log_probs(&self, sequences: &[Sequence]) -> Result<Vec<Vec<f32>>, ModelError> {
        check_sequences(sequences, &self.config)?;
        let score = |Sequence { tokens, prompt_length }: &Sequence| {
            let Some((_, read)) = tokens.split_last() else { return Ok(Vec::new()) };
            if *prompt_length > read.len() {
                return Ok(Vec::new());
            }
            let hidden = self.pass(&mut [Row::default()], read, &mut Scratch::default());
            let predicting = &hidden[(prompt_length - 1) * self.config.hidden_size..];
            let log_probs = self.log_probs(predicting, &tokens[*prompt_length..]);
            if log_probs.iter().any(|log_prob| log_prob.is_nan()) {
                return Err(ModelError::Logits { tokens: tokens.len() });
            }
            Ok(log_probs)
        };
        sequences.par_iter().map(score).collect()
    }

    fn rows_are_independent(&self) -> bool {
        true
    }

    fn cache_bytes(&self, tokens: usize) -> usize {
        self.config.cache_bytes(tokens)
    }
}

impl CpuModel {
    /// Reads a sequence into an empty row: hidden states `[tokens, hidden]`.
    fn pass(&self, row: &mut [Row; 1], ids: &[u32], scratch: &mut Scratch) -> Vec<f32> {
        row[0].reserve(self.layers(), self.key_width(), ids.len(), ids.len());
        let token =
            |(position, &id): (usize, &u32)| Token { id, row: 0, position, ahead: position };
        let tokens: Vec<Token> = ids.iter().enumerate().map(token).collect();
        let hidden = self.hidden(row, &tokens, scratch);
        row[0].advance(ids.len());
        hidden
    }
}

/// A prompt that has been read.
struct ReadPrompt {
    row: Row,
    /// Hidden state of its last token, `[hidden]`.
    state: Vec<f32>,
}

/// A batch of rows, each with a cache of its own.
struct CpuSession<'a> {
    model: &'a CpuModel,
    rows: Vec<Row>,
    /// Tokens that each row may still take.
    left: Vec<usize>,
    logits: Vec<f32>,
    /// Hidden states of the last tokens, `[rows, hidden]`.
    states: Vec<f32>,
    scratch: Scratch,
}

impl Session for CpuSession<'_> {
    fn logits(&self) -> &[f32] {
        &self.logits
    }

    fn states(&self) -> Vec<f32> {
        self.states.clone()
    }

    fn push(&mut self, tokens: &[u32]) -> Result<(), ModelError> {
        let Self { model, rows, left, scratch, .. } = self;
        let mut read = Vec::with_capacity(tokens.len());
        for (index, (row, left)) in rows.iter_mut().zip(left.iter_mut()).enumerate() {
            let position = row.length();
            let Some(fewer) = left.checked_sub(1) else {
                return Err(ModelError::TooLong { length: position + 1, limit: position });
            };
            row.reserve(model.layers(), model.key_width(), 1, *left);
            read.push(Token { id: tokens[index], row: index, position, ahead: 0 });
            *left = fewer;
        }
        self.states = model.hidden(rows, &read, scratch);
        rows.iter_mut().for_each(|row| row.advance(1));
        if !model.states_only {
            self.logits = model.logits(&self.states);
        }
        Ok(())
    }

    fn select(&mut self, rows: &[usize]) {
        self.logits = chosen_rows(&self.logits, self.rows.len(), rows);
        self.states = chosen_rows(&self.states, self.rows.len(), rows);
        self.left = rows.iter().map(|&r| self.left[r]).collect();
        let mut uses = vec![0_usize; self.rows.len()];
        rows.iter().for_each(|&r| uses[r] += 1);
        let mut taken = Vec::with_capacity(rows.len());
        for &r in rows {
            uses[r] -= 1;
            let row = &mut self.rows[r];
            taken.push(if uses[r] == 0 { std::mem::take(row) } else { row.fork() });
        }
        self.rows = taken;
    }

    fn join(
        &mut self,
        prompts: &Prompts,
        chosen: &[usize],
        new_tokens: usize,
    ) -> Result<(), ModelError> {
        let read: &Vec<ReadPrompt> = prompts.state()?;
        let limit = self.model.context();
        for &prompt in chosen {
            let length = read[prompt].row.length().saturating_add(new_tokens);
            if length > limit {
                return Err(ModelError::TooLong { length, limit });
            }
        }
        self.rows.extend(chosen.iter().map(|&prompt| read[prompt].row.clone()));
        chosen.iter().for_each(|&prompt| self.states.extend_from_slice(&read[prompt].state));
        self.left.extend(chosen.iter().map(|_| new_tokens));
        chosen.iter().for_each(|&row| self.logits.extend_from_slice(prompts.logits(row)));
        Ok(())
    }
}

/// Some of `count` rows that lie one after the other.
fn chosen_rows(values: &[f32], count: usize, chosen: &[usize]) -> Vec<f32> {
    let width = values.len() / count.max(1);
    chosen.iter().flat_map(|&r| values[r * width..(r + 1) * width].iter().copied()).collect()
}
