//! A scalar head on a transformer: `*ForSequenceClassification` with one label, which is what a reward model is.

use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};

use rayon::prelude::*;

use crate::batch::{TOKENS_PER_PASS, check_tokens, pad, runs};
use crate::causal_lm::write_config;
use crate::checkpoint::{Checkpoint, param};
use crate::config::Head;
use crate::layout;
use crate::{CausalLm, ModelError, Transformer, TransformerConfig};

/// A sequence classifier with one output, pooled at the last token of each text.
#[derive(Clone, Debug)]
pub struct SequenceClassifier {
    trunk: CausalLm,
    head: ClassifierHead,
}

/// The trainable parts of a [`SequenceClassifier`].
#[derive(Module, Debug)]
pub struct ClassifierNet {
    trunk: Transformer,
    head: ClassifierHead,
}

#[derive(Module, Debug)]
struct ClassifierHead {
    /// `[hidden, 1]`.
    score: Param<Tensor<2>>,
}

impl SequenceClassifier {
    /// A classifier on a language model's transformer, with a score of 0 for every text. Its output matrix is dropped.
    pub fn on(mut trunk: CausalLm, pad_token: u32) -> Self {
        let device = trunk.device();
        trunk.net.lm_head = None;
        trunk.config.architectures =
            vec![trunk.config.family.architecture(Head::SequenceClassification)];
        trunk.config.num_labels = Some(1);
        trunk.config.id2label = Some([("0".to_owned(), "LABEL_0".to_owned())].into());
        trunk.config.pad_token_id = Some(pad_token);
        let score = Tensor::zeros([trunk.config.hidden_size, 1], &device);
        Self { trunk, head: ClassifierHead { score: param("score.weight", score) } }
    }

    /// Reads a `*ForSequenceClassification` directory with one label.
    ///
    /// # Errors
    /// [`ModelError`] names the file and the key or tensor at fault.
    pub fn load(dir: &Path, device: &Device) -> Result<Self, ModelError> {
        let config = TransformerConfig::read(dir, Head::SequenceClassification)?;
        let checkpoint = layout::from_stored(Checkpoint::read(dir)?, &config)?;
        let score = checkpoint.take("score.weight", [1, config.hidden_size], device)?.transpose();
        let trunk = CausalLm::from_checkpoint(config, &checkpoint, device)?;
        Ok(Self { trunk, head: ClassifierHead { score: param("score.weight", score) } })
    }

    /// Writes `config.json` and `model.safetensors` into an existing folder.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn save(&self, dir: &Path) -> Result<(), ModelError> {
        write_config(&self.trunk.config, dir)?;
        let mut checkpoint = self.trunk.checkpoint()?;
        checkpoint.put("score.weight", self.head.valid().score.val().transpose());
        checkpoint.write(&dir.join("model.safetensors"))
    }

    /// The configuration.
    pub fn config(&self) -> &TransformerConfig {
        &self.trunk.config
    }

    /// The weights, for an optimiser.
    pub fn net(&self) -> ClassifierNet {
        ClassifierNet { trunk: self.trunk.net.clone(), head: self.head.clone() }
    }

    /// The same classifier with other weights.
    pub fn with_net(self, net: ClassifierNet) -> Self {
        Self { trunk: self.trunk.with_net(net.trunk), head: net.head }
    }

    /// The classifier with gradients enabled.
    pub fn train(self) -> Self {
        Self { trunk: self.trunk.train(), head: self.head.train() }
    }

    /// A copy without gradients, for inference.
    pub fn valid(&self) -> Self {
        Self { trunk: self.trunk.valid(), head: self.head.valid() }
    }

    /// The score of each text, read at its last token: `[batch, 1]`.
    ///
    /// # Errors
    /// [`ModelError`] for texts that are empty or do not fit the model.
    pub fn forward(&self, texts: &[&[u32]]) -> Result<Tensor<2>, ModelError> {
        for (index, tokens) in texts.iter().enumerate() {
            if tokens.is_empty() {
                return Err(ModelError::Empty { index });
            }
            check_tokens(tokens, &self.trunk.config)?;
        }
        let time = texts.iter().map(|t| t.len()).max().unwrap_or(0);
        let device = self.trunk.device();
        let last: Vec<i32> =
            texts.iter().enumerate().map(|(b, t)| (b * time + t.len() - 1) as i32).collect();
        let last = Tensor::<1, Int>::from_data(TensorData::new(last, [texts.len()]), &device);
        let hidden = self.trunk.hidden(pad(texts.iter().copied(), time, &device));
        Ok(hidden.select(0, last).matmul(self.head.score.val()))
    }

    /// The score of each text, without gradients, in passes of bounded size.
    ///
    /// # Errors
    /// As [`SequenceClassifier::forward`].
    pub fn scores(&self, texts: &[Vec<u32>]) -> Result<Vec<f32>, ModelError> {
        let model = self.valid();
        let score = |run: &[Vec<u32>]| {
            let run: Vec<&[u32]> = run.iter().map(Vec::as_slice).collect();
            Ok(model.forward(&run)?.into_data().iter::<f32>().collect())
        };
        let runs = runs(texts, Vec::len, TOKENS_PER_PASS)
            .into_par_iter()
            .map(score)
            .collect::<Result<Vec<Vec<f32>>, ModelError>>()?;
        Ok(runs.concat())
    }
}
