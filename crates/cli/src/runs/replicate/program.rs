//! The program that a run is run again with: this one, if it was made from the same source, or one built from the run's commit.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use infalign_record::capture::executable_sha256;
use infalign_record::folder::DIFF;
use infalign_record::hash::sha256_file;
use infalign_record::{BuildRecord, Record};

use super::{ReplicateArgs, cargo, not_comparable};
use crate::build_record::build_record;
use crate::source::git_in;

/// A program to run again with.
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// What it is, for the report.
    pub(super) what: String,
}

impl Program {
    /// Finds it.
    ///
    /// - `folder`: where it may be built.
    ///
    /// # Errors
    /// When this program is another and none can be built.
    pub(super) fn find(args: &ReplicateArgs, original: &Record, folder: &Path) -> Result<Self> {
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
        if args.any_program {
            return own(&format!(
                "infalign {}, not the original's {}",
                ours.full_version(),
                theirs.full_version()
            ));
        }
        let changes = args.apply_diff.then(|| changes(theirs, &args.run)).transpose()?;
        Self::build(theirs, &args.source, changes.as_deref(), folder)
    }

    /// Builds it in a work tree of the run's commit, with changes or without.
    fn build(
        build: &BuildRecord,
        source: &Path,
        changes: Option<&Path>,
        folder: &Path,
    ) -> Result<Self> {
        let commit = commit(build, source, changes.is_some())?;
        // Beside the report, so that it can be looked at, and is no part of the clone's own work.
        let tree = std::path::absolute(folder.join("source"))?;
        let mut cargo = cargo::build(build, &tree)?;
        tell!("building infalign {} in {}", build.full_version(), tree.display());
        let mut add = git_in(source);
        add.args(["worktree", "add", "--detach", "--quiet"]).arg(&tree).arg(commit);
        succeed(&mut add).context("cannot restore the run's commit")?;
        if let Some(changes) = changes {
            let mut apply = git_in(&tree);
            apply.arg("apply").arg(std::path::absolute(changes)?);
            succeed(&mut apply).context("cannot apply the run's changes")?;
        }
        succeed(&mut cargo).context("cannot build the run's program")?;
        let name = format!("infalign{}", std::env::consts::EXE_SUFFIX);
        let path = tree.join("target").join(&build.profile).join(name);
        Ok(Self { path, what: format!("built from {} by {}", build.full_version(), build.rustc) })
    }
}

/// The changes that are in no commit, as the run has kept them.
fn changes(build: &BuildRecord, run: &Path) -> Result<PathBuf> {
    let path = run.join(DIFF);
    let Some(expected) = &build.source.diff_sha256 else {
        bail!("the run's program was built from a commit as it is: leave --apply-diff out");
    };
    if !path.is_file() || sha256_file(&path)? != *expected {
        return Err(not_comparable(&[format!(
            "{} does not hold the changes of the run's program, which --include-diff would have kept",
            run.display()
        )]));
    }
    match build.source.untracked {
        Some(0) => Ok(path),
        n => Err(not_comparable(&[format!(
            "the run's program was built with {} files that git does not know, which no diff holds",
            n.unwrap_or_default()
        )])),
    }
}

/// The commit to build, which has to be one and to be there.
///
/// - `changed`: whether the changes that it lacks are at hand.
fn commit<'a>(build: &'a BuildRecord, source: &Path, changed: bool) -> Result<&'a str> {
    let other = "this program is not the run's";
    let Some(commit) = &build.source.commit else {
        return Err(not_comparable(&[format!(
            "{other}, and the run's commit is unknown; --any-program runs it with this one"
        )]));
    };
    if build.source.dirty == Some(true) && !changed {
        return Err(not_comparable(&[format!(
            "{other}, which was built from changes to {commit} that are in no commit; --apply-diff applies those that the run has kept, \
             --any-program runs it with this program"
        )]));
    }
    ensure!(
        commit.len() >= 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "the record's commit {commit:?} is none"
    );
    let mut look = git_in(source);
    look.args(["cat-file", "-e", &format!("{commit}^{{commit}}")]);
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
        let error =
            |build: &BuildRecord| commit(build, Path::new("."), false).unwrap_err().to_string();
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
