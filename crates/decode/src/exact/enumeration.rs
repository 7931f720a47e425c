//! Every response that a language model of few tokens can give to a prompt.

use std::collections::BTreeSet;

use infalign_model::{LanguageModel, Sequence};

use crate::{DecodeError, EncodedPrompt, Finish, Response, Sampling};

/// How many responses there are: those that a stop ends, and those that are cut at [`Sampling::max_tokens`]; `None` beyond the range of `usize`.
///
/// - `vocabulary`: how many tokens the model has.
/// - `stops`: tokens at which its texts end.
///
/// With V tokens, S of which end a response, and at most L of them: Σ_{l<L} (V − S)^{l−1}·S + (V − S)^{L−1}·V.
pub fn response_count(
    sampling: &Sampling,
    stops: &BTreeSet<u32>,
    vocabulary: usize,
) -> Option<usize> {
    let ending = (0..vocabulary as u32).filter(|&token| sampling.is_stop(token, stops)).count();
    let (mut open, mut ended) = (1_usize, 0_usize);
    for _ in 1..sampling.max_tokens {
        ended = ended.checked_add(open.checked_mul(ending)?)?;
        open = open.checked_mul(vocabulary - ending)?;
    }
    ended.checked_add(open.checked_mul(vocabulary)?)
}

/// Every response to a prompt with its log-probabilities, shorter ones first.
///
/// There are [`response_count`] of them, and all are held at once: ask for that number before.
///
/// # Errors
/// [`DecodeError::Model`] where prompt and response do not fit the model.
pub fn responses(
    model: &dyn LanguageModel,
    prompt: &EncodedPrompt,
    sampling: &Sampling,
    stops: &BTreeSet<u32>,
) -> Result<Vec<Response>, DecodeError> {
    let mut responses = listed(sampling, stops, model.vocabulary() as u32);
    let sequences: Vec<Sequence> =
        responses.iter().map(|response| response.sequence(prompt)).collect();
    for (response, log_probs) in responses.iter_mut().zip(model.log_probs(&sequences)?) {
        response.log_probs = log_probs;
    }
    Ok(responses)
}

/// The responses, whatever their probabilities.
fn listed(sampling: &Sampling, stops: &BTreeSet<u32>, vocabulary: u32) -> Vec<Response> {
    let mut open = vec![Vec::new()];
    let mut all = Vec::new();
    for length in 1..=sampling.max_tokens {
        let mut longer = Vec::new();
        for tokens in open.iter().flat_map(|prefix: &Vec<u32>| {
            (0..vocabulary).map(move |token| [prefix.as_slice(), &[token]].concat())
        }) {
            let stopped = sampling.is_stop(tokens[length - 1], stops);
            if stopped || length == sampling.max_tokens {
                let finish = if stopped { Finish::Stop } else { Finish::Length };
                all.push(Response { tokens, log_probs: Vec::new(), finish });
            } else {
                longer.push(tokens);
            }
        }
        open = longer;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_responses_are_counted_and_listed_once() {
        let stops = BTreeSet::from([2]);
        for max_tokens in 1..5 {
            let sampling =
                Sampling { max_tokens, stop_token_ids: BTreeSet::from([0]), ..Sampling::default() };
            let all = listed(&sampling, &stops, 4);
            let different: BTreeSet<&Vec<u32>> = all.iter().map(|one| &one.tokens).collect();
            assert_eq!(different.len(), all.len());
            assert_eq!(Some(all.len()), response_count(&sampling, &stops, 4), "{max_tokens}");
            for Response { tokens, finish, .. } in &all {
                let (last, before) = tokens.split_last().unwrap();
                assert!(before.iter().all(|token| !sampling.is_stop(*token, &stops)));
                let stopped = sampling.is_stop(*last, &stops);
                assert_eq!(*finish, if stopped { Finish::Stop } else { Finish::Length });
                assert!(stopped || tokens.len() == max_tokens);
            }
        }
    }

    #[test]
    fn too_many_to_count_are_none() {
        let sampling = Sampling { max_tokens: 64, ..Sampling::default() };
        assert_eq!(response_count(&sampling, &BTreeSet::from([2]), 32_000), None);
        assert_eq!(
            response_count(&sampling, &BTreeSet::from([0]), 1),
            Some(1),
            "nothing but stops"
        );
    }
}
