//! What the tests of both files share.

use std::path::PathBuf;

use infalign_calibrate::CalibrateError;

/// Reads a file with each of its bytes changed in turn, and cut off before each: nothing may panic, and every error has to name the file.
pub(crate) fn check_damage<T>(whole: &[u8], read: impl Fn(PathBuf) -> Result<T, CalibrateError>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.parquet");
    let error_of = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let error = read(path.clone()).err().map(|error| error.to_string());
        error.inspect(|error| assert!(error.contains("damaged.parquet"), "{error}"))
    };
    for place in 0..whole.len() {
        for flip in [0x01, 0x55, 0x80, 0xff] {
            let mut damaged = whole.to_vec();
            damaged[place] ^= flip;
            // Damage to a value may go unseen: the point is that the call returns.
            error_of(&damaged);
        }
        assert!(error_of(&whole[..place]).is_some(), "{place}");
    }
}
