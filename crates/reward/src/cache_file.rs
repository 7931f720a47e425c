//! A file of rewards by the content of what was scored: JSON Lines that grow at their end.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::RewardError;
use crate::cached::Key;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// 64 hexadecimal digits.
    key: String,
    reward: f32,
}

/// How every line begins that is written here; the digits of its key follow.
const START: &[u8] = b"{\"key\":\"";

/// The rewards of a file; none of one that is not there. The beginning of a line after the last end of one was cut off while it was written,
/// and is left out.
///
/// # Errors
/// [`RewardError::CacheFile`], [`RewardError::CacheLine`].
pub(crate) fn read(path: &Path) -> Result<HashMap<Key, f32>, RewardError> {
    let bytes = match std::fs::read(path) {
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(HashMap::new()),
        bytes => bytes.map_err(failed("read", path))?,
    };
    let mut rewards = HashMap::new();
    for (line, number) in bytes.split_inclusive(|byte| *byte == b'\n').zip(1..) {
        if was_cut_off(line) {
            break;
        }
        let damaged = || RewardError::CacheLine { path: path.to_path_buf(), line: number };
        let (key, reward) = parse(line).ok_or_else(damaged)?;
        rewards.entry(key).or_insert(reward);
    }
    Ok(rewards)
}

/// Whether a line is the beginning of one that is written here, without its end, or what a power cut leaves in its place.
fn was_cut_off(line: &[u8]) -> bool {
    let (start, rest) = line.split_at(line.len().min(START.len()));
    let is_ours = START.starts_with(start) && rest.iter().take(64).all(u8::is_ascii_hexdigit);
    !line.ends_with(b"\n") && (is_ours || line.iter().all(|byte| *byte == 0))
}

/// Adds rewards at the end of a file, which is made if it is not there, and brings them to the disk.
///
/// # Errors
/// [`RewardError::CacheFile`]. What was written halfway is cut off by the next call.
pub(crate) fn append(path: &Path, scored: &[(Key, f32)]) -> Result<(), RewardError> {
    let mut lines = String::new();
    for (key, reward) in scored {
        let line = Line { key: hex(key), reward: *reward };
        lines += &serde_json::to_string(&line)
            .map_err(io::Error::from)
            .map_err(failed("write", path))?;
        lines.push('\n');
    }
    append_whole(path, lines.as_bytes()).map_err(failed("write", path))
}

fn append_whole(path: &Path, lines: &[u8]) -> io::Result<()> {
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    // Against other processes that have the file; closing it unlocks it.
    file.lock().or_else(unless_impossible)?;
    cut_off(&mut file)?;
    file.seek(SeekFrom::End(0))?;
    file.write_all(lines)?;
    file.sync_data().or_else(unless_impossible)
}

/// Passes over what a file system, of a network or of a program, says where it has no locks, or cannot be asked to bring a file to the disk. It is
/// that of `is_impossible` of `infalign_record::atomic`, on which this crate does not depend.
fn unless_impossible(cause: io::Error) -> io::Result<()> {
    // ENOLCK, ENOTSUP and EOPNOTSUPP, for which there is no kind everywhere, of Linux, and of macOS and the BSDs.
    let is_linux = cfg!(any(target_os = "linux", target_os = "android"));
    let numbers: &[i32] = if is_linux { &[37, 95] } else { &[77, 45, 102] };
    let by_number = cfg!(unix) && cause.raw_os_error().is_some_and(|n| numbers.contains(&n));
    let is_impossible =
        by_number || matches!(cause.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput);
    if is_impossible { Ok(()) } else { Err(cause) }
}

/// Takes away a last line without an end, of a file that was read as a cache's.
fn cut_off(file: &mut File) -> io::Result<()> {
    let length = file.seek(SeekFrom::End(0))?;
    if length == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last == [b'\n'] {
        return Ok(());
    }
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    file.set_len(whole(&bytes) as u64)
}

/// How many of the bytes belong to lines that have their end.
fn whole(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

fn parse(line: &[u8]) -> Option<(Key, f32)> {
    let Line { key, reward } = serde_json::from_slice(line).ok()?;
    Some((key_of(&key)?, reward)).filter(|(_, reward)| reward.is_finite())
}

fn hex(key: &Key) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key_of(hex: &str) -> Option<Key> {
    let digits: Option<Vec<u8>> =
        hex.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
    let bytes: Vec<u8> =
        digits?.chunks(2).map(|two| two.iter().fold(0, |byte, digit| 16 * byte + digit)).collect();
    (hex.len() == 64).then_some(bytes)?.try_into().ok()
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RewardError {
    move |cause| RewardError::CacheFile { action, path: path.to_path_buf(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Key = [0xa1; 32];
    const TWO: Key = [0x0b; 32];

    fn file() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache.jsonl");
        append(&path, &[(ONE, 0.1), (TWO, -2.0)]).unwrap();
        (dir, path)
    }

    #[test]
    fn what_is_added_is_read_bit_for_bit() {
        let (_dir, path) = file();
        let numbers = [f32::MIN_POSITIVE, 1.0 / 3.0, f32::MAX, -0.0];
        let more: Vec<_> = numbers.iter().zip(1..).map(|(reward, n)| ([n; 32], *reward)).collect();
        append(&path, &more).unwrap();
        append(&path, &[(ONE, 7.0)]).unwrap();
        let rewards = read(&path).unwrap();
        assert_eq!(rewards.len(), 6);
        assert_eq!((rewards[&ONE], rewards[&TWO]), (0.1, -2.0), "the first of two stays");
        assert!(more.iter().all(|(key, reward)| rewards[key].to_bits() == reward.to_bits()));
        assert!(read(&path.with_extension("absent")).unwrap().is_empty());
    }

    /// Cut at every byte, the lines before stay and the next ones follow them.
    #[test]
    fn a_line_that_was_cut_off_is_mended() {
        let (_dir, path) = file();
        let bytes = std::fs::read(&path).unwrap();
        let first = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let n_whole = usize::from(length >= first);
            assert_eq!(read(&path).unwrap().len(), n_whole, "{length} bytes");
            append(&path, &[([3; 32], 3.0)]).unwrap();
            let rewards = read(&path).unwrap();
            assert_eq!((rewards.len(), rewards[&[3; 32]]), (n_whole + 1, 3.0), "{length} bytes");
        }
    }

    #[test]
    fn a_damaged_line_is_named() {
        let (_dir, path) = file();
        let text = std::fs::read_to_string(&path).unwrap();
        let key = hex(&ONE);
        for line in [
            "{\"key\"".to_owned(),
            String::new(),
            format!("{{\"key\": \"{key}\"}}"),
            format!("{{\"key\": \"{key}\", \"reward\": null}}"),
            format!("{{\"key\": \"{key}\", \"reward\": 1e99}}"),
            format!("{{\"key\": \"{}\", \"reward\": 1}}", &key[1..]),
            format!("{{\"key\": \"+{}\", \"reward\": 1}}", &key[1..]),
        ] {
            std::fs::write(&path, format!("{text}{line}\n{text}")).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains("cache.jsonl, line 3"), "{line}: {error}");
        }
    }

    /// Or the file would be cut off where the next rewards are added.
    #[test]
    fn a_last_line_of_another_form_is_damaged_without_its_end_too() {
        let (_dir, path) = file();
        let text = std::fs::read_to_string(&path).unwrap();
        for line in ["precious", "{\"kez", "{\"key\": \"", "{\"key\":\"precious"] {
            std::fs::write(&path, format!("{text}{line}")).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains("cache.jsonl, line 3"), "{line}: {error}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_system_without_locks_is_not_in_the_way() {
        // ENOLCK, EOPNOTSUPP, EINVAL; and EINTR, EIO, ENOSPC.
        let taken = [37, 95, 22, 4, 5, 28]
            .map(|number| unless_impossible(io::Error::from_raw_os_error(number)).is_ok());
        assert_eq!(taken, [true, true, true, false, false, false]);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let (dir, _) = file();
        let path = dir.path().join("no/such/cache.jsonl");
        let error = append(&path, &[(ONE, 1.0)]).unwrap_err().to_string();
        assert!(error.contains("cache.jsonl") && error.contains("write"), "{error}");
        assert!(read(dir.path()).unwrap_err().to_string().contains("read"));
    }
}
