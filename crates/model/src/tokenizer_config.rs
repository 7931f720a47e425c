//! `tokenizer_config.json` and the older `special_tokens_map.json`, as far as they say something of tokens: where they and `tokenizer.json`
//! differ, transformers makes another tokenizer.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::models::ModelWrapper;
use tokenizers::{AddedToken, NormalizedString, Normalizer};

use crate::ModelError;
use crate::json_file::keys;

const ADDED: &str = "added_tokens_decoder";
const EXTRA: &str = "extra_special_tokens";

/// Keys that name tokens which a text may hold.
const KEYS: [&str; 5] = ["bos_token", "eos_token", EXTRA, "additional_special_tokens", ADDED];

/// Keys that transformers takes for tokens whatever is there; other keys that end so are tokens where they have the form.
const OF_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Keys of tokens that hardly any text holds: those for padding, and for words that the vocabulary lacks.
const UNWRITTEN: [&str; 2] = ["pad_token", "unk_token"];

/// The added tokens of `tokenizer.json`, by their texts.
type Added = BTreeMap<String, AddedToken>;

/// Refuses a folder whose files name tokens that `tokenizer.json` does not add or describes otherwise, have something else where a token is
/// named, or ask for what is not done here.
///
/// # Errors
/// [`ModelError::Tokenizer`] names the first, [`ModelError::Io`] and [`ModelError::Json`] for a file that cannot be read.
pub(crate) fn check(tokenizer: &tokenizers::Tokenizer, dir: &Path) -> Result<(), ModelError> {
    let (config_path, map_path) =
        (dir.join("tokenizer_config.json"), dir.join("special_tokens_map.json"));
    let config = keys(&config_path)?;
    // transformers leaves the older file alone where the newer one lists the added tokens.
    let map = if config.contains_key(ADDED) { Map::new() } else { keys(&map_path)? };
    let tokens = tokenizer.get_added_tokens_decoder().into_values();
    let added: Added = tokens.map(|token| (token.content.clone(), token)).collect();
    for (path, keys) in [(config_path, config), (map_path, map)] {
        let other = lacking(&keys, &added).or_else(|| other_flag(&keys, &added, tokenizer));
        let other = other.map(|other| {
            format!(
                "{other}; save the tokenizer anew with transformers: AutoTokenizer.from_pretrained({dir:?}).save_pretrained({dir:?})"
            )
        });
        if let Some(reason) = no_token(&keys).or(other).or_else(|| undone(&keys, tokenizer)) {
            return Err(ModelError::Tokenizer { path, reason });
        }
    }
    Ok(())
}

/// The `eos_token` of a file with these contents.
pub(crate) fn end(contents: &[u8]) -> Option<String> {
    let keys: Map<String, Value> = serde_json::from_slice(contents).ok()?;
    named(keys.get("eos_token")?).first().map(|token| (*token).to_owned())
}

/// A key that names one token, but whose value is none.
fn no_token(keys: &Map<String, Value>) -> Option<String> {
    let is_token = |value: &Value| value.get("content").unwrap_or(value).is_string();
    let (key, value) = OF_TOKENS
        .iter()
        .filter_map(|key| Some((key, keys.get(*key)?)))
        .find(|(_, value)| !is_token(value) && !value.is_null())?;
    Some(format!(
        "`{key}` is {value}, but has to be text, an object with text as `content`, or null"
    ))
}

/// A token that transformers would add.
fn lacking(keys: &Map<String, Value>, added: &Added) -> Option<String> {
    let unwritten: Vec<&str> =
        UNWRITTEN.iter().filter_map(|key| keys.get(*key)).flat_map(named).collect();
    let lacks = |key: &str, token: &str| {
        let may_lack = token.is_empty() || (!names_one(key) && unwritten.contains(&token));
        !may_lack && !added.contains_key(token)
    };
    let tokens = KEYS.iter().filter_map(|key| Some((*key, keys.get(*key)?)));
    let (key, token) =
        tokens.flat_map(|(key, value)| pairs(key, value)).find(|(key, token)| lacks(key, token))?;
    Some(format!(
        "`{key}` names the token {token:?}, which is not among the added tokens of tokenizer.json"
    ))
}

/// A token for which transformers would read texts otherwise, or leave it out of them.
fn other_flag(
    keys: &Map<String, Value>,
    added: &Added,
    tokenizer: &tokenizers::Tokenizer,
) -> Option<String> {
    let told = |key: &str, token: &str, flag: &str| {
        Some(format!("`{key}` has the token {token:?} with another `{flag}` than tokenizer.json"))
    };
    let listed = keys.get(ADDED).and_then(Value::as_object);
    for said in listed.into_iter().flat_map(|tokens| tokens.values()) {
        let token = said.get("content").and_then(Value::as_str).and_then(|text| added.get(text));
        let Some(token) = token else { continue };
        if let Some(flag) = differing(said, token, is_changed(&token.content, tokenizer)) {
            return told(ADDED, &token.content, flag);
        }
    }
    // One with a name of its own is special by that; those of a list are not.
    let with_names = keys.iter().filter(|(key, value)| names_one(key) || is_table(key, value));
    for (key, token) in with_names.flat_map(|(key, value)| pairs(key, value)) {
        if added.get(token).is_some_and(|token| !token.special) {
            return told(key, token, "special");
        }
    }
    None
}

/// The first flag of an added token by which tokens or texts would be others. One that is special in `tokenizer.json` stays so.
///
/// - is_changed: whether a normalizer changes the token's text, so that it counts whether it is looked for before or behind that.
fn differing(said: &Value, token: &AddedToken, is_changed: bool) -> Option<&'static str> {
    let flag = |name: &str| said.get(name).and_then(Value::as_bool);
    let is_set = |name: &str| flag(name).unwrap_or(false);
    let normalized = flag("normalized").unwrap_or(!is_set("special"));
    let flags = [
        ("lstrip", is_set("lstrip") != token.lstrip),
        ("rstrip", is_set("rstrip") != token.rstrip),
        ("single_word", is_set("single_word") != token.single_word),
        ("normalized", is_changed && normalized != token.normalized),
        ("special", is_set("special") && !token.special),
    ];
    flags.into_iter().find_map(|(name, differs)| differs.then_some(name))
}

/// Whether a tokenizer's normalizer changes a text, or fails on it.
fn is_changed(text: &str, tokenizer: &tokenizers::Tokenizer) -> bool {
    let Some(normalizer) = tokenizer.get_normalizer() else { return false };
    let mut normalized = NormalizedString::from(text);
    normalizer.normalize(&mut normalized).is_err() || normalized.get() != text
}

/// A setting by which transformers would read or write texts otherwise.
fn undone(keys: &Map<String, Value>, tokenizer: &tokenizers::Tokenizer) -> Option<String> {
    let is_true = |key: &str| keys.get(key) == Some(&Value::Bool(true));
    // transformers does not clean up behind BPE, whatever the setting.
    let cleans = !matches!(tokenizer.get_model(), ModelWrapper::BPE(_));
    let (key, what) = [
        (true, "split_special_tokens", "reads special tokens as ordinary text"),
        (cleans, "clean_up_tokenization_spaces", "takes spaces out of what it decodes"),
    ]
    .into_iter()
    .find_map(|(counts, key, what)| (counts && is_true(key)).then_some((key, what)))?;
    Some(format!(
        "`{key}` is true, by which transformers {what}; that is not done here: write false"
    ))
}

/// Whether a value gives each of its tokens a name.
fn is_table(key: &str, value: &Value) -> bool {
    key == EXTRA && value.is_object()
}

/// A key with each of the tokens that it names.
fn pairs<'a>(key: &'a str, value: &'a Value) -> impl Iterator<Item = (&'a str, &'a str)> {
    named(value).into_iter().map(move |token| (key, token))
}

/// Whether a key names one token; `add_bos_token` and its like are switches.
fn names_one(key: &str) -> bool {
    key.ends_with("_token") && !key.starts_with("add_")
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
    use serde_json::{Value, json};

    use crate::{Tokenizer, TransformerConfig, write_word_tokenizer};

    const CONFIG: &str = "tokenizer_config.json";
    const MAP: &str = "special_tokens_map.json";

    /// What is said of a tokenizer of the words a and b with these places of `tokenizer.json` changed, and these files.
    fn changed(places: &[(&str, Value)], files: &[(&str, &str)]) -> Result<Tokenizer, String> {
        let dir = tempfile::tempdir().unwrap();
        let size = write_word_tokenizer(dir.path(), ["a b"].into_iter()).unwrap();
        let path = dir.path().join("tokenizer.json");
        let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for (place, value) in places {
            *tokenizer.pointer_mut(place).unwrap() = value.clone();
        }
        std::fs::write(path, tokenizer.to_string()).unwrap();
        for (name, contents) in files {
            std::fs::write(dir.path().join(name), contents).unwrap();
        }
        let config = TransformerConfig::llama(size, 8, 8, 1, 2, 16);
        Tokenizer::load(dir.path(), &config).map_err(|error| error.to_string())
    }

    /// What is said of it with this `tokenizer_config.json`.
    fn loaded(config: &str) -> Result<Tokenizer, String> {
        changed(&[], &[(CONFIG, config)])
    }

    #[test]
    fn tokens_that_the_tokenizer_does_not_add_are_refused() {
        // One that is new, and a word.
        for token in ["<|new|>", "a"] {
            for (key, value) in [
                ("eos_token", json!(token)),
                ("bos_token", json!({ "content": token, "special": true })),
                ("extra_special_tokens", json!(["<s>", token])),
                ("extra_special_tokens", json!({ "image_token": token })),
                ("additional_special_tokens", json!([{ "content": token }])),
                (
                    "added_tokens_decoder",
                    json!({ "1": { "content": "<s>" }, "7": { "content": token } }),
                ),
            ] {
                let error = loaded(&json!({ (key): value }).to_string()).unwrap_err();
                let quoted = format!("{token:?}");
                for told in [CONFIG, key, quoted.as_str(), "save_pretrained(\"/"] {
                    assert!(error.contains(told), "{error}");
                }
            }
        }
        let twice = json!({ "eos_token": "<|new|>", "pad_token": "<|new|>" });
        assert!(loaded(&twice.to_string()).unwrap_err().contains("`eos_token`"));
        assert!(loaded("{").unwrap_err().contains("tokenizer_config.json is not valid"));
    }

    #[test]
    fn the_older_file_counts_where_the_newer_one_does_not_list_the_added_tokens() {
        let map = json!({ "eos_token": "<|new|>" }).to_string();
        let error = changed(&[], &[(MAP, map.as_str())]).unwrap_err();
        assert!(error.contains(MAP) && error.contains("`eos_token`"), "{error}");
        let listed = json!({ "added_tokens_decoder": {} }).to_string();
        assert!(changed(&[], &[(MAP, map.as_str()), (CONFIG, listed.as_str())]).is_ok());
    }

    #[test]
    fn flags_of_tokens_have_to_be_those_of_the_tokenizer() {
        let normalizer = |value: Value| [("/normalizer", value)];
        let prepend = normalizer(json!({ "type": "Prepend", "prepend": "▁" }));
        let ordinary = [("/added_tokens/2/special", json!(false))];
        let with = |flag: &str| json!({ "content": "</s>", "special": true, (flag): true });
        let listed = |token: Value| json!({ "added_tokens_decoder": { "2": token } });
        let said = |places: &[(&str, Value)], config: Value| {
            changed(places, &[(CONFIG, config.to_string().as_str())]).map(drop)
        };
        for flag in ["lstrip", "rstrip", "single_word"] {
            let error = said(&[], listed(with(flag))).unwrap_err();
            assert!(error.contains(flag) && error.contains("save_pretrained"), "{error}");
        }
        assert_eq!(said(&[], listed(with("normalized"))), Ok(()), "nothing is normalized");
        let nfc = normalizer(json!({ "type": "NFC" }));
        assert_eq!(said(&nfc, listed(with("normalized"))), Ok(()), "the token stays as it is");
        let error = said(&prepend, listed(with("normalized"))).unwrap_err();
        assert!(error.contains("\"</s>\" with another `normalized`"), "{error}");
        for config in [
            listed(with("special")),
            json!({ "eos_token": "</s>" }),
            json!({ "extra_special_tokens": { "end": "</s>" } }),
        ] {
            let error = said(&ordinary, config).unwrap_err();
            assert!(error.contains("\"</s>\" with another `special`"), "{error}");
        }
        // transformers makes nothing special by a list, and nothing ordinary that is special.
        assert_eq!(said(&ordinary, json!({ "extra_special_tokens": ["</s>"] })), Ok(()));
        assert_eq!(said(&[], listed(json!({ "content": "</s>" }))), Ok(()));
    }

    #[test]
    fn the_token_that_ends_texts_is_named_with_its_id() {
        let named = |config: Value| loaded(&config.to_string()).unwrap().named_end();
        for value in [json!("<unk>"), json!({ "content": "<unk>" })] {
            assert_eq!(named(json!({ "eos_token": value })), Some(("<unk>".to_owned(), 0)));
        }
        for config in [json!({}), json!({ "eos_token": null }), json!({ "eos_token": "" })] {
            assert_eq!(named(config), None);
        }
    }

    #[test]
    fn settings_that_change_texts_are_refused() {
        for key in ["split_special_tokens", "clean_up_tokenization_spaces"] {
            let error = loaded(&json!({ (key): true }).to_string()).unwrap_err();
            assert!(error.contains(&format!("`{key}` is true")) && error.contains("write false"));
        }
        let vocabulary = json!({ "<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4 });
        let model = json!({ "type": "BPE", "vocab": vocabulary, "merges": [] });
        let config = json!({ "clean_up_tokenization_spaces": true }).to_string();
        assert!(changed(&[("/model", model)], &[(CONFIG, config.as_str())]).is_ok());
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
            "sep_token": null, "add_bos_token": true, "use_auth_token": false,
            "extra_special_tokens": ["<unk>"], "additional_special_tokens": [],
            "added_tokens_decoder": { "0": { "content": "<unk>" }, "9": { "content": "[PAD]" } },
        });
        assert_eq!(loaded(&config.to_string()).unwrap().encode("a").unwrap(), [1, 3]);
    }
}
