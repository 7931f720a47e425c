//! The `infalign` command.
//!
//! stdout carries results, stderr progress and messages. Exit codes: 0 done, 1 a check failed, 2 usage or bad input, 3 the run failed, 4 it was stopped by a signal.

/// Says something on stderr, as [`output::tell`] does.
macro_rules! tell {
    ($($text:tt)*) => {
        $crate::output::tell(format_args!($($text)*))
    };
}

mod build_record;
mod bundle;
mod calibrate;
mod compare;
mod destination;
mod doctor;
mod dtype;
mod encode;
mod evaluate;
mod exact;
mod failure;
mod figure;
mod files;
mod generate;
mod given_options;
mod identity;
mod interrupt;
mod locks;
mod machine;
mod measures;
mod memory;
mod models;
mod output;
mod panics;
mod progress;
mod recipe;
mod recording;
#[cfg(test)]
mod reference;
mod references;
mod report;
mod reproduce;
mod resume;
mod runs;
mod sampling;
mod score;
mod scorers;
mod serve;
mod server;
mod slurm;
mod source;
mod sources;
mod statistics;
mod train;
mod transform;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use failure::{Failure, OrFailure};
use recording::RunInputs;

/// What keeps a record, and how, as help and errors say it.
const ON_RECORD: &str = "generate, score, calibrate make, compare, report and transform. train, scorer and evaluate have theirs in --out";

/// Align language models for the decoder they will be used with.
#[derive(Parser)]
#[command(name = "infalign", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[arg(long, global = true, value_name = "DIR", help = format!("Keep what is printed in a new folder, with the record of the run; for {ON_RECORD}"))]
    record: Option<PathBuf>,
    /// Save the uncommitted changes that this program was built from as diff.patch, with the record; DIR is the clone that has them, by
    /// default this folder.
    #[arg(long, global = true, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = ".")]
    include_diff: Option<PathBuf>,
    /// Instead of running, write a job script for Slurm, or bash, that runs this command; with --array N, N times, {i} in its arguments being the job's number.
    #[arg(long, global = true, value_name = "FILE")]
    slurm: Option<PathBuf>,
    /// With --slurm: the number of jobs.
    #[arg(long, global = true, value_name = "N", requires = "slurm")]
    array: Option<u32>,
}

#[derive(Subcommand)]
enum Command {
    /// Run a recipe: calibrate, train every method, evaluate, plot. Without a recipe: quickstart, on bundled inputs.
    Train(train::TrainArgs),
    /// Rewards of a reference policy's responses, as a table by which rewards are calibrated: make one, or merge, inspect and apply some.
    Calibrate(calibrate::CalibrateArgs),
    /// Train a prefix scorer for controlled decoding, by a recipe of task "scorer".
    Scorer(train::TrainArgs),
    /// Continue prompts under an inference-time procedure.
    Generate(Box<generate::GenerateArgs>),
    /// Log-probabilities and rewards of given responses.
    Score(score::ScoreArgs),
    /// Answer requests in OpenAI's protocol, procedures included.
    Serve(Box<serve::ServeArgs>),
    /// The inference-time win rate of a policy over a reference, and the KL that it costs.
    Evaluate(Box<evaluate::EvaluateArgs>),
    /// One figure or table of a paper, from its plan: run what is left of it, and say what agrees.
    Reproduce(reproduce::ReproduceArgs),
    /// Differences between evaluated methods, or between decoders, on the same prompts.
    Compare(compare::CompareArgs),
    /// One page from runs and evaluations: tables, plots, responses side by side.
    Report(report::ReportArgs),
    /// What this machine and this build can do, and why not more.
    Doctor(doctor::DoctorArgs),
    /// Exact KL, win rates and optimal transforms, as numbers and as plots.
    #[command(subcommand)]
    Transform(transform::TransformCommand),
    /// Whether a run's folder is what was recorded: every file, digest and size, and no secret.
    Verify(runs::VerifyArgs),
    /// Compute a run's table and plots again from its stored samples, without a model, and compare.
    Replay(runs::ReplayArgs),
    /// Run a run again and compare result by result.
    Replicate(Box<runs::ReplicateArgs>),
    /// Answers to the reproducibility questions of conferences, from a run's record.
    Checklist(runs::ChecklistArgs),
    /// The badges that a run and its replications are evidence of, and why not more.
    Badges(runs::BadgesArgs),
}

/// The record that a command keeps.
enum Recorded {
    /// One by itself.
    Own,
    /// One in the folder of `--record`, of a run that reads this.
    Folder(RunInputs),
    /// None.
    No,
}

impl Command {
    fn recorded(&self) -> Recorded {
        match self {
            Self::Train(_) | Self::Scorer(_) => Recorded::Own,
            Self::Evaluate(args) if args.is_on_record() => Recorded::Own,
            Self::Generate(args) => Recorded::Folder(args.reads()),
            Self::Score(args) => Recorded::Folder(args.reads()),
            Self::Calibrate(args) => args.reads().map_or(Recorded::No, Recorded::Folder),
            Self::Compare(args) => Recorded::Folder(args.reads()),
            Self::Report(args) => Recorded::Folder(args.reads()),
            Self::Transform(command) => Recorded::Folder(command.reads()),
            Self::Evaluate(_) | Self::Reproduce(_) | Self::Serve(_) | Self::Doctor(_) => {
                Recorded::No
            }
            Self::Verify(_) | Self::Replay(_) | Self::Replicate(_) => Recorded::No,
            Self::Checklist(_) | Self::Badges(_) => Recorded::No,
        }
    }

    /// Whether `--resume` may be added, so that the same words begin the work and go on with it.
    fn can_resume(&self) -> bool {
        match self {
            Self::Train(args) | Self::Scorer(args) => args.can_resume(),
            Self::Evaluate(args) => args.can_resume(),
            _ => false,
        }
    }

    fn run(self) -> Result<(), Failure> {
        match self {
            Self::Train(args) => train::run(&args),
            Self::Calibrate(args) => calibrate::run(args),
            Self::Scorer(args) => train::run_scorer(&args),
            Self::Generate(args) => generate::run(&args),
            Self::Doctor(args) => doctor::run(&args),
            Self::Score(args) => score::run(&args),
            Self::Serve(args) => serve::run(&args),
            Self::Evaluate(args) => evaluate::run(&args),
            Self::Compare(args) => compare::run(&args),
            Self::Report(args) => report::run(&args),
            Self::Reproduce(args) => reproduce::run(&args),
            Self::Transform(command) => transform::run(&command),
            Self::Verify(args) => runs::verify(&args),
            Self::Replay(args) => runs::replay(&args),
            Self::Replicate(args) => runs::replicate(&args),
            Self::Checklist(args) => runs::checklist(&args),
            Self::Badges(args) => runs::badges(&args),
        }
    }
}

/// The command of a command line that was accepted, wherever options stand.
pub(crate) fn command_name(words: impl Iterator<Item = OsString>) -> String {
    let matches = Cli::command().try_get_matches_from(calibrate::words(words));
    let name = matches.ok().and_then(|matches| matches.subcommand_name().map(str::to_owned));
    name.unwrap_or_default()
}

/// Whether `--resume` may be added to a command line that was accepted, so that it begins its work and goes on with it.
pub(crate) fn can_resume(words: impl Iterator<Item = OsString>) -> bool {
    let line = Cli::try_parse_from(calibrate::words(words));
    line.is_ok_and(|line| line.command.can_resume())
}

/// The arguments of an evaluation, from its command line on record.
///
/// # Errors
/// Where it is none that this version has.
pub(crate) fn evaluation(argv: &[String]) -> anyhow::Result<evaluate::EvaluateArgs> {
    let argv = argv.iter().map(|word| OsString::from(infalign_record::env::with_home(word)));
    let words = std::iter::once(OsString::from("infalign")).chain(argv);
    match Cli::try_parse_from(calibrate::words(words))?.command {
        Command::Evaluate(args) => Ok(*args),
        _ => anyhow::bail!("it is not of infalign evaluate"),
    }
}

fn main() -> ExitCode {
    memory::keep();
    match panics::guarded(execute) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn execute() -> Result<(), Failure> {
    if build_record::is_asked_for(std::env::args_os().skip(1)) {
        return build_record::print();
    }
    let words: Vec<_> = std::env::args_os().collect();
    if let Some(script) = slurm::Script::of(&words).or_input()? {
        // What it says is checked as if it were run.
        Cli::parse_from(calibrate::words(script.first().into_iter()));
        script.check().or_input()?;
        return output::print(&script.write().or_run()?);
    }
    let line = Cli::parse_from(calibrate::words(words.into_iter()));
    let Cli { command, record, include_diff, .. } = line;
    let recorded = command.recorded();
    if let Some(clone) = include_diff {
        let is_kept = record.is_some() || matches!(recorded, Recorded::Own);
        let included = if is_kept {
            recording::include_diff(&clone)
        } else {
            Err(anyhow::anyhow!("--include-diff is for runs with a record"))
        };
        included.or_input()?;
    }
    match (record, recorded) {
        (None, _) => command.run(),
        (Some(dir), Recorded::Folder(reads)) => recording::in_folder(&dir, reads, || command.run()),
        (Some(_), Recorded::Own | Recorded::No) => {
            Err(Failure::Input(anyhow::anyhow!("--record is for {ON_RECORD}")))
        }
    }
}
