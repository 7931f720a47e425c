//! A reproduction as a page in Markdown.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use infalign_record::atomic::write_atomic;

use super::Results;
use super::finding::{Found, Verdict};

/// Writes a page whole or not at all.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    Ok(write_atomic(path, |file| file.write_all(text.as_bytes()))?)
}

/// The page.
pub(super) fn text(results: &Results<'_>) -> String {
    let Results { name, title, paper, scale, smoke, steps, findings, .. } = results;
    let mut text = format!("# {name}: {title}\n\nPaper: {paper}. Scale: {scale}.\n\n");
    if *smoke {
        text += "A smoke run: it shows that everything runs; its numbers mean nothing.\n\n";
    }
    if !findings.is_empty() {
        text += "| the paper states | we find | interval | verdict |\n|---|---|---|---|\n";
        for found in *findings {
            text += &row(found);
        }
        text += "\n";
    }
    text += "| step | command | seconds |\n|---|---|---|\n";
    for step in *steps {
        // Writing to a text does not fail.
        let _ = writeln!(
            text,
            "| {} | `infalign {}` | {:.0} |",
            step.name,
            cell(&step.command.join(" ")),
            step.seconds
        );
    }
    text
}

fn row(found: &Found) -> String {
    let interval =
        found.interval.map_or(String::new(), |[low, high]| format!("[{low:.3}, {high:.3}]"));
    let verdict = found.verdict.map_or("not judged", Verdict::word);
    let estimate =
        found.estimate.map_or("not measured".to_owned(), |estimate| format!("{estimate:.3}"));
    format!("| {} | {estimate} | {interval} | {verdict} |\n", cell(&found.states))
}

/// A text that does not end its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
