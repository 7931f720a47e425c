//! Checkpoints: any bytes as weights beside a valid `config.json`, whole or in shards.
#![no_main]

use infalign_backend::Device;
use infalign_fuzz::{Folder, check_log_probs, parts, safetensors};
use infalign_model::{CausalLm, Sequence, SequenceClassifier};
use libfuzzer_sys::fuzz_target;

const SIZES: &str = r#""vocab_size": 3, "hidden_size": 2, "intermediate_size": 2, "num_hidden_layers": 1,
    "num_attention_heads": 1, "max_position_embeddings": 8"#;
const GPT2_SIZES: &str =
    r#""vocab_size": 3, "n_embd": 2, "n_inner": 2, "n_layer": 1, "n_head": 1, "n_positions": 8"#;

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let [index, weights] = match kind.is_ascii_uppercase() {
        true => parts(data),
        false => [b"".as_slice(), data],
    };
    let folder = Folder::new();
    // An index counts where there is no whole file.
    if kind.is_ascii_uppercase() {
        folder.write("model.safetensors.index.json", index);
        folder.write("a.safetensors", safetensors(weights));
    } else {
        folder.write("model.safetensors", safetensors(weights));
    }
    let device = infalign_backend::device(None).expect("the CPU");
    let (architecture, sizes, extra) = match kind % 5 {
        0 => ("LlamaForCausalLM", SIZES, r#", "tie_word_embeddings": true"#),
        1 => ("Gemma3ForCausalLM", SIZES, r#", "head_dim": 2"#),
        2 => ("GPT2LMHeadModel", GPT2_SIZES, ""),
        3 => ("GPTNeoXForCausalLM", SIZES, r#", "rotary_pct": 1.0"#),
        _ => ("LlamaForSequenceClassification", SIZES, r#", "id2label": {"0": "LABEL_0"}"#),
    };
    let config = format!(r#"{{"architectures": ["{architecture}"], {sizes}{extra}}}"#);
    folder.write("config.json", config);
    load(&folder, &device);
});

fn load(folder: &Folder, device: &Device) {
    if let Ok(classifier) = SequenceClassifier::load(folder.path(), device) {
        classifier.scores(&[vec![0, 1, 2]]).expect("tokens that fit");
    }
    if let Ok(model) = CausalLm::load(folder.path(), device) {
        let sequence = Sequence { tokens: vec![0, 1, 2], prompt_length: 1 };
        check_log_probs(&*model.for_inference(), &sequence);
    }
}
