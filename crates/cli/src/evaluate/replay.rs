//! An evaluation's results again, from its stored samples alone.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use infalign_record::folder;

use super::pairwise::Pairwise;
use super::sides::Sides;
use super::{EvaluateArgs, results};
use crate::sources::{METHODS, REFERENCE, SAMPLES};
use crate::train::RESULTS;

/// Computes results.json of a finished evaluation into the folder `into`. Judges of pairs are not asked: their answers are in the folder, or in
/// the file that their settings name.
///
/// - `argv`: the command line on record.
///
/// # Errors
/// When the command line is none of this version, and where samples or answers are missing.
pub(crate) fn replay(argv: &[String], run: &Path, into: &Path) -> Result<()> {
    let args = crate::evaluation(argv).with_context(|| {
        format!("the command line of {} cannot be read by this version", run.display())
    })?;
    let args = EvaluateArgs { out: Some(run.to_path_buf()), ..args };
    let samples = format!("{METHODS}/{}/{SAMPLES}", args.name);
    ensure!(folder::stays_inside(&samples), "--name {:?} leads out of the run", args.name);
    let policy = folder::samples(run, &samples)?;
    let sides = Sides { policy, reference: folder::samples(run, REFERENCE)?, no_kl: None };
    for side in [&sides.policy, &sides.reference] {
        side.check().with_context(|| format!("the samples in {}", run.display()))?;
    }
    let judge = |file| Pairwise::read(&args, file)?.with_most_requests(0).build();
    let judge = args.pairwise.as_deref().map(judge).transpose()?;
    let results = results::results(&args, &sides, judge.as_ref())?;
    super::folder::write(&into.join(RESULTS), &results)
}
