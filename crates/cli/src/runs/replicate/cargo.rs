//! How cargo builds the run's program. The record may be a stranger's: nothing of it has cargo, or a compiler that cargo starts, run anything but
//! the source.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use infalign_record::BuildRecord;

use super::not_comparable;

/// Profiles that programs are built with, as records call them, and the folders that they lie in.
const PROFILES: [&str; 2] = ["debug", "release"];
/// Settings of the compiler, `-C NAME=VALUE`, that choose the processor and what is made for it; others, such as `linker`, have it start
/// programs.
const HARMLESS: [&str; 7] =
    ["target-cpu", "target-feature", "opt-level", "codegen-units", "debuginfo", "lto", "panic"];

/// The command that builds it.
///
/// - `tree`: its source; what is built lies in `target/PROFILE` there.
///
/// # Errors
/// One sentence for a profile, features or flags of the compiler that are not taken from a record.
pub(super) fn build(build: &BuildRecord, tree: &Path) -> Result<Command> {
    check(build)?;
    let mut cargo = Command::new("cargo");
    cargo.current_dir(tree);
    cargo.args(["build", "--locked", "--package", "infalign-cli", "--bin", "infalign"]);
    cargo.args(["--no-default-features", "--features", &build.features]);
    if build.profile == "release" {
        cargo.arg("--release");
    }
    if let Some(flags) = &build.rustflags {
        cargo.env("RUSTFLAGS", flags);
    }
    cargo.env("CARGO_TARGET_DIR", tree.join("target"));
    Ok(cargo)
}

fn check(build: &BuildRecord) -> Result<()> {
    let BuildRecord { profile, features, rustflags, .. } = build;
    ensure!(
        PROFILES.contains(&profile.as_str()),
        "the record's profile {profile:?} is none: it has to be debug or release"
    );
    ensure!(
        features.split(',').all(is_feature),
        "the record's features {features:?} are none: they have to be names of letters, digits, - and _, by commas"
    );
    match rustflags {
        Some(flags) if !are_harmless(flags) => Err(not_comparable(&[format!(
            "this program is not the run's, which was built with the flags {flags:?} of the compiler; of a record's flags, -C NAME=VALUE alone is \
             taken, with a NAME of {}, since others can start programs; --any-program runs it with this program",
            HARMLESS.join(", ")
        )])),
        _ => Ok(()),
    }
}

/// Whether a name is that of a feature, or empty: none of an option or of another package.
fn is_feature(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    !name.starts_with('-') && name.chars().all(is_plain)
}

/// Whether flags, which cargo splits at blanks, have the compiler start nothing.
fn are_harmless(flags: &str) -> bool {
    let mut words = flags.split(' ').filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        let setting = if word == "-C" { words.next() } else { word.strip_prefix("-C") };
        if !setting.is_some_and(is_harmless) {
            return false;
        }
    }
    true
}

fn is_harmless(setting: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_+,.-".contains(c);
    setting.split_once('=').is_some_and(|(name, value)| {
        HARMLESS.contains(&name) && !value.is_empty() && value.chars().all(is_plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(change: impl Fn(&mut BuildRecord)) -> Result<Command> {
        let (profile, features) = ("release".into(), "cuda,flex_2-x".into());
        let mut record = BuildRecord { profile, features, ..BuildRecord::default() };
        change(&mut record);
        build(&record, Path::new("tree"))
    }

    fn of_flags(flags: &str) -> Result<Command> {
        of(|record| record.rustflags = Some(flags.into()))
    }

    #[test]
    fn flags_that_choose_the_processor_are_taken() {
        for flags in
            ["", "-C target-cpu=native", "-Ctarget-cpu=x86-64-v3  -C target-feature=+avx2,-sse4.1"]
        {
            let cargo = of_flags(flags).unwrap();
            let value = cargo.get_envs().find(|(name, _)| *name == "RUSTFLAGS").unwrap().1;
            assert_eq!(value.unwrap(), flags);
            assert!(cargo.get_args().any(|word| word == "--release"));
        }
        let cargo = of(|record| record.profile = "debug".into()).unwrap();
        assert!(cargo.get_args().all(|word| word != "--release"));
        of(|record| record.features.clear()).unwrap();
    }

    #[test]
    fn flags_by_which_the_compiler_may_start_a_program_are_refused() {
        for flags in [
            "-Clink-arg=-wrapper -Clink-arg=sh,-c,touch${IFS}x",
            "-C linker=sh",
            "-C target-cpu=native -Clinker=sh",
            "-Ctarget-cpu=x-C linker",
            "-C target-cpu=native -o x",
            "-C target-cpu=../x",
            "-C target-cpu=",
            "-C",
            "-Ctarget-cpu",
            "-C\ttarget-cpu=native",
            "@flags",
            "native",
        ] {
            let error = of_flags(flags).unwrap_err().to_string();
            assert!(error.contains("not comparable") && error.contains(&format!("{flags:?}")));
        }
    }

    #[test]
    fn profiles_and_features_that_are_none_are_refused() {
        for profile in ["", "dev", "../../../evil", "/evil", "release/..", "release\0"] {
            let error = of(|record| record.profile = profile.into()).unwrap_err().to_string();
            assert!(error.contains(&format!("profile {profile:?}")), "{error}");
        }
        for features in ["--config=x", "flex,-Zx", "flex --config x", "other/flex", "flex\0"] {
            let error = of(|record| record.features = features.into()).unwrap_err().to_string();
            assert!(error.contains(&format!("features {features:?}")), "{error}");
        }
    }
}
