//! Several scalar heads on one transformer, read at every token: baselines of policy gradients.

use std::collections::BTreeSet;
use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use infalign_backend::in_order;

use crate::batch::{TOKENS_PER_PASS, runs};
use crate::classifier::ClassifierNet;
use crate::{
    CausalLm, ModelError, ModelFolder, ResponseBatch, Sequence, SequenceClassifier,
    TransformerConfig,
};

/// K named values of every prefix of a text.
///
/// Stored as a `*ForSequenceClassification` directory with K labels, whose scores of a text are the values of the whole of it.
#[derive(Clone, Debug)]
pub struct ValueModel {
    classifier: SequenceClassifier,
    names: Vec<String>,
}

impl ValueModel {
    /// Heads of the given names on a language model's transformer, all values 0. Its output matrix is dropped.
    ///
    /// # Errors
    /// [`ModelError::Heads`] for no names or two that are equal, and for a model with an adapter.
    pub fn on(trunk: CausalLm, names: &[&str], pad_token: u32) -> Result<Self, ModelError> {
        let distinct: BTreeSet<&str> = names.iter().copied().collect();
        if names.is_empty() || distinct.len() < names.len() {
            let reason = format!("the names {names:?} must be at least one, and differ");
            return Err(ModelError::Heads { reason });
        }
        if trunk.adapter().is_some() {
            let reason = "the model has an adapter; merge it first".into();
            return Err(ModelError::Heads { reason });
        }
        let classifier = SequenceClassifier::with_outputs(trunk, pad_token, names);
        Ok(Self { classifier, names: names.iter().map(|name| (*name).to_owned()).collect() })
    }

    /// Reads a `*ForSequenceClassification` directory, or a PEFT directory whose base is one; the heads are named as its labels.
    ///
    /// # Errors
    /// [`ModelError`] names the file and the key or tensor at fault.
    pub fn load(folder: impl Into<ModelFolder>, device: &Device) -> Result<Self, ModelError> {
        let folder = folder.into();
        let base = folder.base()?;
        let dir = base.as_deref().unwrap_or(folder.path());
        let mut classifier =
            SequenceClassifier::load_plain(dir, |config| labels(config).len(), device)?;
        let names = labels(classifier.config());
        if base.is_some() {
            classifier = classifier.with_adapter(folder.path())?;
        }
        Ok(Self { classifier, names })
    }

    /// Writes `config.json` and `model.safetensors` into an existing folder.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn save(&self, dir: &Path) -> Result<(), ModelError> {
        self.classifier.save(dir)
    }

    /// The names of the heads, in the order of the columns.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The configuration.
    pub fn config(&self) -> &TransformerConfig {
        self.classifier.config()
    }

    /// The device of the weights, without autodiff.
    pub fn device(&self) -> Device {
        self.classifier.device()
    }

    /// The weights, for an optimiser.
    pub fn net(&self) -> ClassifierNet {
        self.classifier.net()
    }

    /// The same model with other weights.
    pub fn with_net(self, net: ClassifierNet) -> Self {
        Self { classifier: self.classifier.with_net(net), ..self }
    }

    /// The model with gradients enabled.
    pub fn train(self) -> Self {
        Self { classifier: self.classifier.train(), ..self }
    }

    /// A copy without gradients, for inference.
    pub fn valid(&self) -> Self {
        Self { classifier: self.classifier.valid(), names: self.names.clone() }
    }

    /// V(x, y₁ … yₜ₋₁), the values of what stands before each response token yₜ: `[tokens, K]`. What a policy gradient's baseline may know.
    pub fn values_before(&self, batch: &ResponseBatch) -> Tensor<2> {
        self.classifier.outputs(batch.ids.clone(), batch.rows.clone())
    }

    /// V(x, y₁ … yₜ), the values of the prefix that each response token yₜ ends: `[tokens, K]`.
    pub fn values_after(&self, batch: &ResponseBatch) -> Tensor<2> {
        self.classifier.outputs(batch.ids.clone(), batch.rows.clone().add_scalar(1))
    }

    /// The values of every prefix of the responses without gradients, the empty response first: row-major `[response tokens + 1, K]` of each
    /// sequence. They do not depend on the other sequences.
    ///
    /// # Errors
    /// [`ModelError`] for sequences that do not fit the model.
    pub fn prefix_values(&self, sequences: &[Sequence]) -> Result<Vec<Vec<f32>>, ModelError> {
        let model = self.valid();
        let run = |run: &[Sequence]| model.prefix_values_of_run(run);
        let runs = runs(sequences, |s| s.tokens.len(), TOKENS_PER_PASS);
        Ok(in_order(&model.classifier.device(), runs, run)?.concat())
    }

    fn prefix_values_of_run(&self, run: &[Sequence]) -> Result<Vec<Vec<f32>>, ModelError> {
        let device = self.classifier.device();
        let batch = ResponseBatch::new(run, self.config(), &device)?;
        let [_, time] = batch.ids.dims();
        let rows_of =
            |(b, s): (usize, &Sequence)| b * time + s.prompt_length - 1..b * time + s.tokens.len();
        let rows: Vec<i32> =
            run.iter().enumerate().flat_map(rows_of).map(|row| row as i32).collect();
        let n_rows = rows.len();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [n_rows]), &device);
        let data = self.classifier.outputs(batch.ids, rows).into_data();
        let (mut values, k) = (data.iter::<f32>(), self.names.len());
        let counts = batch.lengths.iter().map(|length| (length + 1) * k);
        Ok(counts.map(|count| values.by_ref().take(count).collect()).collect())
    }
}

/// The names of a classifier's outputs, as transformers has them.
fn labels(config: &TransformerConfig) -> Vec<String> {
    let named = config.id2label.as_ref().map(std::collections::BTreeMap::len);
    let name = |index: usize| {
        let named = config.id2label.as_ref().and_then(|labels| labels.get(&index.to_string()));
        named.cloned().unwrap_or_else(|| format!("LABEL_{index}"))
    };
    (0..named.or(config.num_labels).unwrap_or(2)).map(name).collect()
}
