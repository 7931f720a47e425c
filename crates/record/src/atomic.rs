//! Files and folders that appear under their final name whole, or not at all.
//!
//! Everything is written beside its final place, brought to the disk, and renamed. A reader, or
//! the next start after a crash, therefore sees the old version or the new one, never a mixture.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry, File, OpenOptions};
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
/// whole, under `.NAME.old`, from where [`clear`] puts it back. When this fails, `path` is as it was
/// before and no temporary folder stays.
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
    let mut old = OsString::from(HIDDEN);
    old.push(name);
    old.push(OLD);
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

/// The own name of a folder, where it has the one that folders have while they are replaced.
fn replaced(name: &OsStr) -> Option<&str> {
    let name = name.to_str()?.strip_prefix(HIDDEN)?.strip_suffix(OLD)?;
    (!name.is_empty()).then_some(name)
}

/// Deletes what processes that were killed have left half-written in a folder and below it, and puts back what one of them was replacing.
/// Nobody may be writing there.
///
/// # Errors
/// [`RecordError::Io`] when the folder cannot be read, or something of it not be deleted or put back.
pub fn clear(folder: &Path) -> Result<(), RecordError> {
    clear_top(folder)?.iter().try_for_each(|below| clear(below))
}

/// As [`clear`], but not below the folder's own folders, where others may be writing: these are returned.
///
/// # Errors
/// As [`clear`].
pub fn clear_top(folder: &Path) -> Result<Vec<PathBuf>, RecordError> {
    let mut folders = Vec::new();
    // All of them first: names change meanwhile.
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<DirEntry>>>);
    for entry in entries.map_err(RecordError::io("read", folder))? {
        let (path, name, kind) = (entry.path(), entry.file_name(), entry.file_type());
        let is_folder = kind.map_err(RecordError::io("read", &path))?.is_dir();
        let half_written = is_half_written(&name);
        match (half_written, is_folder) {
            (true, true) => fs::remove_dir_all(&path).map_err(RecordError::io("delete", &path))?,
            (true, false) => fs::remove_file(&path).map_err(RecordError::io("delete", &path))?,
            (false, true) => folders.extend(put_back(path, replaced(&name))?),
            (false, false) => {}
        }
    }
    Ok(folders)
}

/// Gives a folder its own name again, unless another folder has that: then it is deleted. Returns where it is in the end.
///
/// - `own`: its name, where it was being replaced; of others nothing changes.
fn put_back(path: PathBuf, own: Option<&str>) -> Result<Option<PathBuf>, RecordError> {
    let own = own.map(|name| path.with_file_name(name)).filter(|own| !own.is_file());
    let Some(own) = own else { return Ok(Some(path)) };
    if own.is_dir() {
        fs::remove_dir_all(&path).map_err(RecordError::io("delete", &path))?;
        return Ok(None);
    }
    rename(&path, &own).map_err(RecordError::io("put back", &own))?;
    Ok(Some(own))
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
/// How the name of a folder that is being replaced begins.
const HIDDEN: &str = ".";
/// How it ends.
const OLD: &str = ".old";
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
pub(crate) fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            synced(&open_to_sync(&entry.path())?)?;
        }
    }
    sync_folder(folder)
}

/// Brings files of a folder and the folders that they lie in to the disk. A file that cannot be opened for that is passed over.
///
/// - `files`: from the folder.
pub(crate) fn sync_files<'f>(
    folder: &Path,
    files: impl Iterator<Item = &'f str>,
) -> io::Result<()> {
    let mut folders = BTreeSet::from([folder.to_path_buf()]);
    for path in files.map(|file| folder.join(file)) {
        if let Ok(file) = open_to_sync(&path) {
            synced(&file)?;
        }
        let above = path.ancestors().skip(1).take_while(|above| *above != folder);
        folders.extend(above.map(Path::to_path_buf));
    }
    folders.iter().try_for_each(|folder| sync_folder(folder))
}

fn open_to_sync(path: &Path) -> io::Result<File> {
    // Windows brings to the disk only what is open for writing.
    OpenOptions::new().read(true).write(cfg!(windows)).open(path)
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
    file.sync_all().or_else(|cause| if is_impossible(&cause) { Ok(()) } else { Err(cause) })
}

/// Whether a file system, of a network or of a program, says by an error that it has no locks, or cannot be asked to bring a file to the disk.
/// `infalign-reward`, which does not depend on this crate, has the same in `cache_file.rs`.
#[must_use]
pub fn is_impossible(cause: &io::Error) -> bool {
    // ENOLCK, ENOTSUP and EOPNOTSUPP, for which there is no kind everywhere, of Linux, and of macOS and the BSDs.
    let is_linux = cfg!(any(target_os = "linux", target_os = "android"));
    let numbers: &[i32] = if is_linux { &[37, 95] } else { &[77, 45, 102] };
    let by_number = cfg!(unix) && cause.raw_os_error().is_some_and(|n| numbers.contains(&n));
    by_number || matches!(cause.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput)
}

#[cfg(test)]
mod tests;
