//! The forms of `config.json` that checkpoints have, and what transformers takes for keys that they lack.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use infalign_model::{Head, ModelError, TransformerConfig};
use serde_json::{Value, json};

fn read(config: &Value) -> Result<TransformerConfig, ModelError> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    TransformerConfig::read(dir.path(), Head::CausalLm)
}

/// A configuration of this `model_type` with nothing but the sizes of its matrices, and changes to it.
fn sizes(model_type: &str, changes: &Value) -> Value {
    let mut config = json!({
        "model_type": model_type, "vocab_size": 60000, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 32,
    });
    if model_type == "gpt2" {
        config = json!({ "model_type": "gpt2", "vocab_size": 60000, "n_embd": 64, "n_layer": 2, "n_head": 4 });
    }
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

#[test]
fn an_absent_model_type_is_that_of_the_architecture() {
    // Or else what is written again would contradict itself.
    let architecture = json!({ "architectures": ["Gemma3ForCausalLM"], "model_type": null });
    let config = read(&sizes("gemma3_text", &architecture)).unwrap();
    assert_eq!(config.model_type, "gemma3_text");
    read(&serde_json::to_value(&config).unwrap()).unwrap();
}

#[test]
fn absent_keys_have_the_defaults_of_transformers() {
    // From transformers 5.23.0: context, key and value heads, width of a head, ε, and the tokens that begin and end texts.
    let (llama, gemma) = ((Some(1), Some(2)), (Some(2), Some(1)));
    for (model_type, context, kv_heads, width, epsilon, (begin, end)) in [
        ("llama", 2048, 32, 2, 1e-6, llama),
        ("mistral", 131_072, 8, 2, 1e-6, llama),
        ("qwen2", 32_768, 32, 2, 1e-6, (None, None)),
        ("qwen3", 32_768, 32, 128, 1e-6, (None, None)),
        ("gemma2", 8192, 4, 256, 1e-6, gemma),
        ("gemma3_text", 131_072, 4, 256, 1e-6, gemma),
        ("gpt2", 1024, 4, 16, 1e-5, (Some(50_256), Some(50_256))),
        ("gpt_neox", 2048, 32, 2, 1e-5, (Some(0), Some(2))),
    ] {
        let changes = match model_type {
            "gpt_neox" => json!({ "rotary_pct": 1.0 }),
            _ => json!({}),
        };
        let config = read(&sizes(model_type, &changes)).unwrap();
        assert_eq!(config.max_position_embeddings, context, "{model_type}");
        assert_eq!(config.kv_heads(), kv_heads, "{model_type}");
        assert_eq!(config.head_width(), width, "{model_type}");
        assert_eq!(config.rms_norm_eps, epsilon, "{model_type}");
        assert_eq!(config.bos_token_id, begin, "{model_type}");
        let ends = config.eos_token_id.map(|ids| ids.as_slice()[0]);
        assert_eq!(ends, end, "{model_type}");
    }
    // A default token is none where the vocabulary has no such token.
    let tiny = read(&sizes("gpt2", &json!({ "vocab_size": 8 }))).unwrap();
    assert_eq!(tiny.eos_token_id, None);
}

#[test]
fn absent_rotations_windows_and_caps_have_the_defaults_of_transformers() {
    // From transformers 5.24.0: whether embeddings are tied, base of rotations, window, what scores are divided by the root of, and caps of
    // scores and logits.
    for (model_type, tied, theta, window, scalar, caps) in [
        ("llama", false, 1e4, None, None, (None, None)),
        ("mistral", false, 1e4, Some(4096), None, (None, None)),
        ("qwen2", false, 1e4, Some(4096), None, (None, None)),
        ("qwen3", false, 1e4, Some(4096), None, (None, None)),
        ("gemma2", true, 1e4, Some(4096), Some(256.0), (Some(50.0), Some(30.0))),
        ("gemma3_text", true, 1e6, Some(4096), Some(256.0), (None, None)),
        ("gpt2", true, 1e4, None, None, (None, None)),
        ("gpt_neox", false, 1e4, None, None, (None, None)),
    ] {
        // Heads wide enough for GPT-NeoX to rotate a quarter of each.
        let config = read(&sizes(model_type, &json!({ "hidden_size": 256 }))).unwrap();
        assert_eq!(config.tie_word_embeddings, tied, "{model_type}");
        assert_eq!(config.rope_theta, theta, "{model_type}");
        assert_eq!(config.sliding_window, window, "{model_type}");
        assert_eq!(config.query_pre_attn_scalar, scalar, "{model_type}");
        let found = (config.attn_logit_softcapping, config.final_logit_softcapping);
        assert_eq!(found, caps, "{model_type}");
        // What one family has.
        let every = (model_type == "gemma3_text").then_some(6);
        assert_eq!(config.sliding_window_pattern, every, "{model_type}");
        let local = (model_type == "gemma3_text").then_some(1e4);
        assert_eq!(config.rope_local_base_freq, local, "{model_type}");
        let share = (model_type == "gpt_neox").then_some(0.25);
        assert_eq!(config.partial_rotary_factor, share, "{model_type}");
        let first = model_type.starts_with("qwen").then_some(28);
        assert_eq!(config.max_window_layers, first, "{model_type}");
    }
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_its_key() {
    let rotation = json!({ "rope_type": "linear", "factor": [2.0] });
    for (key, value) in [
        ("rope_theta", json!([10_000.0])),
        ("hidden_size", json!("64")),
        ("rope_scaling", rotation),
        ("layer_types", json!(["full_attention", 1])),
        ("eos_token_id", json!({})),
    ] {
        let error = read(&sizes("qwen3", &json!({ (key): value }))).unwrap_err().to_string();
        let told = format!("config.json is not valid: {key}");
        assert!(error.contains(&told), "{error}");
    }
    let mut lacking = sizes("llama", &json!({}));
    lacking.as_object_mut().unwrap().remove("vocab_size");
    let error = read(&lacking).unwrap_err().to_string();
    assert!(error.contains("missing field `vocab_size`"), "{error}");
}

#[test]
fn the_model_type_tells_the_family_where_no_architecture_is_named() {
    for names in [json!(null), json!([])] {
        let config = read(&sizes("mistral", &json!({ "architectures": names }))).unwrap();
        assert_eq!(config.architectures, ["MistralForCausalLM"]);
    }
    let error = read(&sizes("mamba", &json!({}))).unwrap_err().to_string();
    assert!(error.contains("`architectures` is null") && error.contains("Mistral"), "{error}");
    let other = sizes("mistral", &json!({ "architectures": ["MistralModel"] }));
    assert!(read(&other).unwrap_err().to_string().contains("[\"MistralModel\"]"));
    // That a model is a reward model has to be said.
    let dir = tempfile::tempdir().unwrap();
    let config = sizes("mistral", &json!({}));
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    assert!(TransformerConfig::read(dir.path(), Head::SequenceClassification).is_err());
}

#[test]
fn of_several_architectures_the_one_that_is_read_is_kept() {
    let names = json!(["LlamaModel", "LlamaForSequenceClassification", "LlamaForCausalLM"]);
    let config = read(&sizes("llama", &json!({ "architectures": names }))).unwrap();
    assert_eq!(config.architectures, ["LlamaForCausalLM"]);
}

#[test]
fn keys_under_a_name_of_other_families_are_refused() {
    for (model_type, key, value, own) in [
        ("gpt_neox", "rope_theta", json!(50.0), "rotary_emb_base"),
        ("gpt_neox", "partial_rotary_factor", json!(1.0), "rotary_pct"),
        ("gpt_neox", "rms_norm_eps", json!(0.5), "layer_norm_eps"),
        ("gpt2", "rms_norm_eps", json!(0.5), "layer_norm_epsilon"),
        ("gpt2", "hidden_act", json!("gelu"), "activation_function"),
    ] {
        let error = read(&sizes(model_type, &json!({ (key): value }))).unwrap_err().to_string();
        let told = format!("`{key}` is {value},");
        assert!(error.contains(&told) && error.contains(&format!("`{own}`")), "{error}");
    }
    // transformers 4 wrote both, and 5 leaves the others' beside its own.
    let own = json!({ "rotary_emb_base": 7.0, "rotary_pct": 0.5 });
    let five = json!({ "rope_parameters": { "rope_theta": 7.0, "partial_rotary_factor": 0.5 } });
    for mut keys in [own, five] {
        keys["hidden_size"] = 256.into();
        keys["rope_theta"] = 9.0.into();
        keys["partial_rotary_factor"] = 1.0.into();
        let config = read(&sizes("gpt_neox", &keys)).unwrap();
        assert_eq!((config.rope_theta, config.partial_rotary_factor), (7.0, Some(0.5)));
    }
}

#[test]
fn the_sizes_of_gpt2_may_have_their_common_names() {
    let mut keys = json!({
        "model_type": "gpt2", "vocab_size": 60000, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 16,
    });
    let sizes = |keys: &Value| {
        let config = read(keys).unwrap();
        let (width, heads) = (config.hidden_size, config.num_attention_heads);
        (width, config.intermediate_size, heads, config.max_position_embeddings)
    };
    assert_eq!(sizes(&keys), (32, 128, 4, 16));
    // Where both names stand, transformers takes the common one.
    for (key, value) in [("n_embd", 64), ("n_head", 8), ("n_positions", 24)] {
        keys[key] = value.into();
    }
    assert_eq!(sizes(&keys), (32, 128, 4, 16));
}

#[test]
fn weights_in_a_file_of_another_name_are_refused() {
    let named = |file: Value| read(&sizes("llama", &json!({ "transformers_weights": file })));
    let error = named(json!("other.safetensors")).unwrap_err().to_string();
    assert!(error.contains("`transformers_weights` is \"other.safetensors\","), "{error}");
    named(json!(null)).unwrap();
}

#[test]
fn a_type_may_stand_under_both_of_its_names_and_no_token_be_written_as_minus_one() {
    let config = sizes(
        "llama",
        &json!({
            "dtype": "bfloat16", "torch_dtype": "float16", "pad_token_id": -1, "bos_token_id": -1, "eos_token_id": [7, -1],
        }),
    );
    let config = read(&config).unwrap();
    assert_eq!(config.torch_dtype, "bfloat16");
    assert_eq!((config.pad_token_id, config.bos_token_id), (None, None));
    assert_eq!(config.eos_token_id.unwrap().as_slice(), [7]);
}

#[test]
fn a_refused_value_is_shown_as_the_file_has_it() {
    for (changes, told) in [
        (json!({ "hidden_act": "gelu" }), "`hidden_act` is \"gelu\","),
        (json!({ "rope_theta": -3.0 }), "`rope_theta` is -3.0,"),
        (
            json!({ "model_type": 3.0, "architectures": ["LlamaForCausalLM"] }),
            "`model_type` is 3.0,",
        ),
        (json!({ "rope_scaling": { "type": "linear", "factor": 0.0 } }), r#""factor":0.0"#),
        (json!({ "rope_parameters": [1] }), "`rope_parameters` is [1],"),
    ] {
        let error = read(&sizes("llama", &changes)).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}
