//! Where the runs of commands are put on record: the one place that opens and closes a record.
//!
//! `train` keeps one in the run's folder always, and `evaluate` in that of `--out`. Other commands that make results do with `--record DIR`, which keeps what they print,
//! too. A command takes part by saying what it reads ([`RunInputs`]); `main.rs` does the rest.

use std::fs::{DirEntry, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail, ensure};
use infalign_backend::{DeviceName, compiled};
use infalign_model::ModelFolder;
use infalign_record::atomic::clear_top;
use infalign_record::hash::sha256_bytes;
use infalign_record::record::Device;
use infalign_record::{
    Expect, InputFile, Opening, RecordError, Recorder, RunDir, START_FILE, Secrets, Source,
    changed_input, folder,
};

use crate::build_record::build_record;
use crate::destination;
use crate::dtype::Dtype;
use crate::failure::{Failure, OrFailure};
use crate::files::make_folder;
use crate::generate::reward_config;
use crate::locks::lock;
use crate::{models, output, source};

/// What a model's folder holds that is read.
const OF_MODELS: [&str; 4] = ["json", "safetensors", "jinja", "model"];
/// What a command prints, beside its record.
const PRINTED: [&str; 2] = [folder::RESULTS, "results.txt"];

/// The changes that this program was built from, where they are to be kept.
static DIFF: OnceLock<Vec<u8>> = OnceLock::new();

/// What a command reads, and what its draws and numbers depend on besides.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunInputs {
    /// Seed of every draw; none for a command that does not draw.
    pub(crate) seed: Option<u64>,
    /// What `--device` says.
    pub(crate) device: Option<DeviceName>,
    /// What `--dtype` says.
    dtype: Dtype,
    /// Whether JSON is printed.
    pub(crate) json: bool,
    files: Vec<InputFile>,
}

impl RunInputs {
    /// Of a command with this seed and device.
    pub(crate) fn new(seed: Option<u64>, device: Option<&DeviceName>, json: bool) -> Self {
        Self { seed, device: device.cloned(), json, ..Self::default() }
    }

    /// Of one whose model may have its weights in another type.
    #[must_use]
    pub(crate) fn computes_in(self, dtype: Dtype) -> Self {
        Self { dtype, ..self }
    }

    /// Refuses files that are others than when a run was begun, which goes on.
    ///
    /// # Errors
    /// The message names the file.
    pub(crate) fn check_unchanged(&self, run: &Path) -> Result<()> {
        let Some((role, path)) = changed_input(run, &self.files)? else { return Ok(()) };
        bail!(
            "{path} ({role}) is another than when the run in {} was begun: put back the old one to go on, or begin a new run with another --out",
            run.display()
        )
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
            let (role, name) = (role.to_owned(), name.to_owned());
            self.files.push(InputFile { role, name, path: path.to_path_buf() });
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
        let is_read = |path: &PathBuf| {
            path.extension().is_some_and(|e| OF_MODELS.iter().any(|of| e == *of))
                && path.file_name().is_some_and(|name| !folder::is_of_finder(name))
        };
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
        let Ok(config) = reward_config(path) else { return self };
        // A cache is written as well.
        let mut config = config.essence();
        for model in config.models_mut() {
            self = self.model(role, model);
        }
        for file in config.files_mut() {
            self = self.file(role, file);
        }
        self
    }
}

/// Has the changes that this program was built from, and that are in no commit, kept with its records: `--include-diff`.
///
/// - `clone`: where they lie.
///
/// # Errors
/// When they are not there any more, or hold a secret.
pub(crate) fn include_diff(clone: &Path) -> Result<()> {
    if let Some(diff) = diff_of(&build_record().source, clone)? {
        // Called once, at the beginning of a command.
        let _ = DIFF.set(diff);
    }
    Ok(())
}

/// The changes that a program was built from; none where its source is a commit's.
fn diff_of(built: &Source, clone: &Path) -> Result<Option<Vec<u8>>> {
    ensure!(
        built.commit.is_some(),
        "this program was built without git, so nobody knows what was changed: leave --include-diff out"
    );
    let Some(expected) = &built.diff_sha256 else { return Ok(None) };
    let diff = source::diff(clone, &source::parts(clone));
    let diff = diff.filter(|diff| sha256_bytes(diff) == *expected).with_context(|| {
        format!(
            "{} does not hold the changes that this program was built from: name the clone by --include-diff=DIR, and build again what was \
             changed since",
            clone.display()
        )
    })?;
    match Secrets::here().find(&diff) {
        Some(secret) => {
            bail!("the changes in {} hold {secret}, which must not be recorded", clone.display())
        }
        None => Ok(Some(diff)),
    }
}

/// Does the work of a run with its record open in the run's folder.
///
/// # Errors
/// [`Failure::Input`] for a variable that is none of what it is for, [`Failure::Run`] when the record cannot be written, or a file of the run holds a
/// secret; the failure of the work.
pub(crate) fn recorded<T>(
    run: &Path,
    reads: RunInputs,
    expect: Option<Expect>,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let recorder = begin(run, reads, expect).map_err(|error| match error {
        RecordError::Variable { .. } => Failure::Input(error.into()),
        error => Failure::Run(error.into()),
    })?;
    let result = work();
    match &result {
        Ok(_) => drop(recorder.completed().or_run()?),
        // What failed is told, whatever becomes of its record.
        Err(failure) => drop(recorder.failed(&failure.message(), failure.code())),
    }
    result
}

fn begin(run: &Path, reads: RunInputs, expect: Option<Expect>) -> Result<Recorder, RecordError> {
    let command = crate::command_name(std::env::args_os());
    Recorder::begin(
        run,
        Opening {
            command,
            argv: output::given_words(),
            build: build_record(),
            device: device(reads.device.as_ref(), reads.dtype),
            seed: reads.seed,
            inputs: reads.files,
            expect,
            diff: DIFF.get().cloned(),
        },
    )
}

fn device(name: Option<&DeviceName>, dtype: Dtype) -> Option<Device> {
    let name = match name {
        Some(name) => name.to_string(),
        None => format!("{}:0", compiled().first()?.name()),
    };
    let backend = compiled().iter().find(|backend| name.starts_with(backend.name()))?;
    Some(Device { deterministic: backend.deterministic(), name, dtype: dtype.to_string() })
}

/// Does the work of a command with `--record DIR`: what it prints is kept there, with the record of the run.
///
/// # Errors
/// [`Failure::Input`] for a folder that holds something, or that another process records into; as [`recorded`].
pub(crate) fn in_folder(
    dir: &Path,
    reads: RunInputs,
    work: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let refusal = || format!("{} holds a run already: give another --record", dir.display());
    let _lock = new_folder(dir, refusal).or_input()?;
    output::copy_to(dir, PRINTED[usize::from(!reads.json)]).or_run()?;
    let result = recorded(dir, reads, Some(Expect::default()), work);
    if let Err(Failure::Input(_)) = &result {
        abandon(dir);
    }
    result
}

/// Begins a run in a folder that holds none, and takes hold of it as [`lock`] does.
///
/// - `refusal`: what is told where it holds one.
///
/// # Errors
/// For a folder that holds a run; as [`destination::folder()`] and [`begin_in`].
pub(crate) fn new_folder(dir: &Path, refusal: impl Fn() -> String) -> Result<File> {
    let holds_a_run = || dir.join(START_FILE).exists() && !is_just_begun(dir);
    ensure!(!holds_a_run(), refusal());
    destination::folder(dir)?;
    let lock = begin_in(dir)?;
    // Another process may have made one in the meantime.
    ensure!(!holds_a_run(), refusal());
    // Of a beginning that was killed; what is not there need not be removed.
    for file in PRINTED.iter().chain(&[folder::EXPECT, folder::DIFF]) {
        let _ = std::fs::remove_file(dir.join(file));
    }
    Ok(lock)
}

/// Begins a run in a folder, which is new or empty or holds one, and takes hold of it as [`lock`] does. What a process left there that was killed
/// as it began one is in nobody's way.
///
/// # Errors
/// As [`RunDir::at`] and [`lock`].
pub(crate) fn begin_in(dir: &Path) -> Result<File> {
    let is_new = !dir.exists();
    make_folder(dir)?;
    // Nothing is written into a folder of somebody else's, nor is anything deleted there.
    RunDir::check(dir)?;
    let lock = lock(dir).inspect_err(|_| {
        if is_new {
            // Best effort: it goes where nothing is in it, as it was made in vain.
            let _ = std::fs::remove_dir(dir);
        }
    })?;
    clear_top(dir)?;
    RunDir::at(dir)?;
    Ok(lock)
}

/// Whether a folder holds nothing but what a process leaves that was killed as it began a run there, before there was a record.
pub(crate) fn is_just_begun(dir: &Path) -> bool {
    let early = [START_FILE, folder::EXPECT, folder::DIFF, PRINTED[0], PRINTED[1]];
    let is_of_beginning = |entry: std::io::Result<DirEntry>| {
        let name = entry.map(|entry| entry.file_name());
        name.is_ok_and(|name| early.iter().any(|of| name == *of) || folder::is_of_beginning(&name))
    };
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.all(is_of_beginning))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Git with neither the repository nor the settings of whoever runs the tests.
    fn git(root: &Path, words: &[&str]) {
        let mut git = std::process::Command::new("git");
        for name in source::OF_ANOTHER {
            git.env_remove(name);
        }
        for name in ["GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"] {
            git.env(name, if cfg!(windows) { "NUL" } else { "/dev/null" });
        }
        git.args(["-c", "user.name=t", "-c", "user.email=t@t"]).args(words).current_dir(root);
        assert!(git.status().unwrap().success(), "git {words:?}");
    }

    #[test]
    fn what_a_process_left_that_was_killed_as_it_began_a_run_is_cleared_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let begin = || begin_in(dir.path()).map_err(|error| error.to_string());
        for name in [folder::LOCK, ".part-x1"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let held = begin().unwrap();
        assert!(!dir.path().join(".part-x1").exists());
        std::fs::write(dir.path().join(".part-x2"), "").unwrap();
        assert!(begin().unwrap_err().contains("another process is working on the run in"));
        assert!(dir.path().join(".part-x2").exists(), "it may be writing that");
        drop(held);
        begin().unwrap();
    }

    #[test]
    fn a_folder_of_somebody_elses_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["thesis.tex", ".part-1.tex"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let error = begin_in(dir.path()).unwrap_err().to_string();
        assert!(error.contains("holds no run of infalign"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn of_processes_that_record_into_one_folder_one_does() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("r");
        let refusal = || "it holds a run".to_owned();
        let begin = || new_folder(&dir, refusal).map_err(|error| error.to_string());
        let held = begin().unwrap();
        assert!(begin().unwrap_err().contains("another process is working on the run in"));
        drop(held);
        // As if the one that held it had been killed before it had a record.
        let held = begin().unwrap();
        std::fs::write(dir.join(folder::RECORD), "{}").unwrap();
        drop(held);
        assert_eq!(begin().unwrap_err(), "it holds a run");
    }

    #[test]
    fn the_changes_of_the_build_are_kept_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let write = |text: &str| std::fs::write(root.join("Cargo.toml"), text).unwrap();
        write("[workspace]\n");
        git(root, &["init", "--quiet"]);
        git(root, &["add", "."]);
        git(root, &["commit", "--quiet", "--message", "t"]);
        let mut built = Source { commit: Some("c".into()), ..Source::default() };
        assert_eq!(diff_of(&built, root).unwrap(), None, "a commit's source has none");

        write("[workspace]\n# changed\n \n");
        let diff = source::diff(root, &source::parts(root)).unwrap();
        built.diff_sha256 = Some(sha256_bytes(&diff));
        let kept = diff_of(&built, root).unwrap().unwrap();
        assert!(kept.ends_with(b"+# changed\n+ \n"), "as git apply needs it");
        write("[workspace]\n# changed since\n");
        let error = diff_of(&built, root).unwrap_err().to_string();
        assert!(error.contains("--include-diff=DIR"), "{error}");

        let key = concat!("hf", "_abcdefghijklmnopqrstuv");
        write(&format!("[workspace]\n# {key}\n"));
        built.diff_sha256 = Some(sha256_bytes(&source::diff(root, &source::parts(root)).unwrap()));
        let error = diff_of(&built, root).unwrap_err().to_string();
        assert!(error.contains("Hugging Face token") && !error.contains(key), "{error}");
        built.commit = None;
        assert!(diff_of(&built, root).unwrap_err().to_string().contains("without git"));
    }
}
