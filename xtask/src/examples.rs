//! The programs in `examples/`, each of which has to end well.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::cargo::{cargo, root, succeed, target};

/// Builds them as the tests are built, and runs each, without showing what it prints.
///
/// # Errors
/// When one does not compile, or fails.
pub(crate) fn run() -> Result<()> {
    // Not by package: that would build burn with other features, and again.
    let build = ["build", "--workspace", "--examples", "--locked"];
    succeed(cargo().args(build).current_dir(root()))?;
    let folder = std::fs::read_dir(root().join("examples")).context("Cannot read examples/")?;
    let mut names: Vec<String> = folder
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|file| file.strip_suffix(".rs").map(str::to_owned))
        .collect();
    names.sort();
    ensure!(!names.is_empty(), "examples/ holds no program.");
    for name in names {
        let program = target().join("debug/examples").join(&name);
        let mut example = Command::new(program);
        succeed(example.current_dir(root()).stdout(Stdio::null()))
            .with_context(|| format!("the example `{name}` fails"))?;
        println!("{name}");
    }
    Ok(())
}
