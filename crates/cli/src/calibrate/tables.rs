//! Tables as they are: merged, compressed, inspected. Nothing is sampled.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use infalign_calibrate::summary::Summary;
use infalign_calibrate::{Calibration, store};
use serde_json::json;

use super::saving::write;
use crate::failure::{Failure, OrFailure};
use crate::{destination, output};

/// Arguments of `infalign calibrate merge`.
#[derive(Args)]
pub(crate) struct MergeArgs {
    /// Tables of one model, reward and way to sample.
    #[arg(required = true, num_args = 1..)]
    tables: Vec<PathBuf>,
    /// The whole: a new file.
    #[arg(long)]
    out: PathBuf,
}

/// Arguments of `infalign calibrate compress`.
#[derive(Args)]
pub(crate) struct CompressArgs {
    /// The table.
    table: PathBuf,
    /// How many quantiles of each prompt to keep, at the levels (j − ½)/p.
    #[arg(long)]
    quantiles: usize,
    /// The smaller table: a new file.
    #[arg(long)]
    out: PathBuf,
}

/// Arguments of `infalign calibrate inspect`.
#[derive(Args)]
pub(crate) struct InspectArgs {
    /// The table.
    table: PathBuf,
    /// Print a JSON document instead of lines.
    #[arg(long)]
    json: bool,
}

/// Joins tables.
///
/// # Errors
/// [`Failure::Input`] for tables that do not belong together and for an `--out` that is there, [`Failure::Run`] when the whole cannot be written.
pub(crate) fn merge(args: &MergeArgs) -> Result<(), Failure> {
    destination::new_file(&args.out).or_input()?;
    let joined = join(&args.tables).or_input()?;
    write(&joined, &args.out).or_run()?;
    output::print(&format!("{}: {} prompts", args.out.display(), joined.len()))
}

fn join(paths: &[PathBuf]) -> Result<Calibration> {
    let mut joined: Option<Calibration> = None;
    for path in paths {
        let next = store::read(path)?;
        match &mut joined {
            None => joined = Some(next),
            Some(joined) => joined.merge(&next).with_context(|| path.display().to_string())?,
        }
    }
    joined.context("there is no table to merge")
}

/// Keeps quantiles alone.
///
/// # Errors
/// As for [`merge`].
pub(crate) fn compress(args: &CompressArgs) -> Result<(), Failure> {
    destination::new_file(&args.out).or_input()?;
    let table = store::read(&args.table).or_input()?;
    let smaller = table.compressed(args.quantiles).or_input()?;
    write(&smaller, &args.out).or_run()?;
    let (out, n) = (args.out.display(), smaller.len());
    output::print(&format!("{out}: {n} prompts, {} quantiles each", args.quantiles))
}

/// Prints what a table was made from and what it holds.
///
/// # Errors
/// [`Failure::Input`] for a file that is no table, or an empty one.
pub(crate) fn inspect(args: &InspectArgs) -> Result<(), Failure> {
    let table = store::read(&args.table).or_input()?;
    let summary = summary(&args.table, &table).or_input()?;
    if args.json {
        let document = json!({ "meta": table.meta(), "summary": summary });
        return output::print(&format!("{document:#}"));
    }
    output::print_rows(&lines(&table, &summary))
}

/// What a table holds, in numbers.
///
/// # Errors
/// For an empty one, which is named.
pub(super) fn summary(path: &Path, table: &Calibration) -> Result<Summary> {
    Summary::of(table).with_context(|| path.display().to_string())
}

/// The same as cells of a page's table.
pub(super) fn cells(table: &Calibration, summary: &Summary) -> Vec<Vec<String>> {
    lines(table, summary).into_iter().map(|(name, value)| vec![name, value]).collect()
}

fn lines(table: &Calibration, summary: &Summary) -> Vec<(String, String)> {
    let meta = table.meta();
    let short = |hash: &str| hash.get(..12).unwrap_or(hash).to_owned();
    let template = match meta.template_sha256.as_str() {
        "" => "none".to_owned(),
        hash => short(hash),
    };
    let values = match meta.quantiles {
        Some(count) => format!("{count} quantiles a prompt"),
        None => "all rewards".to_owned(),
    };
    let row = |name: &str, value: String| (name.to_owned(), value);
    vec![
        row("model", short(&meta.model_sha256)),
        row("reward", meta.reward.clone()),
        row("tokenizer", short(&meta.tokenizer_sha256)),
        row("chat template", template),
        row("sampling", format!("{}, seed {}", meta.sampling, meta.seed)),
        row("holds", values),
        row("prompts", summary.prompts.to_string()),
        row("samples a prompt", range(summary.least_samples, summary.most_samples)),
        row("mean reward", format!("{:.4}", summary.mean)),
        row("spread within prompts", format!("{:.4}", summary.spread_within)),
        row("spread between prompts", format!("{:.4}", summary.spread_between)),
        row("ties", format!("{:.4} of pairs", summary.ties)),
        row("constant prompts", summary.constant.to_string()),
        row("95 % band of u", format!("± {:.4}", summary.dkw)),
    ]
}

fn range(least: usize, most: usize) -> String {
    if least == most { least.to_string() } else { format!("{least} to {most}") }
}
