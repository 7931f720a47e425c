//! Forward passes against what transformers computes on the CPU.

use burn::tensor::DType;
use infalign_model::{CausalLm, LanguageModel, ModelError, Sequence};

use super::{Candidate, MODELS, candidates, fixture, numbers, prompts};

#[test]
fn logits_are_those_of_transformers() {
    for candidate in candidates() {
        for name in MODELS {
            let (dir, reference) = fixture(name);
            let model = CausalLm::load(&dir, &candidate.device).unwrap().for_inference();
            let prompts = prompts(&reference);
            let rows: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
            let expected: Vec<f32> =
                (0..prompts.len()).flat_map(|k| numbers(&reference["logits"][k]["last"])).collect();
            let found = model.start(&rows, 1).unwrap();
            candidate.near(&format!("{name}, logits"), found.logits(), &expected);
        }
    }
}

#[test]
fn weights_in_bf16_change_the_numbers_by_their_rounding() {
    for candidate in candidates() {
        for name in ["llama", "qwen3", "gemma2", "gpt2", "gpt-neox"] {
            let (dir, reference) = fixture(name);
            let model = CausalLm::load(&dir, &candidate.device).unwrap().in_bf16();
            if !candidate.device.supports_dtype(DType::BF16) {
                println!(
                    "{}: SKIPPED {name} in bf16: the device does not compute with it",
                    candidate.name
                );
                assert!(matches!(model, Err(ModelError::NoBf16)));
                continue;
            }
            let model = model.unwrap();
            let prompts = prompts(&reference);
            let rows: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
            let expected: Vec<f32> =
                (0..prompts.len()).flat_map(|k| numbers(&reference["logits"][k]["last"])).collect();
            // The mantissa has seven bits, and every sum of a few layers is rounded once more.
            let candidate = Candidate { tolerance: 0.05, ..candidate.clone() };
            let found = LanguageModel::start(&model, &rows, 1).unwrap();
            candidate.near(&format!("{name} in bf16, logits"), found.logits(), &expected);
            let sequence = |tokens| Sequence { tokens, prompt_length: 1 };
            let sequences: Vec<Sequence> = prompts.into_iter().map(sequence).collect();
            let found = LanguageModel::log_probs(&model, &sequences).unwrap().concat();
            let expected: Vec<f32> =
                (0..sequences.len()).flat_map(|k| numbers(&reference["log_probs"][k])).collect();
            candidate.near(&format!("{name} in bf16, log-probabilities"), &found, &expected);
        }
    }
}

#[test]
fn log_probabilities_of_given_tokens_are_those_of_transformers() {
    for candidate in candidates() {
        for name in MODELS {
            let (dir, reference) = fixture(name);
            let model = CausalLm::load(&dir, &candidate.device).unwrap();
            let sequence = |tokens| Sequence { tokens, prompt_length: 1 };
            let sequences: Vec<Sequence> = prompts(&reference).into_iter().map(sequence).collect();
            let found = LanguageModel::log_probs(&model, &sequences).unwrap().concat();
            let expected: Vec<f32> =
                (0..sequences.len()).flat_map(|k| numbers(&reference["log_probs"][k])).collect();
            candidate.near(&format!("{name}, log-probabilities"), &found, &expected);
        }
    }
}
