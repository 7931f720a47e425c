//! The models of a scorer recipe: the base, and what must read its tokens.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use infalign_backend::Device;
use infalign_model::{CausalLm, Head as Output, ModelFolder, Tokenizer};
use infalign_transform::Composed;

use super::super::inputs::check_stops;
use crate::encode::Encoder;
use crate::models::{check_vocabularies, warn_of_end};
use crate::recipe::{Paths, ScorerRecipe};

/// The models that stay in memory, with the base's tokenizer.
pub(super) struct Models {
    pub(super) base: CausalLm,
    pub(super) base_folder: PathBuf,
    pub(super) tokenizer: Tokenizer,
    pub(super) trunk: Option<CausalLm>,
    pub(super) evaluation_base: Option<CausalLm>,
}

impl Models {
    /// Loads them, and refuses a trunk that reads less than the base can write.
    pub(super) fn load(recipe: &ScorerRecipe, paths: &Paths<'_>, device: &Device) -> Result<Self> {
        let folder = paths.model(&recipe.model)?;
        let base = CausalLm::load(&folder, device).context("model")?;
        check_stops(&recipe.generation, &base)?;
        let tokenizer = Tokenizer::load(&folder, base.config())?;
        warn_of_end(&tokenizer, base.config(), &recipe.generation);
        let other = |model: &Option<PathBuf>, key: &'static str| {
            let other = model.as_ref().map(|model| load_other(model, paths, &base, &tokenizer));
            other.transpose().context(key)
        };
        let trunk = other(&recipe.trunk, "trunk")?;
        if let Some(trunk) = &trunk {
            check_context(trunk, base.config().max_position_embeddings).context("trunk")?;
        }
        let evaluation_base = other(&recipe.evaluation_base, "evaluation_base")?;
        let base_folder = folder.path().to_path_buf();
        Ok(Self { base, base_folder, tokenizer, trunk, evaluation_base })
    }

    /// Encodes prompts for the base.
    pub(super) fn encoder(&self) -> Encoder<'_> {
        Encoder::new(&self.tokenizer).within(self.base.config().max_position_embeddings)
    }

    /// The model that the scorer reads with.
    fn reader(&self) -> &CausalLm {
        self.trunk.as_ref().unwrap_or(&self.base)
    }

    /// Refuses an evaluation base that the scorer cannot read, or without room for a response to every prompt.
    ///
    /// - `longest`: tokens of the longest prompt with its response.
    pub(super) fn check_evaluation_base(&self, longest: usize) -> Result<()> {
        let Some(other) = &self.evaluation_base else { return Ok(()) };
        let context = other.config().max_position_embeddings;
        check_context(self.reader(), context)
            .and_then(|()| check_room(context, longest))
            .context("evaluation_base")
    }

    /// Finds the models of `recipe.policy`, which are loaded one at a time.
    ///
    /// - `longest`: tokens of the longest prompt with its response.
    pub(super) fn policies(
        &self,
        recipe: &ScorerRecipe,
        paths: &Paths<'_>,
        longest: usize,
    ) -> Result<Vec<ModelFolder>> {
        let policies = recipe.policy.iter().map(|policy| {
            let key = || format!("[[policy]] {:?}", policy.name);
            let folder = self.policy(&policy.model, paths, longest).with_context(key)?;
            if policy.evaluation().procedures.iter().any(Composed::is_guided) {
                let writes = folder.config(Output::CausalLm)?.max_position_embeddings;
                check_context(self.reader(), writes).with_context(key)?;
            }
            Ok(folder)
        });
        policies.collect()
    }

    /// Finds a policy that was trained from the base, and refuses what cannot be one.
    fn policy(&self, model: &Path, paths: &Paths<'_>, longest: usize) -> Result<ModelFolder> {
        let folder = paths.model(model)?;
        let config = folder.config(Output::CausalLm)?;
        let shown = folder.path().display().to_string();
        ensure!(
            self.tokenizer.has_tokens_of(&folder.tokenizer()?)?,
            "{shown} has another tokenizer than the base, so that it has no KL to it: a policy is trained from the base"
        );
        let of_base = self.base.config().vocab_size;
        check_vocabularies((&shown, config.vocab_size), ("the base", of_base))?;
        check_room(config.max_position_embeddings, longest)?;
        Ok(folder)
    }
}

/// Loads another model that reads the base's tokens.
fn load_other(
    model: &Path,
    paths: &Paths<'_>,
    base: &CausalLm,
    tokenizer: &Tokenizer,
) -> Result<CausalLm> {
    let folder = paths.model(model)?;
    let model = CausalLm::load(&folder, &base.device())?.merge()?;
    let shown = folder.path().display().to_string();
    ensure!(
        tokenizer.has_tokens_of(&folder.tokenizer()?)?,
        "{shown} has another tokenizer than the base: a scorer reads the base's tokens"
    );
    let [size, of_base] = [&model, base].map(|one| one.config().vocab_size);
    check_vocabularies((&shown, size), ("the base", of_base))?;
    Ok(model)
}

/// Refuses a model that has no room for a response to every prompt.
///
/// - `context`: tokens of its context.
/// - `longest`: tokens of the longest prompt with its response.
fn check_room(context: usize, longest: usize) -> Result<()> {
    ensure!(
        longest <= context,
        "the model's context is {context} tokens, but a prompt with its response has up to {longest}: leave the model out, or lower generation.max_tokens"
    );
    Ok(())
}

/// Refuses a scorer that cannot read whatever a model can write.
///
/// - `context`: tokens of that model's context.
fn check_context(reads: &CausalLm, context: usize) -> Result<()> {
    let own = reads.config().max_position_embeddings;
    ensure!(
        own >= context,
        "the scorer's trunk reads {own} tokens, but the model {context}: a scorer must read whatever the model can write"
    );
    Ok(())
}
