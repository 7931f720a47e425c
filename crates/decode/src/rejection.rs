//! Rejection above a quantile: draws until one is good enough, and no more than were granted.

use std::ops::ControlFlow;
use std::sync::Mutex;

use infalign_transform::procedure::accepts;

use crate::gather::locked;
use crate::guided::Candidate;
use crate::{Cost, DecodeError, Decoded, EncodedPrompt, Finish, ProcedureDecoder};

/// The calibrated reward u in [0, 1] of a response to a prompt, from its reward: its rank among responses of the same policy, ties counted half.
/// None where nothing is known of the prompt.
pub type Ranks<'a> = &'a (dyn Fn(&EncodedPrompt, f32) -> Option<f64> + Sync);

/// Most draws for one response that are made before it is asked whether one of them will do.
const ROUND: usize = 16;
/// Prompts that are drawn for together. A run that ends early has lost what it had for no more of them; and with fewer, rounds would leave batches
/// emptier than they do, the first of which have a draw a prompt.
const TOGETHER: usize = 64;

/// A response that is still looked for.
struct Open {
    /// Index of the prompt.
    prompt: usize,
    cost: Cost,
    taken: Option<Decoded>,
}

impl ProcedureDecoder<'_> {
    /// The responses of each prompt, each the first of its draws whose rank is φ or more, or the last of N.
    ///
    /// All responses of some prompts are found before those of others are looked for.
    pub(crate) fn reject_each(
        &self,
        prompts: &[EncodedPrompt],
        samples: usize,
        (quantile, draws): (f64, usize),
        done: &mut (dyn FnMut(usize, Vec<Decoded>) -> ControlFlow<()> + Send),
    ) -> Result<(), DecodeError> {
        self.accepting()?;
        self.source.check(prompts)?;
        for (number, chunk) in prompts.chunks(TOGETHER).enumerate() {
            let first = number * TOGETHER;
            let mut hand_on = |place: usize, decoded: Vec<Decoded>| done(first + place, decoded);
            let rest = self.reject_chunk(chunk, samples, (quantile, draws), &mut hand_on)?;
            if rest.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The same for as many prompts as are drawn for together; says whether the rest is broken off.
    ///
    /// Draws are made in rounds, each twice as large as the one before: what is accepted depends on their numbers alone, and what was drawn past
    /// it is counted as cost.
    fn reject_chunk(
        &self,
        prompts: &[EncodedPrompt],
        samples: usize,
        (quantile, draws): (f64, usize),
        done: &mut dyn FnMut(usize, Vec<Decoded>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, DecodeError> {
        let mut found: Vec<Vec<Decoded>> = vec![Vec::new(); prompts.len()];
        for sample in 0..samples {
            let open = |prompt| Open { prompt, cost: Cost::default(), taken: None };
            let mut open: Vec<Open> = (0..prompts.len()).map(open).collect();
            let (mut first, mut length) = (0, 1);
            while !open.is_empty() {
                let end = draws.min(first + length);
                let before = sample.saturating_mul(draws);
                let numbers = before.saturating_add(first)..before.saturating_add(end);
                let Some(drawn) = self.drawn(prompts, &open, numbers)? else {
                    return Ok(ControlFlow::Break(()));
                };
                for (open, candidates) in open.iter_mut().zip(&drawn) {
                    let prompt = &prompts[open.prompt];
                    self.look(prompt, open, candidates, (quantile, end == draws))?;
                }
                let taken = open.extract_if(.., |one| one.taken.is_some());
                for (prompt, taken) in taken.filter_map(|one| Some((one.prompt, one.taken?))) {
                    found[prompt].push(taken);
                    if sample + 1 == samples
                        && done(prompt, std::mem::take(&mut found[prompt])).is_break()
                    {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                (first, length) = (end, (2 * length).min(ROUND));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Draws for all responses that are looked for; None where that was broken off.
    fn drawn(
        &self,
        prompts: &[EncodedPrompt],
        open: &[Open],
        numbers: std::ops::Range<usize>,
    ) -> Result<Option<Vec<Vec<Candidate>>>, DecodeError> {
        let asked: Vec<EncodedPrompt> =
            open.iter().map(|open| prompts[open.prompt].clone()).collect();
        let all = Mutex::new(vec![Vec::new(); open.len()]);
        self.source.each(&asked, numbers.clone(), &|place, candidates| {
            locked(&all)[place] = candidates.into_iter().flatten().collect();
            ControlFlow::Continue(())
        })?;
        let all = all.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let whole = |drawn: &Vec<Candidate>| {
            let cancelled = |one: &Candidate| one.response.finish == Finish::Cancelled;
            drawn.len() >= numbers.len() && !drawn.iter().any(cancelled)
        };
        Ok(all.iter().all(whole).then_some(all))
    }

    /// What draws are accepted by.
    fn accepting(&self) -> Result<Ranks<'_>, DecodeError> {
        self.ranks.filter(|_| self.reward.is_some()).ok_or_else(|| DecodeError::Procedure {
            procedure: self.selection.to_string(),
            reason: "it accepts by calibrated rewards, which needs a reward and a calibration table of these prompts",
        })
    }

    /// Takes the first candidate that will do, or the last of all.
    fn look(
        &self,
        prompt: &EncodedPrompt,
        open: &mut Open,
        candidates: &[Candidate],
        (quantile, last): (f64, bool),
    ) -> Result<(), DecodeError> {
        let ranks = self.accepting()?;
        let (texts, scores) = self.texts_and_scores(prompt, candidates)?;
        let scores = scores.unwrap_or_default();
        for one in candidates {
            open.cost.model_tokens += one.cost.model_tokens;
            open.cost.scorer_calls += one.cost.scorer_calls + 1;
        }
        let mut accepted = None;
        for (place, score) in scores.iter().enumerate() {
            let rank = ranks(prompt, *score);
            let rank = rank.ok_or_else(|| DecodeError::NoRank { prompt: prompt.name() })?;
            if accepts(quantile, rank) {
                accepted = Some(place);
                break;
            }
        }
        let Some(place) = accepted.or_else(|| scores.len().checked_sub(1).filter(|_| last)) else {
            return Ok(());
        };
        let decoded =
            self.decoded(&candidates[place], &texts[place], Some(scores[place]), open.cost);
        open.taken = Some(Decoded { accepted: Some(accepted.is_some()), ..decoded });
        Ok(())
    }
}
