//! Responses of the methods side by side.

use infalign_transform::Composed;
use serde::{Deserialize, Serialize};

use super::{Member, Request};
use crate::Sampled;
use crate::contest::{choice_among, kept_of};

/// A prompt with a response of each method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// The prompt.
    pub prompt: String,
    /// The reference's first, then the methods', for each procedure that is shown.
    pub responses: Vec<ExampleResponse>,
}

/// A response with what it was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExampleResponse {
    /// Whose it is.
    pub method: String,
    /// Which procedure keeps it among the first samples.
    pub procedure: Composed,
    /// The text.
    pub text: String,
    /// Its reward.
    pub reward: f64,
    /// The judge's, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged: Option<f64>,
}

/// Procedures that are shown, where there are more: the first, which is mostly plain sampling, and the last two.
pub(super) const MOST_PROCEDURES: usize = 3;

/// The first prompts: what each procedure keeps of every method's responses.
pub(super) fn examples(members: &[Member<'_>], request: &Request<'_>) -> Vec<Example> {
    let Some(first) = members.first() else { return Vec::new() };
    let mut procedures: Vec<Composed> =
        request.contests.iter().map(|contest| contest.policy).collect();
    if procedures.len() > MOST_PROCEDURES {
        procedures.drain(1..procedures.len() + 1 - MOST_PROCEDURES);
    }
    let shown = request.examples.min(first.entry.sampled.prompts.len());
    let example = |prompt: usize| {
        let reference = ("reference", first.entry.reference);
        let compared = members.iter().filter(|member| member.compared);
        let methods = compared.map(|member| (member.entry.label.method, member.entry.sampled));
        let all: Vec<(&str, &Sampled)> = std::iter::once(reference).chain(methods).collect();
        let responses = procedures.iter().flat_map(|procedure| {
            all.iter()
                .filter_map(move |(method, sampled)| response(method, sampled, prompt, procedure))
        });
        Example {
            prompt: first.entry.sampled.prompts[prompt].text.clone(),
            responses: responses.collect(),
        }
    };
    (0..shown).map(example).collect()
}

/// What the procedure keeps of the first samples.
fn response(
    method: &str,
    sampled: &Sampled,
    prompt: usize,
    procedure: &Composed,
) -> Option<ExampleResponse> {
    let rewards = sampled.rewards.get(prompt)?;
    let choice = choice_among(method, sampled, procedure).ok()?;
    if rewards.len() < choice.samples() {
        return None;
    }
    let kept = kept_of(choice, (method, sampled), prompt, 0).ok()?;
    Some(ExampleResponse {
        method: method.to_owned(),
        procedure: *procedure,
        text: sampled.responses.get(prompt)?.get(kept)?.clone(),
        reward: *rewards.get(kept)?,
        judged: sampled.judged.as_ref().and_then(|judged| judged.get(prompt)?.get(kept).copied()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_samples::samples;

    #[test]
    fn the_response_that_is_kept_is_shown_with_its_own_rewards() {
        let sampled = Sampled { judged: Some(samples(-9.0).rewards), ..samples(1.5) };
        let best: Composed = "best-of:2".parse().unwrap();
        // Of the rewards 1.5 and 2.5, which the judge has as -9 and -8.
        let shown = response("strong", &sampled, 0, &best).unwrap();
        assert_eq!(shown.text, " response 1 to 0");
        assert_eq!((shown.reward, shown.judged), (2.5, Some(-8.0)));
    }
}
