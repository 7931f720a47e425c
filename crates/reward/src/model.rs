//! Learned reward models: a sequence classifier with one output and its tokenizer.
//!
//! What it reads of a conversation is the policy's text: the prompt as the policy's chat template writes it and the response behind it,
//! without the token that closes the turn. A chat template beside the reward model is not looked at, so that one of another chat format is
//! given another text than it was trained on; it belongs behind a server that writes the text anew ([`crate::RemoteReward`]).

use infalign_backend::Device;
use infalign_model::{ModelFolder, SequenceClassifier, Tokenizer};

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
    pub fn load(
        folder: impl Into<ModelFolder>,
        reads: Reads,
        device: &Device,
    ) -> Result<Self, RewardError> {
        let folder = folder.into();
        let classifier = SequenceClassifier::load(&folder, device)?;
        let tokenizer = Tokenizer::load(&folder, classifier.config())?;
        Ok(Self::new(classifier, tokenizer, reads))
    }

    /// Tokens of what the model reads of a pair, cut to the model's context where such texts are cut in training: a response alone at its
    /// end, as rated texts are, a prompt with its response at the prompt's beginning, as preferences are.
    fn tokens(&self, prompt: &str, response: &str) -> Result<Vec<u32>, RewardError> {
        let config = self.classifier.config();
        let mut tokens = match self.reads {
            Reads::Response => {
                let mut tokens = self.tokenizer.encode(response.trim_start())?;
                tokens.truncate(config.max_position_embeddings);
                tokens
            }
            Reads::PromptAndResponse => {
                config.keep_end(self.tokenizer.encode_whole(&format!("{prompt}{response}"))?)
            }
        };
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

#[cfg(test)]
mod tests {
    use infalign_model::{CausalLm, TransformerConfig, write_word_tokenizer};

    use super::*;

    /// A reward model with random weights, the head included, that reads `reads`.
    fn reward_model(reads: Reads) -> RewardModel {
        let dir = tempfile::tempdir().unwrap();
        let vocabulary = write_word_tokenizer(dir.path(), ["a b c"].into_iter()).unwrap();
        let config = TransformerConfig::llama(vocabulary, 8, 12, 1, 2, 8);
        let tokenizer = Tokenizer::load(dir.path(), &config).unwrap();
        let mut state = 1_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (f64::from(state) / f64::from(u32::MAX) - 0.5) as f32 * 40.0
        };
        let device = infalign_backend::device(None).unwrap();
        let base = CausalLm::random(config, &mut random, &device).unwrap();
        SequenceClassifier::on(base, 0).save(dir.path()).unwrap();
        // The head is the last tensor of the file, `score.weight`: eight floats, all 0 in a new model.
        let path = dir.path().join("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        let head = bytes.len() - 8 * 4;
        bytes[head..]
            .chunks_mut(4)
            .for_each(|chunk| chunk.copy_from_slice(&random().to_le_bytes()));
        std::fs::write(&path, bytes).unwrap();
        RewardModel::new(SequenceClassifier::load(dir.path(), &device).unwrap(), tokenizer, reads)
    }

    #[test]
    fn scores_come_in_the_order_of_the_pairs() {
        let reward = reward_model(Reads::PromptAndResponse);
        let pairs = [
            ("a", " b c a b"),
            ("b", " c"),
            ("c c", " a b"),
            ("a", ""),
            ("a b c a b c", " a b c a b c"),
        ];
        let together = reward.score(&pairs).unwrap();
        for (pair, expected) in pairs.iter().zip(&together) {
            let alone = reward.score(std::slice::from_ref(pair)).unwrap()[0];
            assert!((alone - expected).abs() < 1e-5, "{pair:?}: {alone} against {expected}");
        }
        assert!(
            together.windows(2).all(|w| w[0] != w[1]),
            "the texts differ, and so do their scores: {together:?}"
        );
    }

    #[test]
    fn of_a_pair_that_is_too_long_the_responses_end_is_read() {
        let reward = reward_model(Reads::PromptAndResponse);
        // The model reads 8 tokens: the mark of the beginning, and the last 7 words.
        let long = "c ".repeat(20);
        let ends = [" a b c a b c b", " a b c a b c c"];
        let scores = reward.score(&ends.map(|end| (long.as_str(), end))).unwrap();
        assert_eq!(scores, reward.score(&ends.map(|end| ("", end))).unwrap());
        assert_ne!(scores[0], scores[1]);
        // Of a response alone, its beginning, as of a rated text.
        let reward = reward_model(Reads::Response);
        let responses = ["a b c a b c b a a a", "a b c a b c b c c c", "c a b c a b c b"];
        let scores = reward.score(&responses.map(|response| ("", response))).unwrap();
        assert!(scores[0] == scores[1] && scores[0] != scores[2], "{scores:?}");
    }

    #[test]
    fn a_prompt_that_a_chat_template_began_is_not_begun_twice() {
        let reward = reward_model(Reads::PromptAndResponse);
        let ids = |text: &str| reward.tokenizer.encode_whole(text).unwrap();
        assert_eq!(ids("<s> a b"), ids("a b"));
        assert_eq!(ids("<s> <s> a")[..2], [1, 1], "what is written twice stays");
        assert_eq!(ids("a a").len(), 3);
    }

    #[test]
    fn the_response_alone_can_be_read() {
        let reward = reward_model(Reads::Response);
        let scores = reward.score(&[("a", " b c"), ("c c c", " b c"), ("a", " c b")]).unwrap();
        assert!(scores[0] == scores[1] && scores[0] != scores[2], "{scores:?}");
    }
}
