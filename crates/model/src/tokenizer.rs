//! `tokenizer.json` and the ids that begin and end texts.

mod bytes;
mod guard;
mod pair;
mod patterns;

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokenizers::decoders::DecoderWrapper;

use crate::config::{TokenIds, common::forget_negative_ids};
use crate::{ModelError, ModelFolder, TransformerConfig, json_file, tokenizer_config};
use bytes::{letter_byte, written_byte};
use guard::guarded;

/// Files that belong to a tokenizer and travel with a saved model.
const FILES: [&str; 4] =
    ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"];
const GENERATION: &str = "generation_config.json";

/// A Hugging Face tokenizer with its model's special tokens.
///
/// `tokenizer.json` says how texts are encoded. transformers 5 makes the tokenizer of a `LlamaTokenizer` with `legacy` false anew, without
/// the `Prepend` of its normalizer, and then encodes other tokens than the file does; what it saves
/// (`AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)`) is a file that both read alike.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The special ones of its added tokens.
    special: HashSet<u32>,
    path: PathBuf,
    files: Vec<(&'static str, Vec<u8>)>,
    stops: BTreeSet<u32>,
    end: Option<u32>,
    pad: u32,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a model's folder and what says which tokens end a text: `eos_token_id` of `generation_config.json` and `config.json`.
    /// The token that opens a text ends the one before it, so it counts too, where it is a special one: else it is a word.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when the file is malformed, has a token whose id is outside the model's vocabulary or a pattern that
    /// transformers reads otherwise, or contradicts `tokenizer_config.json` or `special_tokens_map.json`.
    pub fn load(
        folder: impl Into<ModelFolder>,
        config: &TransformerConfig,
    ) -> Result<Self, ModelError> {
        let folder = folder.into();
        let dir = folder.tokenizer()?;
        let path = dir.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(ModelError::read(&path))?;
        let fail = |reason: String| ModelError::Tokenizer { path: path.clone(), reason };
        let inner = read(&bytes).map_err(fail)?;
        check_ids(&inner, config.vocab_size).map_err(fail)?;
        patterns::check(&inner).map_err(fail)?;
        tokenizer_config::check(&inner, &dir)?;
        // The tokenizer's files are of one piece; how to generate is written beside the weights.
        let generation = folder.holding(GENERATION)?;
        let of = FILES.iter().map(|name| (*name, &dir)).chain([(GENERATION, &generation)]);
        let files = of
            .filter_map(|(name, dir)| std::fs::read(dir.join(name)).ok().map(|bytes| (name, bytes)))
            .collect::<Vec<_>>();
        let end = config.eos_token_id.as_ref().and_then(|ids| ids.as_slice().first().copied());
        let mut stops: BTreeSet<u32> =
            config.eos_token_id.iter().flat_map(|ids| ids.as_slice().to_vec()).collect();
        let special = special(&inner);
        stops.extend(config.bos_token_id.filter(|id| special.contains(id)));
        stops.extend(generation_stops(&generation, config.vocab_size)?);
        let pad = config.pad_token_id.or(stops.first().copied()).unwrap_or(0);
        Ok(Self { inner, special, path: dir, files, stops, end, pad })
    }

    /// A tokenizer from the contents of a `tokenizer.json`, of a model that lies in no folder.
    ///
    /// - `stops`: tokens that end a response.
    /// - `end`: the token that a training text ends with, if there is one.
    /// - `pad`: the padding token, or one that stands in for it.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when the contents are malformed.
    pub fn from_bytes(
        bytes: impl Into<Vec<u8>>,
        stops: BTreeSet<u32>,
        end: Option<u32>,
        pad: u32,
    ) -> Result<Self, ModelError> {
        let (path, bytes) = (PathBuf::from("in memory"), bytes.into());
        let inner =
            read(&bytes).map_err(|reason| ModelError::Tokenizer { path: path.clone(), reason })?;
        let special = special(&inner);
        Ok(Self { inner, special, path, files: vec![(FILES[0], bytes)], stops, end, pad })
    }

    /// The same tokenizer with more files that are saved with it.
    pub(crate) fn with_files(
        mut self,
        files: impl IntoIterator<Item = (&'static str, Vec<u8>)>,
    ) -> Self {
        self.files.extend(files);
        self
    }

    /// Writes the tokenizer's files, byte for byte as they were read, into an existing folder.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn save(&self, dir: &Path) -> Result<(), ModelError> {
        for (name, bytes) in &self.files {
            let path = dir.join(name);
            std::fs::write(&path, bytes).map_err(ModelError::write(&path))?;
        }
        Ok(())
    }

    /// Whether the `tokenizer.json` of a folder has the same tokens under the same ids.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when the file is malformed.
    pub fn has_tokens_of(&self, dir: &Path) -> Result<bool, ModelError> {
        let path = dir.join(FILES[0]);
        let bytes = std::fs::read(&path).map_err(ModelError::read(&path))?;
        let other = read(&bytes).map_err(|reason| ModelError::Tokenizer { path, reason })?;
        Ok(self.inner.get_vocab(true) == other.get_vocab(true))
    }

    /// Token ids of a text, with the special tokens that the tokenizer's template adds.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when the tokenizer refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.ids(text, true)
    }

    /// Token ids of a text that a chat template wrote, special tokens included: none is added.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_chat(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.ids(text, false)
    }

    /// Token ids of a text, with the special tokens that the tokenizer adds, but without a second beginning where the text has one of its
    /// own, such as that of a chat template.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_whole(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let begins_twice = |ids: &[u32]| matches!(ids, [first, second, ..] if first == second);
        let mut tokens = self.ids(text, true)?;
        if begins_twice(&tokens) {
            let written = self.ids(text, false)?;
            if tokens.len() > written.len() && !begins_twice(&written) {
                tokens.remove(0);
            }
        }
        Ok(tokens)
    }

    fn ids(&self, text: &str, add_special: bool) -> Result<Vec<u32>, ModelError> {
        let encoding = guarded(|| self.inner.encode(text, add_special));
        Ok(encoding.map_err(|reason| self.fail(reason))?.get_ids().to_vec())
    }

    /// The text of ids, special tokens left out.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when an id is unknown to the tokenizer.
    pub fn decode(&self, ids: &[u32]) -> Result<String, ModelError> {
        // The library finds special tokens by their texts, and not those that a normalizer changes.
        let ids: Vec<u32> = ids.iter().copied().filter(|id| !self.special.contains(id)).collect();
        guarded(|| self.inner.decode(&ids, true)).map_err(|reason| self.fail(reason))
    }

    /// The text that a response adds to its prompt: white space between them is kept.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn decode_response(&self, prompt: &[u32], response: &[u32]) -> Result<String, ModelError> {
        let before = self.decode(prompt)?;
        let whole = self.decode(&[prompt, response].concat())?;
        match whole.strip_prefix(before.as_str()) {
            Some(rest) => Ok(rest.to_owned()),
            None => self.decode(response),
        }
    }

    /// The text of one token after another, by which a word tells whether a space stands before it; special tokens are written out.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn token_text(&self, before: Option<u32>, token: u32) -> Result<String, ModelError> {
        if let Some(before) = before
            && let Some(after) =
                self.written(&[before, token])?.strip_prefix(&self.written(&[before])?)
        {
            return Ok(after.to_owned());
        }
        self.written(&[token])
    }

    /// The text of ids, special tokens written out.
    fn written(&self, ids: &[u32]) -> Result<String, ModelError> {
        guarded(|| self.inner.decode(ids, false)).map_err(|reason| self.fail(reason))
    }

    /// The bytes of one token after another, of which several tokens may make one character; where tokens are no bytes, those of
    /// [`Tokenizer::token_text`].
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn token_bytes(&self, before: Option<u32>, token: u32) -> Result<Vec<u8>, ModelError> {
        let written = self.inner.id_to_token(token).unwrap_or_default();
        let bytes = if self.decodes_by(|part| matches!(part, DecoderWrapper::ByteFallback(_))) {
            written_byte(&written).map(|byte| vec![byte])
        } else if self.decodes_by(|part| matches!(part, DecoderWrapper::ByteLevel(_))) {
            written.chars().map(letter_byte).collect()
        } else {
            None
        };
        match bytes {
            Some(bytes) => Ok(bytes),
            None => Ok(self.token_text(before, token)?.into_bytes()),
        }
    }

    /// Whether the decoder, or a part of it, is of a kind.
    fn decodes_by(&self, kind: fn(&DecoderWrapper) -> bool) -> bool {
        match self.inner.get_decoder() {
            Some(DecoderWrapper::Sequence(parts)) => parts.get_decoders().iter().any(kind),
            Some(decoder) => kind(decoder),
            None => false,
        }
    }

    /// Whether a token stands for a byte, as those of Llama's tokenizers do from which characters are made that have no token.
    pub fn is_byte(&self, token: u32) -> bool {
        self.inner.id_to_token(token).as_deref().and_then(written_byte).is_some()
    }

    /// The last place, up to `place`, from which on the tokens have the text that they have in the whole: not within a row of tokens that
    /// are bytes, which are characters together or none at all.
    ///
    /// - `place`: at most the number of tokens.
    pub fn start_before(&self, tokens: &[u32], place: usize) -> usize {
        let splits = |place: &usize| match tokens[..*place].last().zip(tokens.get(*place)) {
            Some((before, after)) => self.is_byte(*before) && self.is_byte(*after),
            None => false,
        };
        (0..=place).rev().find(|place| !splits(place)).unwrap_or(0)
    }

    /// How many tokens a model must have for it: one more than its greatest id.
    pub fn vocabulary(&self) -> usize {
        let greatest = self.inner.get_vocab(true).into_values().max();
        greatest.map_or(0, |id| id as usize + 1)
    }

    /// The folder that it was read from, where a chat template lies, too; `in memory` where it was read from none.
    pub fn folder(&self) -> &Path {
        &self.path
    }

    /// Tokens that end a response.
    pub fn stops(&self) -> &BTreeSet<u32> {
        &self.stops
    }

    /// The token that a training text ends with, where the model names one.
    pub fn end(&self) -> Option<u32> {
        self.end
    }

    /// The `eos_token` of `tokenizer_config.json` with its id, where it names one: other programs end responses at it, which ends them here only
    /// where it is one of [`Tokenizer::stops`].
    pub fn named_end(&self) -> Option<(String, u32)> {
        let (_, config) = self.files.iter().find(|(name, _)| *name == FILES[1])?;
        let token = tokenizer_config::end(config)?;
        self.inner.token_to_id(&token).map(|id| (token, id))
    }

    /// The padding token, or the token that stands in for it where the model names none.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// Whether this thread is in the tokenizer's library, whose panics are caught and told as errors: nobody else has to tell of them.
    pub fn catches_panics() -> bool {
        guard::catches()
    }

    fn fail(&self, reason: String) -> ModelError {
        ModelError::Tokenizer { path: self.path.clone(), reason }
    }
}

/// Reads the contents of a `tokenizer.json`, without the truncation and padding that it may ask for: like transformers, which leaves both
/// to its caller. A prompt must not lose its end, nor gain tokens that nobody wrote.
fn read(bytes: &[u8]) -> Result<tokenizers::Tokenizer, String> {
    guarded(|| {
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes)?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None)?;
        // It may refuse a text, but what ends with a panic is the file's fault, not that of a text.
        for text in ["", "a"] {
            let _ = tokenizer.encode(text, true);
        }
        Ok(tokenizer)
    })
}

/// Refuses tokens that a model with so many has no place for. Special ones may be beyond it, since no text has them unless it spells them
/// out: Gemma 3 has one for images, which its language model lacks.
fn check_ids(tokenizer: &tokenizers::Tokenizer, vocabulary: usize) -> Result<(), String> {
    let special = special(tokenizer);
    let tokens = tokenizer.get_vocab(true).into_iter().map(|(token, id)| (id, token));
    match tokens.filter(|(id, _)| !special.contains(id)).max() {
        Some((id, token)) if id as usize >= vocabulary => Err(format!(
            "its token {token:?} has the id {id}, but the model's vocab_size is {vocabulary}: they do not belong together"
        )),
        _ => Ok(()),
    }
}

/// The special ones of the added tokens.
fn special(tokenizer: &tokenizers::Tokenizer) -> HashSet<u32> {
    let added = tokenizer.get_added_tokens_decoder().into_iter();
    added.filter(|(_, token)| token.special).map(|(id, _)| id).collect()
}

/// `eos_token_id` of `DIR/generation_config.json`, where there is one, of a model with so many tokens.
fn generation_stops(dir: &Path, vocabulary: usize) -> Result<Vec<u32>, ModelError> {
    #[derive(Deserialize)]
    struct GenerationConfig {
        #[serde(default)]
        eos_token_id: Option<TokenIds>,
    }
    let path = dir.join(GENERATION);
    let mut keys = json_file::keys(&path)?;
    forget_negative_ids(&mut keys);
    let config: GenerationConfig = serde_json::from_value(keys.into())
        .map_err(|source| ModelError::Json { path: path.clone(), source })?;
    let stops = config.eos_token_id.map(|ids| ids.as_slice().to_vec()).unwrap_or_default();
    match stops.iter().find(|id| **id as usize >= vocabulary) {
        None => Ok(stops),
        Some(id) => {
            let hint = format!("it must be below the model's vocab_size, {vocabulary}");
            Err(ModelError::Config { path, key: "eos_token_id", value: id.to_string(), hint })
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The tokenizer of the words a, b and c, with other contents of some keys.
    fn with(changes: Value) -> Result<Tokenizer, ModelError> {
        let mut contents = json!({
            "version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null, "decoder": null,
            "pre_tokenizer": { "type": "WhitespaceSplit" },
            "model": { "type": "WordLevel", "vocab": { "a": 0, "b": 1, "c": 2 }, "unk_token": "a" },
        });
        for (key, value) in changes.as_object().into_iter().flatten() {
            contents[key] = value.clone();
        }
        Tokenizer::from_bytes(contents.to_string(), BTreeSet::from([2]), Some(2), 2)
    }

    #[test]
    fn a_tokenizer_is_judged_by_its_largest_id_that_is_not_special() {
        let judged = |vocabulary: Value, special: bool| {
            let added = json!({ "id": 9, "content": "z", "special": special, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false });
            let model = json!({ "type": "WordLevel", "vocab": vocabulary, "unk_token": "a" });
            let tokenizer = with(json!({ "model": model, "added_tokens": [added] })).unwrap();
            check_ids(&tokenizer.inner, 6)
        };
        assert!(judged(json!({ "a": 0, "b": 5, "z": 9 }), true).is_ok());
        let error = judged(json!({ "a": 0, "b": 6, "z": 9 }), true).unwrap_err();
        assert!(
            error.contains("\"b\" has the id 6") && error.contains("vocab_size is 6"),
            "{error}"
        );
        let error = judged(json!({ "a": 0, "z": 9 }), false).unwrap_err();
        assert!(error.contains("\"z\" has the id 9"), "{error}");
    }

    #[test]
    fn a_file_whose_parts_contradict_each_other_is_refused_before_any_text_is_read() {
        let piece = json!({ "SpecialToken": { "id": "[NONE]", "type_id": 0 } });
        let template = json!({ "type": "TemplateProcessing", "single": [piece], "pair": [], "special_tokens": {} });
        let error = with(json!({ "post_processor": template })).unwrap_err().to_string();
        assert!(error.contains("its parts contradict each other"), "{error}");
        assert!(!Tokenizer::catches_panics());
        // It knows neither the empty text nor `a`, which is no fault.
        let model = json!({ "type": "WordLevel", "vocab": { "b": 0 }, "unk_token": "[UNK]" });
        assert_eq!(with(json!({ "model": model })).unwrap().encode("b").unwrap(), [0]);
    }

    #[test]
    fn a_file_neither_cuts_nor_pads_texts() {
        let padding = json!({ "strategy": { "Fixed": 1_u64 << 60 }, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "a" });
        let truncation = json!({ "direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0 });
        let tokenizer = with(json!({ "padding": padding, "truncation": truncation })).unwrap();
        assert_eq!(tokenizer.encode("a b c").unwrap(), [0, 1, 2]);
    }

    #[test]
    fn a_special_token_that_a_normalizer_changes_is_left_out_of_texts() {
        let added = json!({ "id": 2, "content": "</s>", "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": true });
        let model = json!({ "type": "WordLevel", "vocab": { "a": 0, "b": 1, "</s>": 2 }, "unk_token": "a" });
        let normalizer = json!({ "type": "Prepend", "prepend": "▁" });
        let changes = json!({ "model": model, "added_tokens": [added], "normalizer": normalizer });
        assert_eq!(with(changes).unwrap().decode(&[1, 2]).unwrap(), "b");
    }

    /// A tokenizer of these tokens, by their places, with this decoder.
    fn of_tokens(tokens: &[&str], decoder: Value) -> Tokenizer {
        let vocabulary: serde_json::Map<String, Value> =
            tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
        let model = json!({ "type": "WordLevel", "vocab": vocabulary, "unk_token": tokens[0] });
        with(json!({ "model": model, "decoder": decoder })).unwrap()
    }

    fn byte_fallback() -> Value {
        json!({ "type": "Sequence", "decoders": [{ "type": "ByteFallback" }, { "type": "Fuse" }] })
    }

    #[test]
    fn the_bytes_of_a_token_are_its_own() {
        let bytes = |tokenizer: &Tokenizer, n: u32| -> Vec<Vec<u8>> {
            (0..n).map(|token| tokenizer.token_bytes(Some(0), token).unwrap()).collect()
        };
        // The sign for the euro is E2 82 AC.
        let fallback = of_tokens(&["<0xE2>", "<0x82>", "<0xAC>", "a", "é"], byte_fallback());
        assert_eq!(bytes(&fallback, 5), [&[0xE2][..], &[0x82], &[0xAC], b"a", "é".as_bytes()]);
        assert_eq!(fallback.token_text(None, 0).unwrap(), "\u{fffd}", "it is no character");
        let level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
        // GPT-2 writes the bytes 0, 0x20, 0x82, 0xAD and 0xE2 as Ā, Ġ, Ĥ, Ń and â.
        let level = of_tokens(&["âĤ", "¬", "Ġa", "ĀŃ", "<a b>"], level);
        assert_eq!(
            bytes(&level, 5),
            [&[0xE2, 0x82][..], &[0xAC], b" a", &[0, 0xAD], b"<a b>"],
            "a token with a letter that stands for no byte is text"
        );
        let words = of_tokens(&["a", "<0xE2>"], Value::Null);
        assert_eq!(bytes(&words, 2), [&b" a"[..], b" <0xE2>"], "nothing makes bytes of it");
    }

    #[test]
    fn rows_of_bytes_are_not_split() {
        let tokenizer = of_tokens(&["<0xE2>", "<0x82>", "<0xAC>", "a"], byte_fallback());
        let tokens = [3, 0, 1, 2, 3, 3, 0];
        let starts: Vec<usize> =
            (0..=tokens.len()).map(|place| tokenizer.start_before(&tokens, place)).collect();
        assert_eq!(starts, [0, 1, 1, 1, 4, 5, 6, 7]);
        assert_eq!(tokenizer.start_before(&tokens[1..], 2), 0, "the beginning may be within one");
        assert_eq!(tokenizer.start_before(&[], 0), 0);
    }

    #[test]
    fn the_token_that_begins_texts_ends_them_unless_it_is_a_word() {
        let dir = tempfile::tempdir().unwrap();
        let size = crate::write_word_tokenizer(dir.path(), ["a b"].into_iter()).unwrap();
        let mut config = TransformerConfig::llama(size, 8, 8, 1, 2, 16);
        let stops = |config: &TransformerConfig| {
            Tokenizer::load(dir.path(), config).unwrap().stops().clone()
        };
        assert_eq!(stops(&config), BTreeSet::from([1, 2]));
        config.bos_token_id = Some(3);
        assert_eq!(stops(&config), BTreeSet::from([2]));
    }

    #[test]
    fn what_ends_texts_is_read_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(GENERATION);
        let stops = || generation_stops(dir.path(), 8);
        assert_eq!(stops().unwrap(), [0_u32; 0], "without a file");
        std::fs::write(&path, r#"{"eos_token_id": [7, -1]}"#).unwrap();
        assert_eq!(stops().unwrap(), [7]);
        std::fs::write(&path, r#"{"eos_token_id": 8}"#).unwrap();
        let error = stops().unwrap_err().to_string();
        assert!(error.contains("generation_config.json: `eos_token_id` is 8"), "{error}");
        std::fs::write(&path, b"\xff").unwrap();
        let error = stops().unwrap_err().to_string();
        assert!(error.contains("cannot read") && error.contains(GENERATION), "{error}");
    }
}
