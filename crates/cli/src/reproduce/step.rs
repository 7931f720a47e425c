//! Running a step: a process of this program, whose output is kept.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use infalign_record::env::data_dir;
use infalign_record::folder::{CONFIG, files};
use infalign_record::hash::sha256_file;
use infalign_record::{WorkflowStep, clock, command_line};
use serde::{Deserialize, Serialize};

use super::plan::{Plan, Step};
use crate::build_record::build_record;
use crate::evaluate;
use crate::files::write_json;
use crate::interrupt;
use crate::progress::Progress;

/// A step that has been run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Done {
    /// Its name.
    pub(super) name: String,
    /// The words of the command, as the plan has them.
    pub(super) command: Vec<String>,
    /// When it began, in UTC.
    start: String,
    /// When it ended.
    end: String,
    /// How long it took; where it was stopped in between, since it went on, as `start` is then.
    pub(super) seconds: f64,
}

impl Done {
    /// The step as a part of the run's crate.
    ///
    /// - `steps`: the folder of the steps' folders in the run's.
    pub(super) fn of_workflow(&self, steps: &str) -> WorkflowStep {
        WorkflowStep {
            name: self.name.clone(),
            command: command_line(&self.command),
            start: self.start.clone(),
            end: self.end.clone(),
            made: format!("{steps}/{}", self.name),
        }
    }
}

/// What a step is done by.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Begun {
    /// The words of the command, as the plan has them.
    command: Vec<String>,
    /// The program's build, and the digest of every file that the words name.
    of: BTreeMap<String, String>,
}

/// What runs the steps of a plan.
pub(super) struct Runner<'a> {
    program: PathBuf,
    here: PathBuf,
    steps: PathBuf,
    smoke: bool,
    sets: &'a [String],
}

impl<'a> Runner<'a> {
    /// - `steps`: the folder of the steps' folders.
    pub(super) fn new(plan: &Plan, steps: &Path, smoke: bool, sets: &'a [String]) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let here = plan.file.parent().unwrap_or(Path::new(""));
        let here = dunce::canonicalize(here).with_context(|| here.display().to_string())?;
        let steps = dunce::canonicalize(steps).with_context(|| steps.display().to_string())?;
        Ok(Self { program, here, steps, smoke, sets })
    }

    /// Runs a step, unless it is done.
    ///
    /// # Errors
    /// Where its command fails or is interrupted, or the step was done by other words.
    pub(super) fn run(&self, step: &Step, progress: &mut Progress) -> Result<Done> {
        let words = self.words(step);
        let note = self.steps.join(format!("{}.done.json", step.name));
        let begun = Begun { command: words.clone(), of: self.of(step)? };
        self.begin(step, &begun)?;
        if note.exists() {
            progress.skip(&step.name);
            let text = std::fs::read(&note).with_context(|| note.display().to_string())?;
            return serde_json::from_slice(&text).with_context(|| note.display().to_string());
        }
        ensure!(!interrupt::asked(), "stopped; every finished step is kept");
        let stage = progress.stage(&step.name, 1);
        let (at, start) = (Instant::now(), clock::utc_now());
        self.execute(step, &words)?;
        let (name, end, seconds) =
            (step.name.clone(), clock::utc_now(), at.elapsed().as_secs_f64());
        let done = Done { name, command: words, start, end, seconds };
        write_json(&note, &done)?;
        stage.finish(format!("{:.0} s", done.seconds));
        Ok(done)
    }

    /// Notes what a step is done by, and refuses one that was begun by something else.
    fn begin(&self, step: &Step, begun: &Begun) -> Result<()> {
        let note = self.steps.join(format!("{}.begun.json", step.name));
        if let Ok(text) = std::fs::read(&note) {
            let before: Begun =
                serde_json::from_slice(&text).with_context(|| note.display().to_string())?;
            ensure!(
                before == *begun,
                "the step {} in {} was begun by another program, recipe or command (`{}`): give another --out",
                step.name,
                self.steps.display(),
                command_line(&before.command)
            );
            return Ok(());
        }
        write_json(&note, begun)
    }

    /// The digests of the files beside the plan that a step names, and the program's build.
    fn of(&self, step: &Step) -> Result<BTreeMap<String, String>> {
        let mut of = BTreeMap::from([("build".to_owned(), build_record().build_id)]);
        for word in step.command.iter().flat_map(|word| named_beside_the_plan(word)) {
            let path = PathBuf::from(self.path(word, &self.steps)?);
            if path.is_dir() {
                for file in files(&path)? {
                    of.insert(format!("{word}/{file}"), sha256_file(&path.join(&file))?);
                }
            } else {
                of.insert(word.to_owned(), sha256_file(&path)?);
            }
        }
        Ok(of)
    }

    /// The words of a step as the plan has them, those of this run included.
    fn words(&self, step: &Step) -> Vec<String> {
        let mut words = step.command.clone();
        if self.smoke {
            words.extend_from_slice(&step.smoke);
        }
        if is_training(&words) {
            words.extend(self.sets.iter().flat_map(|set| ["--set".to_owned(), set.clone()]));
        }
        words
    }

    fn execute(&self, step: &Step, words: &[String]) -> Result<()> {
        let folder = self.steps.join(&step.name);
        let words = going_on(words, &folder)?;
        let words: Vec<String> =
            words.iter().map(|word| self.path(word, &folder)).collect::<Result<_>>()?;
        let printed = printed(&self.steps, &step.name);
        let file = File::create(&printed).with_context(|| printed.display().to_string())?;
        let mut child = Command::new(&self.program)
            .args(&words)
            .stdin(Stdio::null())
            .stdout(file)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let status = interrupt::wait(&mut child, || false)
            .with_context(|| format!("the step {}", step.name))?;
        if !status.success() {
            bail!("the step {} failed, {status}: {}", step.name, command_line(&words));
        }
        Ok(())
    }

    /// A word with its folders written out.
    fn path(&self, word: &str, folder: &Path) -> Result<String> {
        if word == "$STEP" {
            return Ok(folder.display().to_string());
        }
        let mut word = word.to_owned();
        for (name, root) in
            [("$HERE/", &self.here), ("$STEP/", &folder.to_path_buf()), ("$STEPS/", &self.steps)]
        {
            word = word.replace(name, &format!("{}/", root.display()));
        }
        if word.contains("$INFALIGN_DATA/") {
            let data = data_dir().context("set INFALIGN_DATA to the folder of the data")?;
            word = word.replace("$INFALIGN_DATA/", &format!("{}/", data.display()));
        }
        Ok(word)
    }
}

/// What a step printed.
pub(super) fn printed(steps: &Path, step: &str) -> PathBuf {
    steps.join(format!("{step}.json"))
}

/// The words by which a step that was stopped goes on: a training by the recipe that it has, an evaluation by what it has drawn. Of others
/// nothing is kept.
fn going_on(words: &[String], folder: &Path) -> Result<Vec<String>> {
    if is_training(words) && folder.join(CONFIG).exists() {
        let resume = [words[0].as_str(), "--resume", "--json", "--out", "$STEP"];
        return Ok(resume.map(str::to_owned).to_vec());
    }
    if is(words, "evaluate") && evaluate::is_begun(folder) {
        return Ok(words.iter().cloned().chain(["--resume".to_owned()]).collect());
    }
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    Ok(words.to_vec())
}

/// The files and folders beside the plan that a word names.
fn named_beside_the_plan(word: &str) -> impl Iterator<Item = &str> {
    let ends = |c: char| "#'\",={}[]".contains(c);
    word.match_indices("$HERE/").map(move |(start, _)| {
        let rest = &word[start..];
        rest.split(ends).next().unwrap_or(rest)
    })
}

fn is(words: &[String], command: &str) -> bool {
    words.first().is_some_and(|word| word == command)
}

fn is_training(words: &[String]) -> bool {
    is(words, "train") || is(words, "scorer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beside_the_plan_is_found_wherever_a_word_names_it() {
        let found = |word| named_beside_the_plan(word).collect::<Vec<_>>();
        assert_eq!(found("$HERE/../a.toml"), ["$HERE/../a.toml"]);
        assert_eq!(found("method=[{objective='table:$HERE/b.csv'}]"), ["$HERE/b.csv"]);
        assert_eq!(found("$HERE/scorer#liking:2"), ["$HERE/scorer"]);
        assert!(found("$STEPS/train").is_empty());
    }

    #[test]
    fn a_step_that_was_stopped_goes_on_or_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("step");
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let going_on = |text: &str| going_on(&words(text), &folder).unwrap().join(" ");
        assert_eq!(going_on("evaluate --out $STEP"), "evaluate --out $STEP");
        std::fs::create_dir(&folder).unwrap();
        assert_eq!(going_on("evaluate --out $STEP"), "evaluate --out $STEP", "nothing was begun");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("settings.json"), "{}").unwrap();
        assert_eq!(going_on("evaluate --out $STEP"), "evaluate --out $STEP --resume");
        std::fs::write(folder.join(CONFIG), "").unwrap();
        assert_eq!(going_on("train a.toml"), "train --resume --json --out $STEP");
        assert_eq!(going_on("compare a --record $STEP"), "compare a --record $STEP");
        assert!(!folder.exists());
    }
}
