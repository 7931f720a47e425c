//! A run's folder before independent readers: the validator of RO-Crates, which has to accept it and to refuse spoiled copies, and
//! `runcrate`.
//!
//! Both are Python programs, installed once into `target/rocrate`. What the validator would fetch while it runs is put into its cache
//! beforehand, so that the check neither needs nor trusts the network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::{root, succeed};
use crate::python::{environment, program};
use crate::test::Skipped;

const VALIDATOR: &str = "roc-validator==0.13.0";
const READER: &str = "runcrate==0.6.2";
/// Carries the context of RO-Crate 1.1.
const CONTEXT_PACKAGE: &str = "rocrate==0.14.0";
const SEED_CACHE: &str = include_str!("seed_cache.py");
/// The run of README.md's commands.
const RUN: &str = "target/readme/run";
const RESULT: &str = "results.json";
const METADATA: &str = "ro-crate-metadata.json";

/// Checks the run that the commands of README.md have left; skipped, which is told, where the tools cannot be installed.
///
/// # Errors
/// As [`judge`].
pub(crate) fn check() -> Result<Skipped> {
    let tools = Tools { folder: root().join("target/rocrate") };
    if let Err(error) = tools.install() {
        return Ok(Some(format!(
            "the independent validator could not be installed, so it was SKIPPED: {error:#}"
        )));
    }
    judge(&tools, &root().join(RUN)).map(|()| None)
}

/// Checks a run's folder.
///
/// # Errors
/// When the tools cannot be installed; as [`judge`].
pub(crate) fn validate(run: &Path) -> Result<()> {
    let tools = Tools { folder: root().join("target/rocrate") };
    tools.install().context("Cannot install the independent validator")?;
    judge(&tools, run)
}

/// Has a run's folder, and spoiled copies of it, judged.
///
/// # Errors
/// When a reader judges one otherwise than it should.
fn judge(tools: &Tools, run: &Path) -> Result<()> {
    ensure!(run.join(METADATA).exists(), "{} holds no finished run.", run.display());
    for level in ["required", "recommended"] {
        tools.expect(run, level, Verdict::Valid)?;
    }
    let spoiled = tools.folder.join("spoiled");
    copy(run, &spoiled)?;
    fs::remove_file(spoiled.join(RESULT)).context("Cannot spoil the copy")?;
    tools.expect(&spoiled, "required", Verdict::Invalid)?;
    copy(run, &spoiled)?;
    let text = fs::read_to_string(spoiled.join(METADATA)).context("Cannot spoil the copy")?;
    ensure!(text.contains("\"instrument\""), "{METADATA} names no instrument.");
    fs::write(spoiled.join(METADATA), text.replace("\"instrument\"", "\"tool\""))?;
    tools.expect(&spoiled, "required", Verdict::Invalid)?;
    let report = tools.report(run)?;
    ensure!(report.contains(RESULT), "runcrate's report lacks {RESULT}:\n{report}");
    println!("valid; without a file and without an instrument invalid; runcrate reads it");
    Ok(())
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Valid,
    Invalid,
}

/// The Python programs in their folder.
struct Tools {
    folder: PathBuf,
}

impl Tools {
    fn bin(&self, name: &str) -> Command {
        let mut command = Command::new(program(&self.folder, name));
        command.stdin(Stdio::null());
        command
    }

    fn cache(&self) -> PathBuf {
        self.folder.join("cache")
    }

    /// Installs them, unless that was done.
    fn install(&self) -> Result<()> {
        let done = self.folder.join("installed");
        let what = format!("{VALIDATOR} {READER} {CONTEXT_PACKAGE}\n{SEED_CACHE}");
        if fs::read_to_string(&done).is_ok_and(|installed| installed == what) {
            return Ok(());
        }
        println!("installing {VALIDATOR} and {READER} into target/rocrate");
        environment(&self.folder, &[VALIDATOR, READER])?;
        let wheels = self.folder.join("wheels");
        let download = ["-m", "pip", "--quiet", "download", "--no-deps", "--dest"];
        succeed(self.bin("python").args(download).arg(&wheels).arg(CONTEXT_PACKAGE))?;
        succeed(self.bin("python").args(["-c", SEED_CACHE]).arg(self.cache()).arg(&wheels))?;
        Ok(fs::write(done, what)?)
    }

    /// Validates a folder and compares the verdict.
    fn expect(&self, run: &Path, level: &str, expected: Verdict) -> Result<()> {
        let mut command = self.bin("rocrate-validator");
        command.args([
            "-y",
            "validate",
            "-p",
            "process-run-crate",
            "-l",
            level,
            "--no-paging",
            "-v",
        ]);
        command.args(["--offline", "--cache-path"]).arg(self.cache()).arg(run);
        let output = command.output().context("Cannot start rocrate-validator")?;
        let verdict = match output.status.code() {
            Some(0) => Verdict::Valid,
            Some(1) => Verdict::Invalid,
            _ => bail!("The validator could not check {}: {}", run.display(), text(&output)),
        };
        ensure!(
            verdict == expected,
            "{} is {verdict:?} at level {level}, not {expected:?}:\n{}",
            run.display(),
            text(&output)
        );
        Ok(())
    }

    fn report(&self, run: &Path) -> Result<String> {
        let output = self.bin("runcrate").arg("report").arg(run).output();
        let output = output.context("Cannot start runcrate")?;
        ensure!(
            output.status.success(),
            "runcrate cannot read {}: {}",
            run.display(),
            text(&output)
        );
        Ok(text(&output))
    }
}

fn text(output: &std::process::Output) -> String {
    let both =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    both.concat()
}

/// Copies a folder in place of what is there.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
