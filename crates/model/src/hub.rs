//! Models by their name on the Hugging Face hub, found in its local cache and never fetched.
//!
//! The cache keeps `models--ORG--NAME/refs/REVISION`, a file with a commit's hash, and `models--ORG--NAME/snapshots/HASH/`, whose files
//! are links to `blobs/`. The oldest models have no organisation, and lie in `models--NAME`.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::ModelError;
use crate::lora::peft;

/// The revision that a name without one means.
const MAIN: &str = "main";

/// A model on the hub: `org/name`, or `org/name@revision` with a branch, a tag or a commit's hash; of the oldest models the name alone,
/// such as `gpt2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubModel {
    /// With its organisation, if it has one.
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
        let are_parts = |text: &str| text.split('/').all(is_part);
        let is_name = are_parts(id) && id.split('/').count() <= 2;
        let valid = is_name && revision.is_none_or(are_parts);
        valid.then(|| Self { name: id.to_owned(), revision: revision.map(str::to_owned) })
    }

    /// The model whose snapshot in a cache a folder is.
    pub(crate) fn of_snapshot(folder: &Path) -> Option<Self> {
        let above = folder.parent().filter(|above| above.ends_with("snapshots"))?.parent()?;
        let name = above.file_name()?.to_str()?.strip_prefix("models--")?.replace("--", "/");
        let revision = folder.file_name()?.to_str()?;
        Self::parse(Path::new(&format!("{name}@{revision}")))
    }

    /// The same model, at a revision where it has none.
    pub(crate) fn or_at(self, revision: Option<String>) -> Self {
        Self { revision: self.revision.or(revision), ..self }
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

    /// The model's folder in the cache. Whether its weights are there, too, is found when they are read.
    ///
    /// # Errors
    /// [`ModelError::NotInCache`], [`ModelError::NoRevision`] with those that are there, or [`ModelError::Partial`] when `config.json`, or
    /// what an adapter has in its place, is missing. Each names the command that fetches the model.
    pub fn locate(&self, cache: &Path) -> Result<PathBuf, ModelError> {
        let folder = cache.join(format!("models--{}", self.name.replace('/', "--")));
        if !folder.is_dir() {
            let (model, cache) = (self.to_string(), cache.to_path_buf());
            return Err(ModelError::NotInCache { model, cache, command: self.command() });
        }
        let revision = self.revision.as_deref().unwrap_or(MAIN);
        let Some(snapshot) = snapshot(&folder, revision) else {
            let (wanted, present) = (folder.join("refs").join(revision), present(&folder));
            return Err(ModelError::NoRevision { wanted, present, command: self.command() });
        };
        let config = snapshot.join("config.json");
        if config.exists() || peft::is_adapter(&snapshot) {
            return Ok(snapshot);
        }
        Err(self.lacks(config))
    }

    /// The error for a file that the model's snapshot lacks.
    pub(crate) fn lacks(&self, missing: PathBuf) -> ModelError {
        ModelError::Partial { missing, command: self.command() }
    }

    fn command(&self) -> String {
        let revision = self.revision.as_ref().map(|revision| format!(" --revision {revision}"));
        format!("hf download {}{}", self.name, revision.unwrap_or_default())
    }
}

impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))
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
        for name in ["org/name", "gpt2", "0rg-1/Na.me_2", "org/name@v1.0", "org/name@refs/pr/3"] {
            assert_eq!(HubModel::parse(Path::new(name)).unwrap().to_string(), name);
        }
        for path in [
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
    fn a_name_of_one_part_has_a_folder_of_one_part() {
        let cache = tempfile::tempdir().unwrap();
        let snapshot = cache.path().join("models--gpt2/snapshots").join(HASH);
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::write(snapshot.join("config.json"), "{}").unwrap();
        assert_eq!(at(&cache, &format!("gpt2@{HASH}")).unwrap(), snapshot);
        let of_snapshot = HubModel::of_snapshot(&snapshot).unwrap();
        assert_eq!(of_snapshot.to_string(), format!("gpt2@{HASH}"));
        let error = at(&cache, "gpt3").unwrap_err().to_string();
        assert!(error.contains("`hf download gpt3`"), "{error}");
    }

    #[test]
    fn a_snapshot_has_to_hold_a_model_or_an_adapter() {
        let cache = cache();
        add(cache.path(), "a1", &["tokenizer.json"]);
        let error = at(&cache, "org/tiny@a1").unwrap_err();
        assert!(
            matches!(&error, ModelError::Partial { missing, .. } if missing.ends_with("config.json")),
            "{error}"
        );
        assert!(error.to_string().contains("`hf download org/tiny --revision a1`"), "{error}");
        let adapter = add(cache.path(), "b2", &["adapter_config.json"]);
        assert_eq!(at(&cache, "org/tiny@b2").unwrap(), adapter);
    }

    #[cfg(unix)]
    #[test]
    fn files_are_links_to_blobs_and_a_link_to_nothing_is_missing() {
        use std::os::unix::fs::symlink;
        let cache = cache();
        let snapshot = add(cache.path(), "d4", &[]);
        let (blob, link) =
            (cache.path().join("models--org--tiny/blob"), snapshot.join("config.json"));
        symlink("../../blob", &link).unwrap();
        assert!(matches!(at(&cache, "org/tiny@d4"), Err(ModelError::Partial { .. })));
        std::fs::write(&blob, "").unwrap();
        assert_eq!(at(&cache, "org/tiny@d4").unwrap(), snapshot);
    }
}
