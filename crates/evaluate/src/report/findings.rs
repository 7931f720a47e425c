//! What follows from the numbers, in sentences.

use infalign_stats::Interval;
use infalign_transform::Composed;

use super::{Judged, reversed};
use crate::text::{distinct, percent, with_signs};
use crate::{Matched, Row, with_interval};

/// A sentence or two a procedure: who wins at the same KL, by how much, how sure that is, and what it costs.
pub(super) fn findings(judged: &Judged, level: f64) -> Vec<String> {
    let procedures = distinct(judged.at_common_kl.rows.iter().map(|row| row.procedure));
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
        text += &format!(" It is {} ({} intervals).", others.join("; "), percent(level));
    }
    if !far.is_empty() {
        text += &format!(" Of {} no run is near that KL.", far.join(", "));
    }
    if let Some(optimum) = best.optimum {
        text += &against_optimum(win_rate, optimum);
    }
    Some(text)
}

/// How far a win rate is from the best that there is in the continuous limit, which ties and noise may lift it above.
fn against_optimum(win_rate: &Interval, optimum: f64) -> String {
    /// What three decimals show as 0.
    const NOTHING: f64 = 0.0005;
    let above = win_rate.estimate - optimum;
    if above < NOTHING {
        let gap = (optimum - win_rate.estimate).max(0.0);
        return format!(
            " No policy exceeds {optimum:.3} there in the continuous limit, which is {gap:.3} more."
        );
    }
    let why = if win_rate.low <= optimum {
        "within its interval, so that noise may be why"
    } else {
        "outside its interval: that limit has neither ties nor few samples, which may be why"
    };
    format!(" It is {above:.3} above the continuous limit of {optimum:.3}, {why}.")
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
    let same = |row: &&Row| row.method == best.method && row.contest.policy == best.procedure;
    judged.table.rows.iter().find(same)?.tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_win_rate_above_the_continuous_limit_is_said_to_be_above_it() {
        let found = |estimate: f64, low: f64| {
            let win_rate = Interval { estimate, low, high: estimate + 0.05, level: 0.95 };
            against_optimum(&win_rate, 0.56)
        };
        assert!(found(0.5, 0.45).contains("No policy exceeds 0.560"));
        assert!(found(0.5, 0.45).contains("which is 0.060 more"));
        assert!(found(0.5601, 0.5).contains("which is 0.000 more"));
        let noisy = found(0.598, 0.55);
        assert!(noisy.contains("0.038 above the continuous limit of 0.560"), "{noisy}");
        assert!(noisy.contains("within its interval"), "{noisy}");
        assert!(found(0.598, 0.57).contains("outside its interval"));
    }
}
