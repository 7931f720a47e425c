//! The weights of models by what they are, whatever files they lie in: a model that was divided anew, or whose files say something else
//! beside the tensors, has the same digest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::RecordError;
use crate::hash::{sha256_bytes, sha256_of};

/// Longer heads are refused by the format.
const MAX_HEAD: u64 = 100_000_000;

/// The weights of a model that a run read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    /// What the model was for, as in [`crate::record::Input::role`].
    pub role: String,
    /// Number of tensors.
    pub tensors: usize,
    /// Numbers in all of them.
    pub parameters: u64,
    /// SHA-256 over a line for each tensor, in order: the JSON array of its name, type, shape, and the SHA-256 of its bytes.
    pub sha256: String,
}

#[derive(Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The weights in files of the format safetensors, all of one model; none where one of them is no such file, of which whoever loads it complains.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn weights(role: &str, files: &[&Path]) -> Result<Option<Weights>, RecordError> {
    let (mut lines, mut parameters) = (Vec::new(), 0_u64);
    let read = |path: &&Path| lines_of(path).map_err(RecordError::io("read", path));
    let read: Vec<Result<_, _>> = files.par_iter().map(read).collect();
    for found in read {
        let Some(found) = found? else { return Ok(None) };
        for (line, numbers) in found {
            lines.push(line);
            parameters = parameters.saturating_add(numbers);
        }
    }
    lines.sort();
    let sha256 = sha256_bytes(lines.concat().as_bytes());
    let tensors = lines.len();
    Ok((tensors > 0).then(|| Weights { role: role.to_owned(), tensors, parameters, sha256 }))
}

/// A line for each tensor of a file, with how many numbers it has.
fn lines_of(path: &Path) -> std::io::Result<Option<Vec<(String, u64)>>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let Some((tensors, start)) = head(&mut file)? else { return Ok(None) };
    let mut lines = Vec::new();
    for (name, Tensor { dtype, shape, data_offsets: [from, to] }) in tensors {
        let (Some(from), Some(to)) = (start.checked_add(from), start.checked_add(to)) else {
            return Ok(None);
        };
        if from > to || to > size {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(from))?;
        let digest = sha256_of((&mut file).take(to - from))?;
        let numbers = shape.iter().fold(1_u64, |product, n| product.saturating_mul(*n));
        lines.push((format!("{}\n", serde_json::json!([name, dtype, shape, digest])), numbers));
    }
    Ok(Some(lines))
}

/// The tensors of a file by their names, and where their bytes begin.
fn head(file: &mut File) -> std::io::Result<Option<(BTreeMap<String, Tensor>, u64)>> {
    let mut length = Vec::new();
    file.take(8).read_to_end(&mut length)?;
    let length = length.try_into().map_or(u64::MAX, u64::from_le_bytes);
    if length > MAX_HEAD {
        return Ok(None);
    }
    let mut text = Vec::new();
    file.take(length).read_to_end(&mut text)?;
    let Ok(mut entries) = serde_json::from_slice::<BTreeMap<String, Value>>(&text) else {
        return Ok(None);
    };
    entries.remove("__metadata__");
    let tensors = entries.into_iter().map(|(name, value)| Some((name, tensor(value)?)));
    Ok(tensors.collect::<Option<_>>().map(|tensors| (tensors, 8 + length)))
}

fn tensor(value: Value) -> Option<Tensor> {
    serde_json::from_value(value).ok()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;

    /// A file of tensors of one row each.
    fn file(path: PathBuf, tensors: &[(&str, &[f32])], metadata: &str) -> PathBuf {
        let (mut head, mut body) = (json!({ "__metadata__": { "format": metadata } }), Vec::new());
        for (name, values) in tensors {
            let from = body.len();
            body.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            let shape = [values.len()];
            head[*name] =
                json!({ "dtype": "F32", "shape": shape, "data_offsets": [from, body.len()] });
        }
        let head = head.to_string();
        let length = (head.len() as u64).to_le_bytes();
        std::fs::write(&path, [&length[..], head.as_bytes(), &body].concat()).unwrap();
        path
    }

    #[test]
    fn the_digest_is_of_the_tensors_and_not_of_their_files() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let (a, b) = (("a", &[1.0, 2.0][..]), ("b", &[3.0][..]));
        let of = |files: &[PathBuf]| {
            let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
            weights("model", &files).unwrap().unwrap()
        };
        let whole = of(&[file(at("whole"), &[a, b], "pt")]);
        assert_eq!((whole.tensors, whole.parameters), (2, 3));
        let parts = [file(at("2"), &[b], "other"), file(at("1"), &[a], "pt")];
        assert_eq!(of(&parts), whole);
        let changed = [a, ("b", &[3.5][..])];
        assert_ne!(of(&[file(at("changed"), &changed, "pt")]).sha256, whole.sha256);
        let renamed = [a, ("c", b.1)];
        assert_ne!(of(&[file(at("renamed"), &renamed, "pt")]).sha256, whole.sha256);
    }

    #[test]
    fn what_is_no_such_file_has_no_weights() {
        let root = tempfile::tempdir().unwrap();
        let path = file(root.path().join("cut"), &[("a", &[1.0, 2.0])], "pt");
        let bytes = std::fs::read(&path).unwrap();
        let of = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            weights("model", &[&path]).unwrap()
        };
        let huge = u64::MAX.to_le_bytes();
        for bytes in [&bytes[..bytes.len() - 1], &bytes[..20], b"", b"PK", &huge] {
            assert_eq!(of(bytes), None);
        }
    }
}
