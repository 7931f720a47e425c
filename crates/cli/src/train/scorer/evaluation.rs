//! What procedures make of a prefix scorer on the prompts held out: rewards, KL and cost.

use std::path::Path;

use anyhow::{Context, Result};
use infalign_decode::guided::{GuidedGenerator, LearnedScorer};
use infalign_decode::{
    DecodeError, Decoded, EncodedPrompt, Event, Generator, Kl, ProcedureDecoder,
};
use infalign_evaluate::{EvaluateError, kl_per_response};
use infalign_model::{CausalLm, LanguageModel, PrefixValues, Sequence, Tokenizer};
use infalign_reward::{Reward, WeightedSum};
use infalign_transform::{Composed, Procedure};

use super::super::made_by::MadeBy;
use super::super::stages::{once, stop_if_asked};
use super::measures::{Measured, Measures};
use super::row::Row;
use crate::files::make_folder;
use crate::interrupt;
use crate::progress::{KL, Progress, Stage};
use crate::recipe::{Head, ScorerEvaluation};

/// A scorer at work.
pub(super) struct Guide {
    pub(super) values: PrefixValues,
    /// What it reads through; none where that is whatever draws.
    pub(super) trunk: Option<Box<dyn LanguageModel>>,
}

/// A policy that was trained from the base.
#[derive(Clone, Copy)]
pub(super) struct Trained<'a> {
    pub(super) name: &'a str,
    pub(super) policy: &'a CausalLm,
    pub(super) base: &'a CausalLm,
    /// What shows of how many prompts its KL is measured.
    pub(super) bar: &'a Stage,
}

impl Trained<'_> {
    /// The mean of log π/π_base over responses: by the chain rule what KL(T(π)‖π_base) has beyond KL(T(π)‖π).
    fn log_ratio(
        &self,
        prompts: &[EncodedPrompt],
        decoded: &[Vec<Decoded>],
    ) -> Result<f64, EvaluateError> {
        let sequences: Vec<Sequence> = prompts
            .iter()
            .zip(decoded)
            .flat_map(|(prompt, responses)| {
                responses.iter().map(move |one| one.response.sequence(prompt))
            })
            .collect();
        let samples = decoded.first().map_or(1, |responses| responses.len().max(1));
        let observe = |responses: usize| {
            self.bar.set(responses / samples, KL.to_owned());
            interrupt::flow()
        };
        let kl = kl_per_response(self.policy, self.base, &sequences, &observe)?;
        Ok(kl.iter().map(|one| one.k1).sum::<f64>() / kl.len().max(1) as f64)
    }
}

/// What procedures run with.
pub(super) struct ScorerEvaluator<'a> {
    /// How responses are drawn.
    pub(super) generator: Generator<'a>,
    /// The policy that they are drawn from, where that is not the base.
    pub(super) trained: Option<Trained<'a>>,
    pub(super) tokenizer: &'a Tokenizer,
    /// Prompts held out.
    pub(super) prompts: &'a [EncodedPrompt],
    /// The rewards of the recipe, and what they are called.
    pub(super) heads: &'a [Head],
    pub(super) rewards: &'a dyn Fn(&Head) -> Result<Box<dyn Reward>>,
    pub(super) measures: &'a Measures<'a>,
    pub(super) guide: &'a Guide,
}

impl ScorerEvaluator<'_> {
    /// Runs every procedure with every set of weights; what a file `RUN/evaluation/N.json` holds is not run again.
    ///
    /// # Errors
    /// When a procedure cannot be run, or a file not written.
    pub(super) fn run(
        &self,
        evaluations: &[ScorerEvaluation],
        run: &Path,
        made_by: &MadeBy,
        progress: &mut Progress,
    ) -> Result<Vec<Row>> {
        let folder = run.join("evaluation");
        let mut rows: Vec<Row> = Vec::new();
        for evaluation in evaluations {
            make_folder(&folder)?;
            for procedure in &evaluation.procedures {
                let path = folder.join(format!("{}.json", rows.len()));
                let title = procedure.to_string();
                let make = |_: &Stage| -> Result<Row> {
                    let key = || format!("evaluation.procedures: {procedure}");
                    self.row(*procedure, evaluation).with_context(key)
                };
                let stage = (title.as_str(), self.prompts.len());
                let row = once((made_by, &path), stage, progress, make, Row::summary)?;
                self.measures.check(&row, &path)?;
                rows.push(row);
                stop_if_asked()?;
            }
        }
        Ok(rows)
    }

    /// Runs a procedure.
    ///
    /// # Errors
    /// As [`ScorerEvaluator::run`].
    pub(super) fn row(&self, procedure: Composed, evaluation: &ScorerEvaluation) -> Result<Row> {
        self.measure(procedure, evaluation).or_else(|error| {
            // Responses and their KL are broken off by Ctrl-C.
            if matches!(error.downcast_ref(), Some(DecodeError::Cancelled { .. }))
                || matches!(error.downcast_ref(), Some(EvaluateError::Stopped))
            {
                stop_if_asked()?;
            }
            Err(error)
        })
    }

    fn measure(&self, procedure: Composed, evaluation: &ScorerEvaluation) -> Result<Row> {
        let decoded = self.decode(procedure, evaluation)?;
        let text = |responses: &Vec<Decoded>| responses.iter().map(|y| y.text.clone()).collect();
        let texts: Vec<Vec<String>> = decoded.iter().map(text).collect();
        let Measured { rewards, win_rates } = self.measures.of(&texts, None)?;
        let trained = self.trained.map(|trained| trained.log_ratio(self.prompts, &decoded));
        let log_ratio = trained.transpose()?.unwrap_or(0.0);
        let all: Vec<&Decoded> = decoded.iter().flatten().collect();
        let mean = |of: &dyn Fn(&Decoded) -> f64| {
            all.iter().map(|one| of(one)).sum::<f64>() / all.len().max(1) as f64
        };
        let kinds = all.first().map_or(0, |one| one.kl.len());
        let kl = (0..kinds).map(|place| Kl {
            nats: log_ratio + mean(&|one| one.kl.get(place).map_or(0.0, |kl| kl.nats)),
            kind: all[0].kl[place].kind,
        });
        Ok(Row {
            policy: self.trained.map(|trained| trained.name.to_owned()),
            procedure,
            weights: evaluation.weights.clone(),
            rewards,
            win_rates,
            kl: kl.collect(),
            model_tokens: mean(&|one| one.cost.model_tokens as f64),
            scorer_calls: mean(&|one| one.cost.scorer_calls as f64),
            truncation: mean(&|one| one.truncation),
        })
    }

    /// The responses that the procedure gives to every prompt, `[prompts][samples]`.
    fn decode(
        &self,
        procedure: Composed,
        evaluation: &ScorerEvaluation,
    ) -> Result<Vec<Vec<Decoded>>> {
        let weight = |head: &Head| evaluation.weights.get(&head.name).copied().unwrap_or(0.0);
        let weights: Vec<f64> = self.heads.iter().map(weight).collect();
        let sum = self.sum(&weights)?;
        let sum = sum.as_ref().map(|sum| sum as &dyn Reward);
        let scorer = LearnedScorer::new(&self.guide.values, self.guide.trunk.as_deref(), &weights)?;
        let watch = |_: Event<'_>| interrupt::flow();
        let generator = Generator { watch: Some(&watch), ..self.generator.clone() };
        let Composed { selection, inner } = procedure;
        let decoder = if inner == Procedure::Sample {
            ProcedureDecoder::new(selection, &generator, self.tokenizer, sum)?
                .with_seed(generator.seed)
        } else {
            let cancelled = Some(interrupt::flag());
            let guided =
                GuidedGenerator { generator, scorer: &scorer, procedure: inner, cancelled };
            guided.check(self.prompts)?;
            ProcedureDecoder::guided(selection, guided, self.tokenizer, sum)?
        };
        Ok(decoder.decode_samples(self.prompts, evaluation.samples)?)
    }

    /// The rewards of the heads times their weights; none for plain samples, which alone go by no weights.
    fn sum(&self, weights: &[f64]) -> Result<Option<WeightedSum>> {
        let parts = self.heads.iter().zip(weights).filter(|(_, weight)| **weight != 0.0);
        let parts = parts.map(|(head, weight)| Ok((*weight as f32, (self.rewards)(head)?)));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        Ok(if parts.is_empty() { None } else { Some(WeightedSum::new(parts)?) })
    }
}
