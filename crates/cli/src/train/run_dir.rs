//! Which folder a run writes to, and the recipe that it goes by.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use infalign_record::atomic::clear;
pub(crate) use infalign_record::folder::RESULTS;
use infalign_record::folder::{CONFIG, LOCK};
use infalign_record::{RunDir, START_FILE};

use super::check_task;
use crate::files;
use crate::locks::lock;
use crate::recipe::{Recipe, read_resolved};
use crate::recording::{new_folder, refuse_secrets};
use crate::resume::was_ending;

/// Runs are made here unless `--out` says otherwise.
const ROOT: &str = "runs";

/// A run's folder with the recipe that it goes by.
pub(crate) struct Opened {
    pub(crate) dir: PathBuf,
    pub(crate) recipe: Recipe,
    /// Whether the run was begun just now.
    pub(crate) fresh: bool,
    /// Held as long as this process works on the run.
    pub(crate) lock: File,
}

/// Opens a new run, or the one to go on with, and returns its recipe.
///
/// # Errors
/// When a folder holds a run and `--resume` is not given, or holds a run of another recipe or of a task that the command does not take, or
/// there is nothing to resume and no recipe to begin with.
pub(crate) fn open(
    command: &str,
    out: Option<&Path>,
    resume: bool,
    recipe: Option<Recipe>,
) -> Result<Opened> {
    if let Some(recipe) = &recipe {
        refuse_secrets("the recipe", &recipe.to_toml()?)?;
    }
    let dir = match (out, resume) {
        (Some(dir), _) => dir.to_path_buf(),
        (None, true) => newest_unfinished(command)?,
        (None, false) => RunDir::create(Path::new(ROOT), command)?.path().to_path_buf(),
    };
    if dir.join(CONFIG).exists() {
        ensure!(resume, holds_a_run(&dir));
        return go_on(command, dir, recipe);
    }
    let Some(recipe) = recipe else {
        bail!(
            "{} holds no run to resume: it has no {CONFIG}; name the recipe to begin one there",
            dir.display()
        )
    };
    begin(dir, recipe)
}

fn begin(dir: PathBuf, recipe: Recipe) -> Result<Opened> {
    let lock = new_folder(&dir, || holds_a_run(&dir))?;
    files::write(&dir.join(CONFIG), recipe.to_toml()?)?;
    Ok(Opened { dir, recipe, fresh: true, lock })
}

/// - `given`: the recipe, where one is named.
fn go_on(command: &str, dir: PathBuf, given: Option<Recipe>) -> Result<Opened> {
    let config = dir.join(CONFIG);
    let recipe = read_resolved(&config)?;
    check_task(command, &recipe).with_context(|| config.display().to_string())?;
    ensure!(
        given.is_none_or(|given| given == recipe),
        "{} was run with another recipe; resume it without naming one, or give another --out",
        dir.display()
    );
    let lock = lock(&dir)?;
    clear(&dir)?;
    Ok(Opened { dir, recipe, fresh: false, lock })
}

fn holds_a_run(dir: &Path) -> String {
    let what_to_do = if dir.join(CONFIG).exists() {
        "go on with it by --resume, or give another --out"
    } else {
        "it has no config.toml to go on by, as one of another command; give another --out"
    };
    format!("{} holds a run already: {what_to_do}", dir.display())
}

/// Takes back a run whose inputs turned out to be unusable, so that it is neither in the way nor resumed. Only what [`open`] and the
/// bundle have made is removed.
pub(crate) fn abandon(dir: &Path) {
    // Best effort: the failure that led here is what is reported.
    let _ = std::fs::remove_dir_all(dir.join("inputs"));
    // The lock comes last: another process may begin once it is gone.
    for file in [CONFIG, START_FILE, LOCK] {
        let _ = std::fs::remove_file(dir.join(file));
    }
    let _ = std::fs::remove_dir(dir);
}

/// The newest run under `runs/` with a recipe that the command takes and without results, or without the whole of their record, of those named by
/// their start (so that they sort by age).
fn newest_unfinished(command: &str) -> Result<PathBuf> {
    let entries = std::fs::read_dir(ROOT)
        .with_context(|| format!("there is no folder {ROOT}/ with runs to resume"))?;
    let is_dated = |name: &str| name.starts_with(|c: char| c.is_ascii_digit());
    entries
        .flatten()
        .filter(|entry| is_dated(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .filter(|dir| dir.join(CONFIG).exists())
        .filter(|dir| !dir.join(RESULTS).exists() || was_ending(dir))
        // What cannot be read is told when it is opened.
        .filter(|dir| {
            read_resolved(&dir.join(CONFIG)).map_or(true, |of| check_task(command, &of).is_ok())
        })
        .max()
        .with_context(|| format!("no run under {ROOT}/ is unfinished"))
}
