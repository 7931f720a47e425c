//! Where commands write: what is refused of `--out` before any work is done.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use infalign_record::folder::{self, MANIFEST, RECORD};
use infalign_record::record::Status;

/// Refuses a folder that cannot be made or written into, and one of a run on record.
///
/// # Errors
/// One sentence that names the folder.
pub(crate) fn folder(out: &Path) -> Result<()> {
    let cannot = || format!("cannot write into {}", out.display());
    let whole = whole(out).with_context(cannot)?;
    if let Some(run) = on_record(&whole) {
        bail!(
            "{} belongs to the run on record in {}, which stays as it was recorded: give another folder",
            out.display(),
            run.display()
        );
    }
    // Of folders that are still to be made, the one that they will be made in.
    let there = whole.ancestors().find(|path| path.exists()).unwrap_or(&whole);
    ensure!(there.is_dir(), "{}: {} is no folder", cannot(), there.display());
    tempfile::tempfile_in(there).with_context(cannot)?;
    Ok(())
}

/// Refuses a file whose folder is not there, and as [`folder()`].
///
/// # Errors
/// One sentence that names the file or its folder.
pub(crate) fn file(out: &Path) -> Result<()> {
    let within = out.parent().unwrap_or(out);
    let is_there = within.as_os_str().is_empty() || within.is_dir();
    ensure!(
        is_there && !out.is_dir(),
        "{}: it has to be a file in a folder that is there",
        out.display()
    );
    folder(within)
}

/// Refuses a file that is there already, and as [`file()`].
///
/// # Errors
/// As [`file()`].
pub(crate) fn new_file(out: &Path) -> Result<()> {
    file(out)?;
    ensure!(!out.exists(), "{} is there already; give another --out", out.display());
    Ok(())
}

/// The run on record that a path lies in, itself included: the outermost, whose manifest has everything below it. A record that is still open is
/// none: what is written there becomes a part of it.
pub(crate) fn on_record(path: &Path) -> Option<PathBuf> {
    let whole = whole(path).ok()?;
    let there = dunce::canonicalize(whole.ancestors().find(|path| path.exists())?).ok()?;
    let is_open = |run: &Path| folder::record(run).is_ok_and(|run| run.status == Status::Running);
    let is_run = |run: &&Path| run.join(MANIFEST).exists() && run.join(RECORD).exists();
    let runs = there.ancestors().filter(is_run).filter(|run| !is_open(run));
    runs.last().map(Path::to_path_buf)
}

/// The path from the root; of an empty one, where the program runs.
fn whole(path: &Path) -> std::io::Result<PathBuf> {
    std::path::absolute(if path.as_os_str().is_empty() { Path::new(".") } else { path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_or_is_there_is_refused_and_nothing_is_left() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        std::fs::write(path("file"), "").unwrap();
        folder(&path("a/b")).unwrap();
        file(&path("file")).unwrap();
        new_file(&path("other")).unwrap();
        folder(Path::new("")).unwrap();
        let error = |refused: Result<()>| refused.unwrap_err().to_string();
        assert!(error(folder(&path("file/a"))).contains("file is no folder"));
        assert!(error(file(&path("a/b"))).contains("a folder that is there"));
        assert!(error(file(root.path())).contains("has to be a file"));
        assert!(error(new_file(&path("file"))).contains("is there already; give another --out"));
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1, "the file alone");
    }

    #[test]
    fn a_run_is_on_record_with_all_below_it_and_an_open_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().canonicalize().unwrap().join("run");
        std::fs::create_dir_all(run.join("steps/one")).unwrap();
        folder(&run.join("new")).unwrap();
        for folder in [&run, &run.join("steps/one")] {
            std::fs::write(folder.join(MANIFEST), "").unwrap();
            assert_eq!(on_record(folder), None, "a manifest may be of any bag of files");
        }
        for folder in [&run, &run.join("steps/one")] {
            std::fs::write(folder.join(RECORD), "{}").unwrap();
        }
        assert_eq!(on_record(&run.join("steps/one/a/b")), Some(run.clone()));
        let error = folder(&run.join("new")).unwrap_err().to_string();
        assert!(error.contains("run on record"), "{error}");
        assert_eq!(on_record(root.path()), None);
    }
}
