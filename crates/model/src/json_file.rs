//! JSON files in and out.

use std::io::ErrorKind;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::ModelError;

/// Reads a file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    let text = std::fs::read_to_string(path).map_err(ModelError::read(path))?;
    serde_json::from_str(&text).map_err(|source| ModelError::Json { path: path.into(), source })
}

/// The keys of a file; none if it is absent.
pub(crate) fn keys(path: &Path) -> Result<Map<String, Value>, ModelError> {
    match read(path) {
        Err(ModelError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            Ok(Map::new())
        }
        keys => keys,
    }
}

/// Writes a file.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> Result<(), ModelError> {
    let text = serde_json::to_vec_pretty(value)
        .map_err(|source| ModelError::Json { path: path.into(), source })?;
    std::fs::write(path, text).map_err(ModelError::write(path))
}
