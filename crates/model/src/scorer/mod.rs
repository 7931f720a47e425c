//! Prefix scorers: several values of every prefix with any token that may follow it, from one pass over the prefix.
//!
//! Controlled decoding (arXiv 2310.17022) weighs the tokens that may come next by the values of the prefixes that they would make. A head
//! that is read at the token itself needs a pass for each of them. This one is read before the token: from the hidden state h of a prefix s
//! it gives all its children at once,
//!
//! ```text
//! f = (h, gelu(h·A + b), 1)        V(s·z) = mean + scale·(f·c + f·e_z),
//! ```
//!
//! with c of a head and e_z of a head and a token. The trunk is the base itself, whose states generation has anyway, or another model
//! with its tokenizer. Values are kept within the rewards that were seen in training, where expectations of them lie.

mod head;
mod values;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

pub use head::ScorerHead;
pub use values::PrefixValues;

use crate::checkpoint::Checkpoint;
use crate::{CausalLm, LanguageModel, ModelError, Transformer, json_file};

/// What the folder of a scorer says of it.
const SPEC: &str = "scorer.json";
/// The head's weights.
const HEAD: &str = "head.safetensors";
/// Folder of a trunk of its own.
const TRUNK: &str = "trunk";

/// What a prefix scorer is, as `scorer.json` says it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScorerSpec {
    /// What its values are of.
    pub heads: Vec<ScoredReward>,
    /// Tokens that it tells apart.
    pub vocabulary: usize,
    /// Width of the states that it reads.
    pub hidden: usize,
    /// Width of the head's hidden layer.
    pub width: usize,
    /// Whether it has a trunk of its own; it reads the base's states otherwise.
    pub own_trunk: bool,
    /// λ of a soft value, (1/λ)·log E e^{λr}; the expected reward, where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft: Option<f64>,
    /// The base whose responses it was trained for.
    pub base: PathBuf,
    /// SHA-256 of the base: of its weights and the settings that its states depend on.
    pub base_sha256: String,
}

/// A reward that a scorer has a head for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoredReward {
    /// Its name.
    pub name: String,
    /// Mean of the rewards that were trained on.
    pub mean: f64,
    /// Their standard deviation, above 0.
    pub scale: f64,
    /// The least of them.
    pub least: f64,
    /// The greatest of them.
    pub greatest: f64,
}

impl ScorerSpec {
    /// Refuses what no scorer is.
    ///
    /// # Errors
    /// [`ModelError::Heads`] says what is wrong.
    pub fn check(&self) -> Result<(), ModelError> {
        let refuse = |reason: String| Err(ModelError::Heads { reason });
        let names: BTreeSet<&str> = self.heads.iter().map(|head| head.name.as_str()).collect();
        if names.is_empty() || names.len() < self.heads.len() {
            let given: Vec<&str> = self.heads.iter().map(|head| head.name.as_str()).collect();
            return refuse(format!("the names {given:?} must be at least one, and differ"));
        }
        if self.vocabulary == 0 || self.hidden == 0 || self.width == 0 {
            return refuse("vocabulary, hidden and width must be at least 1".into());
        }
        for head in &self.heads {
            let numbers = [head.mean, head.scale, head.least, head.greatest];
            let finite = numbers.iter().all(|number| number.is_finite());
            if !finite || head.scale <= 0.0 || head.least > head.greatest {
                return refuse(format!("the numbers {numbers:?} of {:?} are none", head.name));
            }
        }
        Ok(())
    }
}

/// A prefix scorer as it is trained.
#[derive(Clone, Debug)]
pub struct ScorerModel {
    spec: ScorerSpec,
    trunk: Option<CausalLm>,
    head: ScorerHead,
}

/// The trainable parts of a [`ScorerModel`].
#[derive(Module, Debug)]
pub struct ScorerNet {
    trunk: Option<Transformer>,
    head: ScorerHead,
}

impl ScorerModel {
    /// A scorer whose every value is the mean reward.
    ///
    /// - `trunk`: its own, all of which is trained; `None` to read the base's states.
    /// - `normal`: standard normal numbers.
    ///
    /// # Errors
    /// [`ModelError::Heads`] for a specification that is none, or a trunk that is not as it says or has an adapter.
    pub fn new(
        spec: ScorerSpec,
        trunk: Option<CausalLm>,
        normal: &mut dyn FnMut() -> f32,
        device: &Device,
    ) -> Result<Self, ModelError> {
        spec.check()?;
        let head = ScorerHead::random(&spec, normal, device);
        Self { spec, trunk, head }.checked()
    }

    fn checked(self) -> Result<Self, ModelError> {
        let Some(trunk) = &self.trunk else { return Ok(self) };
        let (config, spec) = (trunk.config(), &self.spec);
        let reason = if trunk.adapter().is_some() {
            "the trunk has an adapter; merge it first".to_owned()
        } else if config.vocab_size != spec.vocabulary || config.hidden_size != spec.hidden {
            format!(
                "the trunk has {} tokens and states of width {}, but the head reads {} and {}",
                config.vocab_size, config.hidden_size, spec.vocabulary, spec.hidden
            )
        } else {
            return Ok(self);
        };
        Err(ModelError::Heads { reason })
    }

    /// Reads a folder that [`ScorerModel::save`] has written.
    ///
    /// # Errors
    /// [`ModelError`] names the file and what is wrong.
    pub fn load(dir: &Path, device: &Device) -> Result<Self, ModelError> {
        let spec = Self::read_spec(dir)?;
        let mut checkpoint = Checkpoint::at(dir);
        checkpoint.read_file(&dir.join(HEAD))?;
        let head = ScorerHead::from_checkpoint(&spec, &mut checkpoint, device)?;
        let load = || CausalLm::load_plain(&dir.join(TRUNK), device);
        let trunk = spec.own_trunk.then(load).transpose()?;
        Self { spec, trunk, head }.checked()
    }

    /// Reads what a folder says of its scorer.
    fn read_spec(dir: &Path) -> Result<ScorerSpec, ModelError> {
        let spec: ScorerSpec = json_file::read(&dir.join(SPEC))?;
        spec.check()?;
        Ok(spec)
    }

    /// Writes `scorer.json`, `head.safetensors` and, of a trunk of its own, the folder `trunk` into an existing folder.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn save(&self, dir: &Path) -> Result<(), ModelError> {
        json_file::write(&dir.join(SPEC), &self.spec)?;
        self.head.valid().checkpoint().write(&dir.join(HEAD))?;
        let Some(trunk) = &self.trunk else { return Ok(()) };
        let folder = dir.join(TRUNK);
        std::fs::create_dir_all(&folder).map_err(ModelError::write(&folder))?;
        trunk.valid().save(&folder)
    }

    /// What it is.
    pub fn spec(&self) -> &ScorerSpec {
        &self.spec
    }

    /// Its own trunk.
    pub fn trunk(&self) -> Option<&CausalLm> {
        self.trunk.as_ref()
    }

    /// The head.
    pub fn head(&self) -> &ScorerHead {
        &self.head
    }

    /// The weights, for an optimiser.
    pub fn net(&self) -> ScorerNet {
        ScorerNet {
            trunk: self.trunk.as_ref().map(|trunk| trunk.net().clone()),
            head: self.head.clone(),
        }
    }

    /// The same scorer with other weights.
    pub fn with_net(self, net: ScorerNet) -> Self {
        let trunk = self.trunk.zip(net.trunk).map(|(trunk, net)| trunk.with_net(net));
        Self { trunk, head: net.head, ..self }
    }

    /// The scorer with gradients enabled.
    pub fn train(self) -> Self {
        Self { trunk: self.trunk.map(CausalLm::train), head: self.head.train(), ..self }
    }

    /// A copy without gradients, for inference.
    pub fn valid(&self) -> Self {
        Self {
            spec: self.spec.clone(),
            trunk: self.trunk.as_ref().map(CausalLm::valid),
            head: self.head.valid(),
        }
    }

    /// The head as decoding uses it, and the trunk of its own.
    pub fn for_inference(self) -> (PrefixValues, Option<Box<dyn LanguageModel>>) {
        let values = PrefixValues::new(&self.head.valid(), self.spec);
        (values, self.trunk.map(CausalLm::for_states))
    }
}
