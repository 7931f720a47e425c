//! Parity with transformers on a real small Llama: `INFALIGN_DATA/stories260K-hf` against `INFALIGN_DATA/reference`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::path::PathBuf;

use infalign_backend::Device;
use infalign_model::{CausalLm, LanguageModel, Sequence, Tokenizer};

fn data() -> Option<PathBuf> {
    let dir = std::env::var_os("INFALIGN_DATA").filter(|data| !data.is_empty());
    let dir = dir.map(PathBuf::from);
    if dir.is_none() {
        eprintln!("SKIPPED: set INFALIGN_DATA to test against the real model");
    }
    dir
}

fn device() -> Device {
    infalign_backend::device(None).unwrap()
}

/// A tensor of the reference file.
fn reference(data: &std::path::Path, name: &str) -> (Vec<usize>, Vec<f64>) {
    let bytes = std::fs::read(data.join("reference/stories260K.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap();
    let chunks = view.data().as_chunks::<8>().0;
    let values = match view.dtype() {
        safetensors::Dtype::F64 => chunks.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        safetensors::Dtype::I64 => chunks.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
        other => panic!("unexpected type {other:?}"),
    };
    (view.shape().to_vec(), values)
}

fn ids(values: &[f64]) -> Vec<u32> {
    values.iter().map(|v| *v as u32).collect()
}

/// Index of the largest logit.
fn argmax(logits: &[f32]) -> u32 {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32
}

/// Greedy continuations of a batch of prompts until each has `new_tokens` more, or a stop token.
fn greedy(
    model: &CausalLm,
    prompts: &[Vec<u32>],
    new_tokens: usize,
    stops: &[u32],
) -> Vec<Vec<u32>> {
    let rows: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let mut session = model.start(&rows, new_tokens).unwrap();
    let mut texts = prompts.to_vec();
    for _ in 0..new_tokens {
        let next: Vec<u32> = session.logits().chunks(model.vocabulary()).map(argmax).collect();
        for (text, &token) in texts.iter_mut().zip(&next) {
            if !text.last().is_some_and(|last| text.len() > 1 && stops.contains(last)) {
                text.push(token);
            }
        }
        session.push(&next).unwrap();
    }
    texts
}

#[test]
fn logits_agree_with_an_independent_forward_pass() {
    let Some(data) = data() else { return };
    let model = CausalLm::load(&data.join("stories260K-hf"), &device()).unwrap();
    for k in 0..3 {
        let prompt = ids(&reference(&data, &format!("prompt{k}.input_ids")).1);
        let (shape, expected) = reference(&data, &format!("prompt{k}.logits_np_f64"));
        // Every prefix as one row of a left-padded batch: padding must not matter.
        let prefixes: Vec<&[u32]> = (1..=prompt.len()).map(|n| &prompt[..n]).collect();
        let session = model.start(&prefixes, 1).unwrap();
        let worst = session
            .logits()
            .iter()
            .zip(&expected)
            .map(|(a, b)| (f64::from(*a) - b).abs())
            .fold(0.0, f64::max);
        assert_eq!(session.logits().len(), shape[0] * shape[1]);
        assert!(worst < 1e-4, "prompt {k}: logits differ by {worst}");
    }
}

#[test]
fn greedy_continuations_are_those_of_transformers() {
    let Some(data) = data() else { return };
    let model = CausalLm::load(&data.join("stories260K-hf"), &device()).unwrap();
    let prompts: Vec<Vec<u32>> =
        (0..3).map(|k| ids(&reference(&data, &format!("prompt{k}.input_ids")).1)).collect();
    let together = greedy(&model, &prompts, 60, &[1, 2]);
    for k in 0..3 {
        let expected = ids(&reference(&data, &format!("prompt{k}.greedy_ids")).1);
        assert_eq!(together[k], expected, "prompt {k} in a batch of three");
        assert_eq!(greedy(&model, &prompts[k..=k], 60, &[1, 2])[0], expected, "prompt {k} alone");
    }
    let json: serde_json::Value = serde_json::from_str(
        &std::fs::read_to_string(data.join("reference/stories260K.json")).unwrap(),
    )
    .unwrap();
    let run = &json["greedy_from_bos"];
    let expected: Vec<u32> = run["ids"]
        .as_array()
        .or(run.as_array())
        .unwrap()
        .iter()
        .map(|v| v.as_u64().unwrap() as u32)
        .collect();
    let ours = greedy(&model, &[vec![1]], expected.len() - 1, &[1, 2]);
    assert_eq!(ours[0], expected);
}

#[test]
fn log_probs_and_text_agree_with_the_reference() {
    let Some(data) = data() else { return };
    let dir = data.join("stories260K-hf");
    let model = CausalLm::load(&dir, &device()).unwrap();
    let tokenizer = Tokenizer::load(&dir, model.config()).unwrap();
    let json: serde_json::Value = serde_json::from_str(
        &std::fs::read_to_string(data.join("reference/stories260K.json")).unwrap(),
    )
    .unwrap();
    for prompt in json["prompts"].as_array().unwrap() {
        let text = prompt["text"].as_str().unwrap();
        let tokens = tokenizer.encode(text).unwrap();
        let expected: Vec<u32> = prompt["input_ids"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_u64().unwrap() as u32)
            .collect();
        assert_eq!(tokens, expected);
        assert_eq!(tokenizer.decode(&tokens).unwrap(), text);
        let ours = model.log_probs(&[Sequence { tokens, prompt_length: 1 }]).unwrap();
        for (a, b) in ours[0].iter().zip(prompt["token_logprobs_f64"].as_array().unwrap()) {
            assert!((f64::from(*a) - b.as_f64().unwrap()).abs() < 1e-4);
        }
    }
    let prompt = tokenizer.encode("Once upon a time").unwrap();
    let rest =
        tokenizer.encode("Once upon a time there was a dog").unwrap().split_off(prompt.len());
    assert_eq!(tokenizer.decode_response(&prompt, &rest).unwrap(), " there was a dog");
}

#[test]
fn a_saved_model_is_the_same_model() {
    let Some(data) = data() else { return };
    let dir = data.join("stories260K-hf");
    let model = CausalLm::load(&dir, &device()).unwrap();
    let copy = tempfile::tempdir().unwrap();
    model.save(copy.path()).unwrap();
    Tokenizer::load(&dir, model.config()).unwrap().save(copy.path()).unwrap();
    let again = CausalLm::load(copy.path(), &device()).unwrap();
    assert_eq!(again.config(), model.config());
    assert!(Tokenizer::load(copy.path(), again.config()).is_ok());
    let logits = |model: &CausalLm| model.start(&[&[1, 403, 407]], 1).unwrap().logits().to_vec();
    assert_eq!(logits(&model), logits(&again));
    let other = tempfile::tempdir().unwrap();
    again.save(other.path()).unwrap();
    let bytes = |dir: &std::path::Path| std::fs::read(dir.join("model.safetensors")).unwrap();
    assert_eq!(bytes(copy.path()), bytes(other.path()), "the same weights give the same bytes");
}
