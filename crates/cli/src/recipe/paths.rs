//! Paths in recipes: relative to the recipe's folder, or beginning with `$RUN` or `$INFALIGN_DATA`; for models also names on the hub.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use infalign_model::ModelFolder;
use infalign_record::env::data_dir;

use crate::{bundle, models};

/// Resolves the paths of a recipe.
pub(crate) struct Paths<'a> {
    /// The run's folder.
    pub(crate) run: &'a Path,
}

impl Paths<'_> {
    /// Where a path of a recipe lies on this machine.
    ///
    /// # Errors
    /// When the path begins with `$INFALIGN_DATA` and that is not set, or with another `$NAME`.
    pub(crate) fn resolve(&self, path: &Path) -> Result<PathBuf> {
        let mut parts = path.components();
        let first = parts
            .next()
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
            .unwrap_or_default();
        match first.as_str() {
            "$RUN" => Ok(self.run.join(parts.as_path())),
            "$INFALIGN_DATA" => match data_dir() {
                Some(data) => Ok(data.join(parts.as_path())),
                None => bail!(
                    "{} is needed: set INFALIGN_DATA to the folder that holds the data",
                    path.display()
                ),
            },
            name if name.starts_with('$') => bail!(
                "{}: a path may begin with $RUN or $INFALIGN_DATA, not {name}",
                path.display()
            ),
            _ => Ok(path.to_path_buf()),
        }
    }

    /// The folder of a model, whose name on the hub is told from a path by [`anchor_model`].
    ///
    /// # Errors
    /// As [`Paths::resolve`], and when the model is not in the hub's local cache.
    pub(crate) fn model(&self, model: &Path) -> Result<ModelFolder> {
        let folder = match models::hub_folder(model)? {
            Some(folder) => folder,
            None => self.resolve(model)?,
        };
        Ok(models::at(folder))
    }
}

/// Makes the path of a model absolute as [`anchor`] does, or gives its name on the hub the revision that the cache holds now: a run and
/// whoever goes on with it or repeats it read the same model. A path that exists wins.
///
/// # Errors
/// When the model is not in the hub's local cache.
pub(crate) fn anchor_model(model: &mut PathBuf, folder: &Path) -> Result<()> {
    let path = folder.join(model.as_path());
    let pinned = if path.exists() || bundle::holds(&path) { None } else { models::pinned(model)? };
    match pinned {
        Some(pinned) => *model = pinned,
        None => anchor(model, folder),
    }
    Ok(())
}

/// Makes a path absolute by the recipe's folder, unless it begins with a `$NAME`.
pub(crate) fn anchor(path: &mut PathBuf, folder: &Path) {
    if !path.to_string_lossy().starts_with('$') {
        *path = folder.join(path.as_path());
    }
}
