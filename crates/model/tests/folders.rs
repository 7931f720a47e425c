//! Where the parts of a model lie: adapters as PEFT writes them, whose bases are elsewhere, and checkpoints that are not read.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};

use infalign_backend::Device;
use infalign_model::{
    CausalLm, Head, ModelFolder, Sequence, SequenceClassifier, Tokenizer, write_word_tokenizer,
};
use serde_json::{Value, json};

const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

fn device() -> Device {
    infalign_backend::device(None).unwrap()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn copy(name: &str, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(fixture(name)).unwrap().flatten() {
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

fn edit(path: &Path, changes: &Value) {
    let mut keys: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        keys[key] = value.clone();
    }
    std::fs::write(path, keys.to_string()).unwrap();
}

/// A folder of an adapter as PEFT writes it, two files, with this base.
fn adapter(to: &Path, base: &Value) {
    std::fs::create_dir_all(to).unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(fixture("lora-llama").join(file), to.join(file)).unwrap();
    }
    edit(&to.join("adapter_config.json"), base);
}

/// A base with a tokenizer.
fn base(to: &Path) {
    copy("llama", to);
    write_word_tokenizer(to, ["a b c"].into_iter()).unwrap();
    std::fs::write(to.join("generation_config.json"), r#"{"eos_token_id": [4, -1]}"#).unwrap();
}

fn log_probs(model: &CausalLm) -> Vec<Vec<f32>> {
    let sequence = Sequence { tokens: vec![1, 5, 9, 2, 7], prompt_length: 1 };
    model.log_probs(&[sequence]).unwrap()
}

/// What the adapter on its base computes.
fn expected() -> Vec<Vec<f32>> {
    let base = CausalLm::load(&fixture("llama"), &device()).unwrap();
    log_probs(&base.with_adapter(&fixture("lora-llama")).unwrap())
}

#[test]
fn a_base_is_found_beside_its_adapter_or_within_it() {
    let dir = tempfile::tempdir().unwrap();
    base(&dir.path().join("base"));
    base(&dir.path().join("adapter/own"));
    for name in ["../base", "own", dir.path().join("base").to_str().unwrap()] {
        let folder = dir.path().join("adapter");
        adapter(&folder, &json!({ "base_model_name_or_path": name }));
        let model = CausalLm::load(&folder, &device()).unwrap();
        assert_eq!(log_probs(&model), expected(), "{name}");
    }
}

#[test]
fn a_base_is_found_where_it_was_moved_with_the_run_of_its_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("outer/run");
    let policy = run.join("methods/a/policy");
    base(&run.join("inputs/model"));
    for was in ["before/run/inputs/model", "before/outer/other/model"] {
        let was = dir.path().join(was);
        adapter(&policy, &json!({ "base_model_name_or_path": was }));
        let error = CausalLm::load(&policy, &device()).unwrap_err().to_string();
        assert!(error.contains("no folder with a config.json"), "it is no run's: {error}");
    }
    std::fs::write(run.join("start.json"), "{}").unwrap();
    let error = CausalLm::load(&policy, &device()).unwrap_err().to_string();
    assert!(error.contains("no folder with a config.json"), "of another name: {error}");
    std::fs::write(dir.path().join("outer/start.json"), "{}").unwrap();
    for was in ["before/run/inputs/model", "before/outer/run/inputs/model"] {
        let was = dir.path().join(was);
        adapter(&policy, &json!({ "base_model_name_or_path": was }));
        assert_eq!(log_probs(&CausalLm::load(&policy, &device()).unwrap()), expected());
    }
    // What lies where it was goes before.
    copy("llama", &dir.path().join("before/run/inputs/model"));
    let was = dir.path().join("before/run/inputs/model");
    adapter(&policy, &json!({ "base_model_name_or_path": was }));
    assert_eq!(ModelFolder::from(&policy).base().unwrap(), Some(was));
}

#[test]
fn a_base_is_found_in_the_hubs_cache_at_its_revision_and_so_is_the_adapter() {
    let cache = tempfile::tempdir().unwrap();
    let snapshot = |model: &str| cache.path().join(model).join("snapshots").join(HASH);
    base(&snapshot("models--org--base"));
    adapter(
        &snapshot("models--adapter"),
        &json!({ "base_model_name_or_path": "org/base", "revision": HASH }),
    );
    let refs = cache.path().join("models--adapter/refs");
    std::fs::create_dir(&refs).unwrap();
    std::fs::write(refs.join("main"), HASH).unwrap();
    let folder = ModelFolder::find(Path::new("adapter"), cache.path()).unwrap();
    assert_eq!(log_probs(&CausalLm::load(&folder, &device()).unwrap()), expected());
    assert_eq!(folder.config(Head::CausalLm).unwrap().hidden_size, 24);
    // Without a revision it is `main`, which is not there.
    let changes = json!({ "revision": null });
    edit(&snapshot("models--adapter").join("adapter_config.json"), &changes);
    let error = CausalLm::load(&folder, &device()).unwrap_err().to_string();
    assert!(error.contains("refs/main, only: ") && error.contains("org/base"), "{error}");
    // Weights that were not fetched are told by the command that fetches them.
    edit(&snapshot("models--adapter").join("adapter_config.json"), &json!({ "revision": HASH }));
    std::fs::remove_file(snapshot("models--org--base").join("model.safetensors")).unwrap();
    let error = CausalLm::load(&folder, &device()).unwrap_err().to_string();
    assert!(error.contains("`hf download org/base --revision"), "{error}");
    assert!(folder.config(Head::CausalLm).is_ok(), "a server needs no weights");
}

#[test]
fn a_folder_of_the_name_of_a_model_in_the_cache_wins() {
    let cache = tempfile::tempdir().unwrap();
    let snapshot = cache.path().join("models--src/snapshots").join(HASH);
    base(&snapshot);
    // `src` is there when a crate's tests run.
    let found = |model: &str| ModelFolder::find(Path::new(model), cache.path()).unwrap();
    assert_eq!(found("src").path(), Path::new("src"));
    assert_eq!(found(&format!("src@{HASH}")).path(), snapshot);
    assert_eq!(found("./none").path(), Path::new("./none"));
}

#[test]
fn an_adapter_without_a_tokenizer_has_its_bases() {
    let dir = tempfile::tempdir().unwrap();
    let (own, folder) = (dir.path().join("base"), dir.path().join("adapter"));
    base(&own);
    adapter(&folder, &json!({ "base_model_name_or_path": "../base" }));
    let config = ModelFolder::from(&folder).config(Head::CausalLm).unwrap();
    let tokenizer = Tokenizer::load(&folder, &config).unwrap();
    let its = Tokenizer::load(&own, &config).unwrap();
    assert_eq!(tokenizer.encode("a b c").unwrap(), its.encode("a b c").unwrap());
    assert!(tokenizer.folder().join("tokenizer_config.json").exists());
    // A tokenizer of its own goes before; what ends texts is still written beside the weights.
    write_word_tokenizer(&folder, ["aa a b c"].into_iter()).unwrap();
    std::fs::remove_file(folder.join("generation_config.json")).unwrap();
    let tokenizer = Tokenizer::load(&folder, &config).unwrap();
    assert_ne!(tokenizer.encode("a b c").unwrap(), its.encode("a b c").unwrap());
    assert!(tokenizer.stops().contains(&4) && its.stops().contains(&4));
    let saved = tempfile::tempdir().unwrap();
    tokenizer.save(saved.path()).unwrap();
    assert!(saved.path().join("generation_config.json").exists());
}

#[test]
fn a_base_that_is_none_is_named() {
    let dir = tempfile::tempdir().unwrap();
    adapter(&dir.path().join("other"), &json!({}));
    let folder = dir.path().join("adapter");
    for (name, told) in [
        (json!("/no/such"), "\"/no/such\", which is no folder with a config.json"),
        (json!("org/base"), "\"org/base\", which is no folder with a config.json"),
        (json!(null), "`base_model_name_or_path` is null"),
        (json!("../other"), "holds an adapter itself"),
    ] {
        adapter(&folder, &json!({ "base_model_name_or_path": name }));
        let error = CausalLm::load(&folder, &device()).unwrap_err().to_string();
        assert!(error.contains("adapter: ") && error.contains(told), "{error}");
    }
    adapter(&folder, &json!({ "base_model_name_or_path": "org/base" }));
    let cached = ModelFolder::new(folder, dir.path());
    let error = CausalLm::load(&cached, &device()).unwrap_err().to_string();
    for told in [
        "adapter: `base_model_name_or_path` in its adapter_config.json is \"org/base\": the model org/base is",
        "`hf download org/base`",
    ] {
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn a_tokenizer_in_another_form_is_told_with_the_way_to_convert_it() {
    let dir = tempfile::tempdir().unwrap();
    let (own, folder) = (dir.path().join("base"), dir.path().join("adapter"));
    base(&own);
    adapter(&folder, &json!({ "base_model_name_or_path": "../base" }));
    std::fs::rename(own.join("tokenizer.json"), own.join("vocab.json")).unwrap();
    let config = ModelFolder::from(&own).config(Head::CausalLm).unwrap();
    for folder in [&own, &folder] {
        let error = Tokenizer::load(folder, &config).unwrap_err().to_string();
        for told in ["base: there is no tokenizer.json", "base').save_pretrained('", "vocab.json"] {
            assert!(error.contains(told), "{error}");
        }
    }
}

#[test]
fn weights_of_pytorch_are_told_with_the_way_to_convert_them() {
    for name in ["pytorch_model.bin", "pytorch_model.bin.index.json"] {
        let dir = tempfile::tempdir().unwrap();
        copy("llama", dir.path());
        std::fs::rename(dir.path().join("model.safetensors"), dir.path().join(name)).unwrap();
        let error = CausalLm::load(dir.path(), &device()).unwrap_err().to_string();
        for told in [name, "only safetensors are read", "save_pretrained"] {
            assert!(error.contains(told), "{error}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    adapter(dir.path(), &json!({ "base_model_name_or_path": fixture("llama") }));
    let stored = dir.path().join("adapter_model.safetensors");
    std::fs::rename(stored, dir.path().join("adapter_model.bin")).unwrap();
    let error = CausalLm::load(dir.path(), &device()).unwrap_err().to_string();
    assert!(error.contains("adapter_model.bin: only") && error.contains("from peft"), "{error}");
}

#[test]
fn quantised_weights_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    copy("llama", dir.path());
    let changes = json!({ "quantization_config": { "quant_method": "gptq", "bits": 4 } });
    edit(&dir.path().join("config.json"), &changes);
    let error = CausalLm::load(dir.path(), &device()).unwrap_err().to_string();
    for told in ["quantization_config", "\"quant_method\":\"gptq\"", "quantised weights are not"] {
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn values_are_read_by_a_head_that_was_trained_with_an_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("adapter");
    copy("lora-classifier", &folder);
    let changes = json!({ "base_model_name_or_path": fixture("llama-classifier") });
    edit(&folder.join("adapter_config.json"), &changes);
    let tokens = vec![1, 5, 9, 2, 7];
    let model = SequenceClassifier::load(&folder, &device()).unwrap();
    let score = model.scores(std::slice::from_ref(&tokens)).unwrap()[0];
    let whole = [Sequence { prompt_length: tokens.len(), tokens }];
    assert!((model.prefix_values(&whole).unwrap()[0][0] - score).abs() < 1e-6);
    let without = SequenceClassifier::load(&fixture("llama-classifier"), &device()).unwrap();
    assert!((without.prefix_values(&whole).unwrap()[0][0] - score).abs() > 1e-3);
}
