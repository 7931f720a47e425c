//! What GPT-2 and GPT-NeoX have of their own: names of keys and tensors, buffers, learned positions, and what is refused of them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use infalign_backend::Device;
use infalign_model::{CausalLm, LanguageModel, ModelError, Sequence};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

fn device() -> Device {
    infalign_backend::device(None).unwrap()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn read_config(dir: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(dir.join("config.json")).unwrap()).unwrap()
}

/// A copy of a fixture with some keys of its configuration replaced.
fn changed(name: &str, keys: &Value) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let weights = "model.safetensors";
    std::fs::copy(fixture(name).join(weights), copy.path().join(weights)).unwrap();
    let mut config = read_config(&fixture(name));
    for (key, value) in keys.as_object().unwrap() {
        config[key] = value.clone();
    }
    std::fs::write(copy.path().join("config.json"), config.to_string()).unwrap();
    copy
}

fn last_logits(model: &CausalLm) -> Vec<f32> {
    model.start(&[&[3, 25, 19, 14, 16]], 1).unwrap().logits().to_vec()
}

/// Names, types, shapes and bytes of a file's tensors.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn tensors(dir: &Path) -> Tensors {
    let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |view: TensorView<'_>| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
    file.iter().map(|(name, view)| (name.to_owned(), tensor(view))).collect()
}

/// Stores a copy of a matrix under another name, its last number replaced.
fn add_copy(dir: &Path, like: &str, name: &str, last: Option<f32>) {
    let mut stored = tensors(dir);
    let mut copy = stored[like].clone();
    let end = copy.2.len();
    if let Some(last) = last {
        copy.2[end - 4..].copy_from_slice(&last.to_le_bytes());
    }
    stored.insert(name.into(), copy);
    let views = stored.iter().map(|(name, (dtype, shape, data))| {
        (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    std::fs::write(dir.join("model.safetensors"), bytes).unwrap();
}

#[test]
fn an_output_matrix_that_is_not_the_embedding_it_is_said_to_be_is_refused() {
    let tied = changed("gpt2", &json!({}));
    let expected = last_logits(&CausalLm::load(tied.path(), &device()).unwrap());
    add_copy(tied.path(), "transformer.wte.weight", "lm_head.weight", None);
    assert_eq!(last_logits(&CausalLm::load(tied.path(), &device()).unwrap()), expected);
    add_copy(tied.path(), "transformer.wte.weight", "lm_head.weight", Some(9.0));
    let neox = changed("gpt-neox", &json!({ "tie_word_embeddings": true }));
    for (dir, output) in [(tied, "lm_head.weight"), (neox, "embed_out.weight")] {
        let error = CausalLm::load(dir.path(), &device()).unwrap_err().to_string();
        assert!(error.contains("`tie_word_embeddings` is true"), "{error}");
        assert!(error.contains(output), "{error}");
    }
}

#[test]
fn a_language_model_has_its_output_matrix_beside_the_head_of_a_classifier() {
    let copy = changed("gpt-neox", &json!({}));
    let expected = last_logits(&CausalLm::load(copy.path(), &device()).unwrap());
    add_copy(copy.path(), "gpt_neox.embed_in.weight", "score.weight", None);
    assert_eq!(last_logits(&CausalLm::load(copy.path(), &device()).unwrap()), expected);
}

#[test]
fn blocks_that_the_configuration_has_no_place_for_are_refused() {
    for (name, key, first) in [
        ("gpt2", "n_layer", "transformer.h.1."),
        ("gpt-neox", "num_hidden_layers", "gpt_neox.layers.1."),
    ] {
        let dir = changed(name, &json!({ key: 1 }));
        let error = CausalLm::load(dir.path(), &device()).unwrap_err().to_string();
        assert!(error.contains(first) && error.contains("no place"), "{error}");
    }
}

#[test]
fn written_directories_have_the_family_s_names_and_the_same_weights() {
    for name in ["gpt2", "gpt-neox", "gpt-neox-serial"] {
        let copy = tempfile::tempdir().unwrap();
        CausalLm::load(&fixture(name), &device()).unwrap().save(copy.path()).unwrap();
        assert!(tensors(copy.path()) == tensors(&fixture(name)), "{name}");
        let (before, after) = (read_config(&fixture(name)), read_config(copy.path()));
        for (key, value) in after.as_object().unwrap() {
            let known = match (name, key.as_str()) {
                (_, "torch_dtype") => json!("float32"),
                ("gpt2", "n_inner") => json!(96),
                (_, "rotary_emb_base") => before["rope_parameters"]["rope_theta"].clone(),
                (_, "rotary_pct") => before["rope_parameters"]["partial_rotary_factor"].clone(),
                ("gpt-neox-serial", "rope_scaling") => {
                    json!({ "rope_type": "linear", "factor": 2.0 })
                }
                (_, key) => before[key].clone(),
            };
            assert_eq!(*value, known, "{name}: {key}");
        }
    }
}

#[test]
fn files_of_bare_models_with_buffers_are_read() {
    for (name, prefix, buffers) in [
        ("gpt2", "transformer.", ["h.0.attn.bias", "h.0.attn.masked_bias", "h.1.attn.bias"]),
        (
            "gpt-neox",
            "gpt_neox.",
            ["layers.0.attention.bias", "layers.1.attention.masked_bias", "rotary_emb.inv_freq"],
        ),
    ] {
        let mut stored: Tensors = tensors(&fixture(name))
            .into_iter()
            .map(|(key, tensor)| (key.strip_prefix(prefix).unwrap_or(&key).to_owned(), tensor))
            .collect();
        let minus_infinity = half::f16::NEG_INFINITY.to_le_bytes().to_vec();
        stored.insert(buffers[0].into(), (Dtype::BOOL, vec![1, 1, 2, 2], vec![1, 0, 1, 1]));
        stored.insert(buffers[1].into(), (Dtype::F16, vec![], minus_infinity.clone()));
        stored.insert(buffers[2].into(), (Dtype::F16, vec![1], minus_infinity));
        let views = stored.iter().map(|(key, (dtype, shape, bytes))| {
            (key, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        let copy = changed(name, &json!({}));
        std::fs::write(copy.path().join("model.safetensors"), bytes).unwrap();
        let [a, b] = [&fixture(name), copy.path()]
            .map(|dir| last_logits(&CausalLm::load(dir, &device()).unwrap()));
        assert_eq!(a, b, "{name}");
    }
}

#[test]
fn what_changes_the_numbers_and_is_not_computed_is_refused() {
    for (name, keys, needles) in [
        ("gpt2", json!({ "scale_attn_weights": false }), ["scale_attn_weights", "false"]),
        (
            "gpt2",
            json!({ "scale_attn_by_inverse_layer_idx": true }),
            ["scale_attn_by_inverse_layer_idx", "true"],
        ),
        ("gpt2", json!({ "reorder_and_upcast_attn": true }), ["reorder_and_upcast_attn", "true"]),
        ("gpt2", json!({ "add_cross_attention": true }), ["add_cross_attention", "true"]),
        ("gpt2", json!({ "activation_function": "relu" }), ["activation_function", "relu"]),
        ("gpt2", json!({ "layer_norm_epsilon": 0.0 }), ["layer_norm_epsilon", "above 0"]),
        ("gpt2", json!({ "n_head": 5 }), ["n_head", "divide"]),
        ("gpt2", json!({ "n_embd": 0 }), ["n_embd", "at least 1"]),
        ("gpt2", json!({ "n_layer": 1_000_000_000_000_u64 }), ["n_layer", "at most 16384"]),
        ("gpt2", json!({ "n_embd": 1_u64 << 62, "n_head": 1 }), ["n_embd", "at most 16777216"]),
        ("gpt2", json!({ "n_positions": 32 }), ["transformer.wpe.weight", "[64, 24]"]),
        ("gpt2", json!({ "n_layer": 3 }), ["transformer.h.2.attn.c_attn.weight", "no tensor"]),
        ("gpt2", json!({ "n_inner": 40 }), ["transformer.h.0.mlp.c_fc.weight", "[24, 40]"]),
        ("gpt2", json!({ "tie_word_embeddings": false }), ["lm_head.weight", "no tensor"]),
        ("gpt-neox", json!({ "hidden_act": "relu" }), ["hidden_act", "relu"]),
        (
            "gpt-neox",
            json!({ "rope_parameters": { "partial_rotary_factor": 0.2 } }),
            ["rotary_pct", "even"],
        ),
        ("gpt-neox", json!({ "rope_parameters": null, "rotary_pct": 1.5 }), ["rotary_pct", "1.5"]),
        (
            "gpt-neox",
            json!({ "rope_parameters": { "rope_type": "dynamic" } }),
            ["rope_scaling", "dynamic"],
        ),
        ("gpt-neox", json!({ "hidden_size": 64 }), ["gpt_neox.embed_in.weight", "[48, 64]"]),
    ] {
        let copy = changed(name, &keys);
        let message = CausalLm::load(copy.path(), &device()).expect_err(needles[0]).to_string();
        assert!(needles.iter().all(|needle| message.contains(needle)), "{message}");
    }
}

#[test]
fn no_text_is_longer_than_the_learned_positions() {
    let model = CausalLm::load(&fixture("gpt2"), &device()).unwrap();
    let refused = |prompt: &[u32], new| model.start(&[prompt], new).err();
    assert!(matches!(refused(&[5; 65], 0), Some(ModelError::TooLong { length: 65, limit: 64 })));
    assert!(matches!(refused(&[5; 60], 5), Some(ModelError::TooLong { length: 65, limit: 64 })));
    assert!(refused(&[5; 60], 4).is_none());
    let sequence = Sequence { tokens: vec![5; 65], prompt_length: 1 };
    assert!(matches!(model.log_probs(&[sequence]), Err(ModelError::TooLong { .. })));
}
