//! Models by their name on the Hugging Face hub, from a cache that the tests make up.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{done, quickstart, refused};
use infalign_model::CausalLm;
use serde_json::{Value, json};
use tempfile::TempDir;

const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

/// A cache whose `org/tiny` is the quickstart's model.
fn cache() -> TempDir {
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().join("models--org--tiny");
    let snapshot = folder.join("snapshots").join(HASH);
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir(folder.join("refs")).unwrap();
    std::fs::write(folder.join("refs/main"), HASH).unwrap();
    for file in std::fs::read_dir(quickstart().join("model")).unwrap().flatten() {
        std::fs::copy(file.path(), snapshot.join(file.file_name())).unwrap();
    }
    cache
}

fn infalign(cache: &Path, args: &[&str]) -> Command {
    let mut command = common::infalign(args);
    command.env("HF_HUB_CACHE", cache);
    command
}

#[test]
fn a_name_is_the_model_in_the_cache() {
    let cache = cache();
    let prompts = quickstart().join("test.jsonl");
    let generate = |model: &str| {
        let prompts = prompts.to_str().unwrap();
        let args =
            ["generate", "--model", model, "--prompts", prompts, "--max-tokens", "4", "--json"];
        infalign(cache.path(), &args)
    };
    let by_path = done(generate(quickstart().join("model").to_str().unwrap()));
    for name in ["org/tiny", "org/tiny@main", &format!("org/tiny@{HASH}")] {
        assert_eq!(done(generate(name)), by_path, "{name}");
    }
    refused(generate("org/tiny@v2"), &["refs/v2, only: ", HASH]);
    let place = cache.path().to_str().unwrap();
    refused(generate("org/other"), &["`hf download org/other`", place]);
    let snapshot = cache.path().join("models--org--tiny/snapshots").join(HASH);
    std::fs::remove_file(snapshot.join("model.safetensors")).unwrap();
    let told = "model.safetensors is missing: the download is not complete";
    refused(generate("org/tiny"), &[told]);
}

#[test]
fn an_adapter_of_the_cache_is_read_with_its_base_of_the_cache() {
    let cache = cache();
    let device = infalign_backend::device(None).unwrap();
    let model = CausalLm::load(&quickstart().join("model"), &device).unwrap();
    let config = serde_json::from_value(json!({
        "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"],
    }));
    let adapted = model.with_new_adapter(config.unwrap(), &mut || 0.3).unwrap();
    let folder = cache.path().join("models--adapter");
    let snapshot = folder.join("snapshots").join(HASH);
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir(folder.join("refs")).unwrap();
    std::fs::write(folder.join("refs/main"), HASH).unwrap();
    adapted.save(&snapshot).unwrap();
    let name_base = |base: &str| {
        let path = snapshot.join("adapter_config.json");
        let mut keys: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        keys["base_model_name_or_path"] = base.into();
        std::fs::write(path, keys.to_string()).unwrap();
    };
    let dir = tempfile::tempdir().unwrap();
    let prompts = dir.path().join("prompts.jsonl");
    std::fs::write(&prompts, "{\"prompt\": \"the\"}\n").unwrap();
    let reward = dir.path().join("reward.toml");
    std::fs::write(&reward, "kind = \"length\"\nunit = \"words\"\n").unwrap();
    let generate = |model: &str| {
        let prompts = prompts.to_str().unwrap();
        let args = ["generate", "--model", model, "--prompts", prompts, "--max-tokens", "4"];
        infalign(cache.path(), &args)
    };
    name_base("org/tiny");
    // A new adapter changes nothing.
    assert_eq!(done(generate("adapter")), done(generate("org/tiny")));
    let table = dir.path().join("table.parquet");
    let args = [
        "calibrate",
        "--model",
        "adapter",
        "--prompts",
        prompts.to_str().unwrap(),
        "--reward",
        reward.to_str().unwrap(),
        "--samples",
        "2",
        "--max-tokens",
        "4",
        "--out",
        table.to_str().unwrap(),
    ];
    done(infalign(cache.path(), &args));
    name_base("org/absent");
    refused(generate("adapter"), &["`hf download org/absent`"]);
    refused(generate("gpt2"), &["`hf download gpt2`"]);
}

#[test]
fn reward_models_are_found_too() {
    let (cache, dir) = (cache(), tempfile::tempdir().unwrap());
    let (input, reward) = (dir.path().join("in.jsonl"), dir.path().join("reward.toml"));
    std::fs::write(&input, "{\"prompt\": \"the\", \"response\": \" soup\"}\n").unwrap();
    std::fs::write(&reward, "kind = \"model\"\npath = \"org/absent\"\n").unwrap();
    for reward in ["org/absent", reward.to_str().unwrap()] {
        let args = [
            "score",
            "--model",
            "org/tiny",
            "--input",
            input.to_str().unwrap(),
            "--reward",
            reward,
        ];
        refused(infalign(cache.path(), &args), &["`hf download org/absent`"]);
    }
}

#[test]
fn a_recipe_is_pinned_to_the_revision_that_the_cache_holds() {
    let (cache, dir) = (cache(), tempfile::tempdir().unwrap());
    let recipe = quickstart().join("../quickstart.toml");
    let dry_run = |model: &str| {
        let set = format!("model={model}");
        let args = ["train", recipe.to_str().unwrap(), "--set", set.as_str(), "--dry-run"];
        infalign(cache.path(), &args)
    };
    let text = done(dry_run("org/tiny"));
    assert!(text.contains(&format!("model = \"org/tiny@{HASH}\"")), "{text}");
    refused(dry_run("org/absent"), &["quickstart.toml", "`hf download org/absent`"]);
    // A path needs no cache.
    done(infalign(dir.path(), &["train", recipe.to_str().unwrap(), "--dry-run"]));
    done(infalign(cache.path(), &["train", "--set", "model=org/tiny", "--dry-run"]));
    // The form of a name, but a path that exists beside the recipe.
    let text = done(dry_run("quickstart/model"));
    let model = Value::from(quickstart().join("model").to_str().unwrap());
    assert!(text.contains(&format!("model = {model}")), "{text}");
}
