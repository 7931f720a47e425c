//! Where the runs of commands are put on record: the one place that opens and closes a record.
//!
//! `train` keeps one in the run's folder always. Other commands that make results do with `--record DIR`, which keeps what they print,
//! too. A command takes part by saying what it reads ([`RunInputs`]); `main.rs` does the rest.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use infalign_backend::{DeviceName, compiled};
use infalign_model::ModelFolder;
use infalign_record::record::Device;
use infalign_record::{
    Expect, Opening, RecordError, Recorder, RunDir, START_FILE, Secrets, folder,
};

use crate::build_record::build_record;
use crate::failure::Failure;
use crate::generate::reward_config;
use crate::{models, output};

/// What a model's folder holds that is read.
const OF_MODELS: [&str; 4] = ["json", "safetensors", "jinja", "model"];
/// What a command prints, beside its record.
const PRINTED: [&str; 2] = ["results.json", "results.txt"];

/// What a command reads, and what its draws and numbers depend on besides.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunInputs {
    /// Seed of every draw; none for a command that does not draw.
    pub(crate) seed: Option<u64>,
    /// What `--device` says.
    pub(crate) device: Option<DeviceName>,
    /// Whether JSON is printed.
    pub(crate) json: bool,
    /// What each file is for, how it was named, and where it lies.
    files: Vec<(String, String, PathBuf)>,
}

impl RunInputs {
    /// Of a command with this seed and device.
    pub(crate) fn new(seed: Option<u64>, device: Option<&DeviceName>, json: bool) -> Self {
        Self { seed, device: device.cloned(), json, files: Vec::new() }
    }

    /// Adds a file. One that is not there is left to the command to complain of.
    #[must_use]
    pub(crate) fn file(self, role: &str, path: &Path) -> Self {
        self.named(role, &path.to_string_lossy(), path)
    }

    /// Adds a file under the name that it goes by.
    #[must_use]
    pub(crate) fn named(mut self, role: &str, name: &str, path: &Path) -> Self {
        if path.is_file() {
            self.files.push((role.to_owned(), name.to_owned(), path.to_path_buf()));
        }
        self
    }

    /// Adds a model as the command line names it: the files of its folder, and those of its base.
    #[must_use]
    pub(crate) fn model(self, role: &str, model: &Path) -> Self {
        // A name on the hub goes by the revision that the cache holds now.
        let pinned = if model.exists() { None } else { models::pinned(model).ok().flatten() };
        let name = pinned.as_deref().unwrap_or(model).to_string_lossy();
        match models::folder(model) {
            Ok(folder) => self.model_at(role, &name, &folder),
            Err(_) => self,
        }
    }

    /// Adds a model by its folder.
    #[must_use]
    pub(crate) fn model_at(mut self, role: &str, name: &str, folder: &ModelFolder) -> Self {
        self = self.all_of(role, name, folder.path());
        match folder.base() {
            Ok(Some(base)) => self.all_of(&format!("{role} (base)"), "base", &base),
            _ => self,
        }
    }

    /// Adds the files of a folder that models are made of.
    #[must_use]
    pub(crate) fn all_of(mut self, role: &str, name: &str, dir: &Path) -> Self {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let is_read =
            |path: &PathBuf| path.extension().is_some_and(|e| OF_MODELS.iter().any(|of| e == *of));
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_read).collect();
        files.sort();
        for file in files {
            let last = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self = self.named(role, &format!("{name}/{last}"), &file);
        }
        self
    }

    /// Adds what `--reward` names: a reward model, or a file with the models and files that it names.
    #[must_use]
    pub(crate) fn reward(mut self, role: &str, reward: Option<&Path>) -> Self {
        let Some(path) = reward else { return self };
        self = self.file(role, path);
        let Ok(Some(mut config)) = reward_config(Some(path)) else { return self };
        for model in config.models_mut() {
            self = self.model(role, model);
        }
        for file in config.files_mut() {
            self = self.file(role, file);
        }
        self
    }
}

/// Does the work of a run with its record open in the run's folder.
///
/// # Errors
/// [`Failure::Run`] when the record cannot be written, or a file of the run holds a secret; the failure of the work.
pub(crate) fn recorded<T>(
    run: &Path,
    reads: RunInputs,
    expect: Option<Expect>,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let recorder = begin(run, reads, expect).map_err(Failure::run)?;
    let result = work();
    let failure = result.as_ref().err().map(Failure::message);
    match (result, recorder.end(failure.as_deref())) {
        (Ok(_), Err(error)) => Err(Failure::run(error)),
        (result, _) => result,
    }
}

fn begin(run: &Path, reads: RunInputs, expect: Option<Expect>) -> Result<Recorder, RecordError> {
    let argv: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let command = crate::command_name(std::env::args_os());
    Recorder::begin(
        run,
        Opening {
            command,
            argv,
            build: build_record(),
            device: device(reads.device.as_ref()),
            seed: reads.seed,
            inputs: reads.files,
            expect,
        },
    )
}

fn device(name: Option<&DeviceName>) -> Option<Device> {
    let name = match name {
        Some(name) => name.to_string(),
        None => format!("{}:0", compiled().first()?.name()),
    };
    let backend = compiled().iter().find(|backend| name.starts_with(backend.name()))?;
    Some(Device { deterministic: backend.deterministic(), name, dtype: "f32".to_owned() })
}

/// Does the work of a command with `--record DIR`: what it prints is kept there, with the record of the run.
///
/// # Errors
/// [`Failure::Input`] for a folder that holds something; as [`recorded`].
pub(crate) fn in_folder(
    dir: &Path,
    reads: RunInputs,
    work: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let run = new_folder(dir).map_err(Failure::Input)?;
    let printed = dir.join(PRINTED[usize::from(!reads.json)]);
    output::copy_to(&printed).map_err(Failure::run)?;
    let result = recorded(run.path(), reads, None, work);
    if let Err(Failure::Input(_)) = &result {
        abandon(dir);
    }
    result
}

fn new_folder(dir: &Path) -> Result<RunDir> {
    anyhow::ensure!(
        !dir.join(START_FILE).exists(),
        "{} holds a run already: give another --record",
        dir.display()
    );
    Ok(RunDir::at(dir)?)
}

/// Takes back a record of a run whose input turned out to be unusable.
pub(crate) fn abandon(dir: &Path) {
    // Best effort: the failure that led here is what is reported.
    for file in folder::OF_RECORD.iter().chain(&PRINTED).chain([&folder::LOCK]) {
        let _ = std::fs::remove_file(dir.join(file));
    }
    let _ = std::fs::remove_dir(dir);
}

/// Refuses a text that is to be written into a run's folder and holds a secret.
///
/// # Errors
/// One sentence that names the secret without showing it.
pub(crate) fn refuse_secrets(what: &str, text: &str) -> Result<()> {
    match Secrets::here().find(text.as_bytes()) {
        Some(secret) => {
            Err(anyhow!("{what} holds {secret}, which must not be recorded: take it out"))
        }
        None => Ok(()),
    }
}
