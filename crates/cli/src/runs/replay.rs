//! `infalign replay`: a run's table and plots again, from its stored samples.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::Args;

use super::{no_reproduction, trusted};
use crate::destination;
use crate::failure::{Failure, OrFailure};
use crate::output;

/// Arguments of `infalign replay`.
#[derive(Args)]
pub(crate) struct ReplayArgs {
    /// The run's folder. It is only read.
    run: PathBuf,
    /// Keep what is computed in this new folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] for a run that does not verify or stores no samples, [`Failure::Check`] when something else is computed.
pub(crate) fn replay(args: &ReplayArgs) -> Result<(), Failure> {
    let record = trusted(&args.run)?.record;
    no_reproduction(&args.run, &record)?;
    let temporary = tempfile::tempdir().or_run()?;
    let into = args.out.as_deref().unwrap_or(temporary.path());
    if args.out.is_some() {
        destination::folder(into).or_input()?;
        std::fs::create_dir(into)
            .with_context(|| format!("cannot make the new folder {}", into.display()))
            .or_input()?;
    }
    let replayed = match record.command.as_str() {
        "evaluate" => crate::evaluate::replay(&record.argv, &args.run, into),
        _ => crate::train::replay(&args.run, into),
    };
    replayed.or_input()?;
    let compared = compare(&args.run, into).or_run()?;
    let words = |same: bool| if same { "the same bytes" } else { "DIFFERS" };
    let rows: Vec<_> =
        compared.iter().map(|(name, same)| (name.clone(), words(*same).to_owned())).collect();
    output::print_rows(&rows)?;
    if compared.iter().any(|(_, same)| !same) {
        return Err(Failure::Check(anyhow!(
            "what the stored samples give is not what {} holds; another version of the program may have made it",
            args.run.display()
        )));
    }
    Ok(())
}

/// Every file that was computed, and whether the run has the same.
fn compare(run: &Path, into: &Path) -> Result<Vec<(String, bool)>> {
    let mut compared = Vec::new();
    for name in infalign_record::folder::files(into)? {
        let read = |folder: &Path| std::fs::read(folder.join(&name));
        let ours = read(into).with_context(|| format!("cannot read {name}"))?;
        let same = read(run).is_ok_and(|theirs| theirs == ours);
        compared.push((name, same));
    }
    Ok(compared)
}
