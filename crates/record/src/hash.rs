//! SHA-256 of files and of bytes, as lower-case hexadecimal.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::RecordError;

const CHUNK_BYTES: usize = 1 << 16;

/// The SHA-256 of a file's bytes: 64 hexadecimal digits. Reads in chunks, so size does not matter.
///
/// # Errors
/// [`RecordError::Io`] when the file cannot be opened or read to its end.
pub fn sha256_file(path: &Path) -> Result<String, RecordError> {
    let file = File::open(path).map_err(RecordError::io("open", path))?;
    sha256_of(file).map_err(RecordError::io("read", path))
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
        let error = sha256_file(Path::new("no/such/file")).unwrap_err().to_string();
        assert!(error.contains("no/such/file"), "{error}");
    }
}
