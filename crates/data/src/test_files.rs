//! Small files for the tests, and the way to the real data sets.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

/// A file in a folder of its own, deleted when this goes out of scope.
pub(crate) struct TestFile {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl TestFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

pub(crate) fn plain(name: &str, text: &str) -> TestFile {
    written(name, text.as_bytes())
}

pub(crate) fn gz(name: &str, text: &str) -> TestFile {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    written(name, &encoder.finish().unwrap())
}

fn written(name: &str, bytes: &[u8]) -> TestFile {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    TestFile { _folder: folder, path }
}

/// A file of the real data sets; `None`, with a loud note, where they are absent.
pub(crate) fn real(relative: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("INFALIGN_DATA").filter(|folder| !folder.is_empty());
    if folder.is_none() {
        eprintln!("SKIPPED: set INFALIGN_DATA to the folder that holds {relative}.");
    }
    folder.map(|folder| Path::new(&folder).join(relative))
}
