//! The quickstart's inputs, compiled into the binary: `infalign train` needs nothing else.

use std::path::Path;

use infalign_record::RecordError;
use infalign_record::atomic::write_dir_atomic;

/// File names under the bundle's folder and their contents.
const FILES: [(&str, &[u8]); 7] = [
    ("quickstart/train.jsonl", include_bytes!("../../../recipes/quickstart/train.jsonl")),
    ("quickstart/test.jsonl", include_bytes!("../../../recipes/quickstart/test.jsonl")),
    (
        "quickstart/model/config.json",
        include_bytes!("../../../recipes/quickstart/model/config.json"),
    ),
    (
        "quickstart/model/model.safetensors",
        include_bytes!("../../../recipes/quickstart/model/model.safetensors"),
    ),
    (
        "quickstart/model/tokenizer.json",
        include_bytes!("../../../recipes/quickstart/model/tokenizer.json"),
    ),
    (
        "quickstart/model/tokenizer_config.json",
        include_bytes!("../../../recipes/quickstart/model/tokenizer_config.json"),
    ),
    (
        "quickstart/model/generation_config.json",
        include_bytes!("../../../recipes/quickstart/model/generation_config.json"),
    ),
];

/// The quickstart recipe; its paths are relative to [`FOLDER`].
pub(crate) const RECIPE: &str = include_str!("../../../recipes/quickstart.toml");

/// Where the recipe's inputs are unpacked.
pub(crate) const FOLDER: &str = "$RUN/inputs";

/// Whether a path in [`FOLDER`] will be there once the inputs are unpacked.
pub(crate) fn holds(path: &Path) -> bool {
    let inside = |rest| FILES.iter().any(|(name, _)| Path::new(name).starts_with(rest));
    path.strip_prefix(FOLDER).is_ok_and(inside)
}

/// Writes the inputs to `RUN/inputs`, unless they are there.
///
/// # Errors
/// [`RecordError`] when a file cannot be written.
pub(crate) fn unpack(run: &Path) -> Result<(), RecordError> {
    let inputs = run.join("inputs");
    if inputs.exists() {
        return Ok(());
    }
    write_dir_atomic::<RecordError>(&inputs, |folder| {
        for (name, bytes) in FILES {
            let path = folder.join(name);
            let failed = |cause| RecordError::Io { action: "write", path: path.clone(), cause };
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(failed)?;
            }
            std::fs::write(&path, bytes).map_err(failed)?;
        }
        Ok(())
    })
}
