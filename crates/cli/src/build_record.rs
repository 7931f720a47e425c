//! What this program was built from: what `build.rs` found out.

use std::ffi::OsString;

use infalign_record::{BuildRecord, Source};

use crate::failure::Failure;
use crate::output;

/// Whether the command line is `--version --verbose`.
pub(crate) fn is_asked_for(words: impl Iterator<Item = OsString>) -> bool {
    let words: Vec<OsString> = words.collect();
    let has = |names: [&str; 2]| words.iter().any(|word| names.iter().any(|name| word == name));
    words.len() == 2 && has(["--version", "-V"]) && has(["--verbose", "-v"])
}

/// Prints the build.
///
/// # Errors
/// As [`output::print()`].
pub(crate) fn print() -> Result<(), Failure> {
    let rows = build_record().rows();
    let rows: Vec<_> = rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    output::print_rows(&rows)
}

/// The build of this program.
pub(crate) fn build_record() -> BuildRecord {
    let given = |value: Option<&str>| value.map(str::to_owned);
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    BuildRecord {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        build_id: text(option_env!("INFALIGN_BUILD_ID")),
        source: Source {
            sha256: text(option_env!("INFALIGN_BUILD_SOURCE_SHA256")),
            commit: given(option_env!("INFALIGN_BUILD_COMMIT")),
            revision: given(option_env!("INFALIGN_BUILD_REVISION")),
            directory: given(option_env!("INFALIGN_BUILD_DIRECTORY")),
            dirty: option_env!("INFALIGN_BUILD_DIRTY").map(|value| value == "true"),
            diff_sha256: given(option_env!("INFALIGN_BUILD_DIFF_SHA256")),
            untracked: option_env!("INFALIGN_BUILD_UNTRACKED").and_then(|n| n.parse().ok()),
            remote: given(option_env!("INFALIGN_BUILD_REMOTE")),
        },
        cargo_lock_sha256: text(option_env!("INFALIGN_BUILD_LOCK_SHA256")),
        rustc: text(option_env!("INFALIGN_BUILD_RUSTC")),
        cargo: given(option_env!("INFALIGN_BUILD_CARGO")),
        linker: given(option_env!("INFALIGN_BUILD_LINKER")),
        target: text(option_env!("INFALIGN_BUILD_TARGET")),
        target_cpu: given(option_env!("INFALIGN_BUILD_TARGET_CPU")),
        target_features: text(option_env!("INFALIGN_BUILD_TARGET_FEATURES")),
        rustflags: given(option_env!("INFALIGN_BUILD_RUSTFLAGS")),
        profile: text(option_env!("INFALIGN_BUILD_PROFILE")),
        profile_variables: given(option_env!("INFALIGN_BUILD_PROFILE_VARIABLES")),
        opt_level: text(option_env!("INFALIGN_BUILD_OPT_LEVEL")),
        debug_assertions: cfg!(debug_assertions),
        features: text(option_env!("INFALIGN_BUILD_FEATURES")),
        burn: given(option_env!("INFALIGN_BUILD_BURN")),
        cubecl: given(option_env!("INFALIGN_BUILD_CUBECL")),
    }
}
