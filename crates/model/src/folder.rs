//! Where the parts of a model lie: in one folder, or, of an adapter, in its own and its base's.

use std::path::{Path, PathBuf};

use crate::lora::peft;
use crate::{Head, HubModel, ModelError, TransformerConfig};

/// What every folder of a model holds that is no adapter's.
const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
/// What the folder of a run holds.
const RUN: &str = "start.json";

/// A folder in Hugging Face's layout, or in PEFT's; then the rest of the model lies in the folder of its base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFolder {
    path: PathBuf,
    /// Where a base is looked up that is named as on the hub.
    cache: Option<PathBuf>,
}

impl ModelFolder {
    /// A folder whose base may be in the hub's local cache.
    pub fn new(path: PathBuf, cache: &Path) -> Self {
        Self { path, cache: Some(cache.to_path_buf()) }
    }

    /// The model that is named by a path or by its name on the hub. A path that exists wins, and any other text that is no name is left as
    /// it stands.
    ///
    /// # Errors
    /// As [`HubModel::locate`].
    pub fn find(model: &Path, cache: &Path) -> Result<Self, ModelError> {
        let path = match HubModel::parse(model).filter(|_| !model.exists()) {
            Some(hub) => hub.locate(cache)?,
            None => model.to_path_buf(),
        };
        Ok(Self::new(path, cache))
    }

    /// The folder itself, which holds the weights, or the adapter.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the model that an adapter belongs to; `None` where the folder holds no adapter. `base_model_name_or_path` is a folder
    /// seen from where the program runs or from the adapter's, or a name in the hub's cache, there at the adapter's `revision`. A folder that is
    /// not there any more may have been moved with the run that both are parts of.
    ///
    /// # Errors
    /// [`ModelError::Adapter`] where it is none of them, with what [`HubModel::locate`] says of a name, or holds an adapter itself.
    pub fn base(&self) -> Result<Option<PathBuf>, ModelError> {
        if !peft::is_adapter(&self.path) {
            return Ok(None);
        }
        let (name, revision) = peft::base_name(&self.path)?;
        let given = Path::new(&name);
        let mut folders = [given.to_path_buf(), self.path.join(given)].into_iter();
        let holds_model = |dir: &PathBuf| dir.join(CONFIG).is_file() || peft::is_adapter(dir);
        let moved = || moved_with_run(given, &self.path).filter(|_| given.is_absolute());
        let base = match folders.find(holds_model).or_else(moved) {
            Some(folder) => folder,
            None => self.base_on_hub(&name, revision)?,
        };
        if peft::is_adapter(&base) {
            let reason = format!(
                "`base_model_name_or_path` is {name:?}, which holds an adapter itself; merge that into its base first"
            );
            return Err(peft::refuse(&self.path, reason));
        }
        Ok(Some(base))
    }

    fn base_on_hub(&self, name: &str, revision: Option<String>) -> Result<PathBuf, ModelError> {
        let hub = HubModel::parse(Path::new(name));
        match (hub, &self.cache) {
            (Some(hub), Some(cache)) => hub.or_at(revision).locate(cache).map_err(|error| {
                let reason = format!(
                    "`base_model_name_or_path` in its adapter_config.json is {name:?}: {error}"
                );
                peft::refuse(&self.path, reason)
            }),
            _ => {
                let reason = format!(
                    "`base_model_name_or_path` is {name:?}, which is no folder with a {CONFIG}, neither from here nor from the adapter's, and no name on the hub; write the folder of the base model there"
                );
                Err(peft::refuse(&self.path, reason))
            }
        }
    }

    /// The configuration of the model, which is its base's where it is an adapter.
    ///
    /// # Errors
    /// As [`ModelFolder::base`] and [`TransformerConfig::read`].
    pub fn config(&self, head: Head) -> Result<TransformerConfig, ModelError> {
        TransformerConfig::read(&self.base()?.unwrap_or_else(|| self.path.clone()), head)
    }

    /// The folder with the tokenizer: the base's, where there is none beside an adapter.
    ///
    /// # Errors
    /// As [`ModelFolder::base`], and [`ModelError::Tokenizer`] where there is none.
    pub fn tokenizer(&self) -> Result<PathBuf, ModelError> {
        let path = self.holding(TOKENIZER)?;
        if path.join(TOKENIZER).exists() {
            return Ok(path);
        }
        let dir = path.display();
        let reason = format!(
            "there is no {TOKENIZER}; `AutoTokenizer.from_pretrained('{dir}').save_pretrained('{dir}')` of transformers writes it where the tokenizer's other files are there, such as vocab.json with merges.txt, or tokenizer.model"
        );
        Err(ModelError::Tokenizer { path, reason })
    }

    /// The folder with a file that may lie beside an adapter; otherwise its base's.
    pub(crate) fn holding(&self, file: &str) -> Result<PathBuf, ModelError> {
        if self.path.join(file).exists() {
            return Ok(self.path.clone());
        }
        Ok(self.base()?.unwrap_or_else(|| self.path.clone()))
    }
}

/// Where a model lies that was moved with the run that it is a part of, or with one around that.
///
/// - `model`: its folder before.
/// - `part`: another part of the run, where it lies now.
pub fn moved_with_run(model: &Path, part: &Path) -> Option<PathBuf> {
    let part = dunce::canonicalize(part).ok()?;
    let runs = part.ancestors().filter(|dir| dir.join(RUN).is_file());
    let mut places = runs.flat_map(|run| ends(model).map(move |end| run.join(end)));
    places.find(|dir| dir.join(CONFIG).is_file())
}

/// The ends of a path, from the longest to that of two parts: one alone may be the name of anything.
fn ends(path: &Path) -> impl Iterator<Item = &Path> {
    let mut rest = path.components();
    let ends = std::iter::from_fn(move || rest.next().map(|_| rest.as_path()));
    ends.filter(|end| end.components().count() >= 2)
}

/// A folder whose base, if it is an adapter, is a folder too.
impl From<&Path> for ModelFolder {
    fn from(path: &Path) -> Self {
        Self { path: path.to_path_buf(), cache: None }
    }
}

impl From<&PathBuf> for ModelFolder {
    fn from(path: &PathBuf) -> Self {
        path.as_path().into()
    }
}

impl From<&ModelFolder> for ModelFolder {
    fn from(folder: &ModelFolder) -> Self {
        folder.clone()
    }
}
