//! What stays behind when writing succeeds, fails, or is repeated after a crash.

use super::*;

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn disk_full() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "no space left on device")
}

#[test]
fn a_file_is_written_and_replaced_and_nothing_else_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    for content in ["first", "second, longer"] {
        write_atomic(&path, |file| file.write_all(content.as_bytes())).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    assert_eq!(names(folder.path()), ["report.json"]);
}

#[test]
fn a_failing_writer_leaves_the_old_file_and_no_temporary() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    fs::write(&path, "old").unwrap();
    let error = write_atomic(&path, |file| {
        file.write_all(b"half of the n")?;
        Err(disk_full())
    })
    .unwrap_err()
    .to_string();
    assert!(error.contains("report.json") && error.contains("no space left"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(names(folder.path()), ["report.json"]);
}

#[test]
fn a_failing_writer_creates_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    write_atomic(&path, |_| Err(disk_full())).unwrap_err();
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_missing_folder_and_a_path_without_a_name_are_errors() {
    let error = write_atomic(Path::new("no/such/folder/file"), |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("no/such/folder/file"), "{error}");
    write_atomic(Path::new("/"), |_| Ok(())).unwrap_err();
}

#[cfg(unix)]
#[test]
fn what_is_written_has_the_mode_of_an_ordinary_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (ordinary, ours) = (folder.path().join("ordinary"), folder.path().join("ours"));
    fs::write(&ordinary, "").unwrap();
    write_atomic(&ours, |_| Ok(())).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&ordinary), mode(&ours));
}

fn checkpoint(step: &'static str) -> impl Fn(&Path) -> Result<(), RecordError> {
    move |folder| {
        let write = |name: &str| fs::write(folder.join(name), step);
        fs::create_dir(folder.join("optimizer")).map_err(RecordError::io("write", folder))?;
        write("optimizer/moments").map_err(RecordError::io("write", folder))?;
        write("weights").map_err(RecordError::io("write", folder))
    }
}

#[test]
fn a_folder_is_written_and_replaced_and_nothing_else_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latest");
    for step in ["100", "200"] {
        write_dir_atomic(&path, checkpoint(step)).unwrap();
        assert_eq!(fs::read_to_string(path.join("optimizer/moments")).unwrap(), step);
        assert_eq!(names(&path), ["optimizer", "weights"]);
    }
    assert_eq!(names(folder.path()), ["latest"]);
}

#[test]
fn a_failing_build_leaves_the_old_folder_and_no_temporary() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latest");
    write_dir_atomic(&path, checkpoint("100")).unwrap();
    let failed: Result<(), RecordError> = write_dir_atomic(&path, |half| {
        fs::write(half.join("weights"), "half").unwrap();
        Err(RecordError::io("write", &path)(disk_full()))
    });
    assert!(failed.unwrap_err().to_string().contains("latest"));
    assert_eq!(fs::read_to_string(path.join("weights")).unwrap(), "100");
    assert_eq!(names(folder.path()), ["latest"]);
}

#[test]
fn what_a_crash_between_the_renames_left_is_cleared_by_the_next_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latest");
    write_dir_atomic(&folder.path().join(".latest.old"), checkpoint("100")).unwrap();
    write_dir_atomic(&path, checkpoint("200")).unwrap();
    assert_eq!(names(folder.path()), ["latest"]);
}

#[test]
fn a_file_is_not_replaced_by_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latest");
    fs::write(&path, "mine").unwrap();
    let error = write_dir_atomic(&path, checkpoint("100")).unwrap_err();
    assert!(error.to_string().contains("no folder"), "{error}");
    assert_eq!(names(folder.path()), ["latest"]);
}

#[test]
fn only_a_file_system_that_cannot_be_asked_is_excused_from_bringing_files_to_the_disk() {
    for kind in [ErrorKind::Unsupported, ErrorKind::InvalidInput] {
        assert!(is_impossible(&kind.into()), "{kind}");
    }
    for kind in [ErrorKind::StorageFull, ErrorKind::PermissionDenied, ErrorKind::Other] {
        assert!(!is_impossible(&kind.into()), "{kind}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_a_file_system_answers_is_known_by_its_number() {
    // EINVAL, EOPNOTSUPP and ENOLCK; EIO, EINTR and EACCES.
    let answers = [22, 95, 37, 5, 4, 13].map(io::Error::from_raw_os_error);
    let excused = [true, true, true, false, false, false];
    assert_eq!(answers.each_ref().map(is_impossible), excused);
}

#[test]
fn a_file_that_cannot_be_opened_is_no_reason_not_to_bring_the_others_to_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("a/b")).unwrap();
    fs::write(folder.path().join("a/b/c"), "").unwrap();
    sync_files(folder.path(), ["a/absent", "a/b/c"].into_iter()).unwrap();
}

#[cfg(not(windows))]
#[test]
fn what_is_refused_is_not_tried_again() {
    let tried = std::cell::Cell::new(0);
    let refused = patiently((), |()| {
        tried.set(tried.get() + 1);
        Err((ErrorKind::PermissionDenied.into(), ()))
    });
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(tried.get(), 1);
}

#[test]
fn what_was_left_half_written_is_cleared_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    fs::create_dir_all(path("methods/.part-a1b2/inner")).unwrap();
    for name in ["methods/.part-a1b2/inner/w", ".part-x", ".mine", "results.json"] {
        fs::write(path(name), "x").unwrap();
    }
    assert_eq!(clear_top(root.path()).unwrap(), [path("methods")]);
    assert!(!path(".part-x").exists() && path("methods/.part-a1b2/inner/w").exists());
    clear(root.path()).unwrap();
    assert!(!path("methods/.part-a1b2").exists());
    assert!(path("methods").exists() && path(".mine").exists() && path("results.json").exists());
}

#[test]
fn a_folder_that_was_being_replaced_is_put_back_or_deleted_where_another_has_its_name() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    // As if killed between the two renames, and while the old one was deleted.
    fs::create_dir(path("checkpoints")).unwrap();
    write_dir_atomic(&path("checkpoints/.best.old"), checkpoint("100")).unwrap();
    write_dir_atomic(&path("checkpoints/step-7"), checkpoint("200")).unwrap();
    write_dir_atomic(&path("checkpoints/.step-7.old"), checkpoint("100")).unwrap();
    // None of these is of a folder that was being replaced.
    for name in ["checkpoints/.mine.old", "checkpoints/list"] {
        fs::write(path(name), "x").unwrap();
    }
    for name in ["checkpoints/.old", "checkpoints/.list.old"] {
        fs::create_dir(path(name)).unwrap();
    }
    for _ in 0..2 {
        clear(root.path()).unwrap();
        let there = [".list.old", ".mine.old", ".old", "best", "list", "step-7"];
        assert_eq!(names(&path("checkpoints")), there);
        for (folder, step) in [("best", "100"), ("step-7", "200")] {
            let weights = path("checkpoints").join(folder).join("optimizer/moments");
            assert_eq!(fs::read_to_string(weights).unwrap(), step);
        }
    }
}

#[test]
fn what_is_being_written_has_a_name_that_is_cleared() {
    let root = tempfile::tempdir().unwrap();
    let named = |folder: &Path| {
        let mut names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.any(|name| name.to_string_lossy().starts_with(HALF_WRITTEN))
    };
    write_atomic(&root.path().join("file"), |_| {
        assert!(named(root.path()));
        Ok(())
    })
    .unwrap();
    write_dir_atomic(&root.path().join("folder"), |_| {
        assert!(named(root.path()));
        Ok::<(), RecordError>(())
    })
    .unwrap();
    assert!(!named(root.path()));
}
