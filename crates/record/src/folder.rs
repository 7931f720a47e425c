//! Reading a run's folder, which may come from a stranger.
//!
//! Nothing is followed out of it, nothing is read without a limit, and what is refused is named.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path};

use serde::de::DeserializeOwned;

use crate::RecordError;
use crate::atomic::is_half_written;
use crate::record::{Record, SCHEMA};
use crate::run_dir::START_FILE;

/// The record.
pub const RECORD: &str = "record.json";
/// The digests of all files.
pub const MANIFEST: &str = "manifest-sha256.txt";
/// The resolved configuration.
pub const CONFIG: &str = "config.toml";
/// What a replication has to reach, declared before the run.
pub const EXPECT: &str = "expect.toml";
/// The changes to the program's source that are in no commit, where they are to be kept.
pub const DIFF: &str = "diff.patch";
/// The RO-Crate.
pub const CRATE: &str = "ro-crate-metadata.json";
/// The page for people.
pub const PREVIEW: &str = "ro-crate-preview.html";
/// A run's numbers.
pub const RESULTS: &str = "results.json";
/// What the samples of an evaluation depend on.
pub const SETTINGS: &str = "settings.json";
/// The key of [`SETTINGS`] that says by which version of their form they say it; absent means the first.
pub const SETTINGS_VERSION: &str = "version of the settings";
/// The steps of a training, in its folder.
pub const STEPS: &str = "metrics.jsonl";
/// Held by the process that works on a run; empty.
pub const LOCK: &str = ".lock";

/// Files of the record itself, which are no outputs.
pub const OF_RECORD: [&str; 8] =
    [START_FILE, RECORD, MANIFEST, CONFIG, EXPECT, DIFF, CRATE, PREVIEW];

/// Larger files of the record are refused.
const MAX_BYTES: u64 = 64 << 20;
/// Larger files that grow with a run's responses and steps are, too: beyond what a machine that has written them would hold.
const MAX_OUTPUT: u64 = 64 << 30;
/// More files, or deeper folders, are no run's.
const MAX_FILES: usize = 200_000;
const MAX_DEPTH: usize = 32;

/// All files below a folder with `/` between names, in order, but for empty files [`LOCK`], of runs within it too, and those [`is_of_finder`].
///
/// # Errors
/// [`RecordError::Refused`] for a symbolic link within it, something that is neither file nor folder, a name that is not UTF-8 or holds a
/// control character, too many files, or too deep folders; [`RecordError::Io`].
pub fn files(folder: &Path) -> Result<Vec<String>, RecordError> {
    // The folder itself may be named by a link: whoever names it has chosen it.
    let metadata = fs::metadata(folder).map_err(RecordError::io("read", folder))?;
    if !metadata.is_dir() {
        return Err(refused(folder, "it is no folder"));
    }
    let mut found = Vec::new();
    walk(folder, "", 0, &mut found)?;
    found.sort();
    Ok(found)
}

fn walk(
    folder: &Path,
    prefix: &str,
    depth: usize,
    found: &mut Vec<String>,
) -> Result<(), RecordError> {
    if depth > MAX_DEPTH {
        return Err(refused(folder, "its folders are too deep"));
    }
    for entry in fs::read_dir(folder).map_err(RecordError::io("read the folder", folder))? {
        let entry = entry.map_err(RecordError::io("read the folder", folder))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(RecordError::io("read", &path))?;
        let name = entry.file_name().into_string().ok();
        let name = name.filter(|name| !name.contains(char::is_control));
        let Some(name) = name else { return Err(refused(&path, "its name is no plain text")) };
        let relative = format!("{prefix}{name}");
        if kind.is_symlink() {
            return Err(refused(&path, "it is a symbolic link, which may lead out of the run"));
        } else if kind.is_dir() {
            walk(&path, &format!("{relative}/"), depth + 1, found)?;
        } else if !kind.is_file() {
            return Err(refused(&path, "it is neither a file nor a folder"));
        } else if !is_of_finder(name.as_ref())
            && (name != LOCK || entry.metadata().is_ok_and(|metadata| metadata.len() > 0))
        {
            found.push(relative);
        }
        if found.len() > MAX_FILES {
            return Err(refused(folder, "it holds too many files"));
        }
    }
    Ok(())
}

/// Whether a file's name is one of those that macOS puts beside the files of others, where its Finder shows a folder or where they are copied to
/// another file system: they belong to no run.
#[must_use]
pub fn is_of_finder(name: &OsStr) -> bool {
    name == ".DS_Store" || name.as_encoded_bytes().starts_with(b"._")
}

/// Whether a name is that of what a process leaves in a folder where it begins a run, or of a file that belongs to none.
#[must_use]
pub fn is_of_beginning(name: &OsStr) -> bool {
    name == LOCK || is_half_written(name) || is_of_finder(name)
}

/// Whether a file holds weights of a model, by its name.
#[must_use]
pub fn is_weights(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "safetensors")
        && path.file_name().is_some_and(|name| !is_of_finder(name))
}

/// Names that Windows takes for devices, whatever follows after a dot.
const DEVICES: [&str; 22] = [
    "con", "nul", "aux", "prn", "com1", "com2", "com3", "com4", "com5", "com6", "com7", "com8",
    "com9", "lpt1", "lpt2", "lpt3", "lpt4", "lpt5", "lpt6", "lpt7", "lpt8", "lpt9",
];

/// The most characters of a name that a folder is given: file systems take 255 bytes, and some names get more behind them.
pub const LONGEST_NAME: usize = 200;

/// Whether a folder can have a name on every system: of letters, digits, `-`, `_` and `.`, none of these dots at an end, and not that of a device,
/// such as `con`.
#[must_use]
pub fn can_be_named(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let stem = name.split('.').next().unwrap_or_default();
    let is_device = DEVICES.iter().any(|device| device.eq_ignore_ascii_case(stem));
    !name.is_empty()
        && name.chars().all(plain)
        && !name.starts_with('.')
        && !name.ends_with('.')
        && !is_device
}

/// Whether a path stays below the folder that it is joined to: `\` separates on some systems and is refused on all, `:` only where it
/// follows the letter of a drive.
#[must_use]
pub fn stays_inside(path: &str) -> bool {
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    let leads_to_drive = cfg!(not(unix)) && path.contains(':');
    !path.is_empty() && plain && !leads_to_drive && !path.contains(['\\', '\0'])
}

/// A file of the record as text.
///
/// # Errors
/// [`RecordError::Refused`] for one that is a link, too large, or no text; [`RecordError::Io`].
pub fn text(folder: &Path, name: &str) -> Result<String, RecordError> {
    text_within(folder, name, MAX_BYTES)
}

/// A file that grows with a run's responses or steps as text: it may be larger than the files of the record.
///
/// # Errors
/// As [`text`].
pub fn output(folder: &Path, name: &str) -> Result<String, RecordError> {
    text_within(folder, name, MAX_OUTPUT)
}

/// - `most`: in bytes; larger files are refused.
fn text_within(folder: &Path, name: &str, most: u64) -> Result<String, RecordError> {
    let path = folder.join(name);
    let metadata = fs::symlink_metadata(&path).map_err(RecordError::io("read", &path))?;
    if !metadata.is_file() {
        return Err(refused(&path, "it is no file"));
    }
    if metadata.len() > most {
        return Err(refused(&path, &format!("it is too large: it has more than {most} bytes")));
    }
    let bytes = fs::read(&path).map_err(RecordError::io("read", &path))?;
    String::from_utf8(bytes).map_err(|_| refused(&path, "it is no text"))
}

/// A file of the record as JSON.
///
/// # Errors
/// As [`text`], and [`RecordError::Refused`] for what is no JSON, is nested too deep, or is not what is expected there.
pub fn json<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<T, RecordError> {
    json_within(folder, name, MAX_BYTES)
}

/// A file of samples as JSON: it holds every response, and may be larger than the files of the record.
///
/// # Errors
/// As [`json`].
pub fn samples<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<T, RecordError> {
    json_within(folder, name, MAX_OUTPUT)
}

fn json_within<T: DeserializeOwned>(
    folder: &Path,
    name: &str,
    most: u64,
) -> Result<T, RecordError> {
    let text = text_within(folder, name, most)?;
    serde_json::from_str(&text).map_err(|error| {
        // The key is looked for where something is wrong alone: it takes its time, and files of samples are large.
        let mut again = serde_json::Deserializer::from_str(&text);
        let keyed = serde_path_to_error::deserialize::<_, T>(&mut again).err();
        let what = keyed.map_or_else(|| error.to_string(), |error| error.to_string());
        refused(&folder.join(name), &format!("it is not what is expected there: {what}"))
    })
}

/// The record of a run's folder.
///
/// # Errors
/// As [`json`], and [`RecordError::Refused`] for another schema than [`SCHEMA`], and for a control character in the command, the start, the UUID
/// or the path of an output.
pub fn record(folder: &Path) -> Result<Record, RecordError> {
    let document: serde_json::Value = json(folder, RECORD)?;
    let schema = document.get("schema").and_then(|schema| schema.as_str()).unwrap_or("none");
    if schema != SCHEMA {
        let what = format!("its schema is {schema:?}; this version reads {SCHEMA:?} alone");
        return Err(refused(&folder.join(RECORD), &what));
    }
    let record: Record = serde_path_to_error::deserialize(document).map_err(|error| {
        refused(&folder.join(RECORD), &format!("it is not what is expected there: {error}"))
    })?;
    match no_plain_text(&record) {
        Some(what) => Err(refused(&folder.join(RECORD), &what)),
        None => Ok(record),
    }
}

/// As [`record`]; none where the folder has no such file.
///
/// # Errors
/// As [`record`], for a file that is there.
pub fn record_if_there(folder: &Path) -> Result<Option<Record>, RecordError> {
    match record(folder) {
        Err(RecordError::Io { cause, .. }) if cause.kind() == ErrorKind::NotFound => Ok(None),
        record => record.map(Some),
    }
}

/// What is wrong with the first text that holds a control character, among those that runs are told apart by.
fn no_plain_text(record: &Record) -> Option<String> {
    let texts = [("command", &record.command), ("start", &record.start), ("uuid", &record.uuid)];
    let paths = record.outputs.iter().map(|output| ("outputs[].path", &output.path));
    let mut texts = texts.into_iter().chain(paths);
    let (key, text) = texts.find(|(_, text)| text.contains(char::is_control))?;
    Some(format!("its {key} holds a control character: {text:?}"))
}

pub(crate) fn refused(path: &Path, reason: &str) -> RecordError {
    RecordError::Refused { path: path.to_path_buf(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_out_of_the_folder_are_known() {
        for path in ["a", "a/b.json", "methods/ctrl-best/policy/x", "..a/b.."] {
            assert!(stays_inside(path), "{path}");
        }
        for path in ["", "../a", "a/../../b", "/etc/passwd", "./a", "c:\\x", "a\\..\\b", "a\0b"] {
            assert!(!stays_inside(path), "{path}");
        }
        for path in ["a:b.json", "methods/best-of:4/samples.json"] {
            assert_eq!(stays_inside(path), cfg!(unix), "{path}");
        }
    }

    #[test]
    fn files_are_listed_in_order_and_an_empty_lock_is_none() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("b/c")).unwrap();
        for name in ["b/c/z", "b/a", "b/.lock", "a", LOCK] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(files(folder.path()).unwrap(), ["a", "b/a", "b/c/z"]);
        fs::write(folder.path().join(LOCK), "x").unwrap();
        assert_eq!(files(folder.path()).unwrap()[0], LOCK);
    }

    #[test]
    fn what_macos_leaves_beside_files_is_none_of_a_run() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("b/._c")).unwrap();
        for name in [".DS_Store", "._a", "a", "b/.DS_Store", "b/._c/z", "b/.d", "b/c._d"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        assert_eq!(files(folder.path()).unwrap(), ["a", "b/._c/z", "b/.d", "b/c._d"]);
    }

    #[test]
    fn names_that_some_system_has_no_folder_for_are_known() {
        for name in ["a", "Best-of_4", "exp10.v2", "console", "com0", "com10", "a.con", "0"] {
            assert!(can_be_named(name), "{name}");
        }
        for name in
            ["", ".", ".a", "a.", "a/b", "a b", "é", "con", "CON", "Nul.txt", "lpt9", "com1.a.b"]
        {
            assert!(!can_be_named(name), "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_refused_wherever_they_lead() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "").unwrap();
        std::os::unix::fs::symlink("a", folder.path().join("b")).unwrap();
        let error = files(folder.path()).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
        text(folder.path(), "b").unwrap_err();
        // But for the folder that is named itself.
        let elsewhere = tempfile::tempdir().unwrap();
        let link = elsewhere.path().join("run");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        fs::remove_file(folder.path().join("b")).unwrap();
        assert_eq!(files(&link).unwrap(), ["a"]);
    }

    #[test]
    fn control_characters_where_a_record_has_none_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let run = crate::recorder::tests::finished_run(root.path(), "run");
        let whole = record(&run).unwrap();
        type Change = fn(&mut Record);
        let changes: [(&str, Change); 4] = [
            ("command", |record| record.command.push('\u{1b}')),
            ("start", |record| record.start.push('\n')),
            ("uuid", |record| record.uuid.push('\u{9b}')),
            ("outputs[].path", |record| record.outputs[1].path.push('\u{7f}')),
        ];
        for (key, change) in changes {
            let mut changed = whole.clone();
            change(&mut changed);
            fs::write(run.join(RECORD), serde_json::to_vec(&changed).unwrap()).unwrap();
            let error = record(&run).unwrap_err().to_string();
            assert!(error.contains(&format!("its {key} holds a control character")), "{error}");
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }

    #[test]
    fn other_schemas_nonsense_and_nesting_are_refused_with_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let error = |content: &str| {
            fs::write(folder.path().join(RECORD), content).unwrap();
            record(folder.path()).unwrap_err().to_string()
        };
        assert!(error(r#"{"schema": "record/99"}"#).contains("record/99"));
        assert!(error(r#"{"schema": "record/1"}"#).contains("missing field"));
        let uuid = error(r#"{"schema": "record/1", "uuid": 5}"#);
        assert!(uuid.contains("uuid: invalid type: integer `5`"), "{uuid}");
        assert!(error("{").contains("EOF"));
        fs::write(folder.path().join(RESULTS), r#"{"kl": [{"exact": null}]}"#).unwrap();
        type Kl = std::collections::BTreeMap<String, Vec<std::collections::BTreeMap<String, f64>>>;
        let keyed = json::<Kl>(folder.path(), RESULTS).unwrap_err().to_string();
        assert!(keyed.contains("kl[0].exact: invalid type: null"), "{keyed}");
        assert!(error(&"[".repeat(100_000)).contains("recursion"));
        let file = fs::File::create(folder.path().join(RECORD)).unwrap();
        file.set_len(MAX_BYTES + 1).unwrap();
        assert!(record(folder.path()).unwrap_err().to_string().contains("too large"));
        // What grows with a run may be larger.
        let file = fs::File::create(folder.path().join("samples.json")).unwrap();
        file.set_len(MAX_BYTES + 1).unwrap();
        let of_samples = || samples::<serde_json::Value>(folder.path(), "samples.json");
        assert!(of_samples().unwrap_err().to_string().contains("expected value"));
        assert_eq!(output(folder.path(), "samples.json").unwrap().len() as u64, MAX_BYTES + 1);
        file.set_len(MAX_OUTPUT + 1).unwrap();
        assert!(of_samples().unwrap_err().to_string().contains("too large"));
    }
}
