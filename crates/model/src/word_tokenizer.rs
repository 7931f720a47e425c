//! A word-level tokenizer made from a corpus, for small models trained from nothing.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::{ModelError, Tokenizer};

/// Special tokens and their ids: unknown words, beginning, and end of a text.
const SPECIAL: [&str; 3] = ["<unk>", "<s>", "</s>"];
const BEGIN: u32 = 1;
const END: u32 = 2;

/// Writes `tokenizer.json` and its companions into `dir`: a token for each word between white space, in alphabetical order, after `<unk>` 0,
/// `<s>` 1 (put before every text) and `</s>` 2. Returns the size of the vocabulary.
///
/// # Errors
/// [`ModelError::Io`] when a file cannot be written.
pub fn write_word_tokenizer<'a>(
    dir: &Path,
    texts: impl Iterator<Item = &'a str>,
) -> Result<usize, ModelError> {
    let tokens = tokens(texts);
    for (name, contents) in files(&tokens) {
        let path = dir.join(name);
        std::fs::write(&path, contents).map_err(ModelError::write(&path))?;
    }
    Ok(tokens.len())
}

impl Tokenizer {
    /// The tokenizer that [`write_word_tokenizer`] writes, in memory, with the tokens that end texts of a [`TransformerConfig::llama`](crate::TransformerConfig::llama).
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when it cannot be built.
    pub fn of_words<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, ModelError> {
        let [(_, contents), companions @ ..] = files(&tokens(texts.into_iter()));
        let stops = BTreeSet::from([BEGIN, END]);
        Ok(Self::from_bytes(contents, stops, Some(END), BEGIN)?.with_files(companions))
    }
}

/// The special tokens and the words of some texts, by their ids.
fn tokens<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let words: BTreeSet<&str> = texts.flat_map(str::split_whitespace).collect();
    SPECIAL.into_iter().chain(words).collect()
}

/// The names and contents of the files of a tokenizer with these tokens, `tokenizer.json` first.
fn files(tokens: &[&str]) -> [(&'static str, Vec<u8>); 3] {
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "clean_up_tokenization_spaces": false,
    });
    let generation = json!({"bos_token_id": BEGIN, "eos_token_id": END, "do_sample": true});
    [
        ("tokenizer.json", tokenizer(tokens)),
        ("tokenizer_config.json", config),
        ("generation_config.json", generation),
    ]
    .map(|(name, value)| (name, format!("{value:#}\n").into_bytes()))
}

fn tokenizer(tokens: &[&str]) -> Value {
    let vocabulary: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
    let added = |(id, content): (usize, &str)| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let begin = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
    let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    json!({
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
            "special_tokens": {"<s>": {"id": "<s>", "ids": [BEGIN], "tokens": ["<s>"]}},
        },
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    })
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
    fn a_tokenizer_in_memory_is_the_one_that_is_written() {
        let texts = ["the soup :", "was warm ."];
        let [written, saved] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let size = super::write_word_tokenizer(written.path(), texts.into_iter()).unwrap();
        let config = TransformerConfig::llama(size, 8, 8, 1, 2, 16);
        let read = Tokenizer::load(written.path(), &config).unwrap();
        let made = Tokenizer::of_words(texts).unwrap();
        assert_eq!((made.vocabulary(), read.vocabulary()), (size, size));
        assert_eq!(made.encode("the warm sun").unwrap(), read.encode("the warm sun").unwrap());
        assert_eq!((made.stops(), made.end(), made.pad()), (read.stops(), read.end(), read.pad()));
        made.save(saved.path()).unwrap();
        for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
            let bytes = |dir: &tempfile::TempDir| std::fs::read(dir.path().join(file)).unwrap();
            assert_eq!(bytes(&saved), bytes(&written), "{file}");
        }
    }

    #[test]
    fn a_tokenizer_is_made_of_bytes_and_ids() {
        let dir = tempfile::tempdir().unwrap();
        let size = super::write_word_tokenizer(dir.path(), ["hi you"].into_iter()).unwrap();
        let bytes = std::fs::read(dir.path().join("tokenizer.json")).unwrap();
        let made = Tokenizer::from_bytes(bytes, [2, 4].into(), None, 0).unwrap();
        assert_eq!((made.vocabulary(), made.end(), made.pad()), (size, None, 0));
        assert!(made.stops().iter().eq(&[2, 4]));
        assert_eq!(made.encode("you hi").unwrap(), [1, 4, 3]);
        let error = Tokenizer::from_bytes("{", [2].into(), Some(2), 2).unwrap_err().to_string();
        assert!(error.starts_with("tokenizer in memory: "), "{error}");
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
