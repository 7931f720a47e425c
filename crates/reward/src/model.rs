//! Learned reward models: a sequence classifier with one output and its tokenizer.

use std::path::Path;

use infalign_backend::Device;
use infalign_model::{SequenceClassifier, Tokenizer};

use crate::{Reads, Reward, RewardError};

/// A `*ForSequenceClassification` model with one label.
#[derive(Clone, Debug)]
pub struct RewardModel {
    classifier: SequenceClassifier,
    tokenizer: Tokenizer,
    reads: Reads,
}

impl RewardModel {
    /// A reward model from its parts.
    pub fn new(classifier: SequenceClassifier, tokenizer: Tokenizer, reads: Reads) -> Self {
        Self { classifier, tokenizer, reads }
    }

    /// Reads a Hugging Face directory.
    ///
    /// # Errors
    /// [`RewardError::Model`] names the file and the key or tensor at fault.
    pub fn load(dir: &Path, reads: Reads, device: &Device) -> Result<Self, RewardError> {
        let classifier = SequenceClassifier::load(dir, device)?;
        let tokenizer = Tokenizer::load(dir, classifier.config())?;
        Ok(Self::new(classifier, tokenizer, reads))
    }

    /// Tokens of what the model reads of a pair, cut at the model's context.
    fn tokens(&self, prompt: &str, response: &str) -> Result<Vec<u32>, RewardError> {
        let mut tokens = match self.reads {
            Reads::Response => self.tokenizer.encode(response.trim_start())?,
            Reads::PromptAndResponse => self.tokenizer.encode(&format!("{prompt}{response}"))?,
        };
        tokens.truncate(self.classifier.config().max_position_embeddings);
        if tokens.is_empty() {
            tokens.push(self.tokenizer.pad());
        }
        Ok(tokens)
    }
}

impl Reward for RewardModel {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        let texts = pairs
            .iter()
            .map(|(prompt, response)| self.tokens(prompt, response))
            .collect::<Result<Vec<_>, _>>()?;
        // Texts of like length go together, so that little is padded; the scores return in the order of the pairs.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&i| texts[i].len());
        let sorted: Vec<Vec<u32>> = order.iter().map(|&i| texts[i].clone()).collect();
        let mut scores = vec![0.0; texts.len()];
        for (score, index) in self.classifier.scores(&sorted)?.into_iter().zip(order) {
            if !score.is_finite() {
                return Err(RewardError::NotFinite { response: pairs[index].1.into(), score });
            }
            scores[index] = score;
        }
        Ok(scores)
    }
}
