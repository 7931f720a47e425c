//! `infalign checklist` and `infalign badges`: what a run's record is evidence of.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use infalign_record::badges::{Evidence, Statement, badges as badges_of};
use infalign_record::checklist::checklist as answers_of;
use infalign_record::folder;
use infalign_record::hash::sha256_file;
use infalign_record::replication::Replication;

use super::verified;
use crate::failure::{Failure, OrFailure};
use crate::output;

/// Arguments of `infalign checklist`.
#[derive(Args)]
pub(crate) struct ChecklistArgs {
    /// The run's folder.
    run: PathBuf,
}

/// Arguments of `infalign badges`.
#[derive(Args)]
pub(crate) struct BadgesArgs {
    /// The run's folder.
    run: PathBuf,
    /// A replication.json of the run; may be repeated.
    #[arg(long = "replication", value_name = "FILE")]
    replications: Vec<PathBuf>,
    /// Where the folder can be had for good: a DOI, or an identifier of Software Heritage as swh:1:….
    #[arg(long, value_name = "ID")]
    identifier: Option<String>,
}

/// Prints the answers as a list in Markdown.
///
/// # Errors
/// [`Failure::Input`] for a folder that is refused.
pub(crate) fn checklist(args: &ChecklistArgs) -> Result<(), Failure> {
    let lines = answers_of(&verified(&args.run)?).into_iter();
    let lines = lines
        .map(|answer| format!("- {} **{}**: {}", answer.question, answer.answer, answer.evidence));
    output::print(&lines.collect::<Vec<_>>().join("\n"))
}

/// Prints the badges, with what they are given for or why they are not.
///
/// # Errors
/// [`Failure::Input`] for a folder or a statement that is refused.
pub(crate) fn badges(args: &BadgesArgs) -> Result<(), Failure> {
    let replications = args.replications.iter().map(|path| read(path)).collect::<Result<_>>();
    let replications = replications.or_input()?;
    let evidence = Evidence { identifier: args.identifier.clone(), replications };
    for badge in badges_of(&args.run, &evidence).or_input()? {
        match badge.verdict {
            Ok(given_for) => output::print(&format!("{}: yes; {given_for}", badge.name))?,
            Err(reasons) => output::print(&format!("{}: no; {}", badge.name, reasons.join("; ")))?,
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Statement> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let document = folder::json(parent.unwrap_or(Path::new(".")), &name)?;
    let replication = Replication::of_statement(&document)
        .with_context(|| format!("{} is no statement of a replication", path.display()))?;
    Ok(Statement { document, replication, sha256: sha256_file(path)? })
}
