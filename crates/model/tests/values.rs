//! Heads read where they should be: at the last real token of a text, or at every token of a response, whatever else is in the batch.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};

use infalign_backend::Device;
use infalign_model::{CausalLm, ResponseBatch, Sequence, SequenceClassifier, ValueModel};
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::Value;

const TOLERANCE: f32 = 1e-5;

fn device() -> Device {
    infalign_backend::device(None).unwrap()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn assert_close(what: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < TOLERANCE, "{what}: off by {worst}");
}

/// Three heads with weights: a saved model whose `score.weight`, zeros at first, is filled in.
fn values(name: &str) -> (tempfile::TempDir, ValueModel) {
    let trunk = CausalLm::load(&fixture(name), &device()).unwrap();
    let hidden = trunk.config().hidden_size;
    let dir = tempfile::tempdir().unwrap();
    ValueModel::on(trunk, &["help", "harm", "length"], 0).unwrap().save(dir.path()).unwrap();
    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("score.weight").unwrap().shape(), [3, hidden]);
    let score: Vec<u8> =
        (0..3 * hidden).flat_map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0).to_le_bytes()).collect();
    let filled = |(name, view): (&str, TensorView<'_>)| {
        let data = if name == "score.weight" { score.clone() } else { view.data().to_vec() };
        (name.to_owned(), view.dtype(), view.shape().to_vec(), data)
    };
    let stored: Vec<_> = file.iter().map(filled).collect();
    let views = stored.iter().map(|(name, dtype, shape, data)| {
        (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    let model = ValueModel::load(dir.path(), &device()).unwrap();
    (dir, model)
}

fn sequences() -> Vec<Sequence> {
    [(vec![3, 7, 9, 4, 11], 2), (vec![8, 30], 2), (vec![40, 5, 6, 7, 8, 9, 10, 2], 1)]
        .map(|(tokens, prompt_length)| Sequence { tokens, prompt_length })
        .to_vec()
}

#[test]
fn a_classifier_reads_the_last_token_whatever_the_padding() {
    for name in ["llama-classifier", "gpt2-classifier", "gpt-neox-classifier"] {
        let model = SequenceClassifier::load(&fixture(name), &device()).unwrap();
        let pad = model.config().pad_token_id.unwrap();
        // Texts that end in, hold and are the padding token, as happens where it is the end of a text too.
        let texts = vec![
            vec![5, 9, 17],
            vec![5, 9, 17, pad],
            vec![5, 9, 17, pad, pad],
            vec![pad],
            vec![pad, 5, 9, 17],
            vec![6, pad, 7, 8, 30, 31, 32, 33, 34],
        ];
        let together = model.scores(&texts).unwrap();
        for (text, expected) in texts.iter().zip(&together) {
            let alone = model.scores(std::slice::from_ref(text)).unwrap();
            assert_close(name, &alone, &[*expected]);
        }
        // A longer neighbour pads the others; a text's own padding tokens are read.
        let mut longer = texts.clone();
        longer.push((3..40).collect());
        assert_close(name, &model.scores(&longer).unwrap()[..texts.len()], &together);
        for other in &together[1..] {
            assert!((together[0] - other).abs() > 1e-4, "{name}: {together:?}");
        }
    }
}

#[test]
fn values_of_every_prefix_are_those_of_the_prefix_alone() {
    for name in ["llama", "gpt2", "gpt-neox"] {
        let (_dir, model) = values(name);
        let together = model.prefix_values(&sequences()).unwrap();
        for (sequence, values) in sequences().iter().zip(&together) {
            assert_eq!(values.len(), 3 * (sequence.response().len() + 1), "{name}");
            for (length, values) in (sequence.prompt_length..).zip(values.chunks(3)) {
                let prefix =
                    Sequence { tokens: sequence.tokens[..length].to_vec(), prompt_length: length };
                let alone = model.prefix_values(&[prefix]).unwrap();
                assert_close(name, &alone[0], values);
            }
        }
    }
}

#[test]
fn values_before_and_after_the_tokens_of_a_batch() {
    let (_dir, model) = values("llama");
    let batch = ResponseBatch::new(&sequences(), model.config(), &device()).unwrap();
    let rows = |data: burn::tensor::TensorData| data.iter::<f32>().collect::<Vec<f32>>();
    let before = rows(model.values_before(&batch).into_data());
    let after = rows(model.values_after(&batch).into_data());
    let prefixes = model.prefix_values(&sequences()).unwrap();
    let but_last = prefixes.iter().flat_map(|values| &values[..values.len() - 3]);
    let but_first = prefixes.iter().flat_map(|values| &values[3..]);
    assert_close("before", &before, &but_last.copied().collect::<Vec<_>>());
    assert_close("after", &after, &but_first.copied().collect::<Vec<_>>());
}

#[test]
fn heads_are_the_labels_of_a_classifier() {
    let (dir, model) = values("gpt-neox");
    assert_eq!(model.names(), ["help", "harm", "length"]);
    let text = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config["architectures"][0], "GPTNeoXForSequenceClassification");
    assert_eq!(config["id2label"]["1"], "harm");
    // A reward model is a value model with one head.
    let rewards = fixture("llama-classifier");
    let scores = SequenceClassifier::load(&rewards, &device()).unwrap();
    let model = ValueModel::load(&rewards, &device()).unwrap();
    let whole = |s: &Sequence| Sequence { prompt_length: s.tokens.len(), tokens: s.tokens.clone() };
    let texts: Vec<Sequence> = sequences().iter().map(whole).collect();
    let values = model.prefix_values(&texts).unwrap().concat();
    let tokens: Vec<Vec<u32>> = texts.into_iter().map(|s| s.tokens).collect();
    assert_close("reward", &values, &scores.scores(&tokens).unwrap());
}

#[test]
fn heads_need_names_that_differ() {
    let trunk = CausalLm::load(&fixture("llama"), &device()).unwrap();
    for names in [&[][..], &["a", "b", "a"]] {
        let message = ValueModel::on(trunk.clone(), names, 0).expect_err("names").to_string();
        assert!(message.contains(&format!("{names:?}")), "{message}");
    }
}

#[test]
fn several_heads_are_no_reward_model() {
    let (dir, _) = values("llama");
    let refused = || {
        let error = SequenceClassifier::load(dir.path(), &device()).unwrap_err().to_string();
        assert!(error.contains("config.json: `num_labels` is 3"), "{error}");
        assert!(error.contains("a reward model has one label, this one has 3"), "{error}");
    };
    refused();
    // Where the configuration does not say, the head does.
    let path = dir.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for key in ["num_labels", "id2label"] {
        config.as_object_mut().unwrap().remove(key);
    }
    std::fs::write(&path, config.to_string()).unwrap();
    refused();
}
