//! What a plan says.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use infalign_record::env::data_dir;
use serde::Deserialize;

use super::check_name;
use super::finding::Finding;

/// One figure or table: `recipes/reproduce/NAME.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    /// Name of the file.
    #[serde(skip)]
    pub(super) name: String,
    /// The file.
    #[serde(skip)]
    pub(super) file: PathBuf,
    /// What it holds.
    #[serde(skip)]
    pub(super) text: String,
    /// What is reproduced.
    pub(super) title: String,
    /// Of which paper.
    pub(super) paper: String,
    /// How the size differs from the paper's.
    pub(super) scale: String,
    /// Whether it reads the data that `INFALIGN_DATA` names.
    #[serde(default)]
    needs_data: bool,
    /// The commands.
    #[serde(rename = "step")]
    pub(super) steps: Vec<Step>,
    /// What the paper states.
    #[serde(default, rename = "finding")]
    pub(super) findings: Vec<Finding>,
}

/// A command of infalign.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    /// Name of its folder.
    pub(super) name: String,
    /// Its words. In them, `$HERE/` is the plan's folder, `$STEP/` the step's own, which is `$STEP` where it is all of the word, `$STEPS/NAME/`
    /// that of an earlier one, `$STEPS/NAME.json` what that printed, and `$INFALIGN_DATA/` the data's.
    pub(super) command: Vec<String>,
    /// Words that follow in a smoke run.
    #[serde(default)]
    pub(super) smoke: Vec<String>,
}

impl Step {
    fn prints_json(&self) -> bool {
        self.command.iter().any(|word| word == "--json")
    }
}

/// Every plan of a folder, by name.
///
/// # Errors
/// One sentence that names the file, and the key at fault; where there are none, the folder.
pub(super) fn read_all(folder: &Path) -> Result<Vec<Plan>> {
    let none = || format!("{} holds no plans: name their folder by --plans", folder.display());
    let entries = std::fs::read_dir(folder).with_context(none)?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    ensure!(!files.is_empty(), none());
    files.sort();
    files.into_iter().map(read).collect()
}

fn read(file: PathBuf) -> Result<Plan> {
    let text = std::fs::read_to_string(&file);
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    let plan: Plan = toml::from_str(&text).with_context(|| file.display().to_string())?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let plan = Plan { name, file, text, ..plan };
    plan.check().with_context(|| plan.file.display().to_string())?;
    Ok(plan)
}

impl Plan {
    fn check(&self) -> Result<()> {
        check_name("plan", &self.name)?;
        ensure!(!self.steps.is_empty(), "there is no [[step]]");
        let mut names = HashSet::new();
        for step in &self.steps {
            check_name("step", &step.name)?;
            ensure!(names.insert(step.name.as_str()), "two steps are named {:?}", step.name);
            ensure!(!step.command.is_empty(), "the step {:?} has no command", step.name);
        }
        for finding in &self.findings {
            ensure!(
                names.contains(finding.step.as_str()),
                "a [[finding]] is about the step {:?}, but no [[step]] has that name",
                finding.step
            );
            let prints = |step: &&Step| step.name == finding.step && step.prints_json();
            ensure!(
                self.steps.iter().any(|step| prints(&step)),
                "a [[finding]] reads what the step {:?} prints: its command needs --json",
                finding.step
            );
        }
        ensure!(self.name != super::ALL, "a plan cannot have the name {:?}", super::ALL);
        Ok(())
    }

    /// Refuses a plan whose data are not there.
    ///
    /// # Errors
    /// One sentence that says what to set.
    pub(super) fn check_data(&self) -> Result<()> {
        ensure!(
            !self.needs_data || data_dir().is_some(),
            "{} needs data: set INFALIGN_DATA to the folder that holds them",
            self.name
        );
        Ok(())
    }
}
