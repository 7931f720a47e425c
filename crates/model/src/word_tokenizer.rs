//! A word-level tokenizer made from a corpus, for small models trained from nothing.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;

use crate::ModelError;

/// Special tokens and their ids: unknown words, beginning, and end of a text.
const SPECIAL: [&str; 3] = ["<unk>", "<s>", "</s>"];

/// Writes `tokenizer.json` and its companions into `dir`: a token for each word between white space, in alphabetical order, after `<unk>` 0,
/// `<s>` 1 (put before every text) and `</s>` 2. Returns the size of the vocabulary.
///
/// # Errors
/// [`ModelError::Io`] when a file cannot be written.
pub fn write_word_tokenizer<'a>(
    dir: &Path,
    texts: impl Iterator<Item = &'a str>,
) -> Result<usize, ModelError> {
    let words: BTreeSet<&str> = texts.flat_map(str::split_whitespace).collect();
    let tokens: Vec<&str> = SPECIAL.into_iter().chain(words).collect();
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
    let added = |(id, content): (usize, &str)| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let begin = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
    let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": SPECIAL.into_iter().enumerate().map(added).collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, sequence("A")],
            "pair": [begin, sequence("A"), sequence("B")],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    });
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "clean_up_tokenization_spaces": false,
    });
    let generation = json!({"bos_token_id": 1, "eos_token_id": 2, "do_sample": true});
    for (name, value) in [
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", config),
        ("generation_config.json", generation),
    ] {
        let path = dir.join(name);
        std::fs::write(&path, format!("{value:#}\n")).map_err(ModelError::write(&path))?;
    }
    Ok(tokens.len())
}

#[cfg(test)]
mod tests {
    use crate::{Tokenizer, TransformerConfig};

    #[test]
    fn words_survive_the_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let size =
            super::write_word_tokenizer(dir.path(), ["the soup :", "was warm ."].into_iter())
                .unwrap();
        assert_eq!(size, 9);
        let tokenizer =
            Tokenizer::load(dir.path(), &TransformerConfig::llama(size, 8, 8, 1, 2, 16)).unwrap();
        let prompt = tokenizer.encode("the soup :").unwrap();
        assert_eq!(prompt[0], 1);
        assert_eq!(tokenizer.decode(&prompt).unwrap(), "the soup :");
        let rest = tokenizer.encode("was warm . ").unwrap();
        assert_eq!(tokenizer.decode_response(&prompt, &rest[1..]).unwrap(), " was warm .");
        assert_eq!((tokenizer.end(), tokenizer.stops().len()), (Some(2), 2));
    }

    #[test]
    fn a_chat_gets_no_second_beginning_and_end() {
        let dir = tempfile::tempdir().unwrap();
        let size = super::write_word_tokenizer(dir.path(), ["hi"].into_iter()).unwrap();
        let path = dir.path().join("tokenizer.json");
        let mut json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let processor = &mut json["post_processor"];
        let end = serde_json::json!({"SpecialToken": {"id": "</s>", "type_id": 0}});
        processor["single"].as_array_mut().unwrap().push(end);
        processor["special_tokens"]["</s>"] =
            serde_json::json!({"id": "</s>", "ids": [2], "tokens": ["</s>"]});
        std::fs::write(&path, json.to_string()).unwrap();
        std::fs::write(dir.path().join("chat_template.jinja"), "template").unwrap();
        let config = TransformerConfig::llama(size, 4, 4, 1, 1, 8);
        let tokenizer = Tokenizer::load(dir.path(), &config).unwrap();
        assert_eq!(tokenizer.encode("hi").unwrap(), [1, 3, 2]);
        assert_eq!(tokenizer.encode_chat("<s> hi </s>").unwrap(), [1, 3, 2]);
        let (pair, prompt_length) = tokenizer.encode_chat_pair("<s> hi </s>", " hi").unwrap();
        assert_eq!((pair, prompt_length), (vec![1, 3, 2, 3], 3));
        let saved = tempfile::tempdir().unwrap();
        tokenizer.save(saved.path()).unwrap();
        assert!(saved.path().join("chat_template.jinja").exists());
    }
}
