//! PEFT adapters on a small Llama and a small GPT-2.
#![no_main]

use std::sync::LazyLock;

use infalign_fuzz::{Folder, check_log_probs, normal, parts, safetensors};
use infalign_model::{CausalLm, Head, Sequence, TransformerConfig};
use libfuzzer_sys::fuzz_target;

static BASES: LazyLock<[CausalLm; 2]> = LazyLock::new(|| {
    let llama = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 3, "hidden_size": 2,
        "intermediate_size": 2, "num_hidden_layers": 2, "num_attention_heads": 1, "max_position_embeddings": 8}"#;
    let gpt2 = r#"{"architectures": ["GPT2LMHeadModel"], "vocab_size": 3, "n_embd": 2, "n_inner": 2,
        "n_layer": 2, "n_head": 1, "n_positions": 8}"#;
    [llama, gpt2].map(|config| {
        let folder = Folder::new();
        folder.write("config.json", config);
        let config = TransformerConfig::read(folder.path(), Head::CausalLm).expect("a valid one");
        let device = infalign_backend::device(None).expect("the CPU");
        CausalLm::random(config, &mut normal(), &device).expect("a valid configuration")
    })
});

fuzz_target!(|data: &[u8]| {
    let [config, weights] = parts(data);
    let folder = Folder::new();
    folder.write("adapter_config.json", config);
    folder.write("adapter_model.safetensors", safetensors(weights));
    for base in BASES.iter() {
        let Ok(model) = base.clone().with_adapter(folder.path()) else { continue };
        let written = Folder::new();
        model.save(written.path()).expect("an adapter that can be written");
        let again = base.clone().with_adapter(written.path()).expect("an adapter that was written");
        assert_eq!(again.adapter(), model.adapter());
        let sequence = Sequence { tokens: vec![0, 1, 2], prompt_length: 1 };
        for model in [model.clone(), model.merge().expect("an adapter of this model")] {
            check_log_probs(&*model.for_inference(), &sequence);
        }
    }
});
