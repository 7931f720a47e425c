//! Sequences of unequal length as one padded batch, with the rows of the responses picked out.

use std::borrow::Borrow;

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::tensors::indices;
use crate::{ModelError, TransformerConfig};

/// A prompt and its response as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Prompt and response, one after the other.
    pub tokens: Vec<u32>,
    /// How many of them are the prompt: at least 1.
    pub prompt_length: usize,
}

impl Sequence {
    /// The tokens of the response.
    pub fn response(&self) -> &[u32] {
        &self.tokens[self.prompt_length..]
    }
}

/// A right-padded batch. Only response tokens are ever put through the output matrix.
#[derive(Clone, Debug)]
pub struct ResponseBatch {
    /// `[batch, time]`.
    pub ids: Tensor<2, Int>,
    /// `[tokens]`: for each response token, the row of the hidden states `[batch * time]` that predicts it.
    pub rows: Tensor<1, Int>,
    /// The response tokens, sequence after sequence.
    pub targets: Vec<u32>,
    /// Response tokens of each sequence.
    pub lengths: Vec<usize>,
}

impl ResponseBatch {
    /// Pads the sequences to the longest.
    ///
    /// # Errors
    /// [`ModelError::Empty`], [`ModelError::TooLong`] and [`ModelError::Token`] for sequences that the model cannot read.
    pub fn new(
        sequences: &[impl Borrow<Sequence>],
        config: &TransformerConfig,
        device: &Device,
    ) -> Result<Self, ModelError> {
        check_sequences(sequences, config)?;
        let sequences: Vec<&Sequence> = sequences.iter().map(Borrow::borrow).collect();
        let time = sequences.iter().map(|s| s.tokens.len()).max().unwrap_or(0);
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        for (b, sequence) in sequences.iter().enumerate() {
            for t in sequence.prompt_length..sequence.tokens.len() {
                rows.push(b * time + t - 1);
                targets.push(sequence.tokens[t]);
            }
        }
        Ok(Self {
            ids: pad(sequences.iter().map(|s| s.tokens.as_slice()), time, device),
            rows: indices(&rows, device),
            targets,
            lengths: sequences.iter().map(|s| s.response().len()).collect(),
        })
    }
}

/// Refuses sequences that the model cannot read, by their indices.
pub(crate) fn check_sequences(
    sequences: &[impl Borrow<Sequence>],
    config: &TransformerConfig,
) -> Result<(), ModelError> {
    for (index, sequence) in sequences.iter().enumerate() {
        let Sequence { tokens, prompt_length }: &Sequence = sequence.borrow();
        if *prompt_length == 0 {
            return Err(ModelError::Empty { index });
        }
        check_tokens(tokens, config)?;
    }
    Ok(())
}

/// Refuses texts that are empty or do not fit the model, by their indices.
pub(crate) fn check_texts(texts: &[&[u32]], config: &TransformerConfig) -> Result<(), ModelError> {
    for (index, tokens) in texts.iter().enumerate() {
        if tokens.is_empty() {
            return Err(ModelError::Empty { index });
        }
        check_tokens(tokens, config)?;
    }
    Ok(())
}

/// Refuses tokens that the model cannot read.
fn check_tokens(tokens: &[u32], config: &TransformerConfig) -> Result<(), ModelError> {
    let (length, limit) = (tokens.len(), config.max_position_embeddings);
    if length > limit {
        return Err(ModelError::TooLong { length, limit });
    }
    let vocabulary = config.vocab_size;
    match tokens.iter().find(|&&id| id as usize >= vocabulary) {
        Some(&id) => Err(ModelError::Token { id, vocabulary }),
        None => Ok(()),
    }
}

/// Token rows of unequal length as `[batch, time]`, padded at the right with token 0.
pub(crate) fn pad<'a>(
    rows: impl ExactSizeIterator<Item = &'a [u32]>,
    time: usize,
    device: &Device,
) -> Tensor<2, Int> {
    let batch = rows.len();
    let mut ids = vec![0_i32; batch * time];
    for (b, tokens) in rows.enumerate() {
        for (slot, &token) in ids[b * time..].iter_mut().zip(tokens) {
            *slot = token as i32;
        }
    }
    Tensor::from_data(TensorData::new(ids, [batch, time]), device)
}

/// Padded tokens that one pass takes at most (a single longer sequence is a pass of its own). Passes run beside each other, one a thread.
pub const TOKENS_PER_PASS: usize = 4_096;

/// Splits sequences, in their order, into runs of at most `limit` padded tokens (a single longer sequence is a run of its own).
///
/// - `length`: tokens of a sequence.
pub fn runs<T>(items: &[T], length: impl Fn(&T) -> usize, limit: usize) -> Vec<&[T]> {
    let (mut runs, mut start, mut longest) = (Vec::new(), 0, 0);
    for (index, item) in items.iter().enumerate() {
        let next = longest.max(length(item));
        if index > start && next * (index - start + 1) > limit {
            runs.push(&items[start..index]);
            start = index;
            longest = length(item);
        } else {
            longest = next;
        }
    }
    if start < items.len() {
        runs.push(&items[start..]);
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_respect_the_limit_and_keep_every_item() {
        let lengths = [3, 3, 9, 1, 1, 1, 40];
        let runs = runs(&lengths, |l| *l, 10);
        assert_eq!(runs.concat(), lengths);
        assert_eq!(runs.iter().map(|r| r.len()).collect::<Vec<_>>(), [2, 1, 3, 1]);
    }
}
