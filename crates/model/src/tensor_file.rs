//! Reading safetensors files, one tensor after the other.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::ModelError;

/// Bytes that say how long the header is.
const LENGTH: u64 = size_of::<u64>() as u64;

/// The most bytes of a header that the format allows.
const LONGEST_HEADER: u64 = 100_000_000;

/// An open file whose header was read and found true.
pub(crate) struct TensorFile<'a> {
    path: &'a Path,
    file: File,
    /// Where the numbers begin.
    data: u64,
    /// By name.
    entries: BTreeMap<String, Entry>,
}

/// What the header says of a tensor.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

impl<'a> TensorFile<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`ModelError::Io`], and [`ModelError::Safetensors`] with the tensor and the sizes at fault.
    pub(crate) fn open(path: &'a Path) -> Result<Self, ModelError> {
        let invalid = |reason| ModelError::Safetensors { path: path.into(), reason };
        let mut file = File::open(path).map_err(ModelError::read(path))?;
        let total = file.metadata().map_err(ModelError::read(path))?.len();
        if total < LENGTH {
            return Err(invalid(format!("it has {total} bytes, too few for a header")));
        }
        let mut length = [0; LENGTH as usize];
        file.read_exact(&mut length).map_err(ModelError::read(path))?;
        let header = u64::from_le_bytes(length);
        let Some(data) = header.checked_add(LENGTH).filter(|data| *data <= total) else {
            let reason =
                format!("its header should take {header} bytes, but the whole file has {total}");
            return Err(invalid(reason));
        };
        if header > LONGEST_HEADER {
            return Err(invalid(format!(
                "its header should take {header} bytes, where {LONGEST_HEADER} are the most that the format allows"
            )));
        }
        let mut text = vec![0; header as usize];
        file.read_exact(&mut text).map_err(ModelError::read(path))?;
        let entries = entries(&text).map_err(|error| invalid(format!("its header: {error}")))?;
        check(&entries, total - data).map_err(invalid)?;
        Ok(Self { path, file, data, entries })
    }

    /// The names of the tensors, in alphabetical order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    /// Shape and numbers of a tensor, row-major.
    ///
    /// # Errors
    /// [`ModelError::Io`], and [`ModelError::Values`] for a type other than f32, f16 and bf16, or numbers that are not finite.
    pub(crate) fn read(&mut self, name: &str) -> Result<(Vec<usize>, Vec<f32>), ModelError> {
        let path = self.path;
        let entry = self
            .entries
            .get(name)
            .ok_or_else(|| ModelError::MissingTensor { path: path.into(), name: name.into() })?;
        let [begin, end] = entry.data_offsets;
        let mut bytes = vec![0; (end - begin) as usize];
        self.file.seek(SeekFrom::Start(self.data + begin)).map_err(ModelError::read(path))?;
        self.file.read_exact(&mut bytes).map_err(ModelError::read(path))?;
        let values = to_f32(&entry.dtype, &bytes);
        let refuse = |reason| ModelError::Values { path: path.into(), name: name.into(), reason };
        Ok((entry.shape.clone(), values.map_err(refuse)?))
    }
}

fn entries(header: &[u8]) -> serde_json::Result<BTreeMap<String, Entry>> {
    let mut keys: BTreeMap<String, Value> = serde_json::from_slice(header)?;
    keys.remove("__metadata__");
    keys.into_iter().map(|(name, entry)| Ok((name, serde_json::from_value(entry)?))).collect()
}

/// Refuses a header that contradicts itself or a file with so many bytes of numbers.
fn check(entries: &BTreeMap<String, Entry>, total: u64) -> Result<(), String> {
    let mut order: Vec<_> = entries.iter().collect();
    order.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut last = 0;
    for (name, Entry { dtype, shape, data_offsets: [begin, end] }) in order {
        if *begin != last || end < begin {
            return Err(format!(
                "tensor `{name}` should lie at bytes {begin} to {end} of the numbers, but those before it end at {last}"
            ));
        }
        if *end > total {
            return Err(format!(
                "tensor `{name}` should lie at bytes {begin} to {end} of the numbers, but the file has only {total}: it is cut off"
            ));
        }
        let elements = shape.iter().try_fold(1_u64, |n, side| n.checked_mul(*side as u64));
        let size = width(dtype).map(|width| elements.and_then(|n| n.checked_mul(width)));
        if size.is_some_and(|size| size != Some(end - begin)) {
            return Err(format!(
                "tensor `{name}` has the shape {shape:?} in {dtype}, but {} bytes",
                end - begin
            ));
        }
        last = *end;
    }
    if last != total {
        return Err(format!(
            "the tensors end at byte {last} of the numbers, but the file has {total}"
        ));
    }
    Ok(())
}

/// Bytes of a number, of the types that are read.
fn width(dtype: &str) -> Option<u64> {
    match dtype {
        "F32" => Some(4),
        "F16" | "BF16" => Some(2),
        _ => None,
    }
}

fn to_f32(dtype: &str, data: &[u8]) -> Result<Vec<f32>, String> {
    let values: Vec<f32> = match dtype {
        "F32" => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        "F16" => data.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        "BF16" => {
            data.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect()
        }
        other => return Err(format!("has type {other}; F32, F16 and BF16 are read")),
    };
    match values.iter().position(|v| !v.is_finite()) {
        Some(index) => {
            Err(format!("holds {} at element {index}: the weights are damaged", values[index]))
        }
        None => Ok(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a file with this header and so many bytes of numbers.
    fn refused(header: &str, numbers: usize) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.safetensors");
        let length = (header.len() as u64).to_le_bytes();
        let bytes = [&length[..], header.as_bytes(), &vec![0; numbers]].concat();
        std::fs::write(&path, bytes).unwrap();
        TensorFile::open(&path).err().unwrap().to_string()
    }

    #[test]
    fn a_header_that_lies_is_told_by_tensor_and_sizes() {
        let entry = |name: &str, shape: &str, begin: u64, end: u64| {
            format!(
                r#""{name}": {{"dtype": "F32", "shape": {shape}, "data_offsets": [{begin}, {end}]}}"#
            )
        };
        let (a, b) = (entry("a", "[2]", 0, 8), entry("b", "[2, 2]", 8, 24));
        for (header, numbers, told) in [
            (
                format!("{{{a}, {b}}}"),
                20,
                "`b` should lie at bytes 8 to 24 of the numbers, but the file has only 20",
            ),
            (
                format!("{{{a}, {}}}", entry("b", "[2]", 4, 12)),
                24,
                "`b` should lie at bytes 4 to 12 of the numbers, but those before it end at 8",
            ),
            (
                format!("{{{}}}", entry("a", "[3]", 0, 8)),
                8,
                "`a` has the shape [3] in F32, but 8 bytes",
            ),
            (format!("{{{}}}", entry("a", "[4294967296, 4294967296]", 0, 8)), 8, "but 8 bytes"),
            (format!("{{{a}}}"), 12, "end at byte 8 of the numbers, but the file has 12"),
            ("{".into(), 0, "its header: EOF"),
        ] {
            let error = refused(&header, numbers);
            assert!(error.contains("w.safetensors") && error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_file_shorter_than_its_header_is_told_by_both_lengths() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.safetensors");
        for (bytes, told) in [
            (vec![1; 4], "it has 4 bytes"),
            (
                [&100_u64.to_le_bytes()[..], b"{}"].concat(),
                "take 100 bytes, but the whole file has 10",
            ),
            (vec![255; 10], "but the whole file has 10"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = TensorFile::open(&path).err().unwrap().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_header_longer_than_the_format_allows_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.safetensors");
        std::fs::write(&path, (LONGEST_HEADER + 1).to_le_bytes()).unwrap();
        // Without a byte of it on the disk.
        File::options().write(true).open(&path).unwrap().set_len(2 * LONGEST_HEADER).unwrap();
        let error = TensorFile::open(&path).err().unwrap().to_string();
        assert!(error.contains("take 100000001 bytes"), "{error}");
    }
}
