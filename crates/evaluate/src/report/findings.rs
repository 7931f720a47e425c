//! What follows from the numbers, in sentences.

use infalign_stats::Interval;
use infalign_transform::Composed;

use super::{Judged, reversed};
use crate::{Matched, Row, with_interval, with_signs};

/// A sentence or two a procedure: who wins at the same KL, by how much, how sure that is, and what it costs.
pub(super) fn findings(judged: &Judged, level: f64) -> Vec<String> {
    let mut procedures: Vec<_> = Vec::new();
    for row in &judged.at_common_kl.rows {
        if !procedures.contains(&row.procedure) {
            procedures.push(row.procedure);
        }
    }
    procedures.into_iter().filter_map(|procedure| finding(judged, &procedure, level)).collect()
}

fn finding(judged: &Judged, procedure: &Composed, level: f64) -> Option<String> {
    let mut rows: Vec<(&Matched, Interval)> = judged
        .at_common_kl
        .rows
        .iter()
        .filter(|row| row.procedure == *procedure)
        .filter_map(|row| Some((row, row.win_rate?)))
        .collect();
    rows.sort_by(|a, b| b.1.estimate.total_cmp(&a.1.estimate));
    let (best, win_rate) = rows.first()?;
    let has = if rows.len() > 1 { "has the greatest win rate," } else { "has a win rate of" };
    let mut text = format!(
        "Under {procedure} at {:.3} nats, {} {has} {}",
        best.kl,
        best.method,
        with_interval(win_rate)
    );
    if let Some(cost) = cost(judged, best) {
        text += &format!(", at {cost:.0} tokens made for a response");
    }
    text.push('.');
    let mut others = Vec::new();
    for (other, _) in &rows[1..] {
        let difference = difference(judged, best, other)?;
        let apart = if difference.low > 0.0 { "" } else { ", and cannot be told from it" };
        others.push(format!("{} above {}{apart}", with_signs(&difference), other.method));
    }
    let far = judged.at_common_kl.rows.iter().filter(|row| row.procedure == *procedure);
    let far: Vec<&str> =
        far.filter(|row| row.win_rate.is_none()).map(|row| row.method.as_str()).collect();
    if !others.is_empty() {
        let percent = (1000.0 * level).round() / 10.0;
        text += &format!(" It is {} ({percent} % intervals).", others.join("; "));
    }
    if !far.is_empty() {
        text += &format!(" Of {} no run is near that KL.", far.join(", "));
    }
    if let Some(optimum) = best.optimum {
        let gap = optimum - win_rate.estimate;
        text += &format!(
            " No policy exceeds {optimum:.3} there in the continuous limit, which is {gap:.3} more."
        );
    }
    Some(text)
}

/// The first less the second, whichever way round it was computed.
fn difference(judged: &Judged, first: &Matched, second: &Matched) -> Option<Interval> {
    judged.at_common_kl.comparisons.iter().filter(|one| one.procedure == first.procedure).find_map(
        |one| match (one.method == first.method, one.baseline == first.method) {
            (true, _) if one.baseline == second.method => one.difference,
            (_, true) if one.method == second.method => one.difference.map(reversed),
            _ => None,
        },
    )
}

/// Tokens made for a response, where one run alone has that method.
fn cost(judged: &Judged, best: &Matched) -> Option<f64> {
    let same = |row: &&Row| row.method == best.method && row.procedure == best.procedure;
    judged.table.rows.iter().find(same)?.tokens
}
