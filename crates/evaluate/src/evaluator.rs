//! Draws responses from a model and measures them: rewards, judgements and KL.
//!
//! Drawing is what takes long, so it is handed over prompt by prompt, to be kept; what was drawn decides everything else.

use std::ops::ControlFlow;

use infalign_decode::{
    DecodeError, Decoded, EncodedPrompt, Generator, ProcedureDecoder, Sampling, Watch,
};
use infalign_model::{CausalLm, LanguageModel, Sequence, Tokenizer};
use infalign_reward::Reward;
use infalign_stats::mean_and_standard_error;
use infalign_transform::{Composed, Procedure};
use serde::{Deserialize, Serialize};

use crate::kl::{self, KlSample};
use crate::{EvaluateError, Kl, PromptText, Sampled, answers, kl_per_response, score};

/// Samples responses and scores them.
pub struct Evaluator<'a> {
    /// Prompts, held out from training.
    pub prompts: &'a [EncodedPrompt],
    /// [`PromptText::sha256`] of each; empty where they are not known.
    pub prompts_sha256: &'a [String],
    /// Responses to each.
    pub samples: usize,
    /// π_ref, from which the KL is; none where it has other tokens.
    pub reference: Option<&'a CausalLm>,
    /// The tokenizer of both models.
    pub tokenizer: &'a Tokenizer,
    /// What policies are trained on, and what procedures select by.
    pub reward: &'a dyn Reward,
    /// What judges the responses besides.
    pub judge: Option<&'a dyn Reward>,
    /// How responses are sampled.
    pub sampling: Sampling,
    /// Largest number of responses generated together.
    pub batch: usize,
    /// Seed of the run.
    pub seed: u64,
}

/// What is drawn, and who looks on.
#[derive(Clone, Copy)]
pub struct Drawing<'a> {
    /// Names the random streams: two models under the same stage share them.
    pub stage: &'a str,
    /// Is told of every token, and can break off what is drawn.
    pub watch: Option<Watch<'a>>,
}

/// The responses to one prompt as they were drawn, before anything judges them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drawn {
    /// The prompt's id.
    pub prompt: String,
    /// `[samples]`: the tokens of each response.
    pub tokens: Vec<Vec<u32>>,
    /// `[samples]`: tokens made for each, those of discarded candidates included.
    pub made: Vec<usize>,
    /// `[samples]`: the most exact statement of each about the procedure's KL; empty where nothing guides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kl: Vec<infalign_decode::Kl>,
}

impl Drawn {
    /// What a decoder returned for a prompt.
    ///
    /// - `guided`: whether prefix scorers chose, so that the procedure has a KL of its own.
    pub fn of(prompt: &EncodedPrompt, decoded: Vec<Decoded>, guided: bool) -> Self {
        let made = decoded.iter().map(|one| one.cost.model_tokens).collect();
        let first = |one: &Decoded| one.kl.first().copied();
        let kl = decoded.iter().filter(|_| guided).filter_map(first).collect();
        let tokens = decoded.into_iter().map(|one| one.response.tokens).collect();
        Self { prompt: prompt.id.clone(), tokens, made, kl }
    }
}

impl Evaluator<'_> {
    /// Samples from a model.
    ///
    /// - `measuring`: as of [`Evaluator::measure`].
    ///
    /// # Errors
    /// As [`Evaluator::draw`] and [`Evaluator::measure`]; [`DecodeError::Cancelled`] where the watch broke off a response.
    pub fn sample(
        &self,
        model: &CausalLm,
        drawing: &Drawing<'_>,
        measuring: &dyn Fn(usize) -> ControlFlow<()>,
    ) -> Result<Sampled, EvaluateError> {
        let mut drawn: Vec<Option<Drawn>> = vec![None; self.prompts.len()];
        let all: Vec<usize> = (0..self.prompts.len()).collect();
        self.draw(model.clone().for_inference().as_ref(), drawing, &all, &mut |place, one| {
            drawn[place] = Some(one);
            ControlFlow::Continue(())
        })?;
        let of_prompt = |(drawn, prompt): (Option<Drawn>, &EncodedPrompt)| {
            drawn.ok_or_else(|| DecodeError::Cancelled { prompt: prompt.name() })
        };
        let drawn = drawn.into_iter().zip(self.prompts).map(of_prompt);
        self.measure(Some(model), None, &drawn.collect::<Result<Vec<_>, _>>()?, measuring)
    }

    /// Draws plain responses to some of the prompts. Each depends on its prompt and number alone, whatever else is drawn.
    ///
    /// - `model`: any. Hand over a [`CausalLm`] as its [`CausalLm::for_inference`], which is faster and rounds otherwise.
    /// - `places`: of the prompts.
    /// - `done`: given the place of a prompt and its responses as soon as the last of them has ended; it breaks off the rest.
    ///
    /// # Errors
    /// [`EvaluateError`] when a prompt does not fit.
    pub fn draw(
        &self,
        model: &dyn LanguageModel,
        drawing: &Drawing<'_>,
        places: &[usize],
        done: &mut (dyn FnMut(usize, Drawn) -> ControlFlow<()> + Send),
    ) -> Result<(), EvaluateError> {
        let generator = Generator { watch: drawing.watch, ..self.generator(model, drawing.stage) };
        let decoder = ProcedureDecoder::new(Procedure::Sample, &generator, self.tokenizer, None)?;
        let some: Vec<EncodedPrompt> =
            places.iter().map(|place| self.prompts[*place].clone()).collect();
        decoder.decode_each(&some, self.samples, &mut |number, decoded| {
            done(places[number], Drawn::of(&some[number], decoded, false))
        })?;
        Ok(())
    }

    /// Scores what was drawn from a model, and measures its KL.
    ///
    /// The KL is left out where tokens are not drawn from the model's own distribution, of which these samples then say nothing.
    ///
    /// - `model`: whose KL is measured; without one, as for a [`LanguageModel`] of one's own, there is none.
    /// - `procedure`: what drew them; none where only the model did. `drawn`: of every prompt, in their order.
    /// - `measuring`: told now and then of how many prompts the KL is measured; it breaks off the rest by [`ControlFlow::Break`].
    ///
    /// # Errors
    /// [`EvaluateError::Damaged`] for other prompts or numbers of responses; when the tokenizer, the reward or the judge fails;
    /// [`EvaluateError::Stopped`] where it was broken off.
    pub fn measure(
        &self,
        model: Option<&CausalLm>,
        procedure: Option<Composed>,
        drawn: &[Drawn],
        measuring: &dyn Fn(usize) -> ControlFlow<()>,
    ) -> Result<Sampled, EvaluateError> {
        let fits = |(prompt, drawn): (&EncodedPrompt, &Drawn)| {
            let counts = [drawn.tokens.len(), drawn.made.len()];
            prompt.id == drawn.prompt && counts == [self.samples; 2]
        };
        if drawn.len() != self.prompts.len() || !self.prompts.iter().zip(drawn).all(fits) {
            return Err(EvaluateError::Damaged);
        }
        let texts = |(prompt, drawn): (&EncodedPrompt, &Drawn)| {
            let text = |tokens| self.tokenizer.decode_response(&prompt.tokens, tokens);
            drawn.tokens.iter().map(|tokens| text(tokens)).collect::<Result<Vec<_>, _>>()
        };
        let responses = self.prompts.iter().zip(drawn).map(texts).collect::<Result<Vec<_>, _>>()?;
        let asked = || self.prompts.iter().map(|prompt| prompt.text.as_str());
        let prompt = |(place, prompt): (usize, &EncodedPrompt)| PromptText {
            id: prompt.id.clone(),
            text: prompt.text.clone(),
            sha256: self.prompts_sha256.get(place).cloned(),
        };
        let length = |drawn: &Drawn| drawn.tokens.iter().map(Vec::len).collect();
        let kl = self.kl(model, drawn, measuring)?;
        let by_prompt = kl.as_ref().map(|kl| kl.chunks(self.samples));
        let ratios = |kl: &[KlSample]| kl.iter().map(|one| one.k1 as f32).collect();
        Ok(Sampled {
            prompts: self.prompts.iter().enumerate().map(prompt).collect(),
            procedure,
            rewards: score(self.reward, asked(), &responses)?,
            judged: self.judge.map(|judge| score(judge, asked(), &responses)).transpose()?,
            answers: answers(self.reward, &responses),
            responses,
            tokens: Some(drawn.iter().map(length).collect()),
            made: procedure.map(|_| drawn.iter().map(|drawn| drawn.made.clone()).collect()),
            procedure_kl: procedure_kl(drawn)?,
            log_ratios: by_prompt.clone().map(|kl| kl.map(ratios).collect()),
            // Of responses that a procedure chose, log-ratios have not the policy's KL as their mean.
            kl: by_prompt.filter(|_| procedure.is_none()).map(|kl| kl.map(kl::mean).collect()),
        })
    }

    /// What draws the responses of a stage.
    pub fn generator<'g>(&'g self, model: &'g dyn LanguageModel, stage: &'g str) -> Generator<'g> {
        let stops = self.tokenizer.stops();
        Generator::new(model, stops, &self.sampling, self.seed, stage, self.batch)
    }

    /// Of each response, where tokens are drawn from the model's own distribution.
    fn kl(
        &self,
        model: Option<&CausalLm>,
        drawn: &[Drawn],
        measuring: &dyn Fn(usize) -> ControlFlow<()>,
    ) -> Result<Option<Vec<KlSample>>, EvaluateError> {
        let (Some(model), Some(reference)) = (model, self.reference) else { return Ok(None) };
        if !self.sampling.of_vocabulary(model.vocabulary()).is_of_the_model_itself() {
            return Ok(None);
        }
        let with_prompts = self.prompts.iter().zip(drawn);
        let sequences: Vec<Sequence> = with_prompts
            .flat_map(|(prompt, drawn)| {
                drawn.tokens.iter().map(move |tokens| prompt.followed_by(tokens))
            })
            .collect();
        let observe = |responses: usize| measuring(responses / self.samples);
        Ok(Some(kl_per_response(model, reference, &sequences, &observe)?))
    }
}

/// The mean over prompts of what the responses say of the procedure's KL, with the label that they give it.
fn procedure_kl(drawn: &[Drawn]) -> Result<Option<Kl>, EvaluateError> {
    let Some(first) = drawn.iter().find_map(|drawn| drawn.kl.first()) else { return Ok(None) };
    let mean = |drawn: &Drawn| {
        drawn.kl.iter().map(|kl| kl.nats).sum::<f64>() / drawn.tokens.len().max(1) as f64
    };
    let means: Vec<f64> = drawn.iter().map(mean).collect();
    let (estimate, standard_error) = mean_and_standard_error(&means)?;
    Ok(Some(Kl { estimate, standard_error, kind: first.kind, k1: None, k3: None }))
}

#[cfg(test)]
mod tests {
    use infalign_decode::KlKind;
    use infalign_model::TabularProblem;
    use infalign_reward::TabularReward;

    use super::*;

    #[test]
    fn any_language_model_is_drawn_from_and_has_no_kl_without_nets() {
        let table = r#"{"D": 2, "p": {"": [0.5, 0, 0.5]}, "r": {"$": 3, "a$": 1}}"#;
        let problem = TabularProblem::parse(table, "table.json".as_ref()).unwrap();
        let tokenizer = problem.model().tokenizer().unwrap();
        let evaluator = Evaluator {
            prompts: &[EncodedPrompt::new("one", "", &tokenizer).unwrap()],
            prompts_sha256: &[],
            samples: 16,
            reference: None,
            tokenizer: &tokenizer,
            reward: &TabularReward::new(&problem),
            judge: None,
            sampling: Sampling { max_tokens: 2, ..Sampling::default() },
            batch: 4,
            seed: 1,
        };
        let (drawing, mut drawn) = (Drawing { stage: "own", watch: None }, Vec::new());
        let mut take = |_, one| {
            drawn.push(one);
            ControlFlow::Continue(())
        };
        evaluator.draw(problem.model(), &drawing, &[0], &mut take).unwrap();
        let go_on = |_| ControlFlow::Continue(());
        let sampled = evaluator.measure(None, None, &drawn, &go_on).unwrap();
        assert!(sampled.kl.is_none() && sampled.log_ratios.is_none());
        let known = sampled.responses[0].iter().map(|text| if text == "a" { 1.0 } else { 3.0 });
        assert_eq!(sampled.rewards[0], known.collect::<Vec<f64>>());
        assert!(sampled.rewards[0].len() == 16 && sampled.rewards[0].contains(&1.0));
    }

    #[test]
    fn the_kl_of_a_procedure_is_the_mean_over_responses_and_then_over_prompts() {
        let of = |nats: [f64; 2]| Drawn {
            prompt: String::new(),
            tokens: vec![vec![1], vec![2]],
            made: vec![1; 2],
            kl: nats.map(|nats| infalign_decode::Kl { nats, kind: KlKind::Bound }).to_vec(),
        };
        // 2 and 4 on the two prompts.
        let found = procedure_kl(&[of([1.0, 3.0]), of([2.0, 6.0])]).unwrap().unwrap();
        assert!((found.estimate - 3.0).abs() < 1e-12, "{found:?}");
        assert!((found.standard_error - 1.0).abs() < 1e-12, "{found:?}");
        assert_eq!(found.kind, KlKind::Bound);
    }
}
