//! Runs that go on: what there is of one that was begun before, and what it has to be to be gone on with.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use infalign_record::capture::executable_sha256;
use infalign_record::hash::sha256_file;
use infalign_record::record::Status;
use infalign_record::verify::{Finding, Problem, verify};
use infalign_record::{Expect, folder};

use crate::failure::{Failure, OrFailure};
use crate::recording::{RunInputs, recorded};

/// What there is of a run that goes on.
pub(crate) enum Before {
    /// It has not ended, or a part of its record is missing, or another program has made it.
    Unfinished,
    /// All of it, as it was recorded by this program.
    Whole,
    /// It has ended, and these files are missing.
    Lacks(Vec<String>),
}

/// As [`recorded`], for a run that goes on: where all of it was there already, and stays as it is, its record stays, too.
///
/// # Errors
/// As [`recorded`]; [`Failure::Run`] for a file that was missing and is not made again.
pub(crate) fn recorded_unless_whole<T>(
    run: &Path,
    before: &Before,
    reads: RunInputs,
    expect: Option<Expect>,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    if matches!(before, Before::Unfinished) {
        return recorded(run, reads, expect, work);
    }
    let result = work()?;
    if let Before::Lacks(missing) = before
        && let Some(path) = missing.iter().find(|path| !run.join(path).exists())
    {
        // The record stays: it says what there was.
        return Err(Failure::Run(anyhow!(
            "{path} of the run in {} is missing, and is not made again by itself: put it back, or delete the folder that it lies in",
            run.display()
        )));
    }
    match findings(run).or_run()? {
        Some(found) if found.is_empty() => Ok(result),
        _ => recorded(run, reads, expect, || Ok(result)),
    }
}

/// What there is of a run.
///
/// # Errors
/// When a file of a run that has ended is another than then, or was added: to go on would put it on record as if the run had made it. When what
/// one that has not is expected to reach is another than when it was begun, and when its record cannot be read. The message names the file, and
/// what to do. A file that is missing is made again, and so is the record where a part of that is missing.
pub(crate) fn before(run: &Path) -> Result<Before> {
    let found = findings(run).with_context(|| {
        format!(
            "the run in {} is not as it was recorded: put back what was there, or delete the file to have it made again",
            run.display()
        )
    })?;
    let Some(found) = found else {
        check_expected(run)?;
        return Ok(Before::Unfinished);
    };
    let missing = found.iter().filter(|finding| finding.problem == Problem::Missing);
    let missing: Vec<String> = missing.map(|finding| finding.path.clone()).collect();
    let is_other = |finding: &&Finding| match finding.problem {
        Problem::Changed | Problem::Unlisted => true,
        // What is missing contradicts what the record says of it.
        Problem::Contradicted(_) => missing.is_empty(),
        _ => false,
    };
    if let Some(other) = found.iter().find(is_other) {
        bail!("the run in {} has ended, and {other}: {}", run.display(), remedy(other));
    }
    let by_this_program =
        || folder::record(run).map(|r| r.executable_sha256 == executable_sha256());
    Ok(match found.is_empty() {
        true if by_this_program()? => Before::Whole,
        true => Before::Unfinished,
        false => Before::Lacks(missing),
    })
}

/// Refuses what a run that has not ended is expected to reach, where it is another than its record says. Its recipe may name other places for the
/// same inputs: what stages have made says by itself what it is made by.
fn check_expected(run: &Path) -> Result<()> {
    let path = run.join(folder::EXPECT);
    let then = folder::record_if_there(run)?.and_then(|record| record.expect_sha256);
    let Some(then) = then.filter(|_| path.exists()) else { return Ok(()) };
    ensure!(
        sha256_file(&path)? == then,
        "{} is another than when the run was begun: put it back as it was to go on, or begin a new run with another --out",
        path.display()
    );
    Ok(())
}

/// What is not as it was recorded in the folder of a run that has ended; None for one that has not.
fn findings(run: &Path) -> Result<Option<Vec<Finding>>> {
    Ok(if has_ended(run)? { Some(verify(run)?.findings) } else { None })
}

/// Whether a run has ended, and no part of its record is missing.
///
/// # Errors
/// When its record is there and cannot be read.
fn has_ended(run: &Path) -> Result<bool> {
    let Some(record) = folder::record_if_there(run)? else { return Ok(false) };
    let is_sealed = [folder::MANIFEST, folder::CRATE].iter().all(|name| run.join(name).exists());
    Ok(is_sealed && record.status == Status::Completed)
}

/// Whether a run was killed while its record was made.
pub(crate) fn was_ending(run: &Path) -> bool {
    folder::record(run).is_ok_and(|record| match record.status {
        Status::Running => true,
        Status::Completed => !run.join(folder::MANIFEST).exists(),
        Status::Failed => false,
    })
}

/// What to do about a file that is another than when the run ended.
fn remedy(finding: &Finding) -> &'static str {
    match (&finding.problem, finding.path.as_str()) {
        (Problem::Unlisted, _) => "move it elsewhere to go on",
        (_, folder::CONFIG | folder::SETTINGS) => {
            "put it back as it was, or begin a new run with another --out"
        }
        _ => "put it back as it was, or delete it (of a model, the folder) to have it made again",
    }
}

/// A file that a run has left and that it cannot go on with: an error of input, however late it is met.
#[derive(Debug)]
pub(crate) struct Damaged {
    path: PathBuf,
    /// What to do.
    remedy: String,
}

impl Damaged {
    /// The file, or the folder of a model or of checkpoints.
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_path_buf(), remedy: "delete it and resume".to_owned() }
    }

    /// A file of a training that goes on from these checkpoints, and that is not made again but with them.
    pub(crate) fn beside(path: &Path, checkpoints: &Path) -> Self {
        let remedy = format!(
            "put it back as it was, or delete {} to begin the training anew, and resume",
            checkpoints.display()
        );
        Self { path: path.to_path_buf(), remedy }
    }
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be used: {}", self.path.display(), self.remedy)
    }
}

impl std::error::Error for Damaged {}

#[cfg(test)]
mod tests {
    use infalign_record::{Opening, Recorder};

    use super::*;

    /// Has a run's record tell another status, as that of one that is killed before it is sealed.
    fn tell(run: &Path, status: &str) {
        let path = run.join(folder::RECORD);
        let mut record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        record["status"] = status.into();
        std::fs::write(path, record.to_string()).unwrap();
    }

    #[test]
    fn a_run_goes_on_to_what_it_was_begun_for() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path();
        std::fs::write(run.join(folder::CONFIG), "model = '/one/m'\n").unwrap();
        let opening = Opening { expect: Some(Expect::default()), ..Opening::default() };
        Recorder::begin(run, opening).unwrap().failed("stopped", 4).unwrap();
        let told = || before(run).map(drop).map_err(|error| format!("{error:#}"));
        for (name, needle) in [
            (folder::EXPECT, "expect.toml is another than when the run was begun: put it back"),
            (folder::RECORD, "or delete the file to have it made again: "),
        ] {
            assert_eq!(told(), Ok(()));
            let whole = std::fs::read_to_string(run.join(name)).unwrap();
            std::fs::write(run.join(name), &whole[1..]).unwrap();
            let error = told().unwrap_err();
            assert!(error.contains(needle) && error.contains(name), "{error}");
            std::fs::write(run.join(name), whole).unwrap();
        }
        // Its inputs may lie elsewhere now.
        std::fs::write(run.join(folder::CONFIG), "model = '/two/m'\n").unwrap();
        assert_eq!(told(), Ok(()));
        std::fs::remove_file(run.join(folder::RECORD)).unwrap();
        assert!(matches!(before(run).unwrap(), Before::Unfinished));
    }

    #[test]
    fn a_run_that_failed_once_and_was_then_killed_as_it_was_sealed_is_unfinished() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path();
        let begin = || Recorder::begin(run, Opening::default()).unwrap();
        begin().failed("stopped", 3).unwrap();
        assert!(!has_ended(run).unwrap());
        drop(begin());
        std::fs::write(run.join(folder::RESULTS), "{}").unwrap();
        tell(run, "completed");
        assert!(!has_ended(run).unwrap());
        assert!(matches!(before(run).unwrap(), Before::Unfinished));
        begin().completed().unwrap();
        assert!(has_ended(run).unwrap());
        assert!(matches!(before(run).unwrap(), Before::Whole));
    }
}
