//! Sides whose responses prefix scorers guide.

use anyhow::{Result, bail, ensure};
use infalign_decode::guided::{GuidedGenerator, ScorerSet};
use infalign_decode::{Decoded, EncodedPrompt, Generator, ProcedureDecoder};
use infalign_evaluate::{Contest, Kl, PromptText, Sampled, score};
use infalign_model::Tokenizer;
use infalign_reward::Reward;
use infalign_stats::mean_and_standard_error;
use infalign_transform::{Composed, Procedure};

use crate::{interrupt, scorers};

/// Refuses what models cannot be sampled under: a guided procedure without scorers, scorers without a guided procedure, rejection without a
/// table.
///
/// # Errors
/// One sentence.
pub(super) fn check(scorers: &[String], contests: &[Contest]) -> Result<()> {
    let procedures = || contests.iter().flat_map(|contest| [contest.policy, contest.reference]);
    if let Some(procedure) =
        procedures().find(|one| matches!(one.selection, Procedure::Rejection { .. }))
    {
        bail!(
            "{procedure} needs a calibration table: generate with --calibration on both sides, and evaluate what that printed with --json"
        );
    }
    let guided = procedures().find(Composed::is_guided);
    match guided {
        Some(procedure) => ensure!(
            !scorers.is_empty(),
            "{procedure} chooses among prefixes, which needs a prefix scorer: give --scorer DIR, which `infalign scorer` makes"
        ),
        None => ensure!(
            scorers.is_empty(),
            "--scorer has nothing to say in procedures that look at whole responses: leave it out"
        ),
    }
    Ok(())
}

/// What responses are drawn and scored by.
pub(super) struct Guided<'a> {
    pub(super) scorers: &'a ScorerSet,
    /// What draws from the model.
    pub(super) generator: Generator<'a>,
    pub(super) tokenizer: &'a Tokenizer,
    /// What selects, where something does.
    pub(super) selects: &'a dyn Reward,
    pub(super) judges: Option<&'a dyn Reward>,
}

impl Guided<'_> {
    /// Responses of the procedure, with what is known of its KL to the model that it draws from.
    ///
    /// # Errors
    /// When a scorer does not go with the model, or generation or a reward fails.
    pub(super) fn sample(
        &self,
        procedure: Composed,
        prompts: &[EncodedPrompt],
        samples: usize,
    ) -> Result<Sampled> {
        let scorer = self.scorers.weighted(&self.scorers.weights())?;
        let generator = self.generator.clone();
        let cancelled = Some(interrupt::flag());
        let Composed { selection, inner } = procedure;
        let guided = GuidedGenerator { generator, scorer: &scorer, procedure: inner, cancelled };
        guided.check(prompts)?;
        let reward = Some(self.selects);
        let decoder = ProcedureDecoder::guided(selection, guided, self.tokenizer, reward)?;
        let decoded = decoder.decode_samples(prompts, samples)?;
        ensure!(!interrupt::asked(), "stopped");
        let sampled = self.scored(procedure, prompts, &decoded)?;
        Ok(Sampled { procedure_kl: kl(&decoded)?, ..sampled })
    }

    fn scored(
        &self,
        procedure: Composed,
        prompts: &[EncodedPrompt],
        decoded: &[Vec<Decoded>],
    ) -> Result<Sampled> {
        let count = |of: fn(&Decoded) -> usize| -> Vec<Vec<usize>> {
            decoded.iter().map(|all| all.iter().map(of).collect()).collect()
        };
        let text = |all: &Vec<Decoded>| all.iter().map(|one| one.text.clone()).collect();
        let responses: Vec<Vec<String>> = decoded.iter().map(text).collect();
        let by = |reward| score(reward, prompts.iter().map(|one| one.text.as_str()), &responses);
        let (rewards, judged) = (by(self.selects)?, self.judges.map(by).transpose()?);
        let prompt = |prompt: &EncodedPrompt| PromptText {
            id: prompt.id.clone(),
            text: prompt.text.clone(),
        };
        Ok(Sampled {
            prompts: prompts.iter().map(prompt).collect(),
            procedure: Some(procedure),
            responses,
            rewards,
            judged,
            tokens: Some(count(|one| one.response.tokens.len())),
            made: Some(count(|one| one.cost.model_tokens)),
            ..Sampled::default()
        })
    }
}

/// The mean over prompts of what the responses say of the procedure's KL, with the label that they give it.
fn kl(decoded: &[Vec<Decoded>]) -> Result<Option<Kl>> {
    let Some(first) = decoded.iter().flatten().find_map(|one| one.kl.first()) else {
        return Ok(None);
    };
    let of = |one: &Decoded| one.kl.first().map_or(0.0, |kl| kl.nats);
    let mean = |all: &Vec<Decoded>| all.iter().map(of).sum::<f64>() / all.len().max(1) as f64;
    let means: Vec<f64> = decoded.iter().map(mean).collect();
    let (estimate, standard_error) = mean_and_standard_error(&means)?;
    Ok(Some(Kl { estimate, standard_error, kind: first.kind, k1: None, k3: None }))
}

/// The scorers as results depend on them: what their files hold, whatever they are called, and their weights.
///
/// # Errors
/// When a file cannot be read.
pub(super) fn settings(given: &[String]) -> Result<String> {
    Ok(given.iter().map(|text| scorers::identity(text)).collect::<Result<Vec<_>>>()?.join(" "))
}
