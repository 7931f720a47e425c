//! Adapters that are refused, each with the key or tensor at fault.

use infalign_model::{ModelError, SequenceClassifier};
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
