//! SHA-256 of files and of bytes, as lower-case hexadecimal.
//!
//! Digests of the inputs on record and of models are kept for the rest of the process ([`sha256_input`]): every stage asks for those of models.
//! All other digests, of what was written and of what is verified among them, are those of the bytes that are there when they are asked for
//! ([`sha256_file`]).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use crate::RecordError;

const CHUNK_BYTES: usize = 1 << 16;
/// Seconds after which another change of a file has another time: file systems count them in steps of up to two seconds.
const SETTLED: i64 = 3;

/// Digests of inputs that this process has read.
static INPUTS: Mutex<BTreeMap<PathBuf, (Stamp, String)>> = Mutex::new(BTreeMap::new());

/// What a file's metadata say of whether its bytes are those that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(unix), allow(dead_code, reason = "none is made there"))]
struct Stamp {
    /// Device, inode and size.
    file: [u64; 3],
    /// When its bytes were changed, and when its metadata were, which programs cannot set: seconds and nanoseconds.
    changed: [(i64, i64); 2],
}

impl Stamp {
    #[cfg(unix)]
    fn of(file: &File) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;

        let data = file.metadata().ok()?;
        let changed = [(data.mtime(), data.mtime_nsec()), (data.ctime(), data.ctime_nsec())];
        Some(Self { file: [data.dev(), data.ino(), data.len()], changed })
    }

    /// None where files have no time that programs cannot set.
    #[cfg(not(unix))]
    fn of(_: &File) -> Option<Self> {
        None
    }

    /// Whether the last change is so long ago that another would have another time.
    fn is_settled(self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let settled = |(seconds, _): (i64, i64)| {
            i64::try_from(now).is_ok_and(|now| seconds.saturating_add(SETTLED) <= now)
        };
        self.changed.into_iter().all(settled)
    }
}

/// The SHA-256 of a file's bytes: 64 hexadecimal digits. Reads in chunks, so size does not matter.
///
/// # Errors
/// [`RecordError::Io`] when the file cannot be opened or read to its end.
pub fn sha256_file(path: &Path) -> Result<String, RecordError> {
    let file = File::open(path).map_err(RecordError::io("open", path))?;
    sha256_of(file).map_err(RecordError::io("read", path))
}

/// The SHA-256 of a file that a run reads, as [`sha256_file`]. It is computed once in a process, and again where the file's device, inode, size or a
/// time of its changes is another than then, or that change was so short before that a later one could have the same time. On systems without
/// inodes it is computed each time.
///
/// Whether a file is as it was recorded is to be asked of [`sha256_file`].
///
/// # Errors
/// As [`sha256_file`].
pub fn sha256_input(path: &Path) -> Result<String, RecordError> {
    input_at(path, SystemTime::now())
}

fn input_at(path: &Path, now: SystemTime) -> Result<String, RecordError> {
    let file = File::open(path).map_err(RecordError::io("open", path))?;
    let before = Stamp::of(&file);
    let kept = inputs().get(path).filter(|(stamp, _)| Some(*stamp) == before).cloned();
    if let Some((_, digest)) = kept {
        return Ok(digest);
    }
    let digest = sha256_of(&file).map_err(RecordError::io("read", path))?;
    let whole = before.filter(|stamp| stamp.is_settled(now) && Stamp::of(&file) == before);
    if let Some(stamp) = whole {
        inputs().insert(path.to_path_buf(), (stamp, digest.clone()));
    }
    Ok(digest)
}

fn inputs() -> MutexGuard<'static, BTreeMap<PathBuf, (Stamp, String)>> {
    INPUTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The SHA-256 of all that can be read.
pub(crate) fn sha256_of(mut bytes: impl Read) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0_u8; CHUNK_BYTES];
    loop {
        let n = bytes.read(&mut chunk)?;
        if n == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&chunk[..n]);
    }
}

/// The SHA-256 of the given bytes: 64 hexadecimal digits.
#[must_use]
pub fn sha256_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The first 12 digits of a digest or of a commit, which tell it from others.
pub(crate) fn head(digest: &str) -> &str {
    // What others have recorded need not be digits.
    digest.char_indices().nth(12).map_or(digest, |(end, _)| &digest[..end])
}

fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::with_capacity(2 * digest.len()), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}"); // writing to a String cannot fail
        digits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digests of "" and "abc" are the examples of FIPS 180-4.
    #[test]
    fn known_digests() {
        assert_eq!(
            sha256_bytes(b""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(
            sha256_bytes(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_digest_is_told_by_its_first_digits_whatever_it_is() {
        let heads = ["0123456789abcdef", "0123456789ab", "01", "ääääääääääääää"].map(head);
        assert_eq!(heads, ["0123456789ab", "0123456789ab", "01", "ääääääääääää"]);
    }

    #[test]
    fn a_file_longer_than_a_chunk_hashes_like_its_bytes() {
        let bytes: Vec<u8> = (0..3 * CHUNK_BYTES + 7).map(|i| (i % 251) as u8).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long.bin");
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(sha256_file(&path).unwrap(), sha256_bytes(&bytes));
    }

    #[test]
    fn a_missing_file_is_named() {
        let path = Path::new("no/such/file");
        for error in [sha256_file(path), sha256_input(path)].map(Result::unwrap_err) {
            assert!(error.to_string().contains("no/such/file"), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn an_input_is_read_again_where_it_may_be_another() {
        let folder = tempfile::tempdir().unwrap();
        let [path, other] = ["input", "other"].map(|name| folder.path().join(name));
        let now = SystemTime::now();
        let later = now + std::time::Duration::from_secs(60);
        std::fs::write(&path, "abc").unwrap();
        let of = |now| input_at(&path, now).unwrap();
        let abc = sha256_bytes(b"abc");
        // It has only just been written: it could be written again at the same time.
        assert_eq!(of(now), abc);
        assert!(!inputs().contains_key(&path));
        assert_eq!(of(later), abc);
        let keep = || inputs().get_mut(&path).unwrap().1 = "kept".to_owned();
        keep();
        assert_eq!(of(later), "kept");
        assert_eq!(sha256_file(&path).unwrap(), abc, "of the bytes");

        std::fs::write(&path, "abcd").unwrap();
        assert_eq!(of(later), sha256_bytes(b"abcd"), "another size");
        keep();
        // As long, and of the same time.
        std::fs::write(&other, "abce").unwrap();
        let modified = path.metadata().unwrap().modified().unwrap();
        File::options().write(true).open(&other).unwrap().set_modified(modified).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(of(later), sha256_bytes(b"abce"), "another inode");
    }
}
