//! What a model makes of a text, as a vector: for small heads that are fitted outside of it.

use burn::tensor::{Int, Tensor, TensorData};
use infalign_backend::in_order;

use crate::batch::{TOKENS_PER_PASS, check_tokens, pad, runs};
use crate::{CausalLm, ModelError};

impl CausalLm {
    /// The final hidden state at the last token of each text, `[texts][hidden]`. It does not depend on the other texts.
    ///
    /// # Errors
    /// [`ModelError`] for texts that are empty or do not fit the model.
    pub fn last_hidden(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, ModelError> {
        self.check_texts(texts)?;
        let model = self.valid();
        let runs = runs(texts, |text| text.len(), TOKENS_PER_PASS);
        let states =
            |run: &[&[u32]]| Ok(model.last_states(run).into_data().iter::<f32>().collect());
        let states = in_order::<_, Vec<f32>, ModelError>(&model.device(), runs, states)?;
        let width = self.config().hidden_size;
        Ok(states.iter().flat_map(|run| run.chunks(width).map(<[f32]>::to_vec)).collect())
    }

    /// Refuses texts that are empty or do not fit the model.
    pub(crate) fn check_texts(&self, texts: &[&[u32]]) -> Result<(), ModelError> {
        for (index, tokens) in texts.iter().enumerate() {
            if tokens.is_empty() {
                return Err(ModelError::Empty { index });
            }
            check_tokens(tokens, self.config())?;
        }
        Ok(())
    }

    /// The states at the last tokens of texts that are read in one pass: `[texts, hidden]`.
    pub(crate) fn last_states(&self, texts: &[&[u32]]) -> Tensor<2> {
        let time = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        let last = texts.iter().enumerate().map(|(b, text)| (b * time + text.len() - 1) as i32);
        let last = TensorData::new(last.collect::<Vec<i32>>(), [texts.len()]);
        let device = self.device();
        let ids = pad(texts.iter().copied(), time, &device);
        let last = Tensor::<1, Int>::from_data(last, &device);
        self.hidden(ids).select(0, last)
    }
}
