//! safetensors in and out, by Hugging Face's tensor names.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::path::{Path, PathBuf};

use burn::module::{Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::{Dtype, tensor::TensorView};

use crate::tensor_file::TensorFile;
use crate::tensors::numbers;
use crate::{HubModel, ModelError, json_file};

/// The tensors of a checkpoint by name, as f32.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    path: PathBuf,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Checkpoint {
    /// Reads `DIR/model.safetensors`, or the shards that `DIR/model.safetensors.index.json` lists.
    ///
    /// # Errors
    /// [`ModelError`] names the file, and the tensor where one is at fault: not finite, or of a type other than f32, f16 and bf16.
    pub(crate) fn read(dir: &Path) -> Result<Self, ModelError> {
        let mut checkpoint = Self::at(dir);
        for path in &weight_files(dir)? {
            checkpoint.read_file(path)?;
        }
        Ok(checkpoint)
    }

    /// Adds the tensors of a safetensors file.
    ///
    /// # Errors
    /// As [`Checkpoint::read`].
    pub(crate) fn read_file(&mut self, path: &Path) -> Result<(), ModelError> {
        if !path.exists() {
            return Err(absent(path));
        }
        let mut file = TensorFile::open(path)?;
        for name in file.names().into_iter().filter(|name| !is_buffer(name)) {
            let tensor = file.read(&name)?;
            self.tensors.insert(name, tensor);
        }
        Ok(())
    }

    /// An empty checkpoint to be filled and written.
    pub(crate) fn empty() -> Self {
        Self::at(Path::new(""))
    }

    /// An empty checkpoint whose errors name a folder.
    pub(crate) fn at(dir: &Path) -> Self {
        Self { path: dir.into(), tensors: BTreeMap::new() }
    }

    /// Whether a tensor of that name is there.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of a tensor, where it is there.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|(shape, _)| shape.as_slice())
    }

    /// Whether two tensors are there and hold different numbers.
    pub(crate) fn differ(&self, a: &str, b: &str) -> bool {
        let pair = self.tensors.get(a).zip(self.tensors.get(b));
        pair.is_some_and(|(a, b)| a != b)
    }

    /// Refuses tensors of the network that are not among those that the configuration describes.
    ///
    /// # Errors
    /// [`ModelError::SurplusTensor`] names the first.
    pub(crate) fn refuse_others(&self, known: &BTreeSet<String>) -> Result<(), ModelError> {
        let of_network = |name: &&String| name.starts_with("model.");
        match self.tensors.keys().filter(of_network).find(|name| !known.contains(*name)) {
            None => Ok(()),
            Some(name) => {
                Err(ModelError::SurplusTensor { path: self.path.clone(), name: name.clone() })
            }
        }
    }

    /// The folder that errors name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the tensors, in alphabetical order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The same tensors under other names.
    pub(crate) fn renamed(self, rename: impl Fn(&str) -> String) -> Self {
        let renamed = |(name, tensor): (String, _)| (rename(&name), tensor);
        Self { path: self.path, tensors: self.tensors.into_iter().map(renamed).collect() }
    }

    /// Takes a tensor of the expected shape out.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`] and [`ModelError::Shape`].
    pub(crate) fn take<const D: usize>(
        &mut self,
        name: &str,
        expected: [usize; D],
        device: &Device,
    ) -> Result<Tensor<D>, ModelError> {
        let values = self.remove(name, &expected)?;
        Ok(Tensor::from_data(TensorData::new(values, expected), device))
    }

    /// Takes the numbers of a tensor of the expected shape out, row-major.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`] and [`ModelError::Shape`].
    pub(crate) fn remove(
        &mut self,
        name: &str,
        expected: &[usize],
    ) -> Result<Vec<f32>, ModelError> {
        let (shape, values) = self.tensors.remove(name).ok_or_else(|| self.missing(name))?;
        self.check_shape(name, &shape, expected)?;
        Ok(values)
    }

    /// Adds a tensor by its numbers, row-major.
    pub(crate) fn insert(&mut self, name: String, shape: Vec<usize>, values: Vec<f32>) {
        self.tensors.insert(name, (shape, values));
    }

    fn missing(&self, name: &str) -> ModelError {
        ModelError::MissingTensor { path: self.path.clone(), name: name.into() }
    }

    fn check_shape(
        &self,
        name: &str,
        found: &[usize],
        expected: &[usize],
    ) -> Result<(), ModelError> {
        if found == expected {
            return Ok(());
        }
        let (found, expected) = (found.to_vec(), expected.to_vec());
        Err(ModelError::Shape { path: self.path.clone(), name: name.into(), found, expected })
    }

    /// Adds a tensor under a name.
    pub(crate) fn put<const D: usize>(&mut self, name: impl Into<String>, tensor: Tensor<D>) {
        let shape = tensor.dims().to_vec();
        self.tensors.insert(name.into(), (shape, numbers(tensor)));
    }

    /// Writes all tensors as one f32 file; the same tensors give the same bytes.
    ///
    /// # Errors
    /// [`ModelError::Io`] and [`ModelError::Safetensors`].
    pub(crate) fn write(&self, path: &Path) -> Result<(), ModelError> {
        let failed = |error: safetensors::SafeTensorError| ModelError::Safetensors {
            path: path.into(),
            reason: error.to_string(),
        };
        let views = self
            .tensors
            .iter()
            .map(|(name, (shape, values))| {
                let view = TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(values))
                    .map_err(failed)?;
                Ok((name.as_str(), view))
            })
            .collect::<Result<Vec<_>, ModelError>>()?;
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        let permissions = permissions(path).map_err(ModelError::write(path))?;
        safetensors::serialize_to_file(views, Some(metadata), path).map_err(failed)?;
        std::fs::set_permissions(path, permissions).map_err(ModelError::write(path))
    }
}

/// The permissions of a file, which is made where it is not there. safetensors puts another in its place, which its owner alone may read.
fn permissions(path: &Path) -> std::io::Result<Permissions> {
    let file = File::options().append(true).create(true).open(path)?;
    Ok(file.metadata()?.permissions())
}

/// Whether a tensor is no parameter but a mask or a table that older files store with the weights, in whatever type.
fn is_buffer(name: &str) -> bool {
    let attention = ["attn.bias", "attn.masked_bias", "attention.bias", "attention.masked_bias"];
    name.ends_with("rotary_emb.inv_freq")
        || attention
            .iter()
            .any(|buffer| name.strip_suffix(buffer).is_some_and(|block| block.ends_with('.')))
}

/// A trainable parameter whose id depends on its name alone, so that a stored optimiser state finds it again.
pub(crate) fn param<const D: usize>(name: &str, value: Tensor<D>) -> Param<Tensor<D>> {
    const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;
    let hash = name
        .bytes()
        .fold(FNV_OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME));
    let (_, value, mapper) = Param::from_tensor(value).consume();
    Param::from_mapped_value(ParamId::from(hash), value, mapper).set_require_grad(true)
}

/// The error for a file of weights that is not there.
fn absent(path: &Path) -> ModelError {
    let dir = path.parent().unwrap_or(path);
    let whole = "transformers import AutoModelForCausalLM";
    let pickled = [
        ("pytorch_model.bin", whole),
        ("pytorch_model.bin.index.json", whole),
        ("adapter_model.bin", "peft import AutoPeftModelForCausalLM"),
    ];
    if let Some((name, class)) = pickled.into_iter().find(|(name, _)| dir.join(name).exists()) {
        return ModelError::Pickled { path: dir.join(name), class };
    }
    match HubModel::of_snapshot(dir) {
        Some(hub) => hub.lacks(path.into()),
        None => ModelError::read(path)(std::io::ErrorKind::NotFound.into()),
    }
}

/// The files that a folder's weights are in, or would be in: `model.safetensors`, or else the shards that the index lists.
fn weight_files(dir: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let whole = dir.join("model.safetensors");
    let index = dir.join("model.safetensors.index.json");
    if index.exists() && !whole.exists() { shards(&index) } else { Ok(vec![whole]) }
}

fn shards(index: &Path) -> Result<Vec<PathBuf>, ModelError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let Index { weight_map } = json_file::read(index)?;
    let is_elsewhere = |name: &str| Path::new(name).file_name() != Some(OsStr::new(name));
    if let Some((tensor, name)) = weight_map.iter().find(|(_, name)| is_elsewhere(name)) {
        let reason = format!(
            "the shard {name:?} of the tensor `{tensor}` is no name of a file in the same folder"
        );
        let source = serde::de::Error::custom(reason);
        return Err(ModelError::Json { path: index.into(), source });
    }
    let names: BTreeSet<String> = weight_map.into_values().collect();
    Ok(names.into_iter().map(|name| index.with_file_name(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_lie_beside_their_index() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors.index.json");
        let of = |name: &str| {
            let index = serde_json::json!({ "weight_map": { "a": "one.safetensors", "b": name } });
            std::fs::write(&path, index.to_string()).unwrap();
            shards(&path)
        };
        let files = ["one.safetensors", "two.safetensors"].map(|name| dir.path().join(name));
        assert_eq!(of("two.safetensors").unwrap(), files);
        for name in ["/etc/passwd", "../two.safetensors", "sub/two.safetensors", "..", "a/", ""] {
            let error = of(name).unwrap_err().to_string();
            assert!(error.contains("index.json is not valid: the shard"), "{error}");
            assert!(error.contains(&format!("{name:?} of the tensor `b`")), "{error}");
        }
    }

    #[test]
    fn a_file_of_all_weights_goes_before_an_index() {
        let dir = tempfile::tempdir().unwrap();
        let [whole, index] =
            ["model.safetensors", "model.safetensors.index.json"].map(|name| dir.path().join(name));
        std::fs::write(index, r#"{"weight_map": {"a": "deleted.safetensors"}}"#).unwrap();
        assert_eq!(weight_files(dir.path()).unwrap(), [dir.path().join("deleted.safetensors")]);
        std::fs::write(&whole, "").unwrap();
        assert_eq!(weight_files(dir.path()).unwrap(), [whole]);
    }

    #[cfg(unix)]
    #[test]
    fn whoever_may_read_another_new_file_may_read_the_weights() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let [weights, other] = ["model.safetensors", "other"].map(|name| dir.path().join(name));
        let mut checkpoint = Checkpoint::empty();
        checkpoint.insert("a".into(), vec![2], vec![1.0, 2.0]);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        checkpoint.write(&weights).unwrap();
        std::fs::write(&other, "").unwrap();
        assert_eq!(mode(&weights), mode(&other));
        std::fs::set_permissions(&weights, Permissions::from_mode(0o640)).unwrap();
        checkpoint.write(&weights).unwrap();
        assert_eq!(mode(&weights), 0o640, "what is written over keeps its own");
    }
}
