//! What a prefix scorer is trained on.

use infalign_model::{LanguageModel, Sequence};

use crate::TrainError;

/// A response with its rewards.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredResponse {
    /// The prompt and the response.
    pub sequence: Sequence,
    /// r of each head.
    pub rewards: Vec<f32>,
}

/// What a prefix scorer is trained on.
#[derive(Clone, Copy)]
pub struct ScorerData<'a> {
    /// p: responses are its own for CD-FUDGE, targets sum over its next tokens for CD-Q, and a scorer without a trunk reads its states.
    pub base: &'a dyn LanguageModel,
    /// The responses, none of them empty. One that goes on where those of p end would be valued for more than p writes.
    pub responses: &'a [ScoredResponse],
    /// Responses of p, whose loss under CD-FUDGE chooses the checkpoint that is kept, whatever the method; the last is kept, where there are
    /// none.
    pub validation: &'a [ScoredResponse],
}

impl ScorerData<'_> {
    pub(super) fn check(&self, heads: usize) -> Result<(), TrainError> {
        if self.responses.is_empty() {
            return Err(TrainError::Data("a prefix scorer needs responses to learn from".into()));
        }
        check(self.responses, heads)?;
        check(self.validation, heads)
    }
}

/// Refuses responses that are empty, or whose rewards are not one number for each head.
pub(super) fn check(responses: &[ScoredResponse], heads: usize) -> Result<(), TrainError> {
    for ScoredResponse { sequence, rewards } in responses {
        if sequence.prompt_length >= sequence.tokens.len() {
            return Err(TrainError::Data("a response for a prefix scorer is empty".into()));
        }
        if rewards.len() != heads || rewards.iter().any(|reward| !reward.is_finite()) {
            return Err(TrainError::Data(format!(
                "the rewards {rewards:?} of a response are not {heads} finite numbers"
            )));
        }
    }
    Ok(())
}

/// Mean number of tokens of a response.
pub(super) fn mean_length(responses: &[ScoredResponse]) -> f64 {
    let tokens: usize = responses.iter().map(|one| one.sequence.response().len()).sum();
    tokens as f64 / responses.len() as f64
}
