//! `cargo xtask tidy`: the rules of this repository that no other tool checks.
//!
//! Each rule is a function from text to findings, so that its tests are a few lines of text.

mod code;
mod documents;
mod features;
mod layers;
mod module_docs;
mod repository;
mod source;

use std::fmt;

use anyhow::{Result, bail};

use repository::{File, Repository};

/// One place where a rule is broken.
#[derive(Debug, PartialEq)]
struct Finding {
    path: String,
    /// Counted from 1.
    line: usize,
    /// What is wrong and what to do.
    message: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Prints what is found, a line each.
///
/// # Errors
/// When anything is found, or the repository cannot be read.
pub(crate) fn check() -> Result<()> {
    let repository = Repository::read(&crate::cargo::root())?;
    let findings = findings(&repository);
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        n => bail!("Places to mend, listed above: {n}."),
    }
}

fn findings(repository: &Repository) -> Vec<Finding> {
    let mut findings = documents::check(repository);
    for file in repository.files() {
        findings.extend(source::home_paths(file));
        if file.path.ends_with("Cargo.toml") {
            findings.extend(layers::check(file));
            findings.extend(features::check(file));
        }
        if file.path.ends_with(".rs") {
            findings.extend(module_docs::check(file));
            findings.extend(source::check(file, repository.is_test_code(&file.path)));
        }
    }
    findings
}
