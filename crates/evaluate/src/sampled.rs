//! Stored samples of a model with what evaluation needs of them.

use infalign_reward::{Reward, scored};
use infalign_transform::Composed;
use serde::{Deserialize, Serialize};

use crate::EvaluateError;
use crate::divergence::Kl;
use crate::kl::KlSample;

/// By what responses are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judge {
    /// The reward that policies are trained on.
    Reward,
    /// Another one.
    Judge,
}

/// A prompt as tables and pages show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptText {
    /// What tells it from the others.
    pub id: String,
    /// The text.
    pub text: String,
    /// The first 16 hexadecimal digits of the SHA-256 of the prompt as it was given, whatever a chat template has made of it; absent where
    /// that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl PromptText {
    /// Whether the prompt as it was given has a digest, as far as is known: where one of the two is not there, it may have.
    pub fn may_have(&self, sha256: Option<&String>) -> bool {
        self.sha256.as_ref().zip(sha256).is_none_or(|(ours, theirs)| ours == theirs)
    }
}

/// Responses to the same prompts by one model, with their rewards: several to each prompt, as many of one as of another or not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    /// `[prompts]`.
    pub prompts: Vec<PromptText>,
    /// What made each response; absent: plain samples, among which a procedure selects in evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub procedure: Option<Composed>,
    /// `[prompts][samples]`: the texts.
    pub responses: Vec<Vec<String>>,
    /// `[prompts][samples]`: the answer of each response, where it gives one, of which `majority` counts; absent where the reward takes the
    /// texts as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Vec<Vec<Option<String>>>>,
    /// `[prompts][samples]`: the reward of each response. Procedures select by it.
    pub rewards: Vec<Vec<f64>>,
    /// `[prompts][samples]`: the judge's reward of the same responses, where there is a judge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged: Option<Vec<Vec<f64>>>,
    /// `[prompts][samples]`: the length of each response in tokens, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<Vec<usize>>>,
    /// `[prompts][samples]`: all tokens that were made for each response, those of discarded candidates included; absent where that is its
    /// length, as of plain samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Vec<Vec<usize>>>,
    /// KL of the procedure from the policy, where what made the responses has told more of it than its name does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub procedure_kl: Option<Kl>,
    /// `[prompts]`: mean over the responses of what each says of KL(π‖π_ref), in nats; absent where it cannot be estimated from them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl: Option<Vec<KlSample>>,
    /// `[prompts][samples]`: log π(y)/π_ref(y) of each response in nats, whatever drew it; absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_ratios: Option<Vec<Vec<f32>>>,
}

impl Sampled {
    /// `[prompts][samples]`: what a judge says of each response.
    ///
    /// # Errors
    /// [`EvaluateError::NotJudged`] when there was no other judge.
    pub fn by(&self, judge: Judge) -> Result<&[Vec<f64>], EvaluateError> {
        match judge {
            Judge::Reward => Ok(&self.rewards),
            Judge::Judge => self.judged.as_deref().ok_or(EvaluateError::NotJudged),
        }
    }

    /// Refuses samples that do not belong together: numbers of prompts or of responses that differ, rewards that are no numbers.
    ///
    /// # Errors
    /// [`EvaluateError::Damaged`] and [`EvaluateError::NotFinite`].
    pub fn check(&self) -> Result<(), EvaluateError> {
        let n = self.prompts.len();
        let whole = n > 0
            && self.responses.len() == n
            && self.fits(&self.rewards)
            && self.answers.as_deref().is_none_or(|answers| self.fits(answers))
            && self.judged.as_deref().is_none_or(|judged| self.fits(judged))
            && self.tokens.as_deref().is_none_or(|tokens| self.fits(tokens))
            && self.made.as_deref().is_none_or(|made| self.fits(made))
            && self.log_ratios.as_deref().is_none_or(|ratios| self.fits(ratios))
            && self.kl.as_ref().is_none_or(|kl| kl.len() == n);
        if !whole {
            return Err(EvaluateError::Damaged);
        }
        for lists in [Some(&self.rewards), self.judged.as_ref()].into_iter().flatten() {
            for (prompt, rewards) in self.prompts.iter().zip(lists) {
                if let Some(reward) = rewards.iter().find(|reward| !reward.is_finite()) {
                    return Err(EvaluateError::NotFinite {
                        prompt: prompt.id.clone(),
                        reward: *reward,
                    });
                }
            }
        }
        Ok(())
    }

    /// Whether there is one for each response to each prompt.
    fn fits<T>(&self, lists: &[Vec<T>]) -> bool {
        lists.len() == self.prompts.len()
            && lists.iter().zip(&self.responses).all(|(a, b)| a.len() == b.len())
    }

    /// The answers to a prompt, by its place, that `majority` counts: `[samples]`.
    pub(crate) fn votes(&self, prompt: usize) -> Vec<Option<&str>> {
        match &self.answers {
            Some(answers) => answers[prompt].iter().map(Option::as_deref).collect(),
            None => self.responses[prompt].iter().map(|text| Some(text.as_str())).collect(),
        }
    }

    /// Mean length of a response in tokens, where known.
    pub fn response_length(&self) -> Option<f64> {
        self.tokens.as_deref().map(mean_count)
    }

    /// Mean number of tokens that are made for one response of the procedure, where known: what decoding costs.
    pub fn cost(&self, procedure: &Composed) -> Option<f64> {
        let made = self.made.as_deref().map(mean_count).or(self.response_length())?;
        // Of the procedure's own responses, all that it takes is in each of them.
        let own = self.procedure == Some(*procedure);
        let responses = if own { 1 } else { procedure.selection.samples() };
        Some(made * responses as f64)
    }
}

fn mean_count(counts: &[Vec<usize>]) -> f64 {
    let all: Vec<usize> = counts.iter().flatten().copied().collect();
    all.iter().sum::<usize>() as f64 / all.len().max(1) as f64
}

/// The score of each response: `[prompts][samples]`.
///
/// - `prompts`, `responses`: the texts, as many responses of each prompt as there are.
///
/// # Errors
/// [`EvaluateError::Damaged`] unless there are responses to each prompt, and [`EvaluateError::Reward`] when the judge fails.
pub fn score<'t>(
    judge: &dyn Reward,
    prompts: impl Iterator<Item = &'t str>,
    responses: &[Vec<String>],
) -> Result<Vec<Vec<f64>>, EvaluateError> {
    let prompts: Vec<&str> = prompts.collect();
    if prompts.len() != responses.len() {
        return Err(EvaluateError::Damaged);
    }
    let pairs: Vec<(&str, &str)> = prompts
        .into_iter()
        .zip(responses)
        .flat_map(|(prompt, all)| all.iter().map(move |response| (prompt, response.as_str())))
        .collect();
    let mut scores = scored(judge, &pairs)?.into_iter().map(f64::from);
    Ok(responses.iter().map(|all| scores.by_ref().take(all.len()).collect()).collect())
}

/// The answers that a reward finds in responses: `[prompts][samples]`; none where it takes every text as a whole.
pub fn answers(reward: &dyn Reward, responses: &[Vec<String>]) -> Option<Vec<Vec<Option<String>>>> {
    let whole = |text: &String| reward.answer(text) == Some(text.as_str());
    if responses.iter().flatten().all(whole) {
        return None;
    }
    let answer = |text: &String| reward.answer(text).map(str::to_owned);
    Some(responses.iter().map(|all| all.iter().map(answer).collect()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Likes all responses, and takes the first letter for the answer.
    struct First;

    impl Reward for First {
        fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, infalign_reward::RewardError> {
            Ok(vec![1.0; pairs.len()])
        }

        fn answer<'t>(&self, response: &'t str) -> Option<&'t str> {
            response.get(..1)
        }
    }

    #[test]
    fn responses_are_scored_where_each_has_its_prompt() {
        let responses = [vec!["x".to_owned()], vec!["y".to_owned(), "z".to_owned()]];
        let of = |prompts: &[&'static str]| score(&First, prompts.iter().copied(), &responses);
        assert_eq!(of(&["a", "b"]).unwrap(), [vec![1.0], vec![1.0; 2]]);
        for prompts in [&["a"][..], &["a", "b", "c"]] {
            assert!(matches!(of(prompts), Err(EvaluateError::Damaged)), "{prompts:?}");
        }
    }

    #[test]
    fn answers_are_kept_where_they_are_not_the_texts() {
        let texts = |texts: [&str; 2]| vec![texts.map(str::to_owned).to_vec()];
        assert_eq!(answers(&First, &texts(["a", "b"])), None);
        let found = answers(&First, &texts(["ab", ""]));
        assert_eq!(found, Some(vec![vec![Some("a".to_owned()), None]]));
        let sampled =
            Sampled { responses: texts(["ab", ""]), answers: found, ..Sampled::default() };
        assert_eq!(sampled.votes(0), [Some("a"), None]);
        assert_eq!(Sampled { answers: None, ..sampled }.votes(0), [Some("ab"), Some("")]);
    }

    #[test]
    fn a_response_costs_what_was_made_for_it_and_a_selection_that_of_all() {
        let best: Composed = "best-of:4".parse().unwrap();
        let cost = |tokens: Option<usize>, made: Option<usize>, procedure: Option<Composed>| {
            let counts = |count: Option<usize>| count.map(|count| vec![vec![count; 2]; 3]);
            let (tokens, made) = (counts(tokens), counts(made));
            Sampled { tokens, made, procedure, ..Sampled::default() }.cost(&best)
        };
        assert_eq!(cost(None, None, None), None);
        assert_eq!(cost(Some(5), None, None), Some(20.0));
        assert_eq!(cost(Some(5), Some(7), None), Some(28.0), "drafts that were thrown away");
        assert_eq!(cost(Some(5), Some(21), Some(best)), Some(21.0));
    }

    #[test]
    fn samples_that_do_not_belong_together_are_refused() {
        let prompt = |id: &str| PromptText { id: id.into(), text: "x".into(), sha256: None };
        let whole = Sampled {
            prompts: vec![prompt("a"), prompt("b")],
            responses: vec![vec!["x".into()], vec!["y".into(), "z".into()]],
            rewards: vec![vec![1.0], vec![2.0, 3.0]],
            tokens: Some(vec![vec![4], vec![5, 9]]),
            ..Sampled::default()
        };
        assert!(whole.check().is_ok() && whole.response_length() == Some(6.0));
        let short = Sampled { rewards: vec![vec![1.0]], ..whole.clone() };
        assert!(matches!(short.check(), Err(EvaluateError::Damaged)));
        let judged = Sampled { judged: Some(vec![vec![1.0], vec![1.0]]), ..whole.clone() };
        assert!(matches!(judged.check(), Err(EvaluateError::Damaged)));
        let answers = Some(vec![vec![None], vec![None]]);
        let unanswered = Sampled { answers, ..whole.clone() };
        assert!(matches!(unanswered.check(), Err(EvaluateError::Damaged)));
        let ratios = Sampled { log_ratios: Some(vec![vec![0.0]; 2]), ..whole.clone() };
        assert!(matches!(ratios.check(), Err(EvaluateError::Damaged)));
        let none = Sampled::default();
        assert!(matches!(none.check(), Err(EvaluateError::Damaged)));
        let nan = Sampled { rewards: vec![vec![1.0], vec![f64::NAN, 3.0]], ..whole };
        let message = nan.check().unwrap_err().to_string();
        assert!(message.contains("`b`") && message.contains("NaN"), "{message}");
    }
}
