//! Settings of a new adapter that would have no effect. Those of a file are taken as PEFT takes them.

use std::collections::{BTreeMap, BTreeSet};

use super::targets::Target;
use super::{LoraConfig, Patterns, TargetModules};
use crate::{ModelError, TransformerConfig};

impl LoraConfig {
    /// Refuses blocks that the model has not, blocks that limit nothing, and patterns in whose place others count.
    ///
    /// - targets: the modules that get an adapter.
    ///
    /// # Errors
    /// [`ModelError::Adapter`] names the setting.
    pub(super) fn check_effects(
        &self,
        config: &TransformerConfig,
        targets: &[Target],
    ) -> Result<(), ModelError> {
        self.check_blocks(config.num_hidden_layers, targets)?;
        self.check_order("rank_pattern", &self.rank_pattern, targets)?;
        self.check_order("alpha_pattern", &self.alpha_pattern, targets)
    }

    /// Refuses `layers_to_transform` where it names a block that is not there, or limits no target.
    ///
    /// - blocks: how many the model has.
    fn check_blocks(&self, blocks: usize, targets: &[Target]) -> Result<(), ModelError> {
        let Some(layers) = &self.layers_to_transform else { return Ok(()) };
        if let Some(layer) = layers.iter().find(|layer| **layer >= blocks) {
            return Err(self.refuse(format!(
                "`layers_to_transform` holds {layer}, but the model has {blocks} blocks, which are counted from 0"
            )));
        }
        let TargetModules::Named(names) = &self.target_modules else { return Ok(()) };
        let is_whole = |name: &String| targets.iter().any(|target| target.path() == name);
        if names.iter().all(is_whole) {
            let reason = "`layers_to_transform` has no effect: `target_modules` names modules by their whole paths, which say the blocks themselves; leave it out, or name the ends of paths, such as `q_proj`";
            return Err(self.refuse(reason.into()));
        }
        Ok(())
    }

    /// Refuses a pattern that is not the first to fit any module.
    fn check_order<T>(
        &self,
        key: &str,
        table: &Patterns<T>,
        targets: &[Target],
    ) -> Result<(), ModelError> {
        // Patterns that count for some module; and of every one that fits some, which counts there.
        let (mut counting, mut instead) = (BTreeSet::<&str>::new(), BTreeMap::<&str, &str>::new());
        for target in targets {
            let mut first = None;
            for (text, _) in table.iter() {
                if self.fits(key, text, target.path())? {
                    instead.insert(text, *first.get_or_insert(text));
                }
            }
            counting.extend(first);
        }
        let Some((text, first)) = instead.into_iter().find(|(text, _)| !counting.contains(text))
        else {
            return Ok(());
        };
        let remedy = format!("({text})");
        Err(self.refuse(format!(
            "`{key}` holds {text:?}, which has no effect: of the patterns that fit a module the first counts, and {first:?} comes before it; those of a recipe are in alphabetical order, where parentheses come before letters: write {remedy:?}"
        )))
    }
}
