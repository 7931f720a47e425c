//! LoRA: low-rank updates beside the linear modules of a model that stays as it is, in PEFT's form.
//!
//! The module of a family's checkpoints is what gets an adapter, not the core's projection: where queries, keys and values are fused
//! (GPT-2, GPT-NeoX), there is one A for the three of them, so that what was trained can be written back.

mod adapter;
mod config;
mod effects;
mod patterns;
pub(crate) mod peft;
mod targets;

use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

pub(crate) use adapter::Adapter;
pub use config::{LoraConfig, TargetModules};
pub use patterns::Patterns;
use targets::{Target, saved_name, slot};

use crate::checkpoint::{Checkpoint, param};
use crate::transformer::Transformer;
use crate::weights::{EMBEDDING, OUTPUT_MATRIX, projection_mut};
use crate::{CausalLm, ModelError, layout};

/// The adapter of a model: how it is made, and the model without it.
#[derive(Debug)]
pub(crate) struct Lora {
    config: LoraConfig,
    /// The weights before the adapter came; those that it leaves alone are the same tensors in memory.
    base: Transformer,
}

/// Where the weights of an adapter come from.
enum Source<'a> {
    /// A file's tensors, which are taken out.
    File(&'a mut Checkpoint),
    /// B is 0, A uniform as PEFT draws it; modules to save begin as they are.
    New(&'a mut dyn FnMut() -> f32),
}

impl CausalLm {
    /// Puts the adapter of a PEFT directory on the model. Only the adapter and its `modules_to_save` are trained from then on.
    ///
    /// # Errors
    /// [`ModelError::Adapter`] for what is not supported, by key and value, or does not belong to this model;
    /// [`ModelError`] names the file and the tensor at fault.
    pub fn with_adapter(self, dir: &Path) -> Result<Self, ModelError> {
        let mut tensors = peft::read_tensors(dir)?;
        let model = self.with_adapter_of(dir, &mut tensors)?;
        peft::refuse_rest(&tensors, dir)?;
        Ok(model)
    }

    /// Reads what was made of this model by training: an adapter, which is put on the weights that are here, or a whole model.
    ///
    /// # Errors
    /// As [`CausalLm::with_adapter`] and [`CausalLm::load`].
    pub fn load_trained(&self, dir: &Path) -> Result<Self, ModelError> {
        if peft::is_adapter(dir) {
            return self.without_adapter().with_adapter(dir);
        }
        Self::load(dir, &self.device())
    }

    /// Takes the adapter out of a PEFT directory's tensors.
    pub(crate) fn with_adapter_of(
        self,
        dir: &Path,
        tensors: &mut Checkpoint,
    ) -> Result<Self, ModelError> {
        let in_dir = |error| match error {
            ModelError::Adapter { reason, .. } => {
                ModelError::Adapter { name: dir.display().to_string(), reason }
            }
            error => error,
        };
        let config = peft::read_config(dir)?;
        self.take_copy(tensors)
            .and_then(|()| self.adapted(config, Source::File(tensors)))
            .map_err(in_dir)
    }

    /// Takes out the copy of the model's output matrix that PEFT stores beside an adapter on it.
    fn take_copy(&self, tensors: &mut Checkpoint) -> Result<(), ModelError> {
        let name = OUTPUT_MATRIX.replace(".weight", ".base_layer.weight");
        let Some(head) = self.net.lm_head.as_ref().filter(|_| tensors.contains(&name)) else {
            return Ok(());
        };
        let shape = [self.config.vocab_size, self.config.hidden_size];
        let copy = tensors.remove(&name, &shape)?;
        if head.weight.val().transpose().into_data().iter::<f32>().eq(copy) {
            return Ok(());
        }
        let stored = layout::stored_name(&self.config, OUTPUT_MATRIX);
        let reason = format!(
            "its tensor `{name}` differs from the model's `{stored}`: it was trained on another base, or on one whose output matrix was changed; {}",
            peft::MERGE
        );
        Err(ModelError::Adapter { name: String::new(), reason })
    }

    /// Puts a new adapter on the model, which changes nothing until it is trained. Only the adapter and its `modules_to_save` are trained
    /// from then on.
    ///
    /// - uniform: random numbers, uniform in [0, 1).
    ///
    /// # Errors
    /// [`ModelError::Adapter`] for settings that are out of range, fit no module or have no effect.
    pub fn with_new_adapter(
        self,
        config: LoraConfig,
        uniform: &mut dyn FnMut() -> f32,
    ) -> Result<Self, ModelError> {
        self.adapted(config, Source::New(uniform))
    }

    fn adapted(self, config: LoraConfig, mut source: Source<'_>) -> Result<Self, ModelError> {
        if self.adapter.is_some() {
            return Err(config.refuse("the model has an adapter already; merge it first".into()));
        }
        let config = config.with_present_names(self.config.family);
        let device = self.device();
        let base = self.net.valid();
        let mut net = base.clone().no_grad();
        let targets = config.targets(&self.config, &mut net)?;
        if matches!(source, Source::New(_)) {
            config.check_effects(&self.config, &targets)?;
        }
        for target in targets {
            let adapter = source.adapter(&target, &device)?;
            if let Some(slot) = slot(&mut net, &target.module) {
                *slot = Some(adapter);
            }
        }
        for core in config.saved(&self.config)? {
            let weight = match &mut source {
                Source::File(tensors) => {
                    let shape = [self.config.vocab_size, self.config.hidden_size];
                    tensors.take(&saved_name(&self.config, core), shape, &device)?
                }
                Source::New(_) => saved(&net, core),
            };
            train_whole(&mut net, core, weight);
        }
        Ok(Self { net, adapter: Some(Arc::new(Lora { config, base })), ..self })
    }

    /// The settings of the adapter, if there is one.
    pub fn adapter(&self) -> Option<&LoraConfig> {
        self.adapter.as_ref().map(|lora| &lora.config)
    }

    /// The same model without its adapter, such as the reference of a policy. Weights are shared, not copied.
    pub fn without_adapter(&self) -> Self {
        match &self.adapter {
            Some(lora) => Self { net: lora.base.clone(), adapter: None, ..self.clone() },
            None => self.clone(),
        }
    }

    /// A plain model that computes the same: the products A·B are added to the weights. All weights are trained from then on.
    ///
    /// # Errors
    /// None for an adapter that was put on this model.
    pub fn merge(self) -> Result<Self, ModelError> {
        let Some(lora) = &self.adapter else { return Ok(self) };
        let mut net = self.net.valid();
        for target in lora.config.targets(&self.config, &mut net)? {
            let Some(adapter) = slot(&mut net, &target.module).and_then(Option::take) else {
                continue;
            };
            let product = adapter.product();
            let width = product.dims()[1] / target.module.core.len();
            for (part, core) in target.module.core.iter().enumerate() {
                if let Some(projection) = projection_mut(&mut net, core) {
                    let update = product.clone().narrow(1, part * width, width);
                    projection.weight = param(core, projection.weight.val() + update);
                }
            }
        }
        Ok(Self { net: net.unfreeze(), origin: None, adapter: None, ..self })
    }

    /// Writes `adapter_config.json` and returns the tensors that belong to it, under the paths of the model's modules.
    pub(crate) fn write_adapter(&self, lora: &Lora, dir: &Path) -> Result<Checkpoint, ModelError> {
        peft::write_config(&lora.config, &self.config, self.origin.as_deref(), dir)?;
        let mut net = self.net.valid();
        let mut tensors = Checkpoint::empty();
        for target in lora.config.targets(&self.config, &mut net)? {
            if let Some(Some(adapter)) = slot(&mut net, &target.module) {
                peft::put_adapter(&mut tensors, &target, adapter);
            }
        }
        for core in lora.config.saved(&self.config)? {
            tensors.put(saved_name(&self.config, core), saved(&net, core));
        }
        Ok(tensors)
    }
}

impl Source<'_> {
    fn adapter(&mut self, target: &Target, device: &Device) -> Result<Adapter, ModelError> {
        let uniform = match self {
            Self::File(tensors) => return peft::take_adapter(tensors, target, device),
            Self::New(uniform) => uniform,
        };
        let ([inputs, outputs], rank) = (target.module.inputs_and_outputs(), target.rank);
        let bound = (inputs as f32).sqrt().recip();
        let a: Vec<f32> = (0..inputs * rank).map(|_| bound * (2.0 * uniform() - 1.0)).collect();
        let a = Tensor::from_data(TensorData::new(a, [inputs, rank]), device);
        let b = Tensor::zeros([rank, outputs], device);
        Ok(Adapter::new(target.path(), a, b, target.scale))
    }
}

/// The embedding or the output matrix, as checkpoints store it: `[vocabulary, hidden]`.
fn saved(net: &Transformer, core: &str) -> Tensor<2> {
    match &net.lm_head {
        Some(head) if core == OUTPUT_MATRIX => head.weight.val().transpose(),
        _ => net.embed_tokens.val(),
    }
}

/// Replaces the embedding or the output matrix by a weight that is trained.
fn train_whole(net: &mut Transformer, core: &str, weight: Tensor<2>) {
    match &mut net.lm_head {
        Some(head) if core == OUTPUT_MATRIX => {
            let data = weight.transpose().into_data();
            let device = head.weight.val().device();
            head.weight = param(OUTPUT_MATRIX, Tensor::from_data(data, &device));
        }
        _ => net.embed_tokens = param(EMBEDDING, weight),
    }
}
