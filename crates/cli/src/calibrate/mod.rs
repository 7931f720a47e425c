//! `infalign calibrate`: make, extend, merge, inspect and use calibration tables.

mod apply;
mod learn;
mod make;
mod reference;
mod report;
mod saving;
mod tables;

use std::ffi::OsString;

use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::recording::RunInputs;
pub(crate) use reference::names;
pub(crate) use saving::{Observe, fill_stored, fill_table, filled};

/// Arguments of `infalign calibrate`.
#[derive(Args)]
pub(crate) struct CalibrateArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Sample reference responses to prompts, score them, and keep their rewards; the default where no subcommand is given.
    Make(Box<make::MakeArgs>),
    /// Join tables that were made apart, such as the shards of a job array.
    Merge(tables::MergeArgs),
    /// Keep some quantiles of each prompt in place of all rewards.
    Compress(tables::CompressArgs),
    /// What a table was made from, and what it holds.
    Inspect(tables::InspectArgs),
    /// The calibrated rewards of given responses.
    Apply(apply::ApplyArgs),
    /// A page on a table: spreads, ties, what K leaves of a transform, and whether fresh reference responses are uniform.
    Report(Box<report::ReportArgs>),
    /// Learn from a table to predict the quantiles of other prompts, without sampling for them.
    Learn(learn::LearnArgs),
    /// A table of predicted quantiles for prompts that nothing was sampled for.
    Predict(learn::PredictArgs),
}

impl CalibrateArgs {
    /// What is read where reference responses are sampled.
    pub(crate) fn reads(&self) -> Option<RunInputs> {
        match &self.action {
            Action::Make(args) => Some(args.reads()),
            _ => None,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] before any work is begun, [`Failure::Run`] after.
pub(crate) fn run(args: CalibrateArgs) -> Result<(), Failure> {
    match args.action {
        Action::Make(args) => make::run(&args),
        Action::Merge(args) => tables::merge(&args),
        Action::Compress(args) => tables::compress(&args),
        Action::Inspect(args) => tables::inspect(&args),
        Action::Apply(args) => apply::run(&args),
        Action::Report(args) => report::run(&args),
        Action::Learn(args) => learn::learn(&args),
        Action::Predict(args) => learn::predict(&args),
    }
}

/// The words of the command line, `make` put in where `calibrate` is followed by an option.
pub(crate) fn words(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = given.collect();
    let text = |at: usize| words.get(at).and_then(|word| word.to_str());
    let mut command = 1;
    // Of the options that may stand before a command, this one alone may lack a value.
    while let Some(option) = text(command).filter(|word| word.starts_with("--")) {
        command += if option.contains('=') || option == "--include-diff" { 1 } else { 2 };
    }
    let option = text(command + 1)
        .is_some_and(|word| word.starts_with('-') && !["-h", "--help"].contains(&word));
    if option && text(command) == Some("calibrate") {
        words.insert(command + 1, "make".into());
    }
    words
}
