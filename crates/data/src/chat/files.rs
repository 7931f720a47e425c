//! Where a model's folder keeps its chat template and special tokens.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::DataError;

const TEMPLATE_FILE: &str = "chat_template.jinja";
const CONFIG_FILE: &str = "tokenizer_config.json";

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
    let config: Map<String, Value> = match text(&config_path)? {
        Some(text) => serde_json::from_str(&text).map_err(|cause| DataError::ChatTemplate {
            path: config_path.clone(),
            problem: cause.to_string(),
        })?,
        None => Map::new(),
    };
    let tokens = tokens(&config, &config_path)?;
    let path = dir.join(TEMPLATE_FILE);
    let (path, template) = match text(&path)? {
        Some(template) => (path, template),
        None => match config.get("chat_template").filter(|value| !value.is_null()) {
            Some(value) => (config_path.clone(), chosen(value, &config_path)?),
            None => return Err(DataError::NoChatTemplate { folder: dir.to_path_buf() }),
        },
    };
    Ok(Source { path, template: template.replace("\r\n", "\n").replace('\r', "\n"), tokens })
}

/// The contents of a file; `None` if it is absent.
fn text(path: &Path) -> Result<Option<String>, DataError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(DataError::Open { path: path.to_path_buf(), cause }),
    }
}

/// The special tokens that are set, each as text or as an object that has it as `content`; `add_bos_token` and its like are switches.
fn tokens(config: &Map<String, Value>, path: &Path) -> Result<BTreeMap<String, String>, DataError> {
    let is_token = |key: &str| key.ends_with("_token") && !key.starts_with("add_");
    let set = config.iter().filter(|(key, value)| is_token(key) && !value.is_null());
    set.map(|(key, value)| {
        let text = value.as_str().or_else(|| value.get("content")?.as_str());
        let text = text.ok_or_else(|| DataError::ChatTemplate {
            path: path.to_path_buf(),
            problem: format!(
                "`{key}` is {value}, but has to be text, an object with text as `content`, or null"
            ),
        })?;
        Ok((key.clone(), text.to_owned()))
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
