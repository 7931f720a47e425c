//! Models by path, or by their name on the Hugging Face hub.

use std::path::{Path, PathBuf};

use infalign_model::{HubModel, ModelError, locate};
use infalign_record::env::hub_cache;

/// The folder of a model that the command line names.
///
/// # Errors
/// [`ModelError`] when a name, `org/name` or `org/name@revision`, is not in the hub's local cache.
pub(crate) fn folder(model: &Path) -> Result<PathBuf, ModelError> {
    locate(model, &hub_cache())
}

/// The folder of a model that a recipe names on the hub; `None` for a path.
///
/// # Errors
/// As [`folder`].
pub(crate) fn hub_folder(model: &Path) -> Result<Option<PathBuf>, ModelError> {
    HubModel::parse(model).map(|hub| hub.locate(&hub_cache())).transpose()
}

/// The name of a model on the hub with the revision that the cache holds now; `None` for a path.
///
/// # Errors
/// As [`folder`].
pub(crate) fn pinned(model: &Path) -> Result<Option<PathBuf>, ModelError> {
    let pinned = HubModel::parse(model).map(|hub| hub.pinned(&hub_cache())).transpose()?;
    Ok(pinned.map(|hub| hub.to_string().into()))
}
