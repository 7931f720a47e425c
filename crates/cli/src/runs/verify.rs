//! `infalign verify`: whether a run's folder is what was recorded.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use serde_json::json;

use super::verified;
use crate::failure::Failure;
use crate::output;

/// Arguments of `infalign verify`.
#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// The run's folder.
    run: PathBuf,
    /// Print a JSON document.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Check`] when something is not as it was recorded, [`Failure::Input`] for a folder that is refused.
pub(crate) fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let found = verified(&args.run)?;
    let problems: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
    let record = &found.record;
    if args.json {
        let document = json!({
            "run": record.uuid, "status": record.status, "files": found.files, "findings": problems,
        });
        output::print(&format!("{document:#}"))?;
    } else {
        problems.iter().try_for_each(|problem| output::print(problem))?;
    }
    if !problems.is_empty() {
        let n = problems.len();
        return Err(Failure::Check(anyhow!(
            "{} does not verify; findings: {n}",
            args.run.display()
        )));
    }
    if args.json {
        return Ok(());
    }
    output::print(&format!(
        "{}: {} of {}, {} files, all as they were recorded",
        args.run.display(),
        record.command,
        record.start,
        found.files
    ))
}
