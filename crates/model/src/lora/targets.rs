//! Which modules of a model an adapter is for, by PEFT's rules.

use std::collections::BTreeSet;

use regex::Regex;

use super::peft::MERGE;
use super::{Adapter, LoraConfig, Patterns, TargetModules};
use crate::layout::{self, Stored};
use crate::transformer::Transformer;
use crate::weights::{EMBEDDING, OUTPUT_MATRIX, block_part, projection_mut};
use crate::{ModelError, TransformerConfig};

/// Every linear module but the output matrix.
const ALL_LINEAR: &str = "all-linear";

/// The output matrix's module in transformers, whatever a family's checkpoints call its tensor.
pub(super) const HEAD: &str = "lm_head";
/// What it was called in GPT-NeoX before transformers 5, as in its checkpoints to this day.
pub(super) const OLD_HEAD: &str = "embed_out";

/// A module that gets an adapter.
pub(super) struct Target {
    pub(super) module: Stored,
    pub(super) rank: usize,
    /// α/rank, or α/√rank.
    pub(super) scale: f64,
}

impl Target {
    /// The module's path in transformers.
    pub(super) fn path(&self) -> &str {
        path(&self.module)
    }
}

/// The path of a module in transformers.
fn path(module: &Stored) -> &str {
    if module.core[0] == OUTPUT_MATRIX { HEAD } else { module.module() }
}

/// What PEFT calls the embedding or the output matrix, which is saved as a whole.
pub(super) fn saved_name(config: &TransformerConfig, core: &str) -> String {
    if core == OUTPUT_MATRIX { core.to_owned() } else { layout::stored_name(config, core) }
}

/// Where the network keeps the adapter of a module; None where it has no such module.
pub(super) fn slot<'a>(
    net: &'a mut Transformer,
    module: &Stored,
) -> Option<&'a mut Option<Adapter>> {
    match module.core.as_slice() {
        [core] => projection_mut(net, core).map(|projection| &mut projection.adapter),
        fused => {
            let (layer, _) = block_part(fused.first()?)?;
            net.layers.get_mut(layer).map(|block| &mut block.self_attn.fused_adapter)
        }
    }
}

impl LoraConfig {
    /// The modules of a model that get an adapter.
    ///
    /// # Errors
    /// [`ModelError::Adapter`] for a name or a pattern that fits no module, and for ranges.
    pub(super) fn targets(
        &self,
        config: &TransformerConfig,
        net: &mut Transformer,
    ) -> Result<Vec<Target>, ModelError> {
        self.check()?;
        let mut modules = layout::projections(config);
        modules.retain(|module| slot(net, module).is_some());
        self.choose(&mut modules)?;
        if modules.is_empty() {
            let targets = &self.target_modules;
            let reason = format!(
                "`target_modules` is {targets:?}, which fits no linear module of the model"
            );
            return Err(self.refuse(reason));
        }
        let targets: Vec<Target> =
            modules.into_iter().map(|module| self.target(module)).collect::<Result<_, _>>()?;
        self.check_patterns(&targets)?;
        Ok(targets)
    }

    /// Keeps the modules that `target_modules` and `layers_to_transform` choose.
    fn choose(&self, modules: &mut Vec<Stored>) -> Result<(), ModelError> {
        match &self.target_modules {
            TargetModules::Pattern(text) if text == ALL_LINEAR => {
                modules.retain(|module| module.core[0] != OUTPUT_MATRIX);
            }
            TargetModules::Pattern(text) => {
                let pattern = self.pattern("target_modules", text, &format!("^(?:{text})$"))?;
                modules.retain(|module| pattern.is_match(path(module)));
            }
            TargetModules::Named(names) => {
                self.check_names(names, modules)?;
                // As in PEFT, only those that are named by the end of their path are limited to some blocks.
                let chosen = |module: &Stored, name: &String| {
                    let path = path(module);
                    path == name || (ends_with(path, name) && self.transforms(&module.core[0]))
                };
                modules.retain(|module| names.iter().any(|name| chosen(module, name)));
            }
        }
        Ok(())
    }

    /// Refuses names that no module has.
    fn check_names(&self, names: &[String], modules: &[Stored]) -> Result<(), ModelError> {
        let paths = || modules.iter().map(path);
        let known = |name: &String| paths().any(|path| path == name || ends_with(path, name));
        let Some(name) = names.iter().find(|name| !known(name)) else { return Ok(()) };
        let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
        let there: BTreeSet<String> = paths().map(last).collect();
        let there = there.into_iter().collect::<Vec<_>>().join(", ");
        Err(self.refuse(format!(
            "`target_modules` holds {name:?}, but no linear module of the model is called that; there are {there}"
        )))
    }

    /// Whether `layers_to_transform` admits the block of a parameter.
    fn transforms(&self, core: &str) -> bool {
        let Some(layers) = &self.layers_to_transform else { return true };
        block_part(core).is_some_and(|(layer, _)| layers.contains(&layer))
    }

    /// Rank and scale of a module.
    fn target(&self, module: Stored) -> Result<Target, ModelError> {
        let rank = self.own("rank_pattern", &self.rank_pattern, path(&module))?.unwrap_or(self.r);
        let alpha = self.own("alpha_pattern", &self.alpha_pattern, path(&module))?;
        let divisor = if self.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
        Ok(Target { module, rank, scale: alpha.unwrap_or(self.lora_alpha) / divisor })
    }

    /// What a table of patterns says of a module: the first that fits.
    fn own<T: Copy>(
        &self,
        key: &str,
        table: &Patterns<T>,
        module: &str,
    ) -> Result<Option<T>, ModelError> {
        for (text, value) in table.iter() {
            if self.fits(key, text, module)? {
                return Ok(Some(*value));
            }
        }
        Ok(None)
    }

    /// Refuses patterns that fit no target.
    fn check_patterns(&self, targets: &[Target]) -> Result<(), ModelError> {
        let ranks = self.rank_pattern.iter().map(|(text, _)| ("rank_pattern", text));
        let alphas = self.alpha_pattern.iter().map(|(text, _)| ("alpha_pattern", text));
        for (key, text) in ranks.chain(alphas) {
            let fits = targets.iter().map(|target| self.fits(key, text, target.path()));
            if !fits.collect::<Result<Vec<bool>, _>>()?.contains(&true) {
                return Err(self.refuse(format!(
                    "`{key}` holds {text:?}, which fits no module with an adapter"
                )));
            }
        }
        Ok(())
    }

    /// Whether a pattern fits the end of a module's path.
    pub(super) fn fits(&self, key: &str, text: &str, module: &str) -> Result<bool, ModelError> {
        Ok(self.pattern(key, text, &format!(r"^(?:.*\.)?(?:{text})$"))?.is_match(module))
    }

    fn pattern(&self, key: &str, text: &str, whole: &str) -> Result<Regex, ModelError> {
        let refuse = |error: regex::Error| {
            self.refuse(format!("`{key}` holds {text:?}, which is no regular expression: {error}"))
        };
        Regex::new(whole).map_err(refuse)
    }

    /// Which of the embedding and the output matrix `modules_to_save` names, by their names in the core.
    ///
    /// # Errors
    /// [`ModelError::Adapter`] for other modules, and where both are one tensor.
    pub(super) fn saved(
        &self,
        config: &TransformerConfig,
    ) -> Result<Vec<&'static str>, ModelError> {
        let mut saved = Vec::new();
        // A classifier's head belongs to the classifier; PEFT names it both ways.
        let heads: &[&str] = if config.classifies() { &["score", "classifier"] } else { &[] };
        let own = self.modules_to_save.iter().filter(|name| !heads.contains(&name.as_str()));
        let others = format!(
            "only the embedding, the output matrix and a classifier's `score` are supported; {MERGE}"
        );
        for name in own {
            let named = |core: &&str| {
                saved_name(config, core)
                    .strip_suffix(".weight")
                    .is_some_and(|path| path == name || ends_with(path, name))
            };
            let problem = match [EMBEDDING, OUTPUT_MATRIX].into_iter().find(named) {
                None => others.as_str(),
                Some(OUTPUT_MATRIX) if config.classifies() => "a classifier has no output matrix",
                Some(_) if config.tie_word_embeddings && !config.classifies() => {
                    "embedding and output matrix of this model are one tensor"
                }
                Some(core) => {
                    saved.push(core);
                    continue;
                }
            };
            return Err(self.refuse(format!("`modules_to_save` holds {name:?}; {problem}")));
        }
        Ok(saved)
    }
}

/// Whether a path ends in `.name`.
fn ends_with(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
}
