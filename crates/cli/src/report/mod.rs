//! `infalign report`: one page from runs and evaluations.

mod exports;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use infalign_evaluate::report::{Member, Provenance, Report, Request};
use infalign_record::atomic::write_atomic;
use infalign_record::folder::MANIFEST;
use infalign_transform::{Composed, Transform};

use self::exports::Export;
use crate::failure::Failure;
use crate::figure::write_figure;
use crate::output::{self, given_words};
use crate::recording::RunInputs;
use crate::sources::{Source, contests, judges, read_all, read_by};
use crate::statistics::StatisticsArgs;

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
    #[arg(long)]
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
        let reads = RunInputs::new(Some(self.statistics.resample_seed), None, self.json);
        read_by(reads, &self.paths, self.reference.as_deref())
    }
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] for what cannot be read or compared, [`Failure::Run`] when a file cannot be written.
pub(crate) fn run(args: &ReportArgs) -> Result<(), Failure> {
    let sources = read_all(&args.paths, args.reference.as_deref()).map_err(Failure::Input)?;
    let report = report(args, &sources).map_err(Failure::Input)?;
    let out = folder(args);
    let files = write(args, &sources, &report, &out).map_err(Failure::Run)?;
    if args.json {
        return output::print(&serde_json::to_string_pretty(&report).map_err(Failure::run)?);
    }
    let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    output::print(&format!("{}{}", report.text(), files.join("\n")))
}

/// The given folder, or the first that is reported on; beside a run on record, into which nobody writes but the run.
fn folder(args: &ReportArgs) -> PathBuf {
    let first = args.paths.first().map_or(Path::new("."), PathBuf::as_path);
    let on_record = first.ancestors().find(|folder| folder.join(MANIFEST).exists());
    if let (None, Some(run)) = (&args.out, on_record) {
        let run = run.canonicalize().unwrap_or_else(|_| run.to_path_buf());
        let name = run.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return run.with_file_name(format!("{name}-report"));
    }
    let beside = if first.is_dir() { first } else { first.parent().unwrap_or(Path::new(".")) };
    args.out.clone().unwrap_or_else(|| beside.to_path_buf())
}

fn report(args: &ReportArgs, sources: &[Source]) -> Result<Report> {
    let members: Vec<Member<'_>> = sources
        .iter()
        .flat_map(|source| source.entries())
        .map(|(method, entry)| Member { entry, sweep: &method.name, compared: !method.is_base })
        .collect();
    let title = args.title.clone().or(sources.first().map(|source| source.title.clone()));
    let request = Request {
        title: title.unwrap_or_default(),
        contests: &contests(sources, &args.procedure, None),
        judges: &judges(sources),
        kl: args.kl,
        length_controlled: args.length_controlled,
        examples: args.examples,
        statistics: args.statistics.statistics(),
    };
    let provenance = Provenance {
        command: output::command_line(given_words()),
        sources: sources.iter().map(|source| source.origin.clone()).collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    Ok(Report::new(&members, &request, provenance)?)
}

/// Writes the page, Markdown, JSON, plots and exports, and returns what was written.
fn write(
    args: &ReportArgs,
    sources: &[Source],
    report: &Report,
    out: &Path,
) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
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
        write_atomic(&path, |file| file.write_all(text.as_bytes()))?;
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

/// Transforms by the methods that were trained on them.
fn theories(sources: &[Source]) -> Vec<(String, Transform)> {
    let mut theories: Vec<(String, Transform)> = Vec::new();
    for (method, _) in sources.iter().flat_map(Source::entries) {
        let known = theories.iter().any(|(name, _)| *name == method.name);
        if let (Some(transform), false) = (&method.transform, known) {
            theories.push((method.name.clone(), transform.clone()));
        }
    }
    theories
}
