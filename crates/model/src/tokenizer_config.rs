//! `tokenizer_config.json`, as far as it says something of tokens: transformers adds those that `tokenizer.json` lacks, under new ids.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Map, Value};

use crate::ModelError;

/// Keys that name tokens which a text may hold.
const KEYS: [&str; 5] = [
    "bos_token",
    "eos_token",
    "extra_special_tokens",
    "additional_special_tokens",
    "added_tokens_decoder",
];

/// Keys of tokens that hardly any text holds: those for padding, and for words that the vocabulary lacks.
const UNWRITTEN: [&str; 2] = ["pad_token", "unk_token"];

/// Refuses a folder whose `tokenizer_config.json` names tokens that its tokenizer does not have, or has something else where a token is named.
///
/// # Errors
/// [`ModelError::Tokenizer`] names the first, [`ModelError::Io`] and [`ModelError::Json`] for a file that cannot be read.
pub(crate) fn check(tokenizer: &tokenizers::Tokenizer, dir: &Path) -> Result<(), ModelError> {
    let path = dir.join("tokenizer_config.json");
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        read => read.map_err(ModelError::read(&path))?,
    };
    let keys: Map<String, Value> = serde_json::from_str(&text)
        .map_err(|source| ModelError::Json { path: path.clone(), source })?;
    if let Some((key, value)) = keys.iter().find(|(key, value)| is_no_token(key, value)) {
        let reason = format!(
            "`{key}` is {value}, but has to be text, an object with text as `content`, or null"
        );
        return Err(ModelError::Tokenizer { path, reason });
    }
    let tokens = KEYS.iter().filter_map(|key| Some((*key, keys.get(*key)?)));
    let mut tokens =
        tokens.flat_map(|(key, value)| named(value).into_iter().map(move |token| (key, token)));
    let unwritten = UNWRITTEN.iter().filter_map(|key| keys.get(*key)).flat_map(named);
    let unwritten: Vec<&str> = unwritten.chain([""]).collect();
    let lacks = |token: &str| !unwritten.contains(&token) && tokenizer.token_to_id(token).is_none();
    match tokens.find(|(_, token)| lacks(token)) {
        None => Ok(()),
        Some((key, token)) => {
            let reason = format!(
                "`{key}` names the token {token:?}, which tokenizer.json lacks; save the tokenizer anew with transformers: AutoTokenizer.from_pretrained({dir:?}).save_pretrained({dir:?})"
            );
            Err(ModelError::Tokenizer { path, reason })
        }
    }
}

/// Whether a key names one token, but its value is none; `add_bos_token` and its like are switches.
fn is_no_token(key: &str, value: &Value) -> bool {
    let names_one = key.ends_with("_token") && !key.starts_with("add_");
    let text = value.get("content").unwrap_or(value);
    names_one && !text.is_string() && !value.is_null()
}

/// The tokens of a value: text, an object with the text as `content`, or a list or a table of these.
fn named(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text.as_str()],
        Value::Array(tokens) => tokens.iter().flat_map(named).collect(),
        Value::Object(token) => match token.get("content") {
            Some(content) => content.as_str().into_iter().collect(),
            None => token.values().flat_map(named).collect(),
        },
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{Tokenizer, TransformerConfig, write_word_tokenizer};

    /// What is said of a tokenizer of the words a and b with this `tokenizer_config.json`.
    fn loaded(config: &str) -> Result<Tokenizer, String> {
        let dir = tempfile::tempdir().unwrap();
        let size = write_word_tokenizer(dir.path(), ["a b"].into_iter()).unwrap();
        std::fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
        let config = TransformerConfig::llama(size, 8, 8, 1, 2, 16);
        Tokenizer::load(dir.path(), &config).map_err(|error| error.to_string())
    }

    #[test]
    fn tokens_that_only_the_configuration_has_are_refused() {
        for (key, value) in [
            ("eos_token", json!("<|new|>")),
            ("bos_token", json!({ "content": "<|new|>", "special": true })),
            ("extra_special_tokens", json!(["<s>", "<|new|>"])),
            ("extra_special_tokens", json!({ "image_token": "<|new|>" })),
            ("additional_special_tokens", json!([{ "content": "<|new|>" }])),
            (
                "added_tokens_decoder",
                json!({ "1": { "content": "<s>" }, "7": { "content": "<|new|>" } }),
            ),
        ] {
            let error = loaded(&json!({ (key): value }).to_string()).unwrap_err();
            for told in ["tokenizer_config.json", key, "\"<|new|>\"", "save_pretrained(\"/"] {
                assert!(error.contains(told), "{error}");
            }
        }
        assert!(loaded("{").unwrap_err().contains("tokenizer_config.json is not valid"));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for value in [json!(5), json!({}), json!([]), json!(["<s>"]), json!({ "content": 5 })] {
            let error = loaded(&json!({ "bos_token": value }).to_string()).unwrap_err();
            let told = format!("`bos_token` is {value}, but has to be text");
            assert!(error.contains("tokenizer_config.json") && error.contains(&told), "{error}");
        }
    }

    #[test]
    fn tokens_that_are_there_and_those_of_no_text_are_fine() {
        let config = json!({
            "bos_token": "<s>", "eos_token": { "content": "</s>" }, "unk_token": "[UNK]", "pad_token": "[PAD]", "mask_token": "[MASK]",
            "sep_token": null, "add_bos_token": true,
            "extra_special_tokens": ["a"], "additional_special_tokens": [],
            "added_tokens_decoder": { "0": { "content": "<unk>" }, "9": { "content": "[PAD]" } },
        });
        assert_eq!(loaded(&config.to_string()).unwrap().encode("a").unwrap(), [1, 3]);
    }
}
