//! `tokenizer.json` and `generation_config.json`, and texts through what they describe.
#![no_main]

use infalign_fuzz::{Folder, parts, with_caught_panics};
use infalign_model::{Tokenizer, TransformerConfig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| with_caught_panics(|| read(data)));

fn read(data: &[u8]) {
    let [tokenizer, text, generation] = parts(data);
    let folder = Folder::new();
    folder.write("tokenizer.json", tokenizer);
    if !generation.is_empty() {
        folder.write("generation_config.json", generation);
    }
    let config = TransformerConfig::llama(64, 2, 2, 1, 1, 8);
    let Ok(tokenizer) = Tokenizer::load(folder.path(), &config) else { return };
    let text = String::from_utf8_lossy(text);
    if let Ok(ids) = tokenizer.encode(&text) {
        let _ = tokenizer.decode(&ids);
        let (prompt, response) = ids.split_at(ids.len() / 2);
        let _ = tokenizer.decode_response(prompt, response);
    }
    let _ = tokenizer.encode_chat_pair(&text, &text);
    let _ = tokenizer.decode(&[0, 63, u32::MAX]);
    let written = Folder::new();
    tokenizer.save(written.path()).expect("a tokenizer that can be written");
}
