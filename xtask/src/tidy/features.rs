//! Whoever depends on one library alone chooses its backend by that library's features.

use super::{File, Finding};

/// Those of `infalign-backend`. The CPU, which all have as their default, is named otherwise by what lies on top: with all defaults.
const PASSED_ON: [&str; 4] = ["wgpu", "cuda", "cuda-nvrtc", "autotune"];
const BACKEND: &str = "infalign-backend.workspace = true";

/// Checks one Cargo.toml of a crate that depends on `infalign-backend`: it has the features of that, and passes them on.
pub(super) fn check(manifest: &File) -> Vec<Finding> {
    let has = |line: &str| manifest.text.lines().any(|text| text == line);
    if !manifest.path.starts_with("crates/") || !has(BACKEND) {
        return Vec::new();
    }
    let passed_on = PASSED_ON.map(|name| format!("{name} = [\"infalign-backend/{name}\"]"));
    let wanted = passed_on.into_iter().chain(["default = [\"flex\"]".to_owned()]);
    let missing = wanted.filter(|line| !has(line));
    missing
        .map(|line| {
            let what = format!(
                "`{line}` is missing among the features: whoever depends on this crate alone chooses a backend by them."
            );
            Finding::new(&manifest.path, 1, what)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        check(&File { path: path.to_owned(), text: text.to_owned() }).len()
    }

    #[test]
    fn a_feature_that_is_not_passed_on_is_found() {
        let text = "[features]\ndefault = [\"flex\"]\nwgpu = [\"infalign-backend/wgpu\"]\ncuda = [\"infalign-backend/cuda\"]\n\
                    cuda-nvrtc = [\"infalign-backend/cuda-nvrtc\"]\nautotune = [\"infalign-backend/autotune\"]\n\
                    [dependencies]\ninfalign-backend.workspace = true\n";
        assert_eq!(found("crates/model/Cargo.toml", text), 0);
        assert_eq!(
            found("crates/model/Cargo.toml", &text.replace("backend/cuda\"", "backend/wgpu\"")),
            1
        );
        assert_eq!(found("crates/model/Cargo.toml", &text.replace("default", "others")), 1);
        assert_eq!(found("crates/stats/Cargo.toml", "[dependencies]\n"), 0);
    }
}
