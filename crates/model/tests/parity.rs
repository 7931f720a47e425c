//! Every architecture against transformers: tiny random checkpoints with the numbers that it computes (`fixtures/make.py`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};

use infalign_backend::Device;
use infalign_model::{
    CausalLm, CpuModel, LanguageModel, Sequence, SequenceClassifier, Session, TransformerConfig,
};
use serde_json::Value;

const CAUSAL: [&str; 13] = [
    "llama",
    "llama-bf16",
    "llama-f16",
    "llama-sharded",
    "llama3",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3",
    "gpt2",
    "gpt-neox",
    "gpt-neox-serial",
];

/// Greatest difference of a logit or a log-probability.
const TOLERANCE: f32 = 1e-4;

fn fixture(name: &str) -> (PathBuf, Value) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let text = std::fs::read_to_string(dir.join("reference.json")).unwrap();
    (dir, serde_json::from_str(&text).unwrap())
}

fn device() -> Device {
    infalign_backend::device(None).unwrap()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

fn prompts(reference: &Value) -> Vec<Vec<u32>> {
    reference["prompts"].as_array().unwrap().iter().map(ids).collect()
}

fn assert_close(what: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < TOLERANCE, "{what}: off by {worst}");
}

fn largest(logits: &[f32]) -> u32 {
    let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    best.unwrap() as u32
}

/// The model with tensors, and packed for the CPU.
fn both(model: &CausalLm) -> [(&'static str, Box<dyn LanguageModel>); 2] {
    [("tensors", Box::new(model.clone())), ("packed", Box::new(CpuModel::new(model.clone())))]
}

#[test]
fn logits_of_prompts_alone_and_together() {
    for name in CAUSAL {
        let (dir, reference) = fixture(name);
        let prompts = prompts(&reference);
        let expected: Vec<Vec<f32>> =
            (0..prompts.len()).map(|k| numbers(&reference["logits"][k]["last"])).collect();
        for (kind, model) in both(&CausalLm::load(&dir, &device()).unwrap()) {
            for (prompt, expected) in prompts.iter().zip(&expected) {
                let alone = model.start(&[prompt], 1).unwrap();
                let what = format!("{name} {kind}, {} tokens", prompt.len());
                assert_close(&what, alone.logits(), expected);
            }
            let rows: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
            let batch = model.start(&rows, 1).unwrap();
            assert_close(&format!("{name} {kind}, together"), batch.logits(), &expected.concat());
            for (k, prompt) in prompts.iter().enumerate() {
                let start = model.start(&[&prompt[..3]], 1).unwrap();
                let third = numbers(&reference["logits"][k]["position_2"]);
                assert_close(&format!("{name} {kind}, third token"), start.logits(), &third);
            }
        }
    }
}

#[test]
fn log_probabilities_of_given_tokens() {
    for name in CAUSAL {
        let (dir, reference) = fixture(name);
        let sequence = |tokens| Sequence { tokens, prompt_length: 1 };
        let sequences: Vec<Sequence> = prompts(&reference).into_iter().map(sequence).collect();
        for (kind, model) in both(&CausalLm::load(&dir, &device()).unwrap()) {
            for (k, log_probs) in model.log_probs(&sequences).unwrap().iter().enumerate() {
                let expected = numbers(&reference["log_probs"][k]);
                assert_close(&format!("{name} {kind}"), log_probs, &expected);
            }
        }
    }
}

/// The session goes on with some token where a response has ended.
#[test]
fn batching_padding_and_caching_do_not_change_log_probs() {
    let sequence = |prompt_length: usize, tokens: std::ops::Range<u32>| Sequence {
        tokens: tokens.map(|t| 7 * t % 48).collect(),
        prompt_length,
    };
    let sequences = [sequence(1, 2..11), sequence(5, 20..31), sequence(3, 30..35)];
    let prompts = sequences.each_ref().map(|s| &s.tokens[..s.prompt_length]);
    for name in CAUSAL {
        for (kind, model) in both(&CausalLm::load(&fixture(name).0, &device()).unwrap()) {
            let together = model.log_probs(&sequences).unwrap();
            let mut session = model.start(&prompts, 8).unwrap();
            let mut cached: [Vec<f32>; 3] = Default::default();
            for step in 0..8 {
                let tokens = sequences.each_ref().map(|s| s.response().get(step).copied());
                let rows = session.logits().chunks(model.vocabulary());
                for ((logits, token), cached) in rows.zip(tokens).zip(&mut cached) {
                    let total = logits.iter().map(|l| f64::from(*l).exp()).sum::<f64>().ln();
                    let log_prob = |token: u32| (f64::from(logits[token as usize]) - total) as f32;
                    cached.extend(token.map(log_prob));
                }
                session.push(&tokens.map(Option::unwrap_or_default)).unwrap();
            }
            for (row, sequence) in sequences.iter().enumerate() {
                let alone = model.log_probs(std::slice::from_ref(sequence)).unwrap().concat();
                assert_close(&format!("{name} {kind}, row {row}"), &alone, &together[row]);
                assert_close(&format!("{name} {kind}, cache {row}"), &cached[row], &together[row]);
            }
        }
    }
}

/// More than are put through the output matrix together.
#[test]
fn log_probabilities_of_a_long_response() {
    let mut position = 0.0_f32;
    let mut normal = || {
        position += 1.0;
        5.0 * (1.7 * position).sin()
    };
    let config = TransformerConfig::llama(11, 16, 24, 2, 2, 200);
    let model = CausalLm::random(config, &mut normal, &device()).unwrap();
    let tokens = (0..150).map(|k| k * k % 11).collect();
    let sequences = [Sequence { tokens, prompt_length: 1 }];
    let [tensors, packed] =
        both(&model).map(|(_, model)| model.log_probs(&sequences).unwrap().concat());
    assert_eq!(tensors.len(), 149);
    assert_close("packed", &packed, &tensors);
}

#[test]
fn greedy_continuations_with_a_cache() {
    for name in CAUSAL {
        let (dir, reference) = fixture(name);
        let prompts = prompts(&reference);
        let rows: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let expected: Vec<Vec<u32>> =
            reference["greedy"].as_array().unwrap().iter().map(ids).collect();
        for (kind, model) in both(&CausalLm::load(&dir, &device()).unwrap()) {
            let mut session = model.start(&rows, 8).unwrap();
            for step in 0..8 {
                let chosen: Vec<u32> =
                    session.logits().chunks(model.vocabulary()).map(largest).collect();
                let wanted: Vec<u32> = expected.iter().map(|tokens| tokens[step]).collect();
                assert_eq!(chosen, wanted, "{name} {kind}, token {step}");
                if step < 7 {
                    session.push(&chosen).unwrap();
                }
            }
        }
    }
}

#[test]
fn rows_that_join_and_leave_do_not_change_the_others() {
    for name in CAUSAL {
        let (dir, reference) = fixture(name);
        let prompts = prompts(&reference);
        let expected: Vec<Vec<u32>> =
            reference["greedy"].as_array().unwrap().iter().map(ids).collect();
        for (kind, model) in both(&CausalLm::load(&dir, &device()).unwrap()) {
            let vocabulary = model.vocabulary();
            let read = model.read(&[&prompts[0], &prompts[1]]).unwrap();
            let mut session = model.session();
            let token = |session: &dyn Session, row: usize| {
                largest(&session.logits()[row * vocabulary..(row + 1) * vocabulary])
            };
            // The first prompt alone and with less room, then the second twice beside it, then the second alone again.
            session.join(&read, &[0], 6).unwrap();
            for &next in &expected[0][..3] {
                assert_eq!(token(session.as_ref(), 0), next, "{name} {kind}");
                session.push(&[next]).unwrap();
            }
            session.join(&read, &[1, 1], 8).unwrap();
            for step in 0..3 {
                let rows = [expected[0][3 + step], expected[1][step], expected[1][step]];
                let found = [0, 1, 2].map(|row| token(session.as_ref(), row));
                assert_eq!(found, rows, "{name} {kind}, step {step}");
                session.push(&rows).unwrap();
            }
            session.select(&[2, 1, 2]);
            for &next in &expected[1][3..8] {
                assert_eq!(token(session.as_ref(), 2), next, "{name} {kind}");
                session.push(&[next; 3]).unwrap();
            }
            assert!(session.push(&[0; 3]).is_err(), "{name} {kind}: eight tokens after the prompt");
        }
    }
}

#[test]
fn packed_numbers_are_the_same_bits_in_any_batch() {
    for name in CAUSAL {
        let (dir, reference) = fixture(name);
        let model = CpuModel::new(CausalLm::load(&dir, &device()).unwrap());
        let prompts = prompts(&reference);
        let rows: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let together = model.start(&rows, 1).unwrap().logits().to_vec();
        let mut one_by_one = Vec::new();
        for prompt in &rows {
            let mut session = model.start(&[&prompt[..1]], prompt.len()).unwrap();
            prompt[1..].iter().for_each(|&token| session.push(&[token]).unwrap());
            one_by_one.extend_from_slice(session.logits());
        }
        assert_eq!(together, one_by_one, "{name}");
    }
}

/// Of weights that bf16 holds, the same bits.
#[test]
fn bf16_rounds_weights_and_nothing_else_on_the_cpu() {
    let cpu = infalign_backend::device(Some(&"cpu".parse().unwrap())).unwrap();
    for name in CAUSAL {
        let (dir, reference) = fixture(name);
        let copy = tempfile::tempdir().unwrap();
        CausalLm::load(&dir, &cpu).unwrap().in_bf16().unwrap().save(copy.path()).unwrap();
        let rounded = CausalLm::load(copy.path(), &cpu).unwrap();
        let models = [rounded.clone(), rounded.in_bf16().unwrap()].map(CausalLm::for_inference);
        for prompt in prompts(&reference) {
            let [plain, bf16] =
                models.each_ref().map(|m| m.start(&[&prompt], 1).unwrap().logits().to_vec());
            assert_eq!(plain, bf16, "{name}");
        }
    }
}

#[test]
fn what_is_written_is_what_was_read() {
    for name in CAUSAL {
        let (dir, reference) = fixture(name);
        let model = CausalLm::load(&dir, &device()).unwrap();
        let copy = tempfile::tempdir().unwrap();
        model.save(copy.path()).unwrap();
        let again = CausalLm::load(copy.path(), &device()).unwrap();
        for prompt in prompts(&reference) {
            let [a, b] =
                [&model, &again].map(|m| m.start(&[&prompt], 1).unwrap().logits().to_vec());
            assert_eq!(a, b, "{name}");
        }
    }
}

#[test]
fn scores_of_classifiers() {
    for name in ["llama-classifier", "qwen2-classifier", "gpt2-classifier", "gpt-neox-classifier"] {
        let (dir, reference) = fixture(name);
        let model = SequenceClassifier::load(&dir, &device()).unwrap();
        let expected: Vec<f32> =
            reference["scores"].as_array().unwrap().iter().flat_map(numbers).collect();
        assert_close(name, &model.scores(&prompts(&reference)).unwrap(), &expected);
    }
}

/// The keys of `config.json` as transformers 4 wrote them, which is how most checkpoints have them.
#[test]
fn the_older_spelling_of_configurations_is_read_too() {
    for name in ["llama3", "gemma2", "gemma3", "mistral"] {
        let (dir, reference) = fixture(name);
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(dir.join("model.safetensors"), copy.path().join("model.safetensors"))
            .unwrap();
        let text = std::fs::read_to_string(dir.join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        let keys = config.as_object_mut().unwrap();
        let mut rope = keys.remove("rope_parameters").unwrap();
        keys.remove("dtype");
        // Of both Gemmas: sliding, full, sliding.
        keys.remove("layer_types");
        keys.insert("torch_dtype".into(), "float32".into());
        if name == "gemma3" {
            let theta = |kind: &str| rope[kind]["rope_theta"].clone();
            keys.insert("rope_theta".into(), theta("full_attention"));
            keys.insert("rope_local_base_freq".into(), theta("sliding_attention"));
            // Every second block is a full one, which of Gemma 2 is not said.
            keys.insert("sliding_window_pattern".into(), 2.into());
        } else {
            let rope = rope.as_object_mut().unwrap();
            keys.insert("rope_theta".into(), rope.remove("rope_theta").unwrap());
            keys.insert("rope_scaling".into(), Value::Object(rope.clone()));
        }
        std::fs::write(copy.path().join("config.json"), config.to_string()).unwrap();
        let model = CausalLm::load(copy.path(), &device()).unwrap();
        let longest = &prompts(&reference)[2];
        let expected = numbers(&reference["logits"][2]["last"]);
        assert_close(name, model.start(&[longest], 1).unwrap().logits(), &expected);
    }
}
