//! Models by their name on the Hugging Face hub, found in its local cache and never fetched.
//!
//! The cache keeps `models--ORG--NAME/refs/REVISION`, a file with a commit's hash, and `models--ORG--NAME/snapshots/HASH/`, whose files
//! are links to `blobs/`.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::ModelError;
use crate::checkpoint::weight_files;

/// The revision that a name without one means.
const MAIN: &str = "main";

/// A model on the hub: `org/name`, or `org/name@revision` with a branch, a tag or a commit's hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubModel {
    organisation: String,
    name: String,
    revision: Option<String>,
}

impl HubModel {
    /// The model of this name; `None` for text of another form, such as most paths.
    #[must_use]
    pub fn parse(text: &Path) -> Option<Self> {
        let (id, revision) = match text.to_str()?.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (text.to_str()?, None),
        };
        let (organisation, name) = id.split_once('/')?;
        let is_revision = |text: &str| text.split('/').all(is_part);
        let valid = is_part(organisation) && is_part(name) && revision.is_none_or(is_revision);
        valid.then(|| Self {
            organisation: organisation.to_owned(),
            name: name.to_owned(),
            revision: revision.map(str::to_owned),
        })
    }

    /// The same model at the revision that the cache holds now, by its hash, so that a later download cannot change it.
    ///
    /// # Errors
    /// As [`HubModel::locate`].
    pub fn pinned(&self, cache: &Path) -> Result<Self, ModelError> {
        let snapshot = self.locate(cache)?;
        let hash = snapshot.file_name().map(|hash| hash.to_string_lossy().into_owned());
        Ok(Self { revision: hash, ..self.clone() })
    }

    /// The model's folder in the cache.
    ///
    /// # Errors
    /// [`ModelError::NotInCache`], [`ModelError::NoRevision`] with those that are there, or [`ModelError::Partial`] when `config.json` or
    /// weights are missing. Each names the command that fetches the model.
    pub fn locate(&self, cache: &Path) -> Result<PathBuf, ModelError> {
        let folder = cache.join(format!("models--{}--{}", self.organisation, self.name));
        if !folder.is_dir() {
            let (model, cache) = (self.to_string(), cache.to_path_buf());
            return Err(ModelError::NotInCache { model, cache, command: self.command() });
        }
        let revision = self.revision.as_deref().unwrap_or(MAIN);
        let Some(snapshot) = snapshot(&folder, revision) else {
            let (wanted, present) = (folder.join("refs").join(revision), present(&folder));
            return Err(ModelError::NoRevision { wanted, present, command: self.command() });
        };
        let missing = |path: &PathBuf| !path.exists();
        let config = snapshot.join("config.json");
        let files = std::iter::once(config).chain(weight_files(&snapshot)?);
        match files.into_iter().find(missing) {
            Some(missing) => Err(ModelError::Partial { missing, command: self.command() }),
            None => Ok(snapshot),
        }
    }

    fn command(&self) -> String {
        let revision = self.revision.as_ref().map(|revision| format!(" --revision {revision}"));
        format!("hf download {}/{}{}", self.organisation, self.name, revision.unwrap_or_default())
    }
}

impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.organisation, self.name)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))
    }
}

/// The folder of a model that is named by a path or by its name on the hub; a path that exists wins, and any other text that is no name
/// is left as it stands.
///
/// # Errors
/// As [`HubModel::locate`].
pub fn locate(model: &Path, cache: &Path) -> Result<PathBuf, ModelError> {
    match HubModel::parse(model).filter(|_| !model.exists()) {
        Some(hub) => hub.locate(cache),
        None => Ok(model.to_path_buf()),
    }
}

/// Whether the hub allows such a part of a name.
fn is_part(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !text.is_empty() && !text.starts_with(['.', '-']) && text.chars().all(allowed)
}

/// The snapshot of a revision: its own if it is a hash, or that of the hash it stands for.
fn snapshot(folder: &Path, revision: &str) -> Option<PathBuf> {
    let snapshots = folder.join("snapshots");
    let named = std::fs::read_to_string(folder.join("refs").join(revision)).ok();
    let hashes = [Some(revision), named.as_deref().map(str::trim)];
    let folders = hashes.into_iter().flatten().filter(|hash| is_part(hash));
    folders.map(|hash| snapshots.join(hash)).find(|snapshot| snapshot.is_dir())
}

/// The revisions that a model's folder holds, in words.
fn present(folder: &Path) -> String {
    let entries = |name: &str| std::fs::read_dir(folder.join(name)).into_iter().flatten().flatten();
    let name = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut names: Vec<String> =
        entries("refs").filter(|entry| entry.path().is_file()).map(name).collect();
    names.retain(|revision| snapshot(folder, revision).is_some());
    names.extend(entries("snapshots").map(name));
    names.sort();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

    /// A cache that holds `org/tiny` at a commit, which is `main`.
    fn cache() -> TempDir {
        let cache = tempfile::tempdir().unwrap();
        add(cache.path(), HASH, &["config.json", "model.safetensors"]);
        let refs = cache.path().join("models--org--tiny/refs");
        std::fs::create_dir_all(&refs).unwrap();
        std::fs::write(refs.join("main"), HASH).unwrap();
        cache
    }

    fn add(cache: &Path, hash: &str, files: &[&str]) -> PathBuf {
        let snapshot = cache.join("models--org--tiny/snapshots").join(hash);
        std::fs::create_dir_all(&snapshot).unwrap();
        files.iter().for_each(|name| std::fs::write(snapshot.join(name), "{}").unwrap());
        snapshot
    }

    fn at(cache: &TempDir, model: &str) -> Result<PathBuf, ModelError> {
        HubModel::parse(Path::new(model)).unwrap().locate(cache.path())
    }

    #[test]
    fn names_are_told_from_paths() {
        for name in ["org/name", "0rg-1/Na.me_2", "org/name@v1.0", "org/name@refs/pr/3"] {
            assert_eq!(HubModel::parse(Path::new(name)).unwrap().to_string(), name);
        }
        for path in [
            "name",
            "/org/name",
            "./name",
            "../name",
            "a/b/c",
            "a/",
            "$RUN/m",
            "~/m",
            "a/..",
            "a/b@",
            "a/b@../c",
        ] {
            assert_eq!(HubModel::parse(Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn a_model_is_found_by_name_branch_and_hash() {
        let cache = cache();
        let snapshot = cache.path().join("models--org--tiny/snapshots").join(HASH);
        for model in ["org/tiny", "org/tiny@main", &format!("org/tiny@{HASH}")] {
            assert_eq!(at(&cache, model).unwrap(), snapshot);
        }
        let pinned = HubModel::parse(Path::new("org/tiny")).unwrap().pinned(cache.path()).unwrap();
        assert_eq!(pinned.to_string(), format!("org/tiny@{HASH}"));
    }

    #[test]
    fn a_path_that_exists_wins() {
        let (cache, here) = (cache(), tempfile::tempdir().unwrap());
        assert_eq!(locate(here.path(), cache.path()).unwrap(), here.path());
        assert_eq!(locate(Path::new("none"), cache.path()).unwrap(), Path::new("none"));
        // `src/hub.rs` has the form of a name, and is there when a crate's tests run.
        assert_eq!(locate(Path::new("src/hub.rs"), cache.path()).unwrap(), Path::new("src/hub.rs"));
        assert!(locate(Path::new("org/tiny"), cache.path()).unwrap().ends_with(HASH));
    }

    #[test]
    fn what_is_absent_is_named_with_the_command_that_fetches_it() {
        let cache = cache();
        let error = at(&cache, "org/other@v2").unwrap_err().to_string();
        assert!(error.contains(&cache.path().display().to_string()), "{error}");
        assert!(error.contains("`hf download org/other --revision v2`"), "{error}");
        let error = at(&cache, "org/tiny@v2").unwrap_err().to_string();
        assert!(
            error.contains("models--org--tiny/refs/v2") && error.contains(&format!("{HASH}, main")),
            "{error}"
        );
    }

    #[test]
    fn a_partial_download_is_told_from_a_whole_one() {
        let cache = cache();
        let index = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
        for (hash, files, missing) in [
            ("a1", vec!["tokenizer.json"], "config.json"),
            ("b2", vec!["config.json"], "model.safetensors"),
            ("c3", vec!["config.json", "model-1.safetensors"], "model-2.safetensors"),
        ] {
            let snapshot = add(cache.path(), hash, &files);
            if files.len() > 1 {
                std::fs::write(snapshot.join("model.safetensors.index.json"), index).unwrap();
            }
            let error = at(&cache, &format!("org/tiny@{hash}")).unwrap_err();
            assert!(
                matches!(&error, ModelError::Partial { missing: path, .. } if path.ends_with(missing)),
                "{error}"
            );
            assert!(error.to_string().contains("`hf download org/tiny --revision"), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn files_are_links_to_blobs_and_a_link_to_nothing_is_missing() {
        use std::os::unix::fs::symlink;
        let cache = cache();
        let snapshot = add(cache.path(), "d4", &["config.json"]);
        let (blob, link) =
            (cache.path().join("models--org--tiny/blob"), snapshot.join("model.safetensors"));
        symlink("../../blob", &link).unwrap();
        assert!(matches!(at(&cache, "org/tiny@d4"), Err(ModelError::Partial { .. })));
        std::fs::write(&blob, "").unwrap();
        assert_eq!(at(&cache, "org/tiny@d4").unwrap(), snapshot);
    }
}
