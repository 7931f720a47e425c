//! The text files of the repository.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// A file as the checks see it.
#[derive(Debug)]
pub(super) struct File {
    /// From the repository root, with `/` on every system.
    pub(super) path: String,
    pub(super) text: String,
}

/// Everything that the checks look at.
#[derive(Debug)]
pub(super) struct Repository {
    files: Vec<File>,
    /// The paths of modules that only test builds declare.
    test_modules: BTreeSet<String>,
}

const ENDINGS: [&str; 7] = [".rs", ".toml", ".md", ".yml", ".yaml", ".cff", ".ci/run"];
const HIDDEN_FOLDERS: [&str; 3] = [".cargo", ".ci", ".github"];

impl Repository {
    /// Reads the files below `root`, except what builds and runs leave there.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        collect(root, "", &mut files)?;
        Ok(Self::new(files))
    }

    pub(super) fn new(mut files: Vec<File>) -> Self {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let is_source = |file: &&File| file.path.ends_with(".rs");
        let test_modules = files.iter().filter(is_source).flat_map(test_modules).collect();
        Self { files, test_modules }
    }

    pub(super) fn files(&self) -> &[File] {
        &self.files
    }

    pub(super) fn get(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether the whole file is compiled for tests, benchmarks or examples only.
    pub(super) fn is_test_code(&self, path: &str) -> bool {
        let folder = |name: &str| {
            path.starts_with(&format!("{name}/")) || path.contains(&format!("/{name}/"))
        };
        self.test_modules.contains(path) || ["tests", "benches", "examples"].into_iter().any(folder)
    }
}

fn collect(folder: &Path, relative: &str, files: &mut Vec<File>) -> Result<()> {
    let describe = || format!("Cannot read the folder {}", folder.display());
    for entry in fs::read_dir(folder).with_context(describe)? {
        let entry = entry.with_context(describe)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if relative.is_empty() { name.clone() } else { format!("{relative}/{name}") };
        if entry.file_type()?.is_dir() {
            let hidden = name.starts_with('.') && !HIDDEN_FOLDERS.contains(&name.as_str());
            if !hidden && !matches!(path.as_str(), "target" | "runs" | "fuzz/target") {
                collect(&entry.path(), &path, files)?;
            }
        } else if ENDINGS.iter().any(|ending| path.ends_with(ending)) {
            let text = fs::read_to_string(entry.path())
                .with_context(|| format!("{path} cannot be read as text"))?;
            files.push(File { path, text });
        }
    }
    Ok(())
}

/// Where the modules lie that this file declares under `#[cfg(test)]`.
fn test_modules(file: &File) -> Vec<String> {
    let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
    let folder = match name {
        "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
        _ => file.path.trim_end_matches(".rs").to_owned(),
    };
    let lines: Vec<_> = file.text.lines().map(str::trim).collect();
    let declared = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]").filter_map(|pair| {
        let (_, module) = pair[1].split_once("mod ")?;
        module.strip_suffix(';')
    });
    declared
        .flat_map(|module| [format!("{folder}/{module}.rs"), format!("{folder}/{module}/mod.rs")])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn modules_under_cfg_test_are_test_code() {
        let repository = Repository::new(vec![
            file("crates/a/src/lib.rs", "mod b;\n#[cfg(test)]\nmod files;\n"),
            file("crates/a/src/b.rs", "fn f() {}\n#[cfg(test)]\npub(crate) mod tests;\n"),
        ]);
        for path in [
            "crates/a/src/files.rs",
            "crates/a/src/b/tests.rs",
            "crates/a/tests/end.rs",
            "tests/e.rs",
        ] {
            assert!(repository.is_test_code(path), "{path}");
        }
        for path in ["crates/a/src/lib.rs", "crates/a/src/b.rs", "crates/a/src/tests.rs"] {
            assert!(!repository.is_test_code(path), "{path}");
        }
    }

    #[test]
    fn this_repository_is_read_without_its_build_output() {
        let repository = Repository::read(&crate::cargo::root()).unwrap();
        assert!(repository.get("xtask/src/tidy/repository.rs").is_some());
        assert!(repository.get("Cargo.toml").is_some());
        assert!(repository.files().iter().all(|file| !file.path.starts_with("target/")));
    }
}
