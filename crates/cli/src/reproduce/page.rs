//! A reproduction as a page in Markdown.

use infalign_record::{command_line, markdown_table};

use super::Results;
use super::finding::{Found, Verdict};
use super::step::Done;

/// The page.
pub(super) fn text(results: &Results<'_>) -> String {
    let Results { name, title, paper, scale, smoke, steps, findings, .. } = results;
    let mut text = format!("# {name}: {title}\n\nPaper: {paper}. Scale: {scale}.\n\n");
    if *smoke {
        text += "A smoke run: it shows that everything runs; its numbers mean nothing.\n\n";
    }
    if !findings.is_empty() {
        let rows: Vec<Vec<String>> = findings.iter().map(finding).collect();
        let head = ["the paper states", "we find", "interval", "verdict"];
        text += &format!("{}\n", markdown_table(&head, &rows));
    }
    let rows: Vec<Vec<String>> = steps.iter().map(step).collect();
    text + &markdown_table(&["step", "command", "seconds"], &rows)
}

fn finding(found: &Found) -> Vec<String> {
    let interval =
        found.interval.map_or(String::new(), |[low, high]| format!("[{low:.3}, {high:.3}]"));
    let verdict = found.verdict.map_or("not judged", Verdict::word);
    let estimate =
        found.estimate.map_or("not measured".to_owned(), |estimate| format!("{estimate:.3}"));
    vec![found.states.clone(), estimate, interval, verdict.to_owned()]
}

fn step(done: &Done) -> Vec<String> {
    let command = format!("`{}`", command_line(&done.command));
    vec![done.name.clone(), command, format!("{:.0}", done.seconds)]
}
