//! A folder of its own for every input, so that no run sees the files of another.

use std::path::{Path, PathBuf};

/// A temporary folder, removed when this goes out of scope.
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// An empty folder.
    ///
    /// # Panics
    /// When the system refuses: that is no finding, and the run cannot go on.
    #[must_use]
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file and gives its path.
    ///
    /// # Panics
    /// As [`Folder::new`].
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, bytes).expect("a temporary file");
        path
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}
