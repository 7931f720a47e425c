//! Bad input: each case is one sentence that names the file and the key, tensor or size.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::path::Path;

use infalign_backend::Device;
use infalign_model::{
    CausalLm, CpuModel, LanguageModel, ModelError, Sequence, SequenceClassifier, TransformerConfig,
};

fn device() -> Device {
    infalign_backend::device(None).unwrap()
}

fn config(extra: &str) -> String {
    format!(
        r#"{{"architectures": ["LlamaForCausalLM"], "vocab_size": 8, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 16, "tie_word_embeddings": false{extra}}}"#
    )
}

/// A small random model: its numbers are a fixed linear congruence, not a distribution.
fn tiny() -> CausalLm {
    let config: TransformerConfig = serde_json::from_str(&config("")).unwrap();
    let mut state = 1_u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5) * 30.0
    };
    CausalLm::random(config, &mut next, &device()).unwrap()
}

fn saved(dir: &Path) {
    tiny().save(dir).unwrap();
}

fn message(result: Result<CausalLm, ModelError>) -> String {
    result.expect_err("the model must be refused").to_string()
}

#[test]
fn unsupported_configurations_name_the_key() {
    let dir = tempfile::tempdir().unwrap();
    for (json, needles) in [
        (
            config("").replace("LlamaForCausalLM", "MambaForCausalLM"),
            ["architectures", "MambaForCausalLM"],
        ),
        (config(r#", "hidden_act": "gelu""#), ["hidden_act", "gelu"]),
        (config(r#", "rope_scaling": {"type": "yarn"}"#), ["rope_scaling", "yarn"]),
        (config(r#", "rope_parameters": {"rope_type": "dynamic"}"#), ["rope_scaling", "dynamic"]),
        (config(r#", "rope_scaling": {"rope_type": "llama3"}"#), ["config.json", "factor"]),
        (
            config(r#", "layer_types": ["full_attention", "x"]"#).replace("Llama", "Mistral"),
            ["layer_types", "num_hidden_layers"],
        ),
        (config(r#", "sliding_window": 0"#), ["sliding_window", "at least 1"]),
        (config(r#", "num_key_value_heads": 3"#), ["num_key_value_heads", "divide"]),
        (config(r#", "rope_theta": -1.0"#), ["rope_theta", "above 0"]),
        (config(r#", "head_dim": 3"#), ["head_dim", "even"]),
        (config(r#", "head_dim": 9223372036854775808"#), ["head_dim", "at most 16777216"]),
        (
            config(r#", "rope_scaling": {"type": "linear", "factor": 0.0}"#),
            ["rope_scaling", "above 0"],
        ),
        (
            config(
                r#", "rope_scaling": {"type": "llama3", "factor": 2, "low_freq_factor": 1, "high_freq_factor": 1}"#,
            ),
            ["rope_scaling", "high_freq_factor above low_freq_factor"],
        ),
        (
            config("").replace(r#"_layers": 1"#, r#"_layers": 99999"#),
            ["num_hidden_layers", "16384"],
        ),
        (config(r#", "model_type": "mistral""#), ["model_type", "architectures` says llama"]),
        (config(r#", "partial_rotary_factor": 0.5"#), ["partial_rotary_factor", "only 1 is"]),
        (config("").replace(r#""vocab_size": 8, "#, ""), ["config.json", "vocab_size"]),
        ("{".to_owned(), ["config.json", "line 1"]),
    ] {
        std::fs::write(dir.path().join("config.json"), json).unwrap();
        let message = message(CausalLm::load(dir.path(), &device()));
        assert!(needles.iter().all(|needle| message.contains(needle)), "{message}");
    }
}

#[test]
fn damaged_checkpoints_name_the_file_and_the_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let weights = dir.path().join("model.safetensors");
    assert!(message(CausalLm::load(&dir.path().join("absent"), &device())).contains("absent"));
    saved(dir.path());
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    assert!(
        message(CausalLm::load(dir.path(), &device())).contains("model.safetensors is not a valid")
    );
    std::fs::write(&weights, &bytes[..4]).unwrap();
    assert!(
        message(CausalLm::load(dir.path(), &device())).contains("model.safetensors is not a valid")
    );
    let mut nan = bytes.clone();
    let end = nan.len();
    nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&weights, &nan).unwrap();
    assert!(message(CausalLm::load(dir.path(), &device())).contains("NaN"));
    std::fs::write(&weights, &bytes).unwrap();
    let larger = config("").replace(r#""intermediate_size": 12"#, r#""intermediate_size": 14"#);
    std::fs::write(dir.path().join("config.json"), larger).unwrap();
    let text = message(CausalLm::load(dir.path(), &device()));
    assert!(
        text.contains("mlp.gate_proj") && text.contains("[12, 8]") && text.contains("[14, 8]"),
        "{text}"
    );
    let deeper = config("").replace(r#""num_hidden_layers": 1"#, r#""num_hidden_layers": 2"#);
    std::fs::write(dir.path().join("config.json"), deeper).unwrap();
    assert!(message(CausalLm::load(dir.path(), &device())).contains("model.layers.1"));
}

/// Puts a tensor of 8 × 8 numbers into a saved model, under a name and with its last number changed.
fn add_tensor(dir: &Path, name: &str, like: &str) {
    let path = dir.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut values = file.tensor(like).unwrap().data().to_vec();
    let end = values.len();
    values[end - 4..].copy_from_slice(&9f32.to_le_bytes());
    let added =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![8, 8], &values).unwrap();
    let tensors = file.iter().chain([(name, added)]).collect::<Vec<_>>();
    std::fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
}

#[test]
fn weights_that_the_configuration_has_no_place_for_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    saved(dir.path());
    let like = "model.layers.0.self_attn.q_proj.weight";
    add_tensor(dir.path(), "model.layers.1.self_attn.q_proj.weight", like);
    let text = message(CausalLm::load(dir.path(), &device()));
    assert!(text.contains("model.layers.1.self_attn.q_proj.weight"), "{text}");
    assert!(text.contains("no place"), "{text}");
    // Another head is nothing of the network's.
    saved(dir.path());
    let log_probs = |model: &CausalLm| {
        model.log_probs(&[Sequence { tokens: vec![1, 2, 3, 4], prompt_length: 1 }]).unwrap()
    };
    for head in ["v_head.weight", "score.weight"] {
        add_tensor(dir.path(), head, like);
        let model = CausalLm::load(dir.path(), &device()).unwrap();
        assert_eq!(log_probs(&model), log_probs(&tiny()), "{head}");
    }
    // A tied output matrix may be stored, but not another one.
    let tied =
        config("").replace(r#""tie_word_embeddings": false"#, r#""tie_word_embeddings": true"#);
    std::fs::write(dir.path().join("config.json"), tied).unwrap();
    let text = message(CausalLm::load(dir.path(), &device()));
    assert!(text.contains("tie_word_embeddings") && text.contains("lm_head.weight"), "{text}");
}

#[test]
fn numbers_that_are_none_do_not_come_out() {
    let dir = tempfile::tempdir().unwrap();
    saved(dir.path());
    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let huge = 3e38f32.to_le_bytes().repeat(8);
    let norm =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![8], &huge).unwrap();
    let others = file.iter().filter(|(name, _)| *name != "model.norm.weight");
    let tensors = others.chain([("model.norm.weight", norm)]).collect::<Vec<_>>();
    std::fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
    let model = CausalLm::load(dir.path(), &device()).unwrap();
    let models: [Box<dyn LanguageModel>; 2] = [Box::new(model.clone()), model.for_inference()];
    for model in models {
        let sequence = Sequence { tokens: vec![1, 2, 3, 4], prompt_length: 1 };
        let error = model.log_probs(&[sequence]).unwrap_err().to_string();
        assert!(error.contains("no finite numbers"), "{error}");
    }
}

#[test]
fn sequences_that_do_not_fit_are_refused() {
    let models: [Box<dyn LanguageModel>; 2] = [Box::new(tiny()), Box::new(CpuModel::new(tiny()))];
    for model in models {
        let refuse = |prompt: &[u32], new_tokens| {
            model.start(&[&[1], prompt], new_tokens).err().unwrap().to_string()
        };
        assert!(refuse(&[], 1).contains("sequence 1 of the batch is empty"));
        assert!(refuse(&[1; 17], 1).contains("17 tokens"));
        assert!(refuse(&[1; 10], 7).contains("17 tokens"));
        assert!(refuse(&[8], 1).contains("token id 8"));
        let mut session = model.start(&[&[1]], 1).unwrap();
        session.push(&[2]).unwrap();
        assert!(session.push(&[3]).is_err());
        assert!(model.log_probs(&[Sequence { tokens: vec![1, 2], prompt_length: 0 }]).is_err());
    }
}

#[test]
fn a_classifier_scores_the_last_token_whatever_its_neighbours() {
    let mut classifier = SequenceClassifier::on(tiny(), 0);
    let texts = [vec![1, 2, 3], vec![4], vec![7, 6, 5, 4, 3, 2, 1]];
    assert_eq!(classifier.scores(&texts).unwrap(), [0.0; 3], "a new head scores 0");
    let dir = tempfile::tempdir().unwrap();
    classifier.save(dir.path()).unwrap();
    // Put a head that is not zero into the saved file, and load it back.
    let mut bytes = std::fs::read(dir.path().join("model.safetensors")).unwrap();
    let end = bytes.len();
    for (index, chunk) in bytes[end - 32..].chunks_mut(4).enumerate() {
        chunk.copy_from_slice(&(index as f32 - 3.5).to_le_bytes());
    }
    std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    classifier = SequenceClassifier::load(dir.path(), &device()).unwrap();
    let together = classifier.scores(&texts).unwrap();
    for (text, expected) in texts.iter().zip(together) {
        let alone = classifier.scores(std::slice::from_ref(text)).unwrap()[0];
        assert!((alone - expected).abs() < 1e-5 && expected != 0.0, "{alone} against {expected}");
    }
}
