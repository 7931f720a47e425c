//! A language model: configuration, weights and the passes that training needs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation::log_softmax};
use infalign_backend::in_order;
use infalign_backend::kernels::{Angles, compare, compare_distributions, known_log_probs};

use crate::attention::{Context, View};
use crate::batch::{ResponseBatch, TOKENS_PER_PASS, check_sequences, runs};
use crate::builder::Builder;
use crate::cache::KvCache;
use crate::checkpoint::Checkpoint;
use crate::config::Head;
use crate::layout;
use crate::lora::{Lora, peft};
use crate::positions::Positions;
use crate::rope::Rope;
use crate::tensors::numbers;
use crate::transformer::Transformer;
use crate::weights::{self, Kind};
use crate::{
    CpuModel, LanguageModel, ModelError, ModelFolder, Sequence, TransformerConfig, json_file,
};

/// A causal language model: Llama, Mistral, Qwen 2 and 3, Gemma 2 and 3, GPT-2, GPT-NeoX.
#[derive(Clone, Debug)]
pub struct CausalLm {
    pub(crate) config: TransformerConfig,
    pub(crate) net: Transformer,
    /// None where positions are learned.
    pub(crate) rope: Option<Rope>,
    /// Rotations of the blocks with a window, where they are others.
    pub(crate) local_rope: Option<Rope>,
    /// The folder that the weights, without an adapter, were read from.
    pub(crate) origin: Option<PathBuf>,
    pub(crate) adapter: Option<Arc<Lora>>,
}

impl CausalLm {
    /// Reads a Hugging Face directory: `config.json` and `model.safetensors` (or its shards). A PEFT directory is read with the model that
    /// it names as its base.
    ///
    /// # Errors
    /// [`ModelError`] names the file and the key or tensor at fault.
    pub fn load(folder: impl Into<ModelFolder>, device: &Device) -> Result<Self, ModelError> {
        let folder = folder.into();
        match folder.base()? {
            Some(base) => Self::load_plain(&base, device)?.with_adapter(folder.path()),
            None => Self::load_plain(folder.path(), device),
        }
    }

    /// Reads a model without an adapter.
    pub(crate) fn load_plain(dir: &Path, device: &Device) -> Result<Self, ModelError> {
        let config = TransformerConfig::read(dir, Head::CausalLm)?;
        let mut checkpoint = layout::from_stored(Checkpoint::read(dir)?, &config)?;
        let model = Self::from_checkpoint(config, &mut checkpoint, device)?;
        Ok(Self { origin: dunce::canonicalize(dir).ok(), ..model })
    }

    /// A model with weights drawn from `normal` (standard normal numbers), scaled as Llama is initialised: 0.02, and 0.02/√(2·layers)
    /// for the projections that end a residual branch.
    ///
    /// # Errors
    /// [`ModelError::Config`] for a configuration that [`TransformerConfig::check`] refuses.
    pub fn random(
        config: TransformerConfig,
        normal: &mut dyn FnMut() -> f32,
        device: &Device,
    ) -> Result<Self, ModelError> {
        config.check(Path::new("the configuration"))?;
        let mut checkpoint = Checkpoint::empty();
        let branch_end = 0.02 / (2.0 * config.num_hidden_layers as f32).sqrt();
        let resting = if config.family.is_gemma() { 0.0 } else { 1.0 };
        for (name, kind) in weights::parameters(&config) {
            let scale = if name.contains("o_proj") || name.contains("down_proj") {
                branch_end
            } else {
                0.02
            };
            match kind {
                Kind::Matrix(shape) => {
                    let values: Vec<f32> =
                        (0..shape[0] * shape[1]).map(|_| scale * normal()).collect();
                    let values = TensorData::new(values, shape);
                    checkpoint.put(name, Tensor::<2>::from_data(values, device));
                }
                Kind::Norm(width) => {
                    checkpoint.put(name, Tensor::<1>::full([width], resting, device))
                }
                Kind::Bias(width) => checkpoint.put(name, Tensor::<1>::zeros([width], device)),
            }
        }
        Self::from_checkpoint(config, &mut checkpoint, device)
    }

    /// Builds the model that the configuration describes from tensors under the core's names, which are taken out.
    pub(crate) fn from_checkpoint(
        config: TransformerConfig,
        checkpoint: &mut Checkpoint,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let net = Builder { config: &config, checkpoint, device }.transformer()?;
        let (rope, local_rope) = (Rope::new(&config, device), Rope::local(&config, device));
        Ok(Self { config, net, rope, local_rope, origin: None, adapter: None })
    }

    /// Writes `config.json` and `model.safetensors` into an existing folder; of a model with an adapter, the adapter alone, as
    /// `adapter_config.json` and `adapter_model.safetensors`.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn save(&self, dir: &Path) -> Result<(), ModelError> {
        if let Some(lora) = &self.adapter {
            return peft::write_tensors(self.write_adapter(lora, dir)?, dir);
        }
        write_config(&self.config, dir)?;
        self.checkpoint()?.write(&dir.join("model.safetensors"))
    }

    /// The weights under the names of the family's checkpoints, without autodiff.
    pub(crate) fn checkpoint(&self) -> Result<Checkpoint, ModelError> {
        layout::to_stored(weights::checkpoint(&self.net, &self.config), &self.config)
    }

    /// The configuration.
    pub fn config(&self) -> &TransformerConfig {
        &self.config
    }

    /// The weights, for an optimiser.
    pub fn net(&self) -> &Transformer {
        &self.net
    }

    /// The same model with other weights.
    pub fn with_net(self, net: Transformer) -> Self {
        let origin = self.origin.filter(|_| self.adapter.is_some());
        Self { net, origin, ..self }
    }

    /// The same model with its weights rounded to bf16, in half the memory, for one that is not trained. It computes in bf16 and sums in f32,
    /// but for norms, rotations and softmaxes, which are f32 throughout; logits are products like others, rounded to bf16. On the CPU what generation
    /// packs is f32 again, and so is all that it computes.
    ///
    /// # Errors
    /// [`ModelError::NoBf16`] where the device does not compute with it.
    pub fn in_bf16(self) -> Result<Self, ModelError> {
        if !self.device().supports_dtype(DType::BF16) {
            return Err(ModelError::NoBf16);
        }
        Ok(Self { net: self.net.map(&mut Rounded), ..self })
    }

    /// The model with gradients enabled.
    pub fn train(self) -> Self {
        Self { net: self.net.train(), ..self }
    }

    /// A copy without gradients, for inference.
    pub fn valid(&self) -> Self {
        Self { net: self.net.valid(), ..self.clone() }
    }

    /// The model as generation and scoring use it: packed for the CPU there, with tensors elsewhere.
    pub fn for_inference(self) -> Box<dyn LanguageModel> {
        self.packed(false)
    }

    /// The same for whoever asks sessions for hidden states alone: where it saves work, their logits are empty.
    pub fn for_states(self) -> Box<dyn LanguageModel> {
        self.packed(true)
    }

    fn packed(self, states_only: bool) -> Box<dyn LanguageModel> {
        let model = self.valid();
        drop(self);
        if !infalign_backend::is_cpu(&model.device()) {
            return Box::new(model);
        }
        let mut packed = CpuModel::new(model);
        packed.states_only = states_only;
        Box::new(packed)
    }

    /// The device of the weights, without autodiff.
    pub fn device(&self) -> Device {
        self.net.embed_tokens.val().device().without_autodiff()
    }

    /// Final hidden states of right-padded ids `[batch, time]` → `[batch * time, hidden]`.
    ///
    /// Padding needs no mask: a causal model never looks at it from a real token.
    pub(crate) fn hidden(&self, ids: Tensor<2, Int>) -> Tensor<2> {
        let [_, time] = ids.dims();
        self.hidden_at(ids, &Positions::Span { start: 0, time }, None)
    }

    /// Final hidden states of ids `[batch, time]` at the given positions → `[batch * time, hidden]`.
    pub(crate) fn hidden_at(
        &self,
        ids: Tensor<2, Int>,
        positions: &Positions,
        cache: Option<&mut KvCache>,
    ) -> Tensor<2> {
        let [full, local] = self.angles(positions);
        let context = Context {
            positions,
            full: View { angles: full.as_ref(), window: None },
            windowed: View { angles: local.as_ref(), window: self.window() },
        };
        self.net.hidden(ids, &context, cache)
    }

    /// How far the blocks with a window look back, if there are any.
    fn window(&self) -> Option<usize> {
        (0..self.config.num_hidden_layers).find_map(|layer| self.config.window(layer))
    }

    /// What tokens are rotated by in the blocks without and with a window.
    fn angles(&self, positions: &Positions) -> [Option<Angles>; 2] {
        let at = |rope: &Option<Rope>| rope.as_ref().map(|rope| rope.at(positions));
        let full = at(&self.rope);
        let local = at(&self.local_rope).or_else(|| full.clone());
        [full, local]
    }

    /// The hidden states that predict the response tokens: `[tokens, hidden]`, in the order of [`ResponseBatch::targets`].
    pub fn response_hidden(&self, batch: &ResponseBatch) -> Tensor<2> {
        self.hidden(batch.ids.clone()).select(0, batch.rows.clone())
    }

    /// log π of every response token, given everything before it: `[tokens, 1]`.
    pub fn response_log_probs(&self, batch: &ResponseBatch) -> Tensor<2> {
        self.hidden_log_probs(self.response_hidden(batch), batch)
    }

    /// The same from [`CausalLm::response_hidden`].
    pub fn hidden_log_probs(&self, hidden: Tensor<2>, batch: &ResponseBatch) -> Tensor<2> {
        self.net.log_probs(hidden, &batch.targets)
    }

    /// The same, where [`CausalLm::compare`] has read these hidden states: not computed again, but where logits are more than a product.
    pub fn compared_log_probs(
        &self,
        hidden: Tensor<2>,
        compared: &Compared,
        batch: &ResponseBatch,
    ) -> Tensor<2> {
        let Some(weight) = self.net.plain_head() else {
            return self.hidden_log_probs(hidden, batch);
        };
        let known = TensorData::new(compared.log_probs.clone(), [compared.log_probs.len(), 1]);
        let known = Tensor::from_data(known, &self.device());
        known_log_probs(hidden, weight, &batch.targets, known)
    }

    /// log-probabilities of all tokens at every place of the responses, from [`CausalLm::response_hidden`]: `[tokens, vocabulary]`.
    pub fn distributions(&self, hidden: Tensor<2>) -> Tensor<2> {
        log_softmax(self.net.logits(hidden), 1)
    }

    /// This model's distributions at every place of the responses, and another's, from the hidden states of both. Without gradients.
    pub fn compare(
        &self,
        hidden: Tensor<2>,
        other: &Self,
        their_hidden: Tensor<2>,
        batch: &ResponseBatch,
    ) -> Compared {
        let targets = &batch.targets;
        let found = match (self.net.plain_head(), other.net.plain_head()) {
            (Some(ours), Some(theirs)) => compare((hidden, ours), (their_hidden, theirs), targets),
            _ => compare_distributions(
                self.distributions(hidden),
                other.distributions(their_hidden),
                targets,
            ),
        };
        let numbers = numbers(found);
        let column = |k: usize| numbers.iter().skip(k).step_by(4).copied().collect();
        Compared {
            log_probs: column(3),
            their_log_probs: column(0),
            kl: column(1),
            entropy: column(2),
        }
    }

    /// Runs of sequences that one pass can take, in order.
    pub fn passes<'a>(&self, sequences: &'a [Sequence]) -> Vec<&'a [Sequence]> {
        runs(sequences, |s| s.tokens.len(), TOKENS_PER_PASS)
    }

    /// Refuses a sequence that the model cannot read, as [`CausalLm::log_probs`] refuses it as the only one.
    ///
    /// # Errors
    /// [`ModelError::Empty`], [`ModelError::TooLong`] and [`ModelError::Token`].
    pub fn check(&self, sequence: &Sequence) -> Result<(), ModelError> {
        check_sequences(&[sequence], &self.config)
    }

    /// log π(token | everything before it) of every response token, in nats, at temperature 1 over the whole vocabulary.
    ///
    /// # Errors
    /// [`ModelError`] for sequences that do not fit the model, before any work; and [`ModelError::Logits`].
    pub fn log_probs(&self, sequences: &[Sequence]) -> Result<Vec<Vec<f32>>, ModelError> {
        check_sequences(sequences, &self.config)?;
        let model = self.valid();
        let score = |pass: &[Sequence]| {
            let batch = ResponseBatch::new(pass, &model.config, &model.device())?;
            let picked = model.response_log_probs(&batch).into_data();
            let mut values = picked.iter::<f32>();
            let of = |(sequence, &n): (&Sequence, &usize)| {
                let log_probs: Vec<f32> = values.by_ref().take(n).collect();
                if log_probs.iter().any(|log_prob| log_prob.is_nan()) {
                    return Err(ModelError::Logits { tokens: sequence.tokens.len() });
                }
                Ok(log_probs)
            };
            pass.iter().zip(&batch.lengths).map(of).collect::<Result<Vec<_>, ModelError>>()
        };
        let passes = in_order(&model.device(), model.passes(sequences), score)?;
        Ok(passes.into_iter().flatten().collect())
    }
}

/// Rounds weights to bf16.
struct Rounded;

impl ModuleMapper for Rounded {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|weight| weight.cast(DType::BF16))
    }
}

/// Two models' distributions at the places of some response tokens: a number for each token, in nats.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// log-probability of the token itself under this model.
    pub log_probs: Vec<f32>,
    /// The same under the other model.
    pub their_log_probs: Vec<f32>,
    /// KL of this model's distribution to the other's.
    pub kl: Vec<f32>,
    /// Entropy of this model's distribution.
    pub entropy: Vec<f32>,
}

/// Writes `DIR/config.json`.
pub(crate) fn write_config(config: &TransformerConfig, dir: &Path) -> Result<(), ModelError> {
    let path = dir.join("config.json");
    // Weights are always written as f32.
    let config = TransformerConfig { torch_dtype: "float32".into(), ..config.clone() };
    let keys = config.keys().map_err(|source| ModelError::Json { path: path.clone(), source })?;
    json_file::write(&path, &keys)
}
