//! What a model has to say of tokens that fit it.

use infalign_model::{LanguageModel, ModelError, Sequence};

/// Reads a sequence with a model of any finite weights.
///
/// # Panics
/// Unless the log-probabilities are finite, or are refused because the weights are too large for the logits to be.
pub fn check_log_probs(model: &dyn LanguageModel, sequence: &Sequence) {
    match model.log_probs(std::slice::from_ref(sequence)) {
        Ok(log_probs) => {
            assert!(log_probs[0].iter().all(|value| value.is_finite()), "{log_probs:?}")
        }
        Err(error) => assert!(matches!(error, ModelError::Logits { .. }), "{error}"),
    }
}
