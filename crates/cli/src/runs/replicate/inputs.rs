//! Whether the inputs of a run are here, and the same.

use std::path::PathBuf;

use anyhow::Result;
use infalign_record::Record;
use infalign_record::env::{data_dir, with_home};
use infalign_record::hash::sha256_file;
use infalign_record::record::Input;

use super::{is_by_settings, not_comparable};

/// Refuses inputs that are not here or are others. Those that lie in the run's own folder come with the program; names on the hub, which
/// hold a revision, and keys that `sets` changes are compared after the run.
///
/// # Errors
/// One sentence that names each with its digest.
pub(super) fn check(original: &Record, sets: &[String]) -> Result<()> {
    let given: Vec<&str> =
        sets.iter().filter_map(|set| set.split('=').next()).map(str::trim).collect();
    let named = original.inputs.iter().filter(|input| {
        !given.iter().any(|key| input.role == *key || input.role.starts_with(&format!("{key} (")))
    });
    let by_settings = is_by_settings(original);
    let obstacles: Vec<String> = named.filter_map(|input| obstacle(input, by_settings)).collect();
    if obstacles.is_empty() { Ok(()) } else { Err(not_comparable(&obstacles)) }
}

/// - `by_settings`: whether `--set` can say where it lies.
fn obstacle(input: &Input, by_settings: bool) -> Option<String> {
    let Input { role, path, sha256, .. } = input;
    let here = place(input)?;
    let what = format!("the input {path} ({role})");
    if !here.is_file() {
        let then = if by_settings {
            format!("say where it lies by --set {role}=PATH or INFALIGN_DATA")
        } else {
            "put it there, or run the command by hand and compare with --replica".to_owned()
        };
        return Some(format!(
            "{what} is not there; find the file whose SHA-256 is {sha256}, and {then}"
        ));
    }
    match sha256_file(&here) {
        Ok(found) if found == *sha256 => None,
        Ok(found) => Some(format!("{what} is another: its SHA-256 is {found}, not {sha256}")),
        Err(error) => Some(format!("{what}: {error}")),
    }
}

/// Where an input is to be found here; none for one in the run's folder, or on the hub.
fn place(input: &Input) -> Option<PathBuf> {
    let path = input.path.as_str();
    if let Some(inside) = path.strip_prefix("$INFALIGN_DATA/") {
        return Some(data_dir().unwrap_or_else(|| "$INFALIGN_DATA".into()).join(inside));
    }
    let on_hub = input.is_on_hub() || path.starts_with("base/");
    (!path.starts_with('$') && !on_hub).then(|| with_home(path).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(path: &str, sha256: &str) -> Input {
        Input { role: "prompts.train".into(), path: path.into(), sha256: sha256.into(), bytes: 3 }
    }

    #[test]
    fn swapped_and_missing_inputs_are_named_with_their_digests() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.jsonl");
        std::fs::write(&file, "abc").unwrap();
        let path = file.display().to_string();
        let right = sha256_file(&file).unwrap();
        assert_eq!(obstacle(&input(&path, &right), true), None);
        assert!(obstacle(&input(&path, &"0".repeat(64)), true).unwrap().contains("is another"));
        let missing = |by_settings| obstacle(&input("no/such/file", &right), by_settings).unwrap();
        assert!(missing(true).contains("--set prompts.train=PATH"));
        assert!(missing(true).contains(&right) && missing(false).contains(&right));
        assert!(!missing(false).contains("--set") && missing(false).contains("--replica"));
        let on_hub = format!("org/name@{}/model.safetensors", "0".repeat(40));
        for elsewhere in ["$RUN/inputs/a", on_hub.as_str()] {
            assert_eq!(obstacle(&input(elsewhere, &right), true), None);
        }
        for at_home in ["~/a.jsonl", r"~\a.jsonl"] {
            let home = std::env::home_dir().unwrap();
            assert_eq!(place(&input(at_home, "")).unwrap(), home.join("a.jsonl"));
        }
        let other = dir.path().join("me@work.jsonl").display().to_string();
        std::fs::write(&other, "other").unwrap();
        assert!(
            obstacle(&input(&other, &right), true).unwrap().contains("is another"),
            "a mere path"
        );
    }
}
