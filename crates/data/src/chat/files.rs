//! Where a model's folder keeps its chat template and special tokens.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::DataError;

const TEMPLATE_FILE: &str = "chat_template.jinja";
const CONFIG_FILE: &str = "tokenizer_config.json";
const MAP_FILE: &str = "special_tokens_map.json";
const MODEL_FILE: &str = "config.json";

/// Keys that have to name a token.
const OF_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The tokens for the beginning and the end of a text that transformers sets where no file names them: by the class of the tokenizer or, where
/// that is not named either, by the model's type.
const DEFAULTS: [(&[&str], Option<&str>, &str); 4] = [
    (&["LlamaTokenizer", "CodeLlamaTokenizer"], Some("<s>"), "</s>"),
    (
        &["GPT2Tokenizer", "GPTNeoXTokenizer", "gpt2", "gpt_neox"],
        Some("<|endoftext|>"),
        "<|endoftext|>",
    ),
    (&["GemmaTokenizer", "gemma2", "gemma3_text"], Some("<bos>"), "<eos>"),
    (&["Qwen2Tokenizer", "qwen2", "qwen3"], None, "<|endoftext|>"),
];

/// Special tokens by their names, `bos_token` and its like; None for those that are named as null.
type Named = BTreeMap<String, Option<String>>;

/// A template as it is stored.
pub(super) struct Source {
    /// The file that it is from.
    pub(super) path: PathBuf,
    pub(super) template: String,
    /// `bos_token` and its like, those that are set.
    pub(super) tokens: BTreeMap<String, String>,
}

/// Finds the template and the tokens; lines end in `\n`, whatever the files have.
pub(super) fn read(dir: &Path) -> Result<Source, DataError> {
    let config_path = dir.join(CONFIG_FILE);
    let config = keys(&config_path)?;
    let mut tokens = named(&config, &config_path)?;
    // The older file goes before the newer one, unless that lists the added tokens: as in transformers.
    if !config.contains_key("added_tokens_decoder") {
        let map_path = dir.join(MAP_FILE);
        tokens.extend(named(&keys(&map_path)?, &map_path)?);
    }
    let path = dir.join(TEMPLATE_FILE);
    let (path, template) = match text(&path)? {
        Some(template) => (path, template),
        None => match config.get("chat_template").filter(|value| !value.is_null()) {
            Some(value) => (config_path.clone(), chosen(value, &config_path)?),
            None => return Err(DataError::NoChatTemplate { folder: dir.to_path_buf() }),
        },
    };
    if let Some(problem) = unnamed(&class(dir, &config)?, &template, &tokens) {
        return Err(DataError::ChatTemplate { path, problem });
    }
    let template = template.replace("\r\n", "\n").replace('\r', "\n");
    let tokens = tokens.into_iter().filter_map(|(key, token)| Some((key, token?))).collect();
    Ok(Source { path, template, tokens })
}

/// The keys of a JSON file; none if it is absent.
fn keys(path: &Path) -> Result<Map<String, Value>, DataError> {
    let Some(text) = text(path)? else { return Ok(Map::new()) };
    serde_json::from_str(&text).map_err(|cause| DataError::ChatTemplate {
        path: path.to_path_buf(),
        problem: cause.to_string(),
    })
}

/// The class of the tokenizer or, where none is named, the type of the model.
fn class(dir: &Path, config: &Map<String, Value>) -> Result<String, DataError> {
    if let Some(class) = config.get("tokenizer_class").and_then(Value::as_str) {
        return Ok(class.strip_suffix("Fast").unwrap_or(class).to_owned());
    }
    let model = keys(&dir.join(MODEL_FILE))?;
    Ok(model.get("model_type").and_then(Value::as_str).unwrap_or_default().to_owned())
}

/// What is wrong with a template that mentions a token which no file names: transformers would write that of the class, and a blank were written
/// here.
fn unnamed(class: &str, template: &str, tokens: &Named) -> Option<String> {
    let (_, bos, eos) = DEFAULTS.iter().find(|(names, ..)| names.contains(&class))?;
    let mentioned = |key: &str| template.contains(key) && !tokens.contains_key(key);
    let defaults = [("bos_token", *bos), ("eos_token", Some(*eos))];
    let (key, token) = defaults
        .into_iter()
        .find_map(|(key, token)| Some((key, token?)).filter(|_| mentioned(key)))?;
    Some(format!(
        "it mentions `{key}`, which no file names; write it into {CONFIG_FILE}, {token:?} as transformers takes it for {class}, or null for none"
    ))
}

/// The contents of a file; `None` if it is absent.
fn text(path: &Path) -> Result<Option<String>, DataError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(DataError::Open { path: path.to_path_buf(), cause }),
    }
}

/// The special tokens that are named, each as text, as an object that has it as `content`, or as null. Keys that only end like theirs, such as
/// `add_bos_token`, may have other values.
fn named(keys: &Map<String, Value>, path: &Path) -> Result<Named, DataError> {
    let is_token = |key: &str| key.ends_with("_token") && !key.starts_with("add_");
    let tokens = keys.iter().filter(|(key, _)| is_token(key));
    tokens
        .map(|(key, value)| {
            let text = value.as_str().or_else(|| value.get("content")?.as_str());
            if text.is_none() && !value.is_null() && OF_TOKENS.contains(&key.as_str()) {
                let path = path.to_path_buf();
                let problem = format!(
                    "`{key}` is {value}, but has to be text, an object with text as `content`, or null"
                );
                return Err(DataError::ChatTemplate { path, problem });
            }
            Ok((key.clone(), text.map(str::to_owned)))
        })
        .collect()
}

/// The template itself, or the one named `default` of a list.
fn chosen(value: &Value, path: &Path) -> Result<String, DataError> {
    let named = |entry: &&Value| entry.get("name").and_then(Value::as_str) == Some("default");
    let template = match value {
        Value::Array(list) => list.iter().find(named).and_then(|entry| entry.get("template")),
        one => Some(one),
    };
    template.and_then(Value::as_str).map(str::to_owned).ok_or_else(|| DataError::ChatTemplate {
        path: path.to_path_buf(),
        problem: "`chat_template` has to be text, or a list of objects with `name` and `template` of which one is named default".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The tokens of a folder with these files, or why they are refused.
    fn tokens(files: &[(&str, &Value)]) -> Result<BTreeMap<String, String>, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, contents) in files {
            std::fs::write(dir.path().join(name), contents.to_string()).unwrap();
        }
        read(dir.path()).map(|source| source.tokens).map_err(|error| error.to_string())
    }

    #[test]
    fn the_older_file_goes_before_one_that_does_not_list_the_added_tokens() {
        let map =
            json!({ "bos_token": { "content": "<s>" }, "eos_token": "</s>", "pad_token": null });
        let mut config = json!({ "chat_template": "", "eos_token": "<end>", "pad_token": "<pad>", "unk_token": "?" });
        let found =
            |config: &Value| json!(tokens(&[(CONFIG_FILE, config), (MAP_FILE, &map)]).unwrap());
        let laid_over = json!({ "bos_token": "<s>", "eos_token": "</s>", "unk_token": "?" });
        assert_eq!(found(&config), laid_over);
        config["added_tokens_decoder"] = json!({});
        let own = json!({ "eos_token": "<end>", "pad_token": "<pad>", "unk_token": "?" });
        assert_eq!(found(&config), own);
        let (empty, wrong) = (json!({ "chat_template": "" }), json!({ "bos_token": 5 }));
        let error = tokens(&[(CONFIG_FILE, &empty), (MAP_FILE, &wrong)]).unwrap_err();
        assert!(error.contains(MAP_FILE) && error.contains("`bos_token` is 5"), "{error}");
    }

    #[test]
    fn a_token_that_only_its_class_has_may_not_be_mentioned() {
        let with = |template: &str, class: &str, model: &str, bos: Option<Value>| {
            let mut config = json!({ "chat_template": template });
            if !class.is_empty() {
                config["tokenizer_class"] = class.into();
            }
            if let Some(bos) = bos {
                config["bos_token"] = bos;
            }
            tokens(&[(CONFIG_FILE, &config), (MODEL_FILE, &json!({ "model_type": model }))])
        };
        for (template, class, model, told) in [
            ("{{ bos_token }}", "LlamaTokenizerFast", "", ["`bos_token`", "\"<s>\""]),
            ("{{ eos_token }}", "Qwen2Tokenizer", "", ["`eos_token`", "\"<|endoftext|>\""]),
            ("{{ bos_token }}", "", "gemma2", ["`bos_token`", "\"<bos>\""]),
        ] {
            let error = with(template, class, model, None).unwrap_err();
            for told in told.into_iter().chain([CONFIG_FILE, "or null"]) {
                assert!(error.contains(told), "{error}");
            }
        }
        for (template, class, model, bos) in [
            ("{{ bos_token }}", "LlamaTokenizer", "", Some(json!("<s>"))),
            ("{{ bos_token }}", "LlamaTokenizer", "", Some(Value::Null)),
            ("{{ bos_token }}", "Qwen2Tokenizer", "", None),
            ("{{ bos_token }}", "PreTrainedTokenizerFast", "gpt2", None),
            ("{{ messages }}", "LlamaTokenizer", "", None),
        ] {
            assert!(with(template, class, model, bos).is_ok(), "{template} {class}");
        }
    }
}
