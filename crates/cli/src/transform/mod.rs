//! `infalign transform`: the exact engine, as numbers and as plots.

mod discrete;
mod estimate;
mod numbers;
mod plot;

use std::path::Path;

use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::recording::RunInputs;

/// Subcommands of `infalign transform`.
#[derive(Subcommand)]
pub(crate) enum TransformCommand {
    /// KL and win rates of the policy that a transform leads to.
    Curve(numbers::CurveArgs),
    /// The best policy there is for a procedure, and its transform.
    Optimum(numbers::OptimumArgs),
    /// The same for finitely many outcomes, with atoms and ties.
    Discrete(discrete::DiscreteArgs),
    /// The best transform for a decoder without a formula, such as controlled decoding, from responses that it has made.
    Estimate(estimate::EstimateArgs),
    /// Figures, as SVG and PNG.
    #[command(subcommand)]
    Plot(plot::PlotCommand),
}

/// Where on the frontier of a transform.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Level {
    /// KL coefficient β, on the scale of Φ as the papers write it.
    #[arg(long, allow_negative_numbers = true)]
    beta: Option<f64>,
    /// KL from the reference policy, in nats.
    #[arg(long, allow_negative_numbers = true)]
    kl: Option<f64>,
}

impl TransformCommand {
    /// What the command reads.
    pub(crate) fn reads(&self) -> RunInputs {
        let exact = |json| RunInputs::new(None, None, json);
        match self {
            Self::Curve(args) => {
                let reads = with_table(exact(args.json), &args.transform);
                args.table.iter().fold(reads, |reads, table| reads.file("--table", table))
            }
            Self::Optimum(args) => exact(args.json),
            Self::Discrete(args) => {
                let reads = exact(args.json).file("--problem", &args.problem);
                args.transform.iter().fold(reads, |reads, transform| with_table(reads, transform))
            }
            Self::Estimate(args) => args.reads(),
            Self::Plot(command) => command.reads(),
        }
    }
}

/// Adds the file of a transform that is a table.
fn with_table(reads: RunInputs, transform: &str) -> RunInputs {
    match transform.strip_prefix("table:") {
        Some(file) => reads.file("--transform", Path::new(file)),
        None => reads,
    }
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] for bad input, [`Failure::Run`] when a file cannot be written.
pub(crate) fn run(command: &TransformCommand) -> Result<(), Failure> {
    match command {
        TransformCommand::Curve(args) => numbers::curve(args),
        TransformCommand::Optimum(args) => numbers::optimum(args),
        TransformCommand::Discrete(args) => discrete::run(args),
        TransformCommand::Estimate(args) => estimate::run(args),
        TransformCommand::Plot(command) => plot::run(command),
    }
}
