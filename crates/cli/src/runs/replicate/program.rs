//! The program that a run is run again with: this one, if it was made from the same source, or one built from the run's commit.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use infalign_record::capture::executable_sha256;
use infalign_record::{BuildRecord, Record};

use super::not_comparable;
use crate::build_record::build_record;

/// A program to run again with.
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// What it is, for the report.
    pub(super) what: String,
}

impl Program {
    /// Finds it.
    ///
    /// - `any`: take this program, whatever it is; `source`: a clone with the run's commit; `folder`: where it may be built.
    ///
    /// # Errors
    /// When this program is another and none can be built.
    pub(super) fn find(original: &Record, any: bool, source: &Path, folder: &Path) -> Result<Self> {
        let path = std::env::current_exe().context("this program cannot be found")?;
        let (theirs, ours) = (&original.build, build_record());
        let own = |what: &str| Ok(Self { path: path.clone(), what: what.to_owned() });
        if original.executable_sha256.is_some() && original.executable_sha256 == executable_sha256()
        {
            return own("the same bytes as the original's");
        }
        if theirs.build_id == ours.build_id {
            return own("built from the same source in the same way");
        }
        if any {
            return own(&format!(
                "infalign {}, not the original's {}",
                ours.full_version(),
                theirs.full_version()
            ));
        }
        Self::build(theirs, source, folder)
    }

    /// Builds it in a work tree of the run's commit.
    fn build(build: &BuildRecord, source: &Path, folder: &Path) -> Result<Self> {
        let commit = commit(build, source)?;
        // Beside the report, so that it can be looked at, and is no part of the clone's own work.
        let tree = folder
            .join("source")
            .canonicalize()
            .unwrap_or(std::path::absolute(folder.join("source"))?);
        eprintln!("building infalign {} in {}", build.full_version(), tree.display());
        let mut add = Command::new("git");
        add.current_dir(source)
            .args(["worktree", "add", "--detach", "--quiet"])
            .arg(&tree)
            .arg(commit);
        succeed(&mut add).context("cannot restore the run's commit")?;
        let mut cargo = Command::new("cargo");
        cargo.current_dir(&tree).args([
            "build",
            "--locked",
            "--package",
            "infalign-cli",
            "--bin",
            "infalign",
        ]);
        cargo.args(["--no-default-features", "--features", &build.features]);
        if build.profile == "release" {
            cargo.arg("--release");
        }
        if let Some(flags) = &build.rustflags {
            cargo.env("RUSTFLAGS", flags);
        }
        succeed(cargo.env("CARGO_TARGET_DIR", tree.join("target")))
            .context("cannot build the run's program")?;
        let path = tree.join("target").join(&build.profile).join("infalign");
        Ok(Self { path, what: format!("built from {} by {}", build.full_version(), build.rustc) })
    }
}

/// The commit to build, which has to be one and to be there.
fn commit<'a>(build: &'a BuildRecord, source: &Path) -> Result<&'a str> {
    let other = "this program is not the run's";
    let Some(commit) = &build.source.commit else {
        return Err(not_comparable(&[format!(
            "{other}, and the run's commit is unknown; --any-program runs it with this one"
        )]));
    };
    if build.source.dirty == Some(true) {
        return Err(not_comparable(&[format!(
            "{other}, which was built from changes to {commit} that are in no commit; --any-program runs it with this one"
        )]));
    }
    ensure!(
        commit.len() >= 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "the record's commit {commit:?} is none"
    );
    let mut look = Command::new("git");
    look.current_dir(source).args(["cat-file", "-e", &format!("{commit}^{{commit}}")]);
    if !look.output().is_ok_and(|output| output.status.success()) {
        let remote =
            build.source.remote.as_ref().map_or(String::new(), |url| format!(" (of {url})"));
        return Err(not_comparable(&[format!(
            "{other}, and {} holds no clone with the commit {commit}{remote}: name one by --source, or run it with this program by --any-program",
            source.display()
        )]));
    }
    Ok(commit)
}

fn succeed(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        bail!("{name} ended with {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_is_none_or_not_there_is_not_comparable() {
        let mut build = build_record();
        let error = |build: &BuildRecord| commit(build, Path::new(".")).unwrap_err().to_string();
        build.source.dirty = Some(false);
        build.source.commit = None;
        assert!(error(&build).contains("commit is unknown"));
        build.source.commit = Some("0".repeat(40));
        assert!(error(&build).contains("--source"));
        build.source.commit = Some("--upload-pack=x".into());
        assert!(error(&build).contains("is none"));
        build.source.dirty = Some(true);
        assert!(error(&build).contains("in no commit"));
    }
}
