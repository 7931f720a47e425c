//! Files and folders that appear under their final name whole, or not at all.
//!
//! Everything is written beside its final place, brought to the disk, and renamed. A reader, or
//! the next start after a crash, therefore sees the old version or the new one, never a mixture.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::RecordError;

/// Writes the file `path` through `write`, replacing one that is there already.
///
/// The folder must exist. When this fails, `path` is as it was before and no temporary file stays.
///
/// # Errors
/// [`RecordError::Io`] naming `path` and the cause, a full disk or an error of `write` included.
pub fn write_atomic(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), RecordError> {
    write_and_rename(path, write).map_err(RecordError::io("write", path))
}

fn write_and_rename(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let (folder, _) = split(path)?;
    let file = temporary(FILE_MODE).tempfile_in(&folder)?;
    let mut writer = BufWriter::new(file.as_file());
    write(&mut writer)?;
    writer.flush()?;
    drop(writer);
    synced(file.as_file())?;
    patiently(file, |file| {
        file.persist(path).map(drop).map_err(|failed| (failed.error, failed.file))
    })?;
    sync_folder(&folder)
}

/// Builds the folder `path` through `build`, which fills the empty folder that it is given.
///
/// A folder that is there already is replaced: it is renamed to `.NAME.old`, the new one takes its
/// place, and the old one is deleted. A crash between the two renames leaves the previous content,
/// whole, under `.NAME.old`. When this fails, `path` is as it was before and no temporary folder
/// stays.
///
/// # Errors
/// The error of `build`, or [`RecordError::Io`] naming `path` and the cause.
pub fn write_dir_atomic<E: From<RecordError>>(
    path: &Path,
    build: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let io_error = |cause| RecordError::io("write the folder", path)(cause);
    let (folder, name) = split(path).map_err(io_error)?;
    let new = temporary(FOLDER_MODE).tempdir_in(&folder).map_err(io_error)?;
    build(new.path())?;
    sync_tree(new.path()).map_err(io_error)?;
    let mut old = OsString::from(".");
    old.push(name);
    old.push(".old");
    swap_in(new, path, &folder.join(old)).map_err(io_error)?;
    Ok(sync_folder(&folder).map_err(io_error)?)
}

/// Gives `new` the name `path`; what had that name goes by way of `old`.
fn swap_in(new: tempfile::TempDir, path: &Path, old: &Path) -> io::Result<()> {
    if !path.try_exists()? {
        rename(new.path(), path)?;
        let _ = new.keep(); // it is in its place: nothing is left to clean up
        return remove_if_there(old);
    }
    if !path.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "it exists and is no folder"));
    }
    remove_if_there(old)?;
    rename(path, old)?;
    if let Err(cause) = rename(new.path(), path) {
        rename(old, path)?;
        return Err(cause);
    }
    let _ = new.keep();
    fs::remove_dir_all(old)
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    patiently((), |()| fs::rename(from, to).map_err(|cause| (cause, ())))
}

/// Does what programs that look through new files may stand in the way of for a moment, as they do on Windows.
///
/// - `attempt`: gives `what` back where it fails.
fn patiently<T>(mut what: T, attempt: impl Fn(T) -> Result<(), (io::Error, T)>) -> io::Result<()> {
    let mut wait = Duration::from_millis(10);
    loop {
        let (cause, left) = match attempt(what) {
            Ok(()) => return Ok(()),
            Err(failed) => failed,
        };
        let in_the_way = cfg!(windows) && cause.kind() == ErrorKind::PermissionDenied;
        if !in_the_way || wait > Duration::from_secs(1) {
            return Err(cause);
        }
        std::thread::sleep(wait);
        (what, wait) = (left, 2 * wait);
    }
}

/// Whether a name is that of a file or folder that is being written, or was when its process was killed.
pub(crate) fn is_half_written(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with(HALF_WRITTEN)
}

/// Deletes what processes that were killed have left half-written in a folder and below it. Nobody may be writing there.
///
/// # Errors
/// [`RecordError::Io`] when the folder cannot be read, or something of it not be deleted.
pub fn clear(folder: &Path) -> Result<(), RecordError> {
    clear_top(folder)?.iter().try_for_each(|below| clear(below))
}

/// As [`clear`], but not below the folder's own folders, where others may be writing: these are returned.
///
/// # Errors
/// As [`clear`].
pub fn clear_top(folder: &Path) -> Result<Vec<PathBuf>, RecordError> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder).map_err(RecordError::io("read", folder))? {
        let entry = entry.map_err(RecordError::io("read", folder))?;
        let (path, kind) = (entry.path(), entry.file_type());
        let is_folder = kind.map_err(RecordError::io("read", &path))?.is_dir();
        let half_written = is_half_written(&entry.file_name());
        match (half_written, is_folder) {
            (true, true) => fs::remove_dir_all(&path).map_err(RecordError::io("delete", &path))?,
            (true, false) => fs::remove_file(&path).map_err(RecordError::io("delete", &path))?,
            (false, true) => folders.push(path),
            (false, false) => {}
        }
    }
    Ok(folders)
}

fn remove_if_there(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}

/// The folder that `path` lies in, and its last component.
fn split(path: &Path) -> io::Result<(PathBuf, OsString)> {
    let name = path.file_name().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "the path ends in no file name")
    })?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    Ok((folder.unwrap_or(Path::new(".")).to_path_buf(), name.to_os_string()))
}

/// How names of what is being written begin.
const HALF_WRITTEN: &str = ".part-";
const FILE_MODE: u32 = 0o666;
const FOLDER_MODE: u32 = 0o777;

/// Makes hidden files or folders with the mode that an ordinary one gets (the umask still
/// applies), because what it makes becomes one.
fn temporary(mode: u32) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(HALF_WRITTEN);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    let _ = mode;
    builder
}

/// Brings every file and folder below `folder`, itself included, to the disk.
fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            // Windows brings to the disk only what is open for writing.
            synced(&OpenOptions::new().read(true).write(cfg!(windows)).open(entry.path())?)?;
        }
    }
    sync_folder(folder)
}

/// Brings a folder's list of names to the disk, where the system can.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    synced(&File::open(folder)?)
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

/// Brings to the disk what was written into a file that is open for it.
///
/// # Errors
/// [`RecordError::Io`] naming `path`.
pub fn bring_to_disk(path: &Path, file: &File) -> Result<(), RecordError> {
    synced(file).map_err(RecordError::io("write", path))
}

/// Brings a file to the disk, where its file system can be asked for that: some of networks, and of programs, cannot.
fn synced(file: &File) -> io::Result<()> {
    file.sync_all().or_else(|cause| if cannot_be_asked(&cause) { Ok(()) } else { Err(cause) })
}

fn cannot_be_asked(cause: &io::Error) -> bool {
    // ENOTSUP, for which there is no kind everywhere.
    let number = if cfg!(target_vendor = "apple") { 45 } else { 95 };
    let by_number = cfg!(unix) && cause.raw_os_error() == Some(number);
    by_number || matches!(cause.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput)
}

#[cfg(test)]
mod tests;
