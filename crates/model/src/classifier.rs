//! A scalar head on a transformer: `*ForSequenceClassification` with one label, which is what a reward model is.

use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use infalign_backend::in_order;

use crate::batch::{TOKENS_PER_PASS, check_sequences, check_texts, runs};
use crate::causal_lm::write_config;
use crate::checkpoint::{Checkpoint, param};
use crate::config::Head;
use crate::layout;
use crate::lora::peft;
use crate::tensors::{indices, numbers};
use crate::{
    CausalLm, LoraConfig, ModelError, ModelFolder, ResponseBatch, Sequence, Transformer,
    TransformerConfig,
};

/// The head's weight.
const SCORE: &str = "score.weight";

/// A sequence classifier with one output, pooled at the last token of each text; read at every token, it says the values of prefixes.
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

/// Refuses a classifier with several labels, by what its configuration says or by the shape of its head.
fn check_one_label(
    config: &TransformerConfig,
    score: Option<&[usize]>,
    dir: &Path,
) -> Result<(), ModelError> {
    let named = config.id2label.as_ref().map(|labels| labels.len()).or(config.num_labels);
    let stored = score.and_then(|shape| shape.first().copied());
    let Some(labels) = named.into_iter().chain(stored).find(|labels| *labels != 1) else {
        return Ok(());
    };
    let hint = format!(
        "a reward model has one label, this one has {labels} (`num_labels`, or the names of `id2label`)"
    );
    let (path, value) = (dir.join("config.json"), labels.to_string());
    Err(ModelError::Config { path, key: "num_labels", value, hint })
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
        Self { trunk, head: ClassifierHead { score: param(SCORE, score) } }
    }

    /// Reads a `*ForSequenceClassification` directory with one label. A PEFT directory is read with the model that it names as its base,
    /// which may be a language model.
    ///
    /// # Errors
    /// [`ModelError`] names the file and the key or tensor at fault.
    pub fn load(folder: impl Into<ModelFolder>, device: &Device) -> Result<Self, ModelError> {
        let folder = folder.into();
        let Some(base) = folder.base()? else {
            return Self::load_plain(folder.path(), device);
        };
        let classifies = TransformerConfig::read(&base, Head::SequenceClassification).is_ok();
        let base = if classifies {
            Self::load_plain(&base, device)?
        } else {
            let trunk = CausalLm::load_plain(&base, device)?;
            let pad_token = trunk.config.pad_token_id.unwrap_or(0);
            Self::on(trunk, pad_token)
        };
        base.with_adapter(folder.path())
    }

    /// Reads a classifier without an adapter.
    fn load_plain(dir: &Path, device: &Device) -> Result<Self, ModelError> {
        let config = TransformerConfig::read(dir, Head::SequenceClassification)?;
        let mut checkpoint = layout::from_stored(Checkpoint::read(dir)?, &config)?;
        check_one_label(&config, checkpoint.shape(SCORE), dir)?;
        let shape = [1, config.hidden_size];
        let trunk = CausalLm::from_checkpoint(config, &mut checkpoint, device)?;
        let score = checkpoint.take(SCORE, shape, device)?.transpose();
        let trunk = CausalLm { origin: dunce::canonicalize(dir).ok(), ..trunk };
        Ok(Self { trunk, head: ClassifierHead { score: param(SCORE, score) } })
    }

    /// Reads what was made of this classifier by training: an adapter and a head, which are put on the weights that are here, or a whole
    /// classifier.
    ///
    /// # Errors
    /// As [`SequenceClassifier::with_adapter`] and [`SequenceClassifier::load`].
    pub fn load_trained(&self, dir: &Path) -> Result<Self, ModelError> {
        if peft::is_adapter(dir) {
            let trunk = self.trunk.without_adapter();
            return Self { trunk, head: self.head.clone() }.with_adapter(dir);
        }
        Self::load_plain(dir, &self.device())
    }

    /// Puts the adapter of a PEFT directory on the classifier, and the head that was trained with it.
    ///
    /// # Errors
    /// As [`CausalLm::with_adapter`].
    pub fn with_adapter(self, dir: &Path) -> Result<Self, ModelError> {
        let mut tensors = peft::read_tensors(dir)?;
        let trunk = self.trunk.with_adapter_of(dir, &mut tensors)?;
        let mut head = self.head;
        if tensors.contains(SCORE) {
            let [hidden, outputs] = head.score.dims();
            let score = tensors.take(SCORE, [outputs, hidden], &trunk.device())?;
            head.score = param(SCORE, score.transpose());
        }
        peft::refuse_rest(&tensors, dir)?;
        Ok(Self { trunk, head })
    }

    /// Puts a new adapter on the classifier, which changes nothing until it is trained. Only the adapter and the head are trained from
    /// then on.
    ///
    /// - uniform: random numbers, uniform in [0, 1).
    ///
    /// # Errors
    /// As [`CausalLm::with_new_adapter`].
    pub fn with_new_adapter(
        self,
        config: LoraConfig,
        uniform: &mut dyn FnMut() -> f32,
    ) -> Result<Self, ModelError> {
        Ok(Self { trunk: self.trunk.with_new_adapter(config, uniform)?, ..self })
    }

    /// A classifier without an adapter that computes the same, as [`CausalLm::merge`] has it.
    ///
    /// # Errors
    /// As there.
    pub fn merge(self) -> Result<Self, ModelError> {
        Ok(Self { trunk: self.trunk.merge()?, head: self.head })
    }

    /// Writes `config.json` and `model.safetensors` into an existing folder; of a classifier with an adapter, the adapter and the head
    /// alone, as `adapter_config.json` and `adapter_model.safetensors`.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn save(&self, dir: &Path) -> Result<(), ModelError> {
        let score = self.head.valid().score.val().transpose();
        if let Some(lora) = &self.trunk.adapter {
            let mut tensors = self.trunk.write_adapter(lora, dir)?;
            tensors.put(SCORE, score);
            return peft::write_tensors(tensors, dir);
        }
        write_config(&self.trunk.config, dir)?;
        let mut checkpoint = self.trunk.checkpoint()?;
        checkpoint.put(SCORE, score);
        checkpoint.write(&dir.join("model.safetensors"))
    }

    /// The configuration.
    pub fn config(&self) -> &TransformerConfig {
        &self.trunk.config
    }

    /// The device of the weights, without autodiff.
    pub fn device(&self) -> Device {
        self.trunk.device()
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
        check_texts(texts, self.config())?;
        Ok(self.scores_of(self.trunk.last_states(texts)))
    }

    /// The scores of states `[rows, hidden]`: `[rows, 1]`.
    fn scores_of(&self, states: Tensor<2>) -> Tensor<2> {
        states.matmul(self.head.score.val())
    }

    /// The score of each text, without gradients, in passes of bounded size.
    ///
    /// # Errors
    /// As [`SequenceClassifier::forward`], before any work.
    pub fn scores(&self, texts: &[Vec<u32>]) -> Result<Vec<f32>, ModelError> {
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        check_texts(&texts, self.config())?;
        let model = self.valid();
        let score = |run: &[&[u32]]| Ok(numbers(model.scores_of(model.trunk.last_states(run))));
        let runs = runs(&texts, |text| text.len(), TOKENS_PER_PASS);
        Ok(in_order::<_, Vec<f32>, ModelError>(&model.device(), runs, score)?.concat())
    }

    /// V(x, y₁ … yₜ₋₁), the value of what stands before each response token yₜ: `[tokens, 1]`. What a policy gradient's baseline may know.
    pub fn values_before(&self, batch: &ResponseBatch) -> Tensor<2> {
        self.scores_of(self.trunk.response_hidden(batch))
    }

    /// The value of every prefix of each response without gradients, the empty response first: `[response tokens + 1]`. It does not depend on
    /// the other sequences.
    ///
    /// # Errors
    /// [`ModelError`] for sequences that do not fit the model, before any work.
    pub fn prefix_values(&self, sequences: &[Sequence]) -> Result<Vec<Vec<f32>>, ModelError> {
        check_sequences(sequences, self.config())?;
        let model = self.valid();
        let values = |run: &[Sequence]| model.prefix_values_of_run(run);
        let runs = model.trunk.passes(sequences);
        Ok(in_order(&model.device(), runs, values)?.concat())
    }

    fn prefix_values_of_run(&self, run: &[Sequence]) -> Result<Vec<Vec<f32>>, ModelError> {
        let device = self.device();
        let batch = ResponseBatch::new(run, self.config(), &device)?;
        let [_, time] = batch.ids.dims();
        let rows_of =
            |(b, s): (usize, &Sequence)| b * time + s.prompt_length - 1..b * time + s.tokens.len();
        let rows: Vec<usize> = run.iter().enumerate().flat_map(rows_of).collect();
        let rows = indices(&rows, &device);
        let data = self.scores_of(self.trunk.hidden(batch.ids).select(0, rows)).into_data();
        let mut values = data.iter::<f32>();
        let counts = batch.lengths.iter().map(|length| length + 1);
        Ok(counts.map(|count| values.by_ref().take(count).collect()).collect())
    }
}
