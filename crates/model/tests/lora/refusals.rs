//! Adapters that are refused, each with the key or tensor at fault.

use infalign_model::{LoraConfig, ModelError, SequenceClassifier};
use serde_json::json;

use super::*;

#[test]
fn what_changes_the_numbers_and_is_not_computed_is_refused() {
    for (name, keys, needles) in [
        ("lora-llama", json!({ "use_dora": true }), ["use_dora` is true", "merge_and_unload()"]),
        ("lora-llama", json!({ "bias": "lora_only" }), ["bias", "lora_only"]),
        (
            "lora-llama",
            json!({ "peft_type": "IA3", "feedforward_modules": ["down_proj"] }),
            ["`peft_type` is \"IA3\"", "merge_and_unload()"],
        ),
        ("lora-llama", json!({ "lora_bias": true }), ["lora_bias", "true"]),
        ("lora-llama", json!({ "init_lora_weights": "pissa" }), ["init_lora_weights", "pissa"]),
        (
            "lora-llama",
            json!({ "layer_replication": [[0, 2], [1, 2]] }),
            ["layer_replication", "[[0,2],[1,2]]"],
        ),
        ("lora-llama", json!({ "exclude_modules": ["x"] }), ["exclude_modules", "x"]),
        ("lora-llama", json!({ "something_new": 3 }), ["something_new", "3"]),
        ("lora-llama", json!({ "r": 0 }), ["rank", "at least 1"]),
        ("lora-llama", json!({ "r": 5 }), ["lora_A.weight", "[5, 24]"]),
        ("lora-llama", json!({ "lora_alpha": -1 }), ["lora_alpha", "-1"]),
        ("lora-llama", json!({ "lora_alpha": 1e-50 }), ["lora_alpha", "is 1e-50; it must be"]),
        ("lora-llama", json!({ "target_modules": ["q_porj"] }), ["q_porj", "v_proj"]),
        (
            "lora-llama",
            json!({ "target_modules": ["q_proj"] }),
            ["v_proj.lora_A.weight", "belongs to no module"],
        ),
        (
            "lora-llama",
            json!({ "target_modules": ["q_proj", "o_proj"] }),
            ["o_proj.lora_A.weight", "no tensor"],
        ),
        ("lora-llama", json!({ "target_modules": "x(" }), ["target_modules", "x("]),
        (
            "lora-llama",
            json!({ "target_modules": ".*", "layers_to_transform": 1 }),
            ["layers_to_transform", "list"],
        ),
        ("lora-llama", json!({ "modules_to_save": ["norm"] }), ["\"norm\"", "merge_and_unload()"]),
        ("lora-llama", json!({ "modules_to_save": ["score"] }), ["modules_to_save", "score"]),
        ("lora-llama", json!({ "modules_to_save": ["lm_head"] }), ["lm_head.weight", "no tensor"]),
        ("lora-llama", json!({ "rank_pattern": { "up_proj": 3 } }), ["rank_pattern", "up_proj"]),
        ("lora-gpt2", json!({ "modules_to_save": ["wte"] }), ["wte", "one tensor"]),
    ] {
        let (dir, base, _) = case(name);
        let copy = changed(&dir, &keys);
        let message = base.with_adapter(copy.path()).expect_err(needles[0]).to_string();
        assert!(needles.iter().all(|needle| message.contains(needle)), "{message}");
        let place = copy.path().display().to_string();
        assert!(message.contains(&place), "{message}");
    }
}

#[test]
fn settings_of_a_new_adapter_that_would_have_no_effect_are_refused() {
    let base = CausalLm::load(&fixture("llama"), &device()).unwrap();
    let adapted = |keys: Value| {
        let mut all = json!({ "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "k_proj"] });
        all.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        let config: LoraConfig = serde_json::from_value(all).unwrap();
        base.clone().with_new_adapter(config, &mut || 0.75)
    };
    let special = "layers.0.self_attn.k_proj";
    let whole = "model.layers.0.self_attn.q_proj";
    for (keys, needles) in [
        (
            json!({ "rank_pattern": { "k_proj": 4, (special): 3 } }),
            [&*format!("`rank_pattern` holds {special:?}"), "and \"k_proj\" comes before it"],
        ),
        (
            json!({ "alpha_pattern": { "[kq]_proj": 4, "k_proj": 2, "q_proj": 3 } }),
            ["`alpha_pattern` holds \"k_proj\"", "write \"(k_proj)\""],
        ),
        (json!({ "layers_to_transform": [0, 9] }), ["`layers_to_transform` holds 9", "2 blocks"]),
        (
            json!({ "target_modules": [whole, "lm_head"], "layers_to_transform": [1] }),
            ["`layers_to_transform` has no effect", "whole paths"],
        ),
    ] {
        let message = adapted(keys).expect_err(needles[0]).to_string();
        assert!(needles.iter().all(|needle| message.contains(needle)), "{message}");
    }

    // As advised, the special pattern counts; and blocks that limit one of the names count for it.
    let first = format!("({special})");
    for (keys, ranks) in [
        (json!({ "rank_pattern": { (first): 3, "k_proj": 4 } }), vec![3, 4, 2, 2]),
        (json!({ "target_modules": [whole, "k_proj"], "layers_to_transform": [1] }), vec![2, 2]),
    ] {
        let copy = tempfile::tempdir().unwrap();
        adapted(keys).unwrap().save(copy.path()).unwrap();
        let stored = tensors(copy.path());
        let mut found: Vec<_> = stored.iter().filter(|(name, _)| name.contains("lora_A")).collect();
        found.sort_by_key(|(name, _)| (name.contains("q_proj"), *name));
        assert_eq!(found.iter().map(|(_, (_, shape, _))| shape[0]).collect::<Vec<_>>(), ranks);
    }
    let (dir, base, _) = case("lora-llama-layer");
    let copy = changed(&dir, &json!({ "layers_to_transform": [1, 9] }));
    base.with_adapter(copy.path()).expect("PEFT reads it");
}

#[test]
fn a_base_that_cannot_be_found_and_a_second_adapter_are_refused() {
    let copy = changed(&fixture("lora-llama"), &json!({ "base_model_name_or_path": "gpt2" }));
    let message = CausalLm::load(copy.path(), &device()).expect_err("no folder").to_string();
    assert!(
        message.contains("base_model_name_or_path") && message.contains("\"gpt2\""),
        "{message}"
    );
    let (dir, base, _) = case("lora-llama");
    let twice = base.with_adapter(&dir).unwrap().with_adapter(&dir);
    assert!(
        matches!(twice, Err(ModelError::Adapter { reason, .. }) if reason.contains("merge it first"))
    );
}

#[test]
fn a_classifier_has_no_output_matrix() {
    let model = SequenceClassifier::load(&fixture("llama-classifier"), &device()).unwrap();
    for key in ["modules_to_save", "target_modules"] {
        let copy = changed(&fixture("lora-classifier"), &json!({ (key): ["lm_head"] }));
        let message = model.clone().with_adapter(copy.path()).expect_err(key).to_string();
        assert!(message.contains(key) && message.contains("lm_head"), "{message}");
    }
}
