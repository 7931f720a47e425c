//! Decoders, each a method under a procedure: all that sources hold, against one procedure of the reference.

use anyhow::{Result, bail, ensure};
use infalign_evaluate::{Entry, Judging, Table, decoders, distinct};
use infalign_transform::{Composed, Procedure};

use super::CompareArgs;
use crate::sources::Source;

/// Measures and compares them, those of a source's own procedures in its order.
///
/// # Errors
/// Where there are fewer than two, or samples do not tell what a procedure makes of them.
pub(super) fn table(args: &CompareArgs, sources: &[Source], judging: &Judging) -> Result<Table> {
    let all = all(args, sources);
    ensure!(
        all.len() > 1,
        "there are no two decoders to compare: give several --procedure, or several runs, evaluations or files"
    );
    let reference = match args.reference_procedure {
        Some(asked) => asked,
        None => of_reference(sources)?,
    };
    Ok(decoders(&all, reference, judging)?)
}

/// Every method under every procedure; the same responses of a base, as runs of one seed have them, once.
fn all<'a>(args: &CompareArgs, sources: &'a [Source]) -> Vec<(Entry<'a>, Composed)> {
    let mut all: Vec<(Entry<'_>, Composed)> = Vec::new();
    for source in sources {
        let procedures = procedures(source, &args.procedure);
        for (method, entry) in source.entries() {
            let is_known = |all: &[(Entry<'_>, Composed)], procedure: &Composed| {
                method.is_base
                    && all.iter().any(|(other, of)| {
                        of == procedure
                            && other.sampled == entry.sampled
                            && other.reference == entry.reference
                    })
            };
            let new = procedures.iter().filter(|one| !is_known(&all, one));
            let new: Vec<Composed> = new.copied().collect();
            all.extend(new.into_iter().map(|procedure| (entry, procedure)));
        }
    }
    all
}

/// Those asked for, or what a source was evaluated under, or what made its responses.
fn procedures(source: &Source, asked: &[Composed]) -> Vec<Composed> {
    if !asked.is_empty() {
        return distinct(asked.iter().copied());
    }
    let evaluated = distinct(source.rows.iter().map(|row| row.contest.policy));
    if !evaluated.is_empty() {
        return evaluated;
    }
    let made = source.methods.iter().map(|method| made_by(method.sampled.procedure));
    distinct(made)
}

/// What made the references' responses, which has to be the same for all.
fn of_reference(sources: &[Source]) -> Result<Composed> {
    let made = distinct(sources.iter().map(|source| made_by(source.reference.procedure)));
    match made.as_slice() {
        [one] => Ok(*one),
        several => {
            let several: Vec<String> = several.iter().map(|one| format!("`{one}`")).collect();
            bail!(
                "the responses of the references are those of {}: evaluate all decoders with one --reference-procedure, such as sample",
                several.join(" and of ")
            )
        }
    }
}

fn made_by(procedure: Option<Composed>) -> Composed {
    procedure.unwrap_or(Procedure::Sample.into())
}
