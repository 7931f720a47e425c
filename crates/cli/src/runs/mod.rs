//! Commands about runs that were recorded: verify, replay, replicate, checklist, badges.

mod evidence;
mod replay;
mod replicate;
mod verify;

use std::path::Path;

use infalign_record::RecordError;
use infalign_record::record::Record;
use infalign_record::verify::Verified;

use crate::failure::Failure;

pub(crate) use evidence::{BadgesArgs, ChecklistArgs, badges, checklist};
pub(crate) use replay::{ReplayArgs, replay};
pub(crate) use replicate::{ReplicateArgs, replicate};
pub(crate) use verify::{VerifyArgs, verify};

/// Looks a run's folder through, before anything in it is used.
///
/// # Errors
/// [`Failure::Input`] for a folder that is refused, or holds no run.
fn verified(run: &Path) -> Result<Verified, Failure> {
    infalign_record::verify::verify(run).map_err(|error| match error {
        RecordError::Io { .. } if !run.is_dir() => {
            Failure::Input(anyhow::anyhow!("{} is no folder of a run", run.display()))
        }
        error => Failure::Input(error.into()),
    })
}

/// Refuses a reproduction: its steps are runs of their own.
///
/// # Errors
/// [`Failure::Input`] names their folder.
fn no_reproduction(run: &Path, record: &Record) -> Result<(), Failure> {
    if record.command != "reproduce" {
        return Ok(());
    }
    Err(Failure::Input(anyhow::anyhow!(
        "{} is a reproduction, whose steps are runs of their own: name one of those in {}",
        run.display(),
        run.join("steps").display()
    )))
}

/// The same, for commands that use what is in it: what does not verify is refused.
///
/// # Errors
/// [`Failure::Input`].
fn trusted(run: &Path) -> Result<Verified, Failure> {
    let verified = verified(run)?;
    match verified.findings.first() {
        None => Ok(verified),
        Some(first) => {
            let more = match verified.findings.len() - 1 {
                0 => String::new(),
                n => format!(" (and {n} more; see infalign verify)"),
            };
            Err(Failure::Input(anyhow::anyhow!(
                "{} is not what was recorded: {first}{more}",
                run.display()
            )))
        }
    }
}
