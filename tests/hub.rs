//! Models by their name on the Hugging Face hub, from a cache that the tests make up.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::path::Path;
use std::process::Output;

use common::quickstart;
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

fn infalign(cache: &Path, args: &[&str]) -> Output {
    let mut command = common::infalign(args);
    command.env("HF_HUB_CACHE", cache).output().unwrap()
}

fn refused(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    text
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
    let by_path = generate(quickstart().join("model").to_str().unwrap());
    assert!(by_path.status.success());
    for name in ["org/tiny", "org/tiny@main", &format!("org/tiny@{HASH}")] {
        assert_eq!(generate(name).stdout, by_path.stdout, "{name}");
    }
    let error = refused(&generate("org/tiny@v2"));
    assert!(error.contains("refs/v2, only: ") && error.contains(HASH), "{error}");
    let error = refused(&generate("org/other"));
    assert!(
        error.contains("`hf download org/other`") && error.contains(cache.path().to_str().unwrap()),
        "{error}"
    );
    let snapshot = cache.path().join("models--org--tiny/snapshots").join(HASH);
    std::fs::remove_file(snapshot.join("model.safetensors")).unwrap();
    let error = refused(&generate("org/tiny"));
    assert!(
        error.contains("model.safetensors is missing: the download is not complete"),
        "{error}"
    );
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
    let by_adapter = generate("adapter");
    assert!(by_adapter.status.success(), "{}", String::from_utf8_lossy(&by_adapter.stderr));
    assert_eq!(by_adapter.stdout, generate("org/tiny").stdout);
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
    let output = infalign(cache.path(), &args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    name_base("org/absent");
    let error = refused(&generate("adapter"));
    assert!(error.contains("`hf download org/absent`"), "{error}");
    let error = refused(&generate("gpt2"));
    assert!(error.contains("`hf download gpt2`"), "{error}");
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
        let error = refused(&infalign(cache.path(), &args));
        assert!(error.contains("`hf download org/absent`"), "{error}");
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
    let output = dry_run("org/tiny");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("model = \"org/tiny@{HASH}\"")), "{text}");
    let error = refused(&dry_run("org/absent"));
    assert!(
        error.contains("quickstart.toml") && error.contains("`hf download org/absent`"),
        "{error}"
    );
    let nowhere = infalign(dir.path(), &["train", recipe.to_str().unwrap(), "--dry-run"]);
    assert!(nowhere.status.success(), "a path needs no cache");
    let bundled = infalign(cache.path(), &["train", "--set", "model=org/tiny", "--dry-run"]);
    assert!(bundled.status.success(), "{}", refused(&bundled));
    // The form of a name, but a path that exists beside the recipe.
    let output = dry_run("quickstart/model");
    let model = Value::from(quickstart().join("model").to_str().unwrap());
    assert!(String::from_utf8(output.stdout).unwrap().contains(&format!("model = {model}")));
}
