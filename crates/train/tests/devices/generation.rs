//! Generation: greedy tokens are the CPU's, and log-probabilities those of a pass over the finished text.

use std::collections::BTreeSet;

use infalign_decode::{EncodedPrompt, Generator, Response, Sampler, Sampling};
use infalign_model::{CausalLm, LanguageModel, Sequence};

use super::{Candidate, candidates, cpu, fixture, prompts};

fn encoded(prompts: &[Vec<u32>]) -> Vec<EncodedPrompt> {
    let prompt = |(k, tokens): (usize, &Vec<u32>)| EncodedPrompt {
        id: k.to_string(),
        text: String::new(),
        tokens: tokens.clone(),
    };
    prompts.iter().enumerate().map(prompt).collect()
}

/// Two responses to each prompt, five at a time, of which some end early.
fn generate(
    model: &dyn LanguageModel,
    prompts: &[EncodedPrompt],
    sampling: &Sampling,
) -> Vec<Vec<Response>> {
    let stops = BTreeSet::from([7]);
    let generator = Generator::new(model, &stops, sampling, 3, "devices", 5);
    generator.generate(prompts, 0..2).unwrap()
}

/// Two greedy responses are the same up to a place where the CPU finds both tokens equally probable to within the tolerance.
fn same_or_tied(
    candidate: &Candidate,
    cpu: &CausalLm,
    prompt: &EncodedPrompt,
    [found, expected]: [&Response; 2],
) {
    let pairs = found.tokens.iter().zip(&expected.tokens);
    let Some(place) = pairs.clone().position(|(a, b)| a != b) else {
        assert_eq!(found.tokens.len(), expected.tokens.len(), "{}", candidate.name);
        return;
    };
    let [a, b] = [found, expected].map(|response| {
        let tokens = [&prompt.tokens, &response.tokens[..=place]].concat();
        let prompt_length = tokens.len() - 1;
        cpu.log_probs(&[Sequence { tokens, prompt_length }]).unwrap()[0][0]
    });
    println!("{}: token {place} is another one; log-probabilities {a}, {b}", candidate.name);
    assert!((a - b).abs() < 2.0 * candidate.tolerance, "{}: token {place}", candidate.name);
}

#[test]
fn greedy_tokens_are_those_of_the_cpu() {
    for name in ["llama", "qwen3", "gemma3", "gpt-neox"] {
        let (dir, reference) = fixture(name);
        let prompts = encoded(&prompts(&reference));
        let sampling = Sampling { temperature: 0.0, max_tokens: 24, ..Sampling::default() };
        let model = CausalLm::load(&dir, &cpu()).unwrap();
        let expected = generate(model.clone().for_inference().as_ref(), &prompts, &sampling);
        for candidate in candidates() {
            let other = CausalLm::load(&dir, &candidate.device).unwrap().for_inference();
            let found = generate(other.as_ref(), &prompts, &sampling);
            for (prompt, (found, expected)) in prompts.iter().zip(found.iter().zip(&expected)) {
                for pair in found.iter().zip(expected) {
                    same_or_tied(&candidate, &model, prompt, pair.into());
                }
            }
        }
    }
}

#[test]
fn sampled_log_probabilities_are_those_of_a_pass_over_the_text() {
    let (dir, reference) = fixture("llama");
    let prompts = encoded(&prompts(&reference));
    let sampling = Sampling { max_tokens: 16, ..Sampling::default() };
    for candidate in candidates() {
        let model = CausalLm::load(&dir, &candidate.device).unwrap();
        let responses = generate(model.clone().for_inference().as_ref(), &prompts, &sampling);
        let pairs = prompts.iter().zip(&responses);
        let sequences: Vec<Sequence> = pairs
            .flat_map(|(prompt, responses)| responses.iter().map(|r| r.sequence(prompt)))
            .collect();
        let found: Vec<f32> =
            responses.iter().flatten().flat_map(|r| r.log_probs.iter().copied()).collect();
        let expected = model.log_probs(&sequences).unwrap().concat();
        candidate.near("log-probabilities of samples", &found, &expected);
    }
}
