//! What a model makes of a text, as a vector: for small heads that are fitted outside of it.

use burn::tensor::Tensor;
use infalign_backend::in_order;

use crate::batch::{TOKENS_PER_PASS, check_texts, pad, runs};
use crate::tensors::{indices, numbers};
use crate::{CausalLm, ModelError};

impl CausalLm {
    /// The final hidden state at the last token of each text, `[texts][hidden]`. It does not depend on the other texts.
    ///
    /// # Errors
    /// [`ModelError`] for texts that are empty or do not fit the model.
    pub fn last_hidden(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, ModelError> {
        check_texts(texts, &self.config)?;
        let model = self.valid();
        let runs = runs(texts, |text| text.len(), TOKENS_PER_PASS);
        let states = |run: &[&[u32]]| Ok(numbers(model.last_states(run)));
        let states = in_order::<_, Vec<f32>, ModelError>(&model.device(), runs, states)?;
        let width = self.config().hidden_size;
        Ok(states.iter().flat_map(|run| run.chunks(width).map(<[f32]>::to_vec)).collect())
    }

    /// The states at the last tokens of texts that are read in one pass: `[texts, hidden]`.
    pub(crate) fn last_states(&self, texts: &[&[u32]]) -> Tensor<2> {
        let time = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        let last = texts.iter().enumerate().map(|(b, text)| b * time + text.len() - 1);
        let device = self.device();
        let ids = pad(texts.iter().copied(), time, &device);
        self.hidden(ids).select(0, indices(&last.collect::<Vec<_>>(), &device))
    }
}
