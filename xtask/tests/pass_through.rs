//! What xtask passes on to `infalign`, seen with a stand-in for it that builds in a second.

// Clippy sees that a test may unwrap, but not that its helpers here may.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const MANIFEST: &str = r#"
[workspace]

[package]
name = "infalign-cli"
version = "0.1.0"
edition = "2024"

[[bin]]
name = "infalign"
path = "main.rs"

[features]
default = ["flex"]
flex = []
wgpu = []
cuda = []
"#;

/// Answers with its arguments and its backends, and exits with a code of its own.
const STAND_IN: &str = r#"
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let flex = cfg!(feature = "flex");
    println!("{arguments:?} flex={flex} wgpu={}", cfg!(feature = "wgpu"));
    println!("{:?}", std::env::current_dir().unwrap().file_name().unwrap());
    std::process::exit(if arguments[0] == "generate" { 0 } else { 37 });
}
"#;

fn workspace(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(folder.join("inner")).unwrap();
    std::fs::write(folder.join("Cargo.toml"), MANIFEST).unwrap();
    std::fs::write(folder.join("main.rs"), STAND_IN).unwrap();
    let mut lock = Command::new("cargo");
    lock.args(["generate-lockfile", "--offline"]).current_dir(&folder);
    assert!(lock.status().unwrap().success());
    folder
}

fn xtask(workspace: &Path, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(arguments.split(' ')).current_dir(workspace.join("inner"));
    command.env("CARGO_TARGET_DIR", workspace.join("target")).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

#[test]
fn arguments_folder_output_and_exit_code_are_the_binarys_own() {
    let workspace = workspace("pass_through");
    let output = xtask(&workspace, "train recipe.toml --set a=b --help");
    let expected = r#"["train", "recipe.toml", "--set", "a=b", "--help"] flex=true wgpu=false"#;
    assert_eq!(stdout(&output), format!("{expected}\n\"inner\"\n"));
    assert_eq!(output.status.code(), Some(37));
    assert_eq!(xtask(&workspace, "generate").status.code(), Some(0));
}

#[test]
fn the_backend_becomes_a_feature() {
    let workspace = workspace("backend");
    let output = xtask(&workspace, "generate --backend wgpu --json");
    assert!(stdout(&output).starts_with(r#"["generate", "--json"] flex=false wgpu=true"#));
}

#[test]
fn usage_errors_end_with_code_2() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for arguments in ["trian", "train --backend gpu", "tidy up"] {
        let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(arguments.split(' '))
            .current_dir(here)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments}");
    }
}
