//! Two runs side by side: the rows of a replication, and where it is kept.

use std::path::Path;

use anyhow::{Result, anyhow};
use infalign_record::compare::{self, obstacles, same_machine};
use infalign_record::folder::{MANIFEST, RESULTS};
use infalign_record::replication::{Replication, Row, RunName, WHOLE, describe};
use infalign_record::{Expect, Level, Record, environment};

use super::{not_comparable, print, statistics};
use crate::failure::{Failure, OrFailure};
use crate::files::write;

/// A run's folder with its record.
pub(super) type Run<'a> = (&'a Path, &'a Record);

/// Compares two whole runs.
///
/// # Errors
/// When they were told to do different things, or a file cannot be read.
pub(super) fn whole(original: Run<'_>, replica: Run<'_>) -> Result<Replication> {
    let found = obstacles(original, replica)?;
    if !found.is_empty() {
        return Err(not_comparable(&found));
    }
    let expect = Expect::read(original.0)?;
    let same = same_machine(original.1, replica.1);
    let asked_of_files = if same { expect.same_machine } else { Level::Differs };
    let mut results = files(original, replica, &expect, asked_of_files)?;
    let identical = results.iter().all(|row| row.reached == Level::Bitwise || is_new(&row.result));
    let asked = if same { Level::Differs } else { expect.elsewhere };
    let (rows, claims) = statistics::compare(original.0, replica.0, &expect, asked)?;
    if rows.is_empty() && !same {
        // Nothing with a spread: the numbers themselves have to be near.
        let numbers = results.iter_mut().filter(|row| row.result.ends_with(RESULTS));
        numbers.for_each(|row| row.required = expect.elsewhere);
    } else if !same || !identical {
        results.extend(rows);
    }
    Ok(Replication {
        original: RunName::of(original.1),
        replica: RunName::of(replica.1),
        extent: WHOLE.to_owned(),
        program: String::new(),
        results,
        claims,
        differences: differences(original.1, replica.1),
    })
}

/// What differs around two runs, as lines.
pub(super) fn differences(original: &Record, replica: &Record) -> Vec<String> {
    environment(original, replica).iter().map(describe).collect()
}

/// Whether a file is another in every process: the state of an optimizer, in which burn names the parameters at random, the digests of a
/// checkpoint, its own among them, and what TensorBoard
/// shows, which holds the time of every step. What checkpoints are made by is told by other files, and not by older programs.
fn is_new(path: &str) -> bool {
    ["optimizer.bpk", MANIFEST, "made-by.json"].iter().any(|name| path.ends_with(name))
        || path.contains("/tensorboard/")
}

/// A row for every file.
fn files(
    original: Run<'_>,
    replica: Run<'_>,
    expect: &Expect,
    required: Level,
) -> Result<Vec<Row>> {
    let compared = compare::files(original, replica, &expect.tolerance)?;
    let row = |file: compare::FileComparison| Row {
        required: if is_new(&file.path) { Level::Differs } else { required },
        result: file.path,
        reached: file.level,
        original: None,
        replica: None,
        note: file.note,
    };
    Ok(compared.into_iter().map(row).collect())
}

/// Keeps the report in a folder, prints it, and judges.
///
/// # Errors
/// [`Failure::Check`] when something required was not reached.
pub(super) fn finish(
    report: &Replication,
    original: &Record,
    folder: &Path,
    json: bool,
) -> Result<(), Failure> {
    let statement = format!("{:#}\n", report.statement(original));
    let table = report.markdown();
    for (name, text) in [("replication.json", &statement), ("replication.md", &table)] {
        write(&folder.join(name), text).or_run()?;
    }
    print(if json { &statement } else { &table })?;
    if !json {
        print(&format!("\n{}/replication.json", folder.display()))?;
    }
    if report.holds() {
        return Ok(());
    }
    Err(Failure::Check(anyhow!("{}: see {}/replication.md", report.verdict(), folder.display())))
}
