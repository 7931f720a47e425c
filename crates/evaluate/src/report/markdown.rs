//! A report as Markdown, and for a terminal.

use std::path::Path;

use infalign_record::{Page, markdown_table};

use super::{Judged, Report, Source};
use crate::text::{
    distinct, kl_text, percent, score_with_interval, text_comparisons, text_table, with_interval,
    with_signs,
};
use crate::{Contest, Intervals, Judge, Row, Statistics};

/// A table as a head and cells, which every form of a report shows.
pub(super) type Cells = (Vec<&'static str>, Vec<Vec<String>>);

/// The title of a column, whether it is shown, and its cells.
type Column = (&'static str, bool, fn(&Row) -> String);

/// Runs that a heading names, where there are more.
const MOST_NAMED: usize = 4;

/// The title with the runs that are reported on, where it does not name them itself.
pub(super) fn heading(report: &Report) -> String {
    let name = |source: &Source| {
        let last = Path::new(&source.path).file_name();
        last.map_or(source.path.clone(), |last| last.to_string_lossy().into_owned())
    };
    let mut names = distinct(report.provenance.sources.iter().map(name));
    let more = names.len().saturating_sub(MOST_NAMED);
    names.truncate(MOST_NAMED);
    if names.is_empty() || names == [report.title.as_str()] {
        return report.title.clone();
    }
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}: report of {}{more}", report.title, names.join(", "))
}

/// In the order of the procedures, and under each in the order in which they are.
fn by_procedure<T>(all: &[T], contest: impl Fn(&T) -> Contest) -> Vec<&T> {
    let order = distinct(all.iter().map(&contest));
    let mut sorted: Vec<&T> = all.iter().collect();
    sorted.sort_by_key(|&one| order.iter().position(|other| *other == contest(one)));
    sorted
}

/// Cells as people read them.
pub(super) fn typeset(rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let row = |row: Vec<String>| row.iter().map(|cell| Page::with_minus_signs(cell)).collect();
    rows.into_iter().map(row).collect()
}

/// Rows of a judge.
pub(super) fn rows(judged: &Judged) -> Cells {
    let rows = &judged.table.rows;
    let controlled = rows.iter().any(|row| row.length_controlled_win_rate.is_some());
    let predicted = rows.iter().any(|row| row.predicted_win_rate.is_some());
    let columns: [Column; 9] = [
        ("method", true, |row| row.method.clone()),
        ("procedure", true, |row| row.contest.to_string()),
        ("KL (nats)", true, kl_text),
        ("win rate", true, |row| with_interval(&row.win_rate)),
        ("at equal length", controlled, |row| {
            or_dash(row.length_controlled_win_rate.as_ref().map(with_interval))
        }),
        ("theory for this method", predicted, |row| {
            or_dash(row.predicted_win_rate.map(|p| format!("{p:.3}")))
        }),
        ("score", true, |row| score_with_interval(&row.score)),
        ("score of the reference", true, |row| score_with_interval(&row.reference_score)),
        ("tokens a response", true, |row| or_dash(row.tokens.map(|n| format!("{n:.1}")))),
    ];
    let shown = columns.iter().filter(|(_, is_shown, _)| *is_shown);
    let head = shown.clone().map(|(title, ..)| *title).collect();
    let line = |row: &Row| shown.clone().map(|(.., cell)| cell(row)).collect::<Vec<_>>();
    (head, by_procedure(rows, |row| row.contest).into_iter().map(line).collect())
}

fn or_dash(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| "–".to_owned())
}

/// Comparisons of a judge.
pub(super) fn comparisons(judged: &Judged, level: f64) -> Cells {
    let head = vec!["difference", "procedure", "win rate", "p", "p adjusted", "verdict"];
    let comparisons = by_procedure(&judged.table.comparisons, |one| one.contest);
    let lines = comparisons.into_iter().map(|one| {
        vec![
            format!("{} − {}", one.method, one.baseline),
            one.contest.to_string(),
            with_signs(&one.difference),
            p_value(one.p_value),
            p_value(one.p_adjusted),
            one.verdict(level).to_owned(),
        ]
    });
    (head, lines.collect())
}

/// Methods at the common KL.
pub(super) fn matched(judged: &Judged) -> Cells {
    let beyond = || "not measured near".to_owned();
    let rows = judged.at_common_kl.rows.iter().map(|row| {
        vec![
            row.method.clone(),
            row.procedure.to_string(),
            row.win_rate.as_ref().map_or_else(beyond, with_interval),
            or_dash(row.optimum.map(|optimum| format!("{optimum:.3}"))),
        ]
    });
    (vec!["method", "procedure", "win rate", "optimum"], rows.collect())
}

/// Pairs of methods at the common KL.
pub(super) fn matched_comparisons(judged: &Judged) -> Cells {
    let rows = judged.at_common_kl.comparisons.iter().map(|one| {
        vec![
            format!("{} − {}", one.method, one.baseline),
            one.procedure.to_string(),
            one.difference.as_ref().map_or("not measured near".to_owned(), with_signs),
        ]
    });
    (vec!["difference", "procedure", "win rate"], rows.collect())
}

/// Agreement of the judges.
pub(super) fn agreement(report: &Report) -> Cells {
    let rows = report.agreement.iter().map(|one| {
        vec![
            one.method.clone(),
            with_interval(&one.agreement.share),
            or_dash(one.agreement.kappa.as_ref().map(with_interval)),
            one.agreement.n_pairs.to_string(),
        ]
    });
    (vec!["method", "share of pairs judged alike", "Cohen's κ", "pairs"], rows.collect())
}

/// How KL was estimated, row by method.
pub(super) fn kls(judged: &Judged) -> Cells {
    let head =
        vec!["method", "exact at every token", "k1", "k3", "kind", "of what each procedure keeps"];
    let of = |estimate: f64, error: f64| format!("{estimate:.4} ± {error:.4}");
    let other = |part: Option<crate::Estimate>| {
        or_dash(part.map(|part| of(part.estimate, part.standard_error)))
    };
    let own = |row: &Row| match row.procedure_kl {
        Some(kl) => {
            let whole = row.kl_to_reference;
            let whole = whole.map_or(String::new(), |kl| format!(", in all {:.3}", kl.estimate));
            format!("{}: {:.3}{whole} ({})", row.contest.policy, kl.estimate, kl.kind)
        }
        None => format!("{}: not known", row.contest.policy),
    };
    let mut lines: Vec<Vec<String>> = Vec::new();
    for method in distinct(judged.table.rows.iter().map(|row| row.method.as_str())) {
        let rows: Vec<&Row> = judged.table.rows.iter().filter(|row| row.method == method).collect();
        // All procedures are of one policy.
        let kl = rows.first().and_then(|row| row.kl);
        lines.push(vec![
            method.to_owned(),
            or_dash(kl.map(|kl| of(kl.estimate, kl.standard_error))),
            other(kl.and_then(|kl| kl.k1)),
            other(kl.and_then(|kl| kl.k3)),
            kl.map_or("not known".to_owned(), |kl| kl.kind.to_string()),
            distinct(rows.into_iter().map(own)).join("; "),
        ]);
    }
    (head, lines)
}

pub(super) fn p_value(p: f64) -> String {
    if p < 0.0001 { "< 0.0001".to_owned() } else { format!("{p:.4}") }
}

/// Who judges.
pub(super) fn judge_name(judge: Judge) -> &'static str {
    match judge {
        Judge::Reward => "By the reward",
        Judge::Judge => "By the judge",
    }
}

/// How intervals and tests were made, as a sentence.
pub(super) fn method(statistics: &Statistics) -> String {
    let percent = percent(statistics.level);
    let bootstrap = format!(
        "the BCa bootstrap with {} resamples (of fewer than ten prompts, Student's t)",
        statistics.intervals.resamples().0
    );
    let how = match statistics.intervals {
        Intervals::Bca { .. } => bootstrap,
        Intervals::StudentT { .. } => format!("Student's t, and at the same KL by {bootstrap}"),
    };
    let margin = statistics.margin.map_or(String::new(), |margin| {
        format!(
            " Equivalent is what two one-sided tests, adjusted likewise, place within ±{margin}."
        )
    });
    format!(
        "Win rates count ties ½ and are averaged over all subsets of the stored responses. Intervals are {percent}, over prompts, by {how}; \
         differences are paired by prompt, and their p-values are adjusted for all pairs and procedures of the table (Holm).{margin}"
    )
}

/// What methods at the same KL means, as a sentence or some.
pub(super) fn matching(kl: f64) -> String {
    format!(
        "At {kl:.3} nats. Unless --kl sets it, this is the least of the methods' greatest KLs, less three standard errors: every method reaches \
         it beyond doubt. Hardly any run has just this KL, so each method's win rate is carried over from its own runs. What counts is the share \
         of the possible gain: how far a run's win rate is above ½, as a share of how far the optimum's is at the same KL. Between two runs of a \
         method that share is interpolated; at a smaller KL than any of its runs it is taken to be that of the nearest. A method whose nearest \
         run has a much greater KL is not measured here. Intervals include the uncertainty of the KLs, but not that of this way to carry win rates \
         over. The optimum is the best win rate that any policy has at this KL, in the continuous limit."
    )
}

pub(super) fn markdown(report: &Report, plots: &[(String, String)]) -> String {
    let mut text = format!("# {}\n", heading(report));
    for warning in &report.provenance.warnings {
        text += &format!("\n**Warning:** {warning}.\n");
    }
    for judged in &report.judged {
        text += &judged_section(judged, report.statistics.level);
    }
    if !report.agreement.is_empty() {
        text += &format!("\n## Agreement of the judges\n{}", table(agreement(report)));
    }
    if !plots.is_empty() {
        text += "\n## Plots\n";
    }
    for (path, title) in plots {
        // Brackets would end the text, and an empty line the picture.
        let title = title.replace('[', "(").replace(']', ")").replace(['\n', '\\'], " ");
        text += &format!("\n![{title}]({path})\n");
    }
    text += &format!("\n## How\n\n{}\n\n", method(&report.statistics));
    text += &format!(
        "This report: `{}`, infalign {}.\n",
        report.provenance.command, report.provenance.version
    );
    for source in &report.provenance.sources {
        text += &format!("\n{}", source_lines(source));
    }
    text
}

fn table((head, rows): Cells) -> String {
    if rows.is_empty() {
        String::new()
    } else {
        "\n".to_owned() + &markdown_table(&head, &typeset(rows))
    }
}

fn judged_section(judged: &Judged, level: f64) -> String {
    let mut text = format!("\n## {}\n\n", judge_name(judged.judge));
    for finding in &judged.findings {
        text += &format!("- {}\n", Page::with_minus_signs(finding));
    }
    text += &table(rows(judged));
    if let Some(kl) = judged.common_kl.filter(|_| !judged.at_common_kl.rows.is_empty()) {
        text += &format!("\n### At the same KL\n\n{}\n", matching(kl));
        text += &table(matched(judged));
        text += &table(matched_comparisons(judged));
    }
    if !judged.table.comparisons.is_empty() {
        text += "\n### As trained, each at its own KL\n";
        text += &table(comparisons(judged, level));
    }
    text + &format!("\n### KL\n{}", table(kls(judged)))
}

fn source_lines(source: &Source) -> String {
    let mut text = format!("- {}", source.path);
    if let Some(start) = &source.start {
        text += &format!(", begun {start}");
    }
    if let Some(command) = &source.command {
        text += &format!(", made again by `{command}`");
    }
    for (file, hash) in &source.sha256 {
        text += &format!("\n  - {file}: SHA-256 {hash}");
    }
    text + "\n"
}

pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    for judged in &report.judged {
        text += &format!("{}:\n{}\n", judge_name(judged.judge), text_table(&judged.table.rows));
        for finding in &judged.findings {
            text += &format!("{finding}\n");
        }
        let lines = text_comparisons(&judged.table.comparisons, report.statistics.level);
        if !lines.is_empty() {
            text += &format!("\nAs trained, each at its own KL:\n{lines}");
        }
        text.push('\n');
    }
    text
}
