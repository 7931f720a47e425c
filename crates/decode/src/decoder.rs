//! Inference-time procedures: from prompts to the responses that a user would see.

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::sync::mpsc;

use infalign_model::Tokenizer;
use infalign_reward::{Reward, scored};
use infalign_transform::{Composed, Procedure, RankDensity};

use crate::guided::{Candidate, GuidedGenerator};
use crate::kl::{Kl, best_of_kl_estimate};
use crate::rejection::Ranks;
use crate::sampler::whole;
use crate::{DecodeError, EncodedPrompt, Finish, Response, Sampler, Sampling, StopTexts, Stream};

/// Names the random streams by which a selection draws.
const STAGE: &str = "select";
/// Prompts whose candidates wait for a slow reward; drawing waits beyond.
const WAITING: usize = 16;

/// What a response cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Response tokens drawn from the model, those of discarded candidates included.
    pub model_tokens: usize,
    /// Values that were asked for: of responses by the reward, and of prefixes by the prefix scorer.
    pub scorer_calls: usize,
}

/// A response with what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The text that follows the prompt.
    pub text: String,
    /// Tokens and log-probabilities.
    pub response: Response,
    /// Its reward, where the procedure or the caller has one.
    pub score: Option<f32>,
    /// V of the complete response, where a prefix scorer was asked for it.
    pub value: Option<f64>,
    /// What it cost.
    pub cost: Cost,
    /// What is known of the procedure's KL to what tokens are drawn from: the model at the temperature, top-k and top-p asked for.
    pub kl: Vec<Kl>,
    /// The most that limiting the candidates of `cd-token` can have moved of the distribution of responses, in total variation.
    pub truncation: f64,
    /// Under `rejection`, whether it was accepted; if not, it is the last of the draws that the procedure has.
    pub accepted: Option<bool>,
}

impl Decoded {
    /// A response of which nothing else is known.
    pub fn new(text: String, response: Response) -> Self {
        let (score, value, cost, kl) = (None, None, Cost::default(), Vec::new());
        Self { text, response, score, value, cost, kl, truncation: 0.0, accepted: None }
    }
}

/// Turns prompts into responses.
pub trait Decoder {
    /// One response a prompt.
    ///
    /// # Errors
    /// [`DecodeError`] names the prompt or setting at fault.
    fn decode(&self, prompts: &[EncodedPrompt]) -> Result<Vec<Decoded>, DecodeError>;
}

/// Any procedure: responses from a sampler, or from one that a prefix scorer guides, and a selection among them.
pub struct ProcedureDecoder<'a> {
    pub(crate) source: Source<'a>,
    tokenizer: &'a Tokenizer,
    pub(crate) selection: Procedure,
    pub(crate) reward: Option<&'a dyn Reward>,
    pub(crate) ranks: Option<Ranks<'a>>,
    seed: u64,
}

/// Where the responses come from between which a procedure selects.
pub(crate) enum Source<'a> {
    Plain(&'a dyn Sampler),
    Guided(GuidedGenerator<'a>),
}

impl<'a> ProcedureDecoder<'a> {
    /// A decoder of a procedure that looks at complete responses only.
    ///
    /// # Errors
    /// [`DecodeError::Procedure`] when a selection has no reward to select by, or the procedure needs a prefix scorer;
    /// [`DecodeError::Transform`] for numbers out of range.
    pub fn new(
        procedure: Procedure,
        sampler: &'a dyn Sampler,
        tokenizer: &'a Tokenizer,
        reward: Option<&'a dyn Reward>,
    ) -> Result<Self, DecodeError> {
        check_selection(procedure, procedure.into(), reward)?;
        let source = Source::Plain(sampler);
        Ok(Self { source, tokenizer, selection: procedure, reward, ranks: None, seed: 0 })
    }

    /// A decoder of a selection among responses that a prefix scorer guides; `sample` takes the one there is.
    ///
    /// # Errors
    /// As [`ProcedureDecoder::new`].
    pub fn guided(
        selection: Procedure,
        guided: GuidedGenerator<'a>,
        tokenizer: &'a Tokenizer,
        reward: Option<&'a dyn Reward>,
    ) -> Result<Self, DecodeError> {
        let composed = Composed { selection, inner: guided.procedure };
        check_selection(selection, composed, reward)?;
        if selection.needs_ranks() {
            return Err(DecodeError::Procedure {
                procedure: composed.to_string(),
                reason: "rejection accepts by ranks among plain responses: it cannot stand over another procedure",
            });
        }
        let seed = guided.generator.seed;
        let source = Source::Guided(guided);
        Ok(Self { source, tokenizer, selection, reward, ranks: None, seed })
    }

    /// The seed of what a selection draws, as `soft-best-of` does; 0 unless it is set or a [`GuidedGenerator`] has one.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// What `rejection` accepts by: a decoder of it fails without.
    #[must_use]
    pub fn with_ranks(self, ranks: Ranks<'a>) -> Self {
        Self { ranks: Some(ranks), ..self }
    }

    /// Several independent responses of the procedure to each prompt: `[prompts][samples]`.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn decode_samples(
        &self,
        prompts: &[EncodedPrompt],
        samples: usize,
    ) -> Result<Vec<Vec<Decoded>>, DecodeError> {
        let mut all = vec![(samples == 0).then(Vec::new); prompts.len()];
        self.decode_each(prompts, samples, &mut |prompt, decoded| {
            all[prompt] = Some(decoded);
            ControlFlow::Continue(())
        })?;
        whole(prompts, all)
    }

    /// The same, handed over prompt by prompt, in the order in which they are finished.
    ///
    /// - done: given the index of a prompt and its responses, while others are generated; it breaks off the rest by [`ControlFlow::Break`].
    ///
    /// # Errors
    /// As [`Decoder::decode`], after `done` has had whatever was finished. A prompt of which a response was cancelled ends the rest.
    pub fn decode_each(
        &self,
        prompts: &[EncodedPrompt],
        samples: usize,
        done: &mut (dyn FnMut(usize, Vec<Decoded>) -> ControlFlow<()> + Send),
    ) -> Result<(), DecodeError> {
        self.decode_each_within((), prompts, samples, done)
    }

    /// The same within some room, such as a permit to generate, which is dropped once nothing more is drawn: the reward may be waited for
    /// longer. `rejection` draws by rewards, and has it to the end.
    ///
    /// # Errors
    /// As [`ProcedureDecoder::decode_each`].
    pub fn decode_each_within(
        &self,
        room: impl Sized,
        prompts: &[EncodedPrompt],
        samples: usize,
        done: &mut (dyn FnMut(usize, Vec<Decoded>) -> ControlFlow<()> + Send),
    ) -> Result<(), DecodeError> {
        if let Procedure::Rejection { quantile, draws } = self.selection {
            return self.reject_each(prompts, samples, (quantile, draws.get()), done);
        }
        let numbers = 0..self.selection.samples().saturating_mul(samples);
        let (sender, receiver) = mpsc::sync_channel::<(usize, Vec<Vec<Candidate>>)>(WAITING);
        std::thread::scope(|scope| {
            // A thread of its own: the sampler's would wait for the reward.
            let selecting = scope.spawn(move || {
                for (prompt, candidates) in receiver {
                    // Broken off by the watcher: there is no choice among parts.
                    let mut all = candidates.iter().flatten();
                    if all.any(|one| one.response.finish == Finish::Cancelled) {
                        break;
                    }
                    if done(prompt, self.choose(&prompts[prompt], candidates)?).is_break() {
                        break;
                    }
                }
                Ok(())
            });
            let sampled = self.source.each(prompts, numbers, &|prompt, candidates| {
                // Nobody receives any more where the reward failed or the caller has had enough.
                match sender.send((prompt, candidates)) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            });
            drop(room);
            drop(sender);
            let selected =
                selecting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            sampled.and(selected)
        })
    }

    /// Of every N responses, the one that the procedure keeps.
    fn choose(
        &self,
        prompt: &EncodedPrompt,
        responses: Vec<Vec<Candidate>>,
    ) -> Result<Vec<Decoded>, DecodeError> {
        let all: Vec<&Candidate> = responses.iter().flatten().collect();
        let (texts, scores) = self.texts_and_scores(prompt, all.iter().copied())?;
        // Where a response has several finalists, the reward decides between them first.
        let mut first = 0;
        let mut singles = Vec::with_capacity(responses.len());
        for finalists in &responses {
            let range = first..first + finalists.len();
            first = range.end;
            let kept = scores.as_ref().map_or(0, |scores| greatest(&scores[range.clone()]));
            singles.push(Single { place: range.start + kept, range });
        }
        let texts = Texts { all: &all, texts: &texts, scores: scores.as_deref() };
        let groups = singles.chunks(self.selection.samples()).enumerate();
        Ok(groups.map(|(number, group)| self.select(prompt, number, group, &texts)).collect())
    }

    /// The response that the selection keeps of some, with the cost of all.
    ///
    /// - `number`: of the response among those of the procedure to the prompt.
    fn select(
        &self,
        prompt: &EncodedPrompt,
        number: usize,
        group: &[Single],
        texts: &Texts<'_>,
    ) -> Decoded {
        let scores: Vec<f32> =
            group.iter().map(|one| texts.scores.map_or(0.0, |scores| scores[one.place])).collect();
        let kept = match self.selection {
            Procedure::Majority(_) => most_frequent(group.iter().map(|one| {
                let text = texts.texts[one.place].as_str();
                self.reward.map_or(Some(text), |reward| reward.answer(text))
            })),
            other => other.selection().map_or(0, |selection| {
                let stream = || Stream::new(self.seed, STAGE, &prompt.id, number as u64);
                selection.keep(&scores, || stream().uniform(0))
            }),
        };
        let place = group[kept].place;
        let (mut cost, mut truncation) = (Cost::default(), 0.0);
        for one in group.iter().flat_map(|single| single.range.clone()) {
            cost.model_tokens += texts.all[one].cost.model_tokens;
            cost.scorer_calls += texts.all[one].cost.scorer_calls;
            // Whichever is kept, it may be another for what any of them lacks.
            truncation += texts.all[one].truncation;
        }
        let scored: usize = group.iter().map(|single| single.range.len()).sum();
        cost.scorer_calls += texts.scores.map_or(0, |_| scored);
        let candidate = texts.all[place];
        let score = texts.scores.map(|scores| scores[place]);
        let decoded = self.decoded(candidate, &texts.texts[place], score, cost);
        Decoded { truncation: truncation.min(1.0), ..decoded }
    }

    /// What becomes of a candidate that is kept.
    pub(crate) fn decoded(
        &self,
        kept: &Candidate,
        text: &str,
        score: Option<f32>,
        cost: Cost,
    ) -> Decoded {
        Decoded {
            text: text.to_owned(),
            response: kept.response.clone(),
            score,
            value: kept.value,
            cost,
            kl: self.kl(kept),
            truncation: kept.truncation,
            accepted: None,
        }
    }

    /// What is known of the KL from the response that was kept.
    ///
    /// KL(S(T)‖π) = KL(S(T)‖T) + E[log T/π], the expectation over what S keeps.
    fn kl(&self, kept: &Candidate) -> Vec<Kl> {
        let selection = Kl::of_selection(self.selection);
        let plain = match self.source {
            Source::Plain(sampler) => Some(sampler.sampling()),
            Source::Guided(_) => None,
        };
        if selection == Kl::exact(0.0) {
            return kept.kl.clone();
        }
        let bound = Kl::bound(selection.nats + kept.log_ratio);
        match self.selection {
            // Of another distribution than the model's own, π(y) is not known.
            Procedure::BestOf(n) if plain.is_some_and(Sampling::is_of_the_model_itself) => {
                let log_prob = kept.response.log_probs.iter().map(|&p| f64::from(p)).sum();
                let nats = best_of_kl_estimate(n, log_prob);
                vec![bound, Kl::estimate(nats)]
            }
            _ if plain.is_some() && self.selection.needs_ranks() => {
                let estimate = RankDensity::of(&self.selection).ok();
                let estimate = estimate.map(|g| Kl::estimate(g.kl()));
                std::iter::once(bound).chain(estimate).collect()
            }
            _ => vec![bound],
        }
    }

    /// The texts of candidates, up to where a stop text ends them, and their rewards where there is a reward.
    pub(crate) fn texts_and_scores<'c>(
        &self,
        prompt: &EncodedPrompt,
        candidates: impl IntoIterator<Item = &'c Candidate>,
    ) -> Result<(Vec<String>, Option<Vec<f32>>), DecodeError> {
        let text = |one: &Candidate| -> Result<String, DecodeError> {
            let text = self.tokenizer.decode_response(&prompt.tokens, &one.response.tokens)?;
            let cut = self.source.stop_texts().map(|stops| stops.cut(&text).len());
            Ok(text[..cut.unwrap_or(text.len())].to_owned())
        };
        let texts = candidates.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let pairs: Vec<(&str, &str)> =
            texts.iter().map(|text| (prompt.text.as_str(), text.as_str())).collect();
        let scores = self.reward.map(|reward| scored(reward, &pairs)).transpose()?;
        Ok((texts, scores))
    }
}

impl Decoder for ProcedureDecoder<'_> {
    fn decode(&self, prompts: &[EncodedPrompt]) -> Result<Vec<Decoded>, DecodeError> {
        Ok(self.decode_samples(prompts, 1)?.into_iter().flatten().collect())
    }
}

impl Source<'_> {
    pub(crate) fn each(
        &self,
        prompts: &[EncodedPrompt],
        numbers: Range<usize>,
        found: &(dyn Fn(usize, Vec<Vec<Candidate>>) -> ControlFlow<()> + Sync),
    ) -> Result<(), DecodeError> {
        match self {
            Self::Plain(sampler) => {
                sampler.generate_each(prompts, numbers, &|prompt, responses| {
                    found(
                        prompt,
                        responses.into_iter().map(|response| vec![plain(response)]).collect(),
                    )
                })
            }
            Self::Guided(guided) => guided.generate_each(prompts, numbers, found),
        }
    }

    pub(crate) fn check(&self, prompts: &[EncodedPrompt]) -> Result<(), DecodeError> {
        match self {
            Self::Plain(sampler) => sampler.check(prompts),
            Self::Guided(guided) => guided.check(prompts),
        }
    }

    fn stop_texts(&self) -> Option<StopTexts<'_>> {
        match self {
            Self::Plain(sampler) => sampler.stop_texts(),
            Self::Guided(guided) => guided.generator.stop_texts,
        }
    }
}

/// A response as it was sampled.
fn plain(response: Response) -> Candidate {
    let cost = Cost { model_tokens: response.tokens.len(), scorer_calls: 0 };
    let kl = vec![Kl::exact(0.0)];
    Candidate { response, value: None, cost, kl, log_ratio: 0.0, truncation: 0.0 }
}

/// A response among all candidates: its place, and those that it was among.
struct Single {
    place: usize,
    range: Range<usize>,
}

/// All candidates of a prompt with their texts and rewards.
struct Texts<'a> {
    all: &'a [&'a Candidate],
    texts: &'a [String],
    scores: Option<&'a [f32]>,
}

/// Refuses a selection that is none, or has nothing to select by.
fn check_selection(
    selection: Procedure,
    whole: Composed,
    reward: Option<&dyn Reward>,
) -> Result<(), DecodeError> {
    selection.check()?;
    let refuse = |reason| Err(DecodeError::Procedure { procedure: whole.to_string(), reason });
    if selection.is_guided() {
        return refuse("it chooses among prefixes, which needs a prefix scorer");
    }
    if whole.needs_reward() && reward.is_none() {
        return refuse("selecting among samples needs a reward: give the decoder one");
    }
    Ok(())
}

/// The place of the greatest score; the first of equals.
fn greatest(scores: &[f32]) -> usize {
    (1..scores.len()).fold(0, |kept, i| if scores[i] > scores[kept] { i } else { kept })
}

/// The place of the first of the answers that are given most often; the first of all where none is given.
fn most_frequent<'t>(answers: impl Iterator<Item = Option<&'t str>>) -> usize {
    let mut found: HashMap<&str, (usize, usize)> = HashMap::new();
    for (place, answer) in answers.enumerate().filter_map(|(place, one)| Some((place, one?))) {
        found.entry(answer).or_insert((0, place)).0 += 1;
    }
    let best = found.into_values().max_by_key(|(count, place)| (*count, usize::MAX - place));
    best.map_or(0, |(_, place)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_most_frequent_is_kept() {
        let kept = |answers: &[Option<&str>]| most_frequent(answers.iter().copied());
        let [a, b, c] = ["a", "b", "c"].map(Some);
        assert_eq!(kept(&[a, b, c, b, a]), 0);
        assert_eq!(kept(&[a, b, c, b]), 1);
        assert_eq!(kept(&[a]), 0);
        assert_eq!(kept(&[None, None, b, a, None]), 2, "who gives no answer has no vote");
        assert_eq!(kept(&[None, None]), 0);
    }
}
