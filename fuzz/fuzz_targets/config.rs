//! `config.json` of every architecture: what is accepted has to give a model whose numbers are finite.
#![no_main]

use infalign_fuzz::{Folder, normal};
use infalign_model::{
    CausalLm, Head, LanguageModel, Sequence, SequenceClassifier, TransformerConfig,
};
use libfuzzer_sys::fuzz_target;

/// Most numbers of a model that is built, so that a run takes milliseconds.
const LARGEST: usize = 20_000;

fuzz_target!(|data: &[u8]| {
    let device = infalign_backend::device(None).expect("the CPU");
    let folder = Folder::new();
    folder.write("config.json", data);
    // Weights that contradict whatever the configuration says.
    folder.write("model.safetensors", [b"\x02\0\0\0\0\0\0\0{}".as_slice()].concat());
    let _ = SequenceClassifier::load(folder.path(), &device);
    assert!(CausalLm::load(folder.path(), &device).is_err());
    let Ok(config) = TransformerConfig::read(folder.path(), Head::CausalLm) else { return };
    if size(&config) > LARGEST {
        return;
    }
    let model = CausalLm::random(config, &mut normal(), &device).expect("a valid configuration");
    model.save(folder.path()).expect("a model that can be written");
    let model = CausalLm::load(folder.path(), &device).expect("a model that was written");
    let (vocabulary, context) = (model.vocabulary() as u32, model.context());
    let tokens: Vec<u32> = (0..context.min(5) as u32).map(|token| token % vocabulary).collect();
    if tokens.len() < 2 {
        return;
    }
    let sequence = Sequence { tokens, prompt_length: 1 };
    for model in [Box::new(model.valid()), model.for_inference()] {
        let log_probs = model.log_probs(std::slice::from_ref(&sequence)).expect("tokens that fit");
        assert!(log_probs[0].iter().all(|value| value.is_finite()), "{log_probs:?}");
    }
});

/// About as many numbers as the model has, tables of rotations included.
fn size(config: &TransformerConfig) -> usize {
    let width = config.num_attention_heads.saturating_mul(config.head_width());
    let block = width.saturating_add(config.intermediate_size).saturating_mul(config.hidden_size);
    let blocks = block.saturating_add(10).saturating_mul(config.num_hidden_layers);
    let ends = config.vocab_size.saturating_mul(config.hidden_size);
    let rows = config.hidden_size.max(config.head_width());
    let positions = config.max_position_embeddings.saturating_mul(rows);
    blocks.saturating_add(ends).saturating_add(positions)
}
