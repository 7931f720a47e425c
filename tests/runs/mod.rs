//! A run of the quickstart in miniature, and how tests run the command.
#![allow(dead_code, reason = "each test takes what it needs")]

#[path = "../common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use infalign_record::record::Record;

#[allow(unused_imports, reason = "each test takes what it needs")]
pub(crate) use common::{
    clean, copy, done, fails, git, infalign, quickstart, refused, run, stderr, wait_until,
};

#[cfg(unix)]
#[allow(unused_imports, reason = "each test takes what it needs")]
pub(crate) use common::stopped;

/// Two methods in place of four.
const METHODS: &str =
    "method=[{ name = 'raw', objective = 'raw' }, { name = 'ctrl-best', objective = 'exp:10' }]";

/// `train` with the small settings.
pub(crate) fn train(out: &Path, more: &[&str]) -> Command {
    let mut command = common::train_small(out, &[METHODS]);
    command.args(more);
    command
}

/// A recipe file with the small settings, whose prompts and model are files beside it.
pub(crate) fn recipe(dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let path = dir.join("recipe.toml");
    std::fs::copy(source.join("quickstart.toml"), &path).unwrap();
    std::fs::create_dir_all(dir.join("quickstart/model")).unwrap();
    for folder in ["quickstart", "quickstart/model"] {
        for entry in std::fs::read_dir(source.join(folder)).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_file() {
                std::fs::copy(entry.path(), dir.join(folder).join(entry.file_name())).unwrap();
            }
        }
    }
    path
}

/// A run's record.
pub(crate) fn record(run: &Path) -> Record {
    infalign_record::folder::record(run).unwrap()
}

pub(crate) fn with_run(command: &str, run: &Path, more: &[&str]) -> Command {
    let mut words = infalign(&[command]);
    words.arg(run).args(more);
    words
}

/// Every file below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}
