//! Chat templates, the special tokens of `tokenizer_config.json`, and messages through both.
#![no_main]

use infalign_data::dataset::{self, LanguageModeling};
use infalign_data::{ChatTemplate, Ending, Text};
use infalign_fuzz::{Folder, parts};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [template, config, messages] = parts(data);
    let folder = Folder::new();
    if !template.is_empty() {
        folder.write("chat_template.jinja", template);
    }
    if !config.is_empty() {
        folder.write("tokenizer_config.json", config);
    }
    let Ok(template) = ChatTemplate::read(folder.path(), None) else { return };
    let path = folder.write("messages.jsonl", messages);
    for LanguageModeling { text } in dataset::read(&path).unwrap_or_default() {
        let Text::Messages(messages) = text else { continue };
        let _ = template.prompt(&messages);
        let _ = template.render(&messages, Ending::Complete);
    }
});
