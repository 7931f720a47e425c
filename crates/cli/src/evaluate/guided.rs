//! Sides whose responses prefix scorers guide.

use std::ops::ControlFlow;

use anyhow::{Result, bail};
use infalign_decode::guided::{GuidedGenerator, ScorerSet};
use infalign_decode::{EncodedPrompt, Generator, ProcedureDecoder};
use infalign_evaluate::{Contest, Drawn};
use infalign_model::Tokenizer;
use infalign_reward::Reward;
use infalign_transform::Composed;

use crate::generate::check_scorers;
use crate::{interrupt, scorers};

/// Refuses what models cannot be sampled under: a guided procedure without scorers, scorers without a guided procedure, rejection without a
/// table.
///
/// # Errors
/// One sentence.
pub(super) fn check(scorers: &[String], contests: &[Contest]) -> Result<()> {
    let both = |contest: &Contest| [contest.policy, contest.reference];
    let procedures: Vec<Composed> = contests.iter().flat_map(both).collect();
    if let Some(procedure) = procedures.iter().find(|one| one.needs_ranks()) {
        bail!(
            "{procedure} needs a calibration table: generate with --calibration on both sides, and evaluate what that printed with --json"
        );
    }
    check_scorers(scorers, &procedures)
}

/// What guided responses are drawn by.
pub(super) struct Guided<'a> {
    pub(super) scorers: &'a ScorerSet,
    /// What draws from the model.
    pub(super) generator: Generator<'a>,
    pub(super) tokenizer: &'a Tokenizer,
    /// What selects, where something does.
    pub(super) selects: &'a dyn Reward,
    pub(super) procedure: Composed,
}

impl Guided<'_> {
    /// Draws responses of the procedure to some prompts, with what is known of its KL to the model that it draws from.
    ///
    /// - done: given the place of a prompt among them and its responses, as soon as the last of these has ended; it breaks off the rest.
    ///
    /// # Errors
    /// When a scorer does not go with the model, or generation or a reward fails.
    pub(super) fn draw(
        &self,
        prompts: &[EncodedPrompt],
        samples: usize,
        done: &mut (dyn FnMut(usize, Drawn) -> ControlFlow<()> + Send),
    ) -> Result<()> {
        let scorer = self.scorers.weighted(&self.scorers.weights())?;
        let generator = self.generator.clone();
        let cancelled = Some(interrupt::flag());
        let Composed { selection, inner } = self.procedure;
        let guided = GuidedGenerator { generator, scorer: &scorer, procedure: inner, cancelled };
        guided.check(prompts).map_err(crate::encode::advised)?;
        let reward = Some(self.selects);
        let decoder = ProcedureDecoder::guided(selection, guided, self.tokenizer, reward)?;
        Ok(decoder.decode_each(prompts, samples, &mut |place, decoded| {
            done(place, Drawn::of(&prompts[place], decoded, true))
        })?)
    }
}

/// The scorers as results depend on them: what their files hold, whatever they are called, and their weights.
///
/// # Errors
/// When a file cannot be read.
pub(super) fn settings(given: &[String]) -> Result<String> {
    Ok(given.iter().map(|text| scorers::identity(text)).collect::<Result<Vec<_>>>()?.join(" "))
}
