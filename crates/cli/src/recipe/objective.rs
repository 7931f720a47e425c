//! What a method maximises, as a recipe says it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use infalign_train::{Objective, TrainError};
use infalign_transform::{Table, Transform};
use serde::{Deserialize, Serialize};

use super::Paths;

/// What marks a transform that is read from a file.
const TABLE: &str = "table:";

/// An objective, whose table is yet to be read if it has one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum ObjectiveConfig {
    /// Complete as it stands.
    Known(Objective),
    /// `table:FILE`, the file a path of the recipe.
    Table(PathBuf),
}

impl ObjectiveConfig {
    /// The path of a table.
    pub(super) fn path_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Table(path) => Some(path),
            Self::Known(_) => None,
        }
    }

    /// Whether the table's own rewards take part in it, so that u alone does not do.
    pub(super) fn needs_table(&self) -> bool {
        self.known().is_some_and(|objective| !matches!(objective, Objective::Calibrated(_)))
    }

    /// The objective, unless it is yet to be read.
    pub(super) fn known(&self) -> Option<&Objective> {
        match self {
            Self::Known(objective) => Some(objective),
            Self::Table(_) => None,
        }
    }

    /// The objective, its table read.
    ///
    /// # Errors
    /// When the table cannot be read, or is none; the message names file and line.
    pub(crate) fn resolve(&self, paths: &Paths<'_>) -> Result<Objective> {
        match self {
            Self::Known(objective) => Ok(objective.clone()),
            Self::Table(path) => {
                let table = Table::read(paths.resolve(path)?)?;
                Ok(Objective::Calibrated(Transform::Table(Arc::new(table))))
            }
        }
    }
}

impl TryFrom<String> for ObjectiveConfig {
    type Error = TrainError;

    fn try_from(text: String) -> Result<Self, TrainError> {
        match text.strip_prefix(TABLE).filter(|file| !file.is_empty()) {
            Some(file) => Ok(Self::Table(file.into())),
            None => text.parse().map(Self::Known),
        }
    }
}

impl From<ObjectiveConfig> for String {
    fn from(config: ObjectiveConfig) -> Self {
        match config {
            ObjectiveConfig::Known(objective) => objective.to_string(),
            ObjectiveConfig::Table(path) => format!("{TABLE}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_table_lies_where_the_recipe_says() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("phi.csv"), "u,phi\n0,0\n1,2\n").unwrap();
        let mut config = ObjectiveConfig::try_from("table:phi.csv".to_owned()).unwrap();
        let table = config.path_mut().unwrap();
        *table = dir.path().join(table.as_path());
        let objective = config.resolve(&Paths { run: Path::new("run") }).unwrap();
        let Objective::Calibrated(transform) = &objective else { panic!("a transform") };
        assert_eq!(transform.apply(0.25), 0.25);
        // What is saved with the run finds the same file.
        let saved = ObjectiveConfig::try_from(String::from(config.clone())).unwrap();
        assert_eq!(saved, config);
        let known = ObjectiveConfig::try_from("exp:5".to_owned()).unwrap();
        assert_eq!(String::from(known), "exp:5");
        assert!(ObjectiveConfig::try_from("table:".to_owned()).is_err());
    }
}
