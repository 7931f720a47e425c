//! `--spot K`: some stages of a long run again, each from what the run itself stored of the stages before it.
//!
//! Which stages follows from the record and a nonce that the run's author could not know: whoever made up a stage's result would have to
//! be lucky not to be asked for it. Every stage of an align run ends with a file or a folder, so the run's folder without it, resumed,
//! does that stage again and no other. Of a training, the first steps are compared, and then it is stopped.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use infalign_record::compare::{self, FileComparison};
use infalign_record::folder::{self, CONFIG, EXPECT, RECORD, RESULTS, STEPS};
use infalign_record::hash::{sha256_bytes, sha256_file};
use infalign_record::replication::{Replication, Row, RunName};
use infalign_record::{Expect, Level, Record, START_FILE, Tolerance, divergence};

use super::program::Program;
use super::{ReplicateArgs, report};
use crate::failure::{Failure, OrFailure};
use crate::interrupt;
use crate::sources::{METHODS, REFERENCE, SAMPLES};
use crate::train::OPTIMUM;

/// A stage: its name, and the file or folder that it ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stage {
    name: String,
    product: String,
}

/// Does K stages again.
///
/// # Errors
/// [`Failure::Input`] for a run without such stages, [`Failure::Run`] when a stage fails.
pub(super) fn run(
    args: &ReplicateArgs,
    k: usize,
    original: &Record,
    program: &Program,
    folder: &Path,
) -> Result<Replication, Failure> {
    let stages = stages(original).or_input()?;
    let digest = sha256_file(&args.run.join(RECORD)).or_input()?;
    let chosen = choose(stages, k, &digest, &args.nonce);
    let expect = Expect::read(&args.run).or_input()?;
    interrupt::watch();
    let (mut results, mut replica) = (Vec::new(), None);
    for (stage, number) in chosen.iter().zip(1..) {
        tell!("{number}/{}: {}", chosen.len(), stage.name);
        let copy = folder.join(stage.name.replace(' ', "-"));
        let row = again(args, stage, original, program, &copy).or_run()?;
        results.push(row);
        replica = Some(folder::record(&copy).or_run()?);
    }
    let replica = replica.ok_or_else(|| Failure::Input(anyhow!("the run has no stages")))?;
    let same = compare::same_machine(original, &replica);
    let required = if same { expect.same_machine } else { Level::Differs };
    results.iter_mut().for_each(|row| row.required = required);
    let names: Vec<&str> = chosen.iter().map(|stage| stage.name.as_str()).collect();
    Ok(Replication {
        original: RunName::of(original),
        replica: RunName::of(&replica),
        extent: format!("spot: {}", names.join(", ")),
        program: String::new(),
        results,
        claims: Vec::new(),
        differences: report::differences(original, &replica),
    })
}

/// The stages of an align run, from the files that it left.
fn stages(record: &Record) -> Result<Vec<Stage>> {
    let stage =
        |name: &str, product: &str| Stage { name: name.to_owned(), product: product.to_owned() };
    let mut stages = Vec::new();
    for output in &record.outputs {
        let path = output.path.as_str();
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            ["calibration.parquet"] => stages.push(stage("calibration", path)),
            ["reference-rollouts.parquet"] => stages.push(stage("reference rollouts", path)),
            [REFERENCE] => stages.push(stage("reference samples", path)),
            [METHODS, method, SAMPLES] => {
                stages.push(stage(&format!("evaluate {method}"), path));
            }
            [METHODS, method, OPTIMUM] => {
                stages.push(stage(&format!("optimum for {method}"), path));
            }
            [METHODS, method, STEPS] => {
                stages.push(stage(&format!("train {method}"), &format!("{METHODS}/{method}")));
            }
            _ => {}
        }
    }
    ensure!(
        stages.iter().any(|stage| stage.name == "reference samples"),
        "--spot is for align runs, whose stages end with files; leave it out to do the whole run again"
    );
    Ok(stages)
}

/// K stages by the digests of record, nonce and name.
fn choose(mut stages: Vec<Stage>, k: usize, record: &str, nonce: &str) -> Vec<Stage> {
    stages.sort_by_key(|stage| sha256_bytes(format!("{record} {nonce} {}", stage.name).as_bytes()));
    stages.truncate(k);
    stages
}

/// Does one stage again in a copy of the run.
fn again(
    args: &ReplicateArgs,
    stage: &Stage,
    original: &Record,
    program: &Program,
    copy: &Path,
) -> Result<Row> {
    prepare(&args.run, copy, stage)?;
    let mut command = Command::new(&program.path);
    command.args(["train", "--resume", "--out"]).arg(copy);
    if let Some(device) = super::value_of(&original.argv, "--device") {
        command.args(["--device", device]);
    }
    let mut child = super::start(command, program, original)?;
    let in_stage = || format!("the stage {:?}", stage.name);
    if stage.name.starts_with("train ") {
        let (steps, n) = (copy.join(&stage.product).join(STEPS), usize::try_from(args.steps)?);
        let is_enough = || lines(&steps) >= n;
        let status = interrupt::wait(&mut child, is_enough).with_context(in_stage)?;
        let done = lines(&steps);
        ensure!(done >= n || status.success(), "the training failed after {done} steps: {status}");
        return first_steps(&args.run.join(&stage.product).join(STEPS), &steps, n, stage);
    }
    let status = interrupt::wait(&mut child, || false).with_context(in_stage)?;
    ensure!(status.success(), "{} failed: {status}", in_stage());
    product(stage, original, (&args.run, copy))
}

/// Compares what a stage made with what the run had made.
fn product(stage: &Stage, original: &Record, (run, copy): (&Path, &Path)) -> Result<Row> {
    let digest = sha256_file(&copy.join(&stage.product))?;
    let recorded = original.outputs.iter().find(|output| output.path == stage.product);
    let same = recorded.is_some_and(|output| output.sha256 == digest);
    let contents = || compare::contents(&stage.product, (run, copy), &Tolerance::default(), true);
    let (reached, note) = if same {
        (Level::Bitwise, String::new())
    } else if let FileComparison { level: Level::Bitwise, note, .. } = contents() {
        (Level::Bitwise, note)
    } else {
        (Level::Differs, format!("{} has other bytes", stage.product))
    };
    Ok(row(stage, reached, note))
}

fn row(stage: &Stage, reached: Level, note: String) -> Row {
    let (original, replica) = (None, None);
    Row { result: stage.name.clone(), required: Level::Differs, reached, original, replica, note }
}

/// Copies a run without its record, its results, what the stage makes, and checkpoints, which finished trainings do not need.
fn prepare(run: &Path, copy: &Path, stage: &Stage) -> Result<()> {
    let of_record = |path: &str| {
        folder::OF_RECORD.contains(&path) && ![START_FILE, CONFIG, EXPECT].contains(&path)
    };
    let of_stage = |path: &str| {
        path.strip_prefix(&stage.product)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    for path in folder::files(run)? {
        let left_out =
            of_record(&path) || of_stage(&path) || path == RESULTS || is_of_checkpoints(&path);
        if left_out {
            continue;
        }
        let to: PathBuf = copy.join(&path);
        let parent = to.parent().unwrap_or(copy);
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot make {}", parent.display()))?;
        std::fs::copy(run.join(&path), &to)
            .with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(())
}

/// Whether a file lies in a folder of checkpoints.
fn is_of_checkpoints(path: &str) -> bool {
    path.split('/').rev().skip(1).any(|folder| folder == "checkpoints")
}

/// How many lines a file has; none where it is not there yet.
fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.matches('\n').count())
}

fn first_steps(original: &Path, replica: &Path, n: usize, stage: &Stage) -> Result<Row> {
    let first = |path: &Path| -> Result<String> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text.split_inclusive('\n').filter(|line| line.ends_with('\n')).take(n).collect())
    };
    let found = divergence(&first(original)?, &first(replica)?);
    let level = if found.is_none() { Level::Bitwise } else { Level::Differs };
    Ok(row(stage, level, found.describe()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(k: usize, nonce: &str) -> Vec<String> {
        let stage = |i: usize| Stage { name: format!("stage {i}"), product: String::new() };
        let chosen = choose((0..8).map(stage).collect(), k, "digest", nonce);
        chosen.into_iter().map(|stage| stage.name).collect()
    }

    #[test]
    fn checkpoints_lie_in_folders_of_that_name() {
        assert!(is_of_checkpoints("methods/a/checkpoints/step-000003/state.json"));
        assert!(!is_of_checkpoints("methods/old-checkpoints/policy/model.safetensors"));
        assert!(!is_of_checkpoints("methods/a/checkpoints"));
    }

    #[test]
    fn the_choice_is_fixed_by_the_nonce_and_changes_with_it() {
        assert_eq!(names(3, "a"), names(3, "a"));
        assert_eq!(names(2, "a"), names(3, "a")[..2]);
        assert_eq!(names(99, "a").len(), 8);
        assert!((0..20).any(|nonce| names(3, &nonce.to_string()) != names(3, "a")));
    }
}
