//! `infalign report`: one page from runs and evaluations.

mod exports;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use infalign_evaluate::common_kl;
use infalign_evaluate::report::{Member, Provenance, Report, Request, sweeps};
use infalign_record::command_line;
use infalign_transform::{Composed, Theory};

use self::exports::Export;
use crate::destination;
use crate::failure::{Failure, OrFailure};
use crate::figure::write_figure;
use crate::files::{self, make_folder};
use crate::measures;
use crate::output::{self, given_words, take_option};
use crate::recording::RunInputs;
use crate::sources::{Source, contests, judges, read_all, read_by, recipe_seed};
use crate::statistics::StatisticsArgs;
use crate::values::above_nothing;

/// Folder of plots and exports, beside the page.
const PLOTS: &str = "report";

/// Arguments of `infalign report`.
#[derive(Args)]
pub(crate) struct ReportArgs {
    /// Folders of runs and evaluations, methods of them (RUN/methods/NAME), or files of samples with --reference, all of the same prompts.
    /// Runs of a method of the same name are points of its frontier.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// File of the reference's samples, for files.
    #[arg(long)]
    reference: Option<PathBuf>,
    /// Where report.html, report.md, report.json and the plots are written; absent: into the first folder, or beside it, as
    /// NAME-report, where it is a run on record.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Heading; absent: the name of the first run's recipe.
    #[arg(long)]
    title: Option<String>,
    /// Procedure on both sides; may be repeated. Without any: those that the first was evaluated under.
    #[arg(long)]
    procedure: Vec<Composed>,
    /// KL at which methods are compared, in nats; absent: the greatest that all of them reach.
    #[arg(long, value_parser = above_nothing, allow_negative_numbers = true)]
    kl: Option<f64>,
    /// Add win rates at equal lengths.
    #[arg(long)]
    length_controlled: bool,
    /// Prompts that are shown with the methods' responses.
    #[arg(long, default_value_t = 5)]
    examples: usize,
    /// Write what other tools read, too; may be repeated.
    #[arg(long, value_enum)]
    export: Vec<Export>,
    #[command(flatten)]
    statistics: StatisticsArgs,
    /// Print report.json instead of the tables.
    #[arg(long)]
    json: bool,
}

impl ReportArgs {
    /// What the command reads.
    pub(crate) fn reads(&self) -> RunInputs {
        let reads =
            RunInputs::new(Some(self.statistics.seed(recipe_seed(&self.paths))), None, self.json);
        read_by(reads, &self.paths, self.reference.as_deref())
    }
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] for what cannot be read or compared, [`Failure::Run`] when a file cannot be written.
pub(crate) fn run(args: &ReportArgs) -> Result<(), Failure> {
    let out = folder(args);
    destination::folder(&out).or_input()?;
    let sources = read_all(&args.paths, args.reference.as_deref()).or_input()?;
    let report = report(args, &sources).or_input()?;
    if let Some(told) = unreached(args, &sources, &report).or_input()? {
        tell!("{told}");
    }
    let files = write(args, &sources, &report, &out).or_run()?;
    if args.json {
        return output::print(&serde_json::to_string_pretty(&report).or_run()?);
    }
    output::print_places(&report.text(), &files)
}

/// The given folder, or the first that is reported on; beside a run on record, into which nobody writes but the run.
fn folder(args: &ReportArgs) -> PathBuf {
    if let Some(out) = &args.out {
        return out.clone();
    }
    let first = args.paths.first().map_or(Path::new("."), PathBuf::as_path);
    if let Some(run) = destination::on_record(first) {
        let name = run.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let page = run.with_file_name(format!("{name}-report"));
        let part = dunce::canonicalize(first).ok();
        let part = part.as_deref().and_then(|first| first.strip_prefix(&run).ok());
        return part
            .filter(|part| !part.as_os_str().is_empty())
            .map_or(page.clone(), |part| page.join(part));
    }
    let beside = if first.is_dir() { first } else { first.parent().unwrap_or(Path::new(".")) };
    beside.to_path_buf()
}

fn report(args: &ReportArgs, sources: &[Source]) -> Result<Report> {
    let title = args.title.clone().or(sources.first().map(|source| source.title.clone()));
    let request = Request {
        title: title.unwrap_or_default(),
        contests: &contests(sources, &args.procedure, None),
        judges: &judges(sources),
        kl: args.kl,
        length_controlled: args.length_controlled,
        examples: args.examples,
        statistics: args.statistics.statistics(recipe_seed(&args.paths)),
    };
    let provenance = Provenance {
        command: command()?,
        sources: sources.iter().map(|source| source.origin.clone()).collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        warnings: measures::warnings(sources),
    };
    provenance.warnings.iter().for_each(|warning| tell!("warning: {warning}"));
    Ok(Report::new(&members(sources), &request, provenance)?)
}

fn members(sources: &[Source]) -> Vec<Member<'_>> {
    let entries = sources.iter().flat_map(Source::entries);
    entries
        .map(|(method, entry)| Member { entry, sweep: &method.name, compared: !method.is_base })
        .collect()
}

/// The command that repeats the report, but for where that is written: a replica elsewhere has the same pages.
fn command() -> Result<String> {
    let mut words = given_words();
    for option in ["--record", "--out"] {
        take_option(&mut words, option)?;
    }
    Ok(command_line(words))
}

/// Says so where no method was measured near --kl.
fn unreached(args: &ReportArgs, sources: &[Source], report: &Report) -> Result<Option<String>> {
    let Some(kl) = args.kl else { return Ok(None) };
    let mut rows = report.judged.iter().flat_map(|judged| &judged.at_common_kl.rows).peekable();
    if rows.peek().is_none() || rows.any(|row| row.win_rate.is_some()) {
        return Ok(None);
    }
    Ok(Some(match common_kl(&sweeps(&members(sources)))? {
        Some(most) => {
            format!(
                "no method was measured near --kl {kl}: the greatest KL that all reach is {most:.3} nats"
            )
        }
        None => format!("no method was measured near --kl {kl}, and there is no KL that all reach"),
    }))
}

/// Writes the page, Markdown, JSON, plots and exports, and returns what was written.
fn write(
    args: &ReportArgs,
    sources: &[Source],
    report: &Report,
    out: &Path,
) -> Result<Vec<PathBuf>> {
    let made = make_folder(out);
    match &args.out {
        Some(_) => made?,
        None => made.context("the page needs another folder: give one by --out")?,
    }
    let theories = theories(sources);
    let json = serde_json::to_string_pretty(report)?;
    let figures = report.figures(&theories)?;
    let plots: Vec<(String, String)> = figures
        .iter()
        .map(|(name, figure)| (format!("{PLOTS}/{name}.svg"), figure.title.clone()))
        .collect();
    let mut files = Vec::new();
    for (name, text) in [
        ("report.html", report.html(&theories)?),
        ("report.md", report.markdown(&plots)),
        ("report.json", json),
    ] {
        let path = out.join(name);
        files::write(&path, text)?;
        files.push(path);
    }
    for (name, figure) in &figures {
        files.extend(write_figure(&out.join(PLOTS), name, figure)?);
    }
    for export in &args.export {
        files.extend(export.write(&out.join(PLOTS), sources, report)?);
    }
    Ok(files)
}

/// What is known of methods in theory, by their names.
fn theories(sources: &[Source]) -> Vec<(String, Theory)> {
    let mut theories: Vec<(String, Theory)> = Vec::new();
    for (method, _) in sources.iter().flat_map(Source::entries) {
        let known = theories.iter().any(|(name, _)| *name == method.name);
        if let (Some(theory), false) = (&method.theory, known) {
            theories.push((method.name.clone(), theory.clone()));
        }
    }
    theories
}
