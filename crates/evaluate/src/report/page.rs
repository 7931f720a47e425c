//! A report as a page.

use infalign_record::Page;
use infalign_transform::Theory;

use super::examples::MOST_PROCEDURES;
use super::markdown::{
    Cells, agreement, comparisons, heading, judge_name, kls, matched, matched_comparisons,
    matching, method, rows, typeset,
};
use super::{ExampleResponse, Judged, Report};
use crate::figures::{over_optimisation, score_against_cost, score_against_kl};
use crate::text::{distinct, score_among};
use crate::{EvaluateError, Figure, Judge, draw_svg, win_rate_against_kl};

/// The plots by the names of their files.
pub(super) fn figures(
    report: &Report,
    theories: &[(String, Theory)],
) -> Result<Vec<(&'static str, Figure)>, EvaluateError> {
    let mut figures = Vec::new();
    for judged in &report.judged {
        figures.extend(of_judge(report, judged, theories)?);
    }
    figures.extend(proxy_gold(report).map(|figure| ("proxy-gold", figure)));
    figures.retain(|(_, figure)| is_drawn(figure));
    Ok(figures)
}

fn is_drawn(figure: &Figure) -> bool {
    figure.panels.iter().any(|panel| !panel.points.is_empty())
}

/// The reward beside the judge, where there are both.
fn proxy_gold(report: &Report) -> Option<Figure> {
    let [reward, judge] = &report.judged[..] else { return None };
    let title = format!("{}: the same responses by the reward and by the judge", report.title);
    let rows = [&reward.table.rows[..], &judge.table.rows[..]];
    Some(over_optimisation(&title, rows, &reward.at_common_kl.bands))
}

fn of_judge(
    report: &Report,
    judged: &Judged,
    theories: &[(String, Theory)],
) -> Result<Vec<(&'static str, Figure)>, EvaluateError> {
    let (by, names) = match judged.judge {
        Judge::Reward => ("", ["win-rate-kl", "score-kl", "score-cost"]),
        Judge::Judge => {
            (", by the judge", ["win-rate-kl-judge", "score-kl-judge", "score-cost-judge"])
        }
    };
    let title = |what: &str| format!("{}: {what}{by}", report.title);
    let (rows, bands) = (&judged.table.rows, &judged.at_common_kl.bands);
    let win_rates = win_rate_against_kl(&title("win rate against KL"), rows, theories, bands)?;
    let scores = score_against_kl(&title("score against KL"), rows, bands);
    let costs = score_against_cost(&title("score against what decoding costs"), rows, bands);
    let figures = [(names[0], Some(win_rates)), (names[1], Some(scores)), (names[2], costs)];
    Ok(figures.into_iter().filter_map(|(name, figure)| Some((name, figure?))).collect())
}

pub(super) fn html(
    report: &Report,
    theories: &[(String, Theory)],
) -> Result<String, EvaluateError> {
    let mut page = Page::new(&heading(report));
    for warning in &report.provenance.warnings {
        page = page.quotation(&format!("Warning: {warning}."));
    }
    for judged in &report.judged {
        page = judged_section(page, report, judged, theories)?;
    }
    if !report.agreement.is_empty() {
        page = with_table(page.heading("Agreement of the judges"), agreement(report));
        page = page.paragraph(
            "Of a method's k-th response against the reference's k-th: whether the reward and the judge say the same of win, tie and loss.",
        );
        if let Some(figure) = proxy_gold(report).filter(is_drawn) {
            page = page.drawing(&draw_svg(&figure)?, &figure.title);
        }
    }
    page = examples(page, report);
    page = page.heading("How this was measured").paragraph(&method(&report.statistics));
    Ok(provenance(page, report).html())
}

/// Numbers with their intervals stay on one line.
fn with_table(page: Page, (head, rows): Cells) -> Page {
    let whole = |cell: String| {
        let is_number = cell.contains(" [") || cell.contains(" ± ");
        if is_number { cell.replace(' ', "\u{a0}") } else { cell }
    };
    let rows: Vec<Vec<String>> =
        typeset(rows).into_iter().map(|row| row.into_iter().map(whole).collect()).collect();
    page.table(&head, &rows)
}

fn judged_section(
    page: Page,
    report: &Report,
    judged: &Judged,
    theories: &[(String, Theory)],
) -> Result<Page, EvaluateError> {
    let mut page = page.heading(judge_name(judged.judge));
    for finding in &judged.findings {
        page = page.paragraph(&Page::with_minus_signs(finding));
    }
    let figures = of_judge(report, judged, theories)?;
    let mut figures = figures.into_iter().map(|(_, figure)| figure).filter(is_drawn);
    if let Some(first) = figures.next() {
        page = page.drawing(&draw_svg(&first)?, &first.title);
    }
    page = with_table(page, rows(judged));
    if let Some(kl) = judged.common_kl.filter(|_| !judged.at_common_kl.rows.is_empty()) {
        page = page.heading("At the same KL").paragraph(&matching(kl));
        page = with_table(page, matched(judged));
        page = with_table(page, matched_comparisons(judged));
    }
    if !judged.table.comparisons.is_empty() {
        page = page.heading("As trained, each at its own KL");
        page = with_table(page, comparisons(judged, report.statistics.level));
    }
    for figure in figures {
        page = page.drawing(&draw_svg(&figure)?, &figure.title);
    }
    page = page.heading("KL from the reference, nats per response").paragraph(
        "Estimates are over responses sampled from the policy, ± a standard error over prompts; k1 and k3 use log-ratios alone. Of what a \
         procedure keeps there is the divergence from the policy and, in all, from the reference; it is not the sum of the first and the policy's own.",
    );
    Ok(with_table(page, kls(judged)))
}

fn examples(mut page: Page, report: &Report) -> Page {
    if report.examples.is_empty() {
        return page;
    }
    page = page.heading("Responses side by side");
    let rows = report.judged.first().map_or(&[][..], |judged| &judged.table.rows);
    let n = distinct(rows.iter().map(|row| row.contest.policy)).len();
    if n > MOST_PROCEDURES {
        page = page.paragraph(&format!("Of {n} procedures the first and the last two are shown."));
    }
    for example in &report.examples {
        let judged = example.responses.iter().any(|response| response.judged.is_some());
        let mut head = vec!["method", "procedure", "response", "reward"];
        head.extend(judged.then_some("judge"));
        let greatest = |of: fn(&ExampleResponse) -> Option<f64>| {
            example.responses.iter().filter_map(of).map(f64::abs).fold(0.0, f64::max)
        };
        let rewards = greatest(|response| Some(response.reward));
        let judgements = greatest(|response| response.judged);
        let score =
            |score: f64, greatest: f64| Page::with_minus_signs(&score_among(score, greatest));
        let row = |response: &ExampleResponse| {
            let mut cells = vec![
                response.method.clone(),
                response.procedure.to_string(),
                response.text.clone(),
                score(response.reward, rewards),
            ];
            cells.extend(response.judged.map(|judged| score(judged, judgements)));
            cells
        };
        let rows: Vec<Vec<String>> = example.responses.iter().map(row).collect();
        page = page.quotation(&example.prompt).table(&head, &rows);
    }
    page
}

fn provenance(mut page: Page, report: &Report) -> Page {
    let provenance = &report.provenance;
    page = page.heading("Where it comes from").paragraph("This page:");
    page = page.code(&provenance.command);
    page = page.paragraph(&format!("infalign {}. It was made from:", provenance.version));
    for source in &provenance.sources {
        let mut rows = vec![vec!["folder or file".to_owned(), source.path.clone()]];
        rows.extend(source.start.as_ref().map(|start| vec!["begun".to_owned(), start.clone()]));
        rows.extend(
            source
                .command
                .as_ref()
                .map(|command| vec!["made again by".to_owned(), command.clone()]),
        );
        let hashes = source.sha256.iter();
        rows.extend(hashes.map(|(file, hash)| vec![format!("SHA-256 of {file}"), hash.clone()]));
        page = page.table(&[], &rows);
        if let Some(recipe) = &source.recipe {
            page = page.details("The resolved recipe", recipe);
        }
    }
    page
}
