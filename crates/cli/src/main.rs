//! The `infalign` command.
//!
//! stdout carries results, stderr progress and messages. Exit codes: 0 done, 1 a check failed, 2 usage or bad input, 3 the run failed.
#![allow(clippy::print_stderr, reason = "printing is what a command line is for")]

mod bundle;
mod calibrate;
mod doctor;
mod encode;
mod exact;
mod failure;
mod figure;
mod generate;
mod identity;
mod interrupt;
mod memory;
mod models;
mod output;
mod progress;
mod recipe;
mod sampling;
mod score;
mod scorers;
mod server;
mod train;
mod transform;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Align language models for the decoder they will be used with.
#[derive(Parser)]
#[command(name = "infalign", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
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
    /// What this machine and this build can do, and why not more.
    Doctor(doctor::DoctorArgs),
    /// Exact KL, win rates and optimal transforms, as numbers and as plots.
    #[command(subcommand)]
    Transform(transform::TransformCommand),
}

fn main() -> ExitCode {
    memory::keep();
    let result = match Cli::parse_from(calibrate::words(std::env::args_os())).command {
        Command::Train(args) => train::run(&args),
        Command::Calibrate(args) => calibrate::run(args),
        Command::Scorer(args) => train::run_scorer(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Score(args) => score::run(&args),
        Command::Transform(command) => transform::run(&command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
