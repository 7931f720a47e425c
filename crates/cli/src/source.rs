//! What the program is made of, as it lies in a clone: `build.rs` finds out what it was, and `--include-diff` what was changed.

use std::path::Path;
use std::process::Command;

/// What the program is made of, besides the sources of the crates.
const FILES: [&str; 6] = [
    "Cargo.toml",
    "Cargo.lock",
    "rust-toolchain.toml",
    ".cargo/config.toml",
    "recipes/quickstart.toml",
    "recipes/quickstart",
];
/// Crates that are no part of it.
const NOT_IN_IT: [&str; 1] = ["infalign"];
/// What [`is_hidden`] says, as git is told it.
const NOT_HIDDEN: &str = ":(exclude)*/.*";
/// Variables by which git would take another repository than the one that it is asked about; its hooks have them.
pub(crate) const OF_ANOTHER: [&str; 5] =
    ["GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"];

/// Files and folders of the program's source, from the root of the workspace, those alone that are there.
pub(crate) fn parts(root: &Path) -> Vec<String> {
    let mut parts: Vec<String> = FILES.iter().map(|file| (*file).to_owned()).collect();
    let entries = std::fs::read_dir(root.join("crates")).into_iter().flatten().flatten();
    let crates = entries.filter_map(|entry| entry.file_name().into_string().ok());
    for name in crates.filter(|name| !NOT_IN_IT.contains(&name.as_str())) {
        parts.extend(["src", "Cargo.toml", "build.rs"].map(|part| format!("crates/{name}/{part}")));
    }
    parts.retain(|part| !is_hidden(part) && root.join(part).exists());
    parts.sort();
    parts
}

/// Whether a path from the root leads to what begins with a dot below a folder there: desktops and editors leave it, git may ignore it, and it is no source.
pub(crate) fn is_hidden(path: &str) -> bool {
    path.contains("/.")
}

/// What git says about the parts; none where it fails.
pub(crate) fn of_parts(root: &Path, parts: &[String], words: &[&str]) -> Option<Vec<u8>> {
    let parts = parts.iter().map(String::as_str);
    let words = words.iter().copied().chain(["--"]).chain(parts).chain([NOT_HIDDEN]);
    git(root, &words.collect::<Vec<_>>())
}

/// The changes that are in no commit, as `git apply` reads them; empty where there are none.
pub(crate) fn diff(root: &Path, parts: &[String]) -> Option<Vec<u8>> {
    of_parts(
        root,
        parts,
        &[
            "diff",
            "--no-ext-diff",
            "--no-color",
            "--src-prefix=a/",
            "--dst-prefix=b/",
            "--binary",
            "HEAD",
        ],
    )
}

/// The output of git, if it succeeds.
pub(crate) fn git(root: &Path, words: &[&str]) -> Option<Vec<u8>> {
    // Reading the state of the work tree would otherwise write to the repository.
    let output = git_in(root).args(words).env("GIT_OPTIONAL_LOCKS", "0").output().ok()?;
    output.status.success().then_some(output.stdout)
}

/// Git, on the repository that a folder is of.
pub(crate) fn git_in(folder: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(folder);
    for name in OF_ANOTHER {
        git.env_remove(name);
    }
    git
}
