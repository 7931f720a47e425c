//! What a training says before it begins: what cannot be is refused by its key, what is meant otherwise is told.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::path::Path;

use common::{infalign, model_with, run, stderr};

/// A dry run of a recipe of the repository with another value of a key.
fn checked(recipe: &str, set: &str) -> (Option<i32>, String) {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let mut command = infalign(&["train", "--dry-run", "--set", set]);
    command.arg(recipes.join(recipe));
    let output = run(command);
    (output.status.code(), stderr(&output))
}

#[test]
fn sizes_that_no_memory_holds_are_refused_by_their_keys() {
    let align = ["calibration.samples", "evaluation.samples", "train.samples_per_prompt"];
    let scorer = [
        "rollouts.samples",
        "rollouts.held_out",
        "evaluation[0].samples",
        "train.examples_per_step",
        "train.width",
    ];
    let model = [
        "texts",
        "prompts.train",
        "model.hidden",
        "model.intermediate",
        "model.layers",
        "model.heads",
        "model.context",
        "train.texts_per_step",
    ];
    for (recipe, keys) in [
        ("quickstart.toml", &align[..]),
        ("quickstart-scorer.toml", &scorer[..]),
        ("quickstart-model.toml", &model[..]),
        ("own-preferences.toml", &["method[0].train.examples_per_step"][..]),
    ] {
        for key in keys {
            for value in ["1000000000000", "9223372036854775807"] {
                let (code, text) = checked(recipe, &format!("{key}={value}"));
                assert_eq!(code, Some(2), "{recipe}, {key}: {text}");
                let last = key.rsplit('.').next().unwrap();
                assert!(text.contains(&format!("{last} is {value}")), "{recipe}, {key}: {text}");
            }
        }
    }
}

#[test]
fn what_is_known_before_a_run_is_refused_before_it() {
    for (recipe, set, needle) in [
        (
            "quickstart-scorer.toml",
            "evaluation[0].procedures=['best-of:1000000000000']",
            "evaluation[0].samples · the candidates of best-of:1000000000000 is",
        ),
        ("quickstart-scorer.toml", "evaluation[0].weights.liking=1e300", "weights.liking is 1e300"),
        ("quickstart-model.toml", "texts=300", "texts have no more prompts"),
        ("quickstart-model.toml", "prompts.train=19000", "distinct prompts"),
        (
            "quickstart-model.toml",
            "model={hidden=16777216,intermediate=16777216,layers=16384,heads=4,context=64}",
            "GiB of memory",
        ),
    ] {
        let (code, text) = checked(recipe, set);
        assert_eq!(code, Some(2), "{set}: {text}");
        assert!(text.contains(needle), "{set}: {text}");
    }
}

#[test]
fn a_warm_up_that_outlasts_the_training_is_told() {
    for recipe in ["quickstart.toml", "quickstart-scorer.toml", "quickstart-model.toml"] {
        let (code, text) = checked(recipe, "train.optimizer.warmup_steps=1000000");
        assert_eq!(code, Some(0), "{recipe}: {text}");
        let told = "warning: train.optimizer.warmup_steps is 1000000, but training ends after";
        assert!(text.contains(told), "{recipe}: {text}");
        let (code, text) = checked(recipe, "seed=2");
        assert!(code == Some(0) && !text.contains("warmup"), "{recipe}: {text}");
    }
}

#[test]
fn an_end_of_the_tokenizer_that_ends_no_response_is_told() {
    let model = model_with("tokenizer_config.json", r#"{"eos_token": "<unk>"}"#);
    let set = format!("model={:?}", model.path());
    for recipe in ["quickstart.toml", "quickstart-scorer.toml"] {
        let (code, text) = checked(recipe, &set);
        assert_eq!(code, Some(0), "{recipe}: {text}");
        assert_eq!(text.matches("warning: \"<unk>\" is the eos_token").count(), 1, "{text}");
    }
}

#[test]
fn prompts_that_no_step_reaches_are_told_where_responses_are_sampled_to_them() {
    let (code, text) = checked("quickstart.toml", "train.steps=6");
    let told = "warning: 6 steps of train.prompts_per_step = 32 reach 192 of 240 training prompts";
    assert!(code == Some(0) && text.contains(told) && text.contains("(prompts.train)"), "{text}");
    let (code, text) = checked("quickstart.toml", "train.steps=7");
    assert!(code == Some(0) && !text.contains("training prompts"), "{text}");
}

#[test]
fn what_responses_will_hold_in_memory_is_told_before_they_are_drawn() {
    let (code, text) = checked("quickstart-scorer.toml", "rollouts.samples=64");
    // 64 · 240 · 32 · 48 · 4 bytes.
    let told = " for states, 48 numbers a token: rollouts.samples = 64 to each of 240 prompts, of up to 32 tokens";
    assert!(code == Some(0) && text.contains("memory: up to 90 MiB of "), "{text}");
    assert!(text.contains(told), "{text}");
}

#[test]
fn a_calibration_may_have_more_responses_than_are_kept_of_others() {
    // To 240 prompts, 120 million.
    let (code, text) = checked("quickstart.toml", "calibration.samples=500000");
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn a_kl_that_no_method_is_trained_to_is_told() {
    let vbon = "{ name = 'raw', kind = 'vbon', n = 4 }";
    let told = "warning: train.target_kl has no effect: every [[method]] that CTRL trains is";
    let (code, text) = checked("quickstart.toml", &format!("method=[{vbon}]"));
    assert!(code == Some(0) && text.contains(told), "{text}");
    let other = "{ name = 'other', objective = 'log' }";
    let (code, text) = checked("quickstart.toml", &format!("method=[{vbon}, {other}]"));
    assert!(code == Some(0) && !text.contains("no effect"), "{text}");
}
