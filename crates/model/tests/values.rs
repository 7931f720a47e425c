//! A head read where it should be: at the last real token of a text, or at every token of a response, whatever else is in the batch.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};

use infalign_backend::Device;
use infalign_model::{CausalLm, ModelError, ResponseBatch, Sequence, SequenceClassifier};
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::{Map, Value, json};

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

/// A saved classifier whose `score.weight`, zeros at first, is filled in for so many labels.
fn classifier(name: &str, labels: usize) -> tempfile::TempDir {
    let trunk = CausalLm::load(&fixture(name), &device()).unwrap();
    let hidden = trunk.config().hidden_size;
    let dir = tempfile::tempdir().unwrap();
    SequenceClassifier::on(trunk, 0).save(dir.path()).unwrap();
    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("score.weight").unwrap().shape(), [1, hidden]);
    let number = |i: usize| (i * 37 % 101) as f32 / 50.0 - 1.0;
    let score: Vec<u8> = (0..labels * hidden).flat_map(|i| number(i).to_le_bytes()).collect();
    let filled = |(name, view): (&str, TensorView<'_>)| {
        let (shape, data) = match name {
            "score.weight" => (vec![labels, hidden], score.clone()),
            _ => (view.shape().to_vec(), view.data().to_vec()),
        };
        (name.to_owned(), view.dtype(), shape, data)
    };
    let stored: Vec<_> = file.iter().map(filled).collect();
    let views = stored.iter().map(|(name, dtype, shape, data)| {
        (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    dir
}

/// One with a score.
fn values(name: &str) -> SequenceClassifier {
    SequenceClassifier::load(classifier(name, 1).path(), &device()).unwrap()
}

/// Changes the configuration of a saved model.
fn edit(dir: &Path, change: impl FnOnce(&mut Map<String, Value>)) {
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(config.as_object_mut().unwrap());
    std::fs::write(&path, config.to_string()).unwrap();
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
        let model = values(name);
        let together = model.prefix_values(&sequences()).unwrap();
        for (sequence, values) in sequences().iter().zip(&together) {
            assert_eq!(values.len(), sequence.response().len() + 1, "{name}");
            for (length, value) in (sequence.prompt_length..).zip(values) {
                let prefix =
                    Sequence { tokens: sequence.tokens[..length].to_vec(), prompt_length: length };
                let alone = model.prefix_values(&[prefix]).unwrap();
                assert_close(name, &alone[0], &[*value]);
            }
        }
    }
}

#[test]
fn values_before_the_tokens_of_a_batch() {
    let model = values("llama");
    let batch = ResponseBatch::new(&sequences(), model.config(), &device()).unwrap();
    let before: Vec<f32> = model.values_before(&batch).into_data().iter::<f32>().collect();
    let prefixes = model.prefix_values(&sequences()).unwrap();
    let but_last = prefixes.iter().flat_map(|values| &values[..values.len() - 1]);
    assert_close("before", &before, &but_last.copied().collect::<Vec<_>>());
}

#[test]
fn the_value_of_a_whole_text_is_its_score_whatever_the_label_is_called() {
    let dir = classifier("gpt-neox", 1);
    edit(dir.path(), |config| {
        assert_eq!(config["architectures"][0], "GPTNeoXForSequenceClassification");
        assert_eq!(config["id2label"]["0"], "LABEL_0");
        config["id2label"]["0"] = "value".into();
    });
    let model = SequenceClassifier::load(dir.path(), &device()).unwrap();
    let whole = |s: &Sequence| Sequence { prompt_length: s.tokens.len(), tokens: s.tokens.clone() };
    let texts: Vec<Sequence> = sequences().iter().map(whole).collect();
    let values = model.prefix_values(&texts).unwrap().concat();
    let tokens: Vec<Vec<u32>> = texts.into_iter().map(|s| s.tokens).collect();
    assert_close("value", &values, &model.scores(&tokens).unwrap());
}

#[test]
fn what_cannot_be_read_is_named_by_its_place_among_all() {
    // Of 30 tokens each, 136 make a run of 4,096, and this one stands in the next.
    let mut sequences = vec![Sequence { tokens: vec![1; 30], prompt_length: 1 }; 300];
    let model = values("llama");
    let language = CausalLm::load(&fixture("llama"), &device()).unwrap();
    let mut texts: Vec<Vec<u32>> = sequences.iter().map(|s| s.tokens.clone()).collect();
    sequences[200].prompt_length = 0;
    texts[200].clear();
    let refused = [
        language.log_probs(&sequences).unwrap_err(),
        language.clone().for_inference().log_probs(&sequences).unwrap_err(),
        model.prefix_values(&sequences).unwrap_err(),
        model.scores(&texts).unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, ModelError::Empty { index: 200 }), "{error}");
    }
}

#[test]
fn several_heads_are_no_reward_model() {
    let dir = classifier("llama", 3);
    let refused = || {
        let error = SequenceClassifier::load(dir.path(), &device()).unwrap_err().to_string();
        assert!(error.contains("config.json: `num_labels` is 3"), "{error}");
        assert!(error.contains("a reward model has one label, this one has 3"), "{error}");
    };
    edit(dir.path(), |config| {
        config["id2label"] = json!({ "0": "help", "1": "harm", "2": "length" });
    });
    refused();
    // Where the configuration does not say, the head does.
    edit(dir.path(), |config| {
        config.remove("num_labels");
        config.remove("id2label");
    });
    refused();
}
