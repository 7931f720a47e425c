//! The environment variables that infalign reads, each through one function.

use std::ffi::OsString;
use std::path::PathBuf;

/// The folder with the real data sets that some tests and recipes use, from `INFALIGN_DATA`.
///
/// `None` when the variable is unset or empty. The folder need not exist.
#[must_use]
pub fn data_dir() -> Option<PathBuf> {
    folder(std::env::var_os("INFALIGN_DATA"))
}

fn folder(value: Option<OsString>) -> Option<PathBuf> {
    value.filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_counts_as_unset() {
        assert_eq!(folder(None), None);
        assert_eq!(folder(Some(OsString::new())), None);
        assert_eq!(folder(Some("data".into())), Some(PathBuf::from("data")));
    }
}
