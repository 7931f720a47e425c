//! PEFT directories, read and written.

use infalign_model::{Head, LoraConfig, Patterns, TargetModules, TransformerConfig};
use serde_json::json;

use super::*;

fn config(targets: &[&str]) -> LoraConfig {
    LoraConfig {
        r: 2,
        lora_alpha: 4.0,
        use_rslora: false,
        target_modules: TargetModules::Named(targets.iter().map(|&name| name.into()).collect()),
        layers_to_transform: None,
        modules_to_save: Vec::new(),
        rank_pattern: Patterns::default(),
        alpha_pattern: Patterns::default(),
    }
}

/// A random GPT-2 of the given width, with one block for each of `layers`.
fn random_gpt2(layers: usize, width: usize) -> CausalLm {
    let dir = tempfile::tempdir().unwrap();
    let keys = json!({
        "architectures": ["GPT2LMHeadModel"], "vocab_size": 8, "n_embd": width, "n_layer": layers, "n_head": 12, "n_positions": 16,
        "n_inner": 8,
    });
    std::fs::write(dir.path().join("config.json"), keys.to_string()).unwrap();
    let config = TransformerConfig::read(dir.path(), Head::CausalLm).unwrap();
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (f64::from(state) / f64::from(u32::MAX) - 0.5) as f32
    };
    CausalLm::random(config, &mut next, &device()).unwrap()
}

#[test]
fn what_is_written_is_what_was_read() {
    for name in CAUSAL {
        let (dir, base, reference) = case(name);
        let model = base.clone().with_adapter(&dir).unwrap();
        let copy = tempfile::tempdir().unwrap();
        model.save(copy.path()).unwrap();
        assert!(tensors(copy.path()) == tensors(&dir), "{name}");
        let (before, after) =
            [&dir, copy.path()].map(|dir| read_json(&dir.join("adapter_config.json"))).into();
        for key in [
            "r",
            "lora_alpha",
            "use_rslora",
            "target_modules",
            "layers_to_transform",
            "bias",
            "fan_in_fan_out",
        ] {
            let number = |value: &Value| value.as_f64();
            let (before, after): (&Value, &Value) = (&before[key], &after[key]);
            assert!(
                before == after || number(before).is_some_and(|n| Some(n) == number(after)),
                "{name}: {key}"
            );
        }
        // The folder names its base, so that it can stand for the whole model.
        let again = CausalLm::load(copy.path(), &device()).unwrap();
        assert_eq!(again.adapter(), model.adapter());
        let prompt = &prompts(&reference)[0];
        assert_eq!(logits(&again, prompt), logits(&model, prompt), "{name}");
    }
}

#[test]
fn names_may_keep_those_of_adapter_and_wrapper() {
    let (dir, base, reference) = case("lora-llama-saved");
    let copy = changed(&dir, &json!({}));
    let longer = |name: String| match name.contains("lora_") {
        true => name.replace(".weight", ".default.weight"),
        false => name.replace(".weight", ".modules_to_save.default.weight"),
    };
    let stored: Tensors =
        tensors(&dir).into_iter().map(|(name, tensor)| (longer(name), tensor)).collect();
    write_tensors(copy.path(), &stored);
    let [a, b] = [dir.as_path(), copy.path()].map(|dir| base.clone().with_adapter(dir).unwrap());
    let prompt = &prompts(&reference)[0];
    assert_eq!(logits(&a, prompt), logits(&b, prompt));
}

#[test]
fn the_output_matrix_of_gpt_neox_is_read_by_its_old_name_and_written_by_peft_s() {
    for name in ["lora-gpt-neox-head", "lora-gpt-neox-saved"] {
        let (dir, base, reference) = case(name);
        let copy = changed(&dir, &json!({}));
        let path = copy.path().join("adapter_config.json");
        let config = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, config.replace("lm_head", "embed_out")).unwrap();
        let old = |name: String| name.replace("lm_head", "embed_out");
        let stored: Tensors =
            tensors(&dir).into_iter().map(|(name, tensor)| (old(name), tensor)).collect();
        write_tensors(copy.path(), &stored);
        let [new, old] =
            [dir.as_path(), copy.path()].map(|dir| base.clone().with_adapter(dir).unwrap());
        let prompt = &prompts(&reference)[0];
        assert_eq!(logits(&old, prompt), logits(&new, prompt), "{name}");
        assert_eq!(old.adapter(), new.adapter(), "{name}");
        let written = tempfile::tempdir().unwrap();
        old.save(written.path()).unwrap();
        assert!(tensors(written.path()) == tensors(&dir), "{name}");
    }
    let base = CausalLm::load(&fixture("gpt-neox"), &device()).unwrap();
    let ranks = [("embed_out".to_owned(), 3)].into_iter().collect();
    let settings = LoraConfig { rank_pattern: ranks, ..config(&["dense", "embed_out"]) };
    let model = base.with_new_adapter(settings, &mut || 0.75).unwrap();
    let written = tempfile::tempdir().unwrap();
    model.save(written.path()).unwrap();
    let stored = tensors(written.path());
    assert_eq!(stored["base_model.model.lm_head.lora_A.weight"].1, [3, 32]);
    let keys = read_json(&written.path().join("adapter_config.json"));
    assert_eq!(keys["target_modules"], json!(["dense", "lm_head"]));
    assert_eq!(keys["rank_pattern"], json!({ "lm_head": 3 }));
}

#[test]
fn a_copy_of_the_output_matrix_beside_its_adapter_is_the_bases_or_refused() {
    for (name, stored_name) in
        [("lora-llama-layer", "lm_head.weight"), ("lora-gpt-neox-head", "embed_out.weight")]
    {
        let (dir, base, reference) = case(name);
        let whole = fixture(reference["base"].as_str().unwrap()).join("model.safetensors");
        let bytes = std::fs::read(whole).unwrap();
        let whole = SafeTensors::deserialize(&bytes).unwrap();
        let head = whole.tensor(stored_name).unwrap();
        let with = |data: &[u8]| {
            let mut stored = tensors(&dir);
            let copy = (head.dtype(), head.shape().to_vec(), data.to_vec());
            stored.insert("base_model.model.lm_head.base_layer.weight".into(), copy);
            let folder = changed(&dir, &json!({}));
            write_tensors(folder.path(), &stored);
            base.clone().with_adapter(folder.path())
        };
        let plain = base.clone().with_adapter(&dir).unwrap();
        let prompt = &prompts(&reference)[0];
        assert_eq!(logits(&with(head.data()).unwrap(), prompt), logits(&plain, prompt));
        let mut other = head.data().to_vec();
        other[1] ^= 1;
        let error = with(&other).unwrap_err().to_string();
        let told = format!("`lm_head.base_layer.weight` differs from the model's `{stored_name}`");
        assert!(error.contains(&told) && error.contains("merge_and_unload()"), "{error}");
    }
}

#[test]
fn of_patterns_that_overlap_the_first_counts() {
    let (dir, base, reference) = case("lora-llama");
    let prompt = &prompts(&reference)[0];
    let with = |patterns: &str| {
        let copy = changed(&dir, &json!({}));
        let path = copy.path().join("adapter_config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let patterns = format!(r#""alpha_pattern":{{{patterns}}}"#);
        std::fs::write(&path, text.replace(r#""alpha_pattern":{}"#, &patterns)).unwrap();
        let model = base.clone().with_adapter(copy.path()).unwrap();
        let saved = tempfile::tempdir().unwrap();
        model.save(saved.path()).unwrap();
        let again = base.clone().with_adapter(saved.path()).unwrap();
        assert_eq!(logits(&again, prompt), logits(&model, prompt), "{patterns}");
        logits(&model, prompt)
    };
    let (general, special) = (r#""v_proj":3"#, r#""0.self_attn.v_proj":40"#);
    assert_eq!(with(&format!("{general},{special}")), with(general));
    assert_ne!(with(&format!("{special},{general}")), with(general));
}

#[test]
fn a_new_adapter_changes_nothing_yet() {
    for (name, targets, adapted) in [
        ("llama", TargetModules::Pattern("all-linear".into()), 14),
        ("gpt2", TargetModules::Pattern("all-linear".into()), 8),
        ("gpt-neox", TargetModules::Pattern(r".*\.1\.attention\..*".into()), 2),
    ] {
        let base = CausalLm::load(&fixture(name), &device()).unwrap();
        let config = LoraConfig { target_modules: targets, ..config(&[]) };
        let model = base.clone().with_new_adapter(config, &mut || 0.75).unwrap();
        assert_eq!(logits(&model, &[3, 4, 5]), logits(&base, &[3, 4, 5]), "{name}");
        let copy = tempfile::tempdir().unwrap();
        model.save(copy.path()).unwrap();
        assert_eq!(tensors(copy.path()).len(), 2 * adapted, "{name}");
    }
}

/// PEFT draws A from ±1/√inputs: with 16 inputs, three quarters of the way from −1/4 to 1/4 is 1/8.
#[test]
fn a_new_adapter_is_as_peft_draws_it() {
    let sizes = TransformerConfig::llama(8, 16, 24, 1, 2, 8);
    let base = CausalLm::random(sizes, &mut || 0.5, &device()).unwrap();
    let model = base.with_new_adapter(config(&["q_proj"]), &mut || 0.75).unwrap();
    let copy = tempfile::tempdir().unwrap();
    model.save(copy.path()).unwrap();
    let stored = tensors(copy.path());
    assert_eq!(stored.len(), 2);
    for (name, (_, _, bytes)) in stored {
        let expected: f32 = if name.contains("lora_A") { 0.125 } else { 0.0 };
        assert!(bytes.chunks(4).all(|number| number == expected.to_le_bytes()), "{name}");
    }
}

/// TRL's KTO adapter of GPT-2, whose base is not here: on a random model of its sizes, everything is read and written back the same.
#[test]
fn a_real_adapter_survives_reading_and_writing() {
    let data = std::env::var_os("INFALIGN_DATA").filter(|data| !data.is_empty());
    let Some(data) = data else {
        eprintln!("SKIPPED: set INFALIGN_DATA to test a real adapter");
        return;
    };
    let dir = PathBuf::from(data).join("gpt2-kto-lora");
    let base = random_gpt2(12, 768);
    let model = base.clone().with_adapter(&dir).unwrap();
    assert_eq!(
        model.adapter(),
        Some(&LoraConfig { r: 16, lora_alpha: 16.0, ..config(&["c_attn"]) })
    );
    let copy = tempfile::tempdir().unwrap();
    model.save(copy.path()).unwrap();
    assert!(tensors(copy.path()) == tensors(&dir));
    assert_eq!(tensors(copy.path()).len(), 24);
    let [with, merged] =
        [model.clone(), model.merge().unwrap()].map(|model| logits(&model, &[1, 2, 3]));
    assert!(difference(&with, &merged) < TOLERANCE);
    assert!(difference(&with, &logits(&base, &[1, 2, 3])) > 0.0);
}
