//! Models by path, or by their name on the Hugging Face hub.

use std::path::{Path, PathBuf};

use infalign_model::{HubModel, ModelError, ModelFolder};
use infalign_record::env::hub_cache;

/// The folder of a model that the command line names.
///
/// # Errors
/// [`ModelError`] when a name, such as `gpt2`, `org/name` or `org/name@revision`, is not in the hub's local cache.
pub(crate) fn folder(model: &Path) -> Result<ModelFolder, ModelError> {
    ModelFolder::find(model, &hub_cache())
}

/// The folder of a model that a recipe names on the hub; `None` for a path.
///
/// # Errors
/// As [`folder`].
pub(crate) fn hub_folder(model: &Path) -> Result<Option<PathBuf>, ModelError> {
    HubModel::parse(model).map(|hub| hub.locate(&hub_cache())).transpose()
}

/// A folder that a model is known to lie in.
pub(crate) fn at(folder: PathBuf) -> ModelFolder {
    ModelFolder::new(folder, &hub_cache())
}

/// The name of a model on the hub with the revision that the cache holds now; `None` for a path. One part alone is a path unless the
/// cache holds such a model.
///
/// # Errors
/// As [`folder`].
pub(crate) fn pinned(model: &Path) -> Result<Option<PathBuf>, ModelError> {
    let Some(hub) = HubModel::parse(model) else { return Ok(None) };
    match hub.pinned(&hub_cache()) {
        Err(ModelError::NotInCache { .. }) if model.components().count() == 1 => Ok(None),
        pinned => Ok(Some(pinned?.to_string().into())),
    }
}
