//! Files and folders that commands read and write: errors name them, and what is written is there whole or not at all.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use infalign_record::atomic::write_atomic;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::resume::Damaged;

/// Makes a folder, and those around it, where it is not there.
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}

/// Reads a file that an earlier stage of a run wrote. What is no plain file may never end, and is not read.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_slice(&read(path)?).with_context(|| Damaged::at(path))
}

/// The bytes of such a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let unread = || format!("cannot read {}", path.display());
    if !std::fs::metadata(path).with_context(unread)?.is_file() {
        return Err(anyhow!("it is no plain file").context(Damaged::at(path)));
    }
    std::fs::read(path).with_context(unread)
}

/// The lines of a file with their ends, one behind the other, without the byte order mark that an editor may have set before them; one that has no
/// end was cut off and is left out. None where there is no file.
pub(crate) fn whole_lines(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        read => read.with_context(|| format!("cannot read {}", path.display()))?,
    };
    bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1));
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    Ok(bytes)
}

/// Writes a value as JSON.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write(path, serde_json::to_vec_pretty(value)?)
}

/// Writes a file.
pub(crate) fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    Ok(write_atomic(path, |file| file.write_all(bytes.as_ref()))?)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_plain_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("samples.json");
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        let error = read_json::<serde_json::Value>(&path).unwrap_err();
        assert!(error.is::<Damaged>());
        let told = format!("{error:#}");
        assert!(told.contains("samples.json") && told.contains("it is no plain file"), "{told}");
    }
}
