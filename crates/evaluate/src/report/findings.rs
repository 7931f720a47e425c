//! What follows from the numbers, in sentences.

use infalign_stats::Interval;
use infalign_transform::Composed;

use super::Judged;
use crate::frontier::optimum;
use crate::statistics::reversed;
use crate::text::{distinct, percent, with_signs};
use crate::{Contest, Judge, Matched, Row, with_interval};

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
    let far = judged.at_common_kl.rows.iter().filter(|row| row.procedure == *procedure);
    let far: Vec<&Matched> = far.filter(|row| row.win_rate.is_none()).collect();
    let (kl, method) = (best.kl, &best.method);
    let who = match (far.is_empty(), rows.len()) {
        (true, 1) => format!(" at {kl:.3} nats, {method} has a win rate of"),
        (true, _) => format!(" at {kl:.3} nats, {method} has the greatest win rate,"),
        (false, 1) => {
            format!(", {method} alone was measured near {kl:.3} nats, where it has a win rate of")
        }
        (false, _) => {
            format!(
                ", of the methods measured near {kl:.3} nats, {method} has the greatest win rate,"
            )
        }
    };
    let mut text = format!("Under {procedure}{who} {}", with_interval(win_rate));
    if let Some(cost) = cost(judged, best) {
        text += &format!(", at {cost:.0} tokens made for a response");
    }
    text.push('.');
    text += &above_others(judged, best, &rows[1..], level)?;
    if !far.is_empty() {
        let far: Vec<String> = far.into_iter().map(|row| at_its_own_kl(judged, row)).collect();
        text += &format!(" Not measured near that KL: {}.", far.join("; "));
    }
    if let Some(optimum) = best.optimum {
        text += &against_optimum(win_rate, optimum);
    }
    Some(text)
}

/// How far the best is above the others; none where a difference is not known.
fn above_others(
    judged: &Judged,
    best: &Matched,
    others: &[(&Matched, Interval)],
    level: f64,
) -> Option<String> {
    if others.is_empty() {
        return Some(String::new());
    }
    let above = |&(other, _): &(&Matched, Interval)| {
        let difference = difference(judged, best, other)?;
        let apart = if difference.low > 0.0 { "" } else { ", and cannot be told from it" };
        Some(format!("{} above {}{apart}", with_signs(&difference), other.method))
    };
    let others = others.iter().map(above).collect::<Option<Vec<String>>>()?;
    Some(format!(" It is {} ({} intervals).", others.join("; "), percent(level)))
}

/// A method that has no run near the common KL, with what its nearest run measured where that was.
fn at_its_own_kl(judged: &Judged, far: &Matched) -> String {
    let of_method = |row: &&Row| {
        let run = row.method.strip_suffix(far.method.as_str());
        run.is_some_and(|run| run.is_empty() || run.ends_with('/'))
    };
    let rows = judged.table.rows.iter().filter(of_method);
    let rows = rows.filter(|row| row.contest == Contest::same(far.procedure));
    let known = rows.filter_map(|row| Some((row, row.kl?.estimate)));
    match known.min_by(|a, b| a.1.total_cmp(&b.1)) {
        Some((row, kl)) => {
            format!("{}, which at {kl:.3} nats has {}", row.method, with_interval(&row.win_rate))
        }
        None => far.method.clone(),
    }
}

/// What a method won as it was measured, run by run and procedure by procedure, where there is no other to compare it with.
///
/// - `runs`: names of its rows.
pub(super) fn as_measured(judged: &Judged, runs: &[&str]) -> Vec<String> {
    let contests = distinct(judged.table.rows.iter().map(|row| row.contest));
    let rows = contests
        .iter()
        .flat_map(|contest| judged.table.rows.iter().filter(move |row| row.contest == *contest));
    rows.filter(|row| runs.contains(&row.method.as_str())).map(of_row).collect()
}

/// What a row says.
fn of_row(row: &Row) -> String {
    let kl = row.kl.map(|kl| kl.estimate);
    let place = kl.map_or(String::new(), |kl| format!(" at {kl:.3} nats"));
    let win_rate = with_interval(&row.win_rate);
    let mut text =
        format!("Under {}{place}, {} has a win rate of {win_rate}", row.contest, row.method);
    if let Some(cost) = row.tokens {
        text += &format!(", at {cost:.0} tokens made for a response");
    }
    text.push('.');
    let is_same = row.judge == Judge::Reward && row.contest.policy == row.contest.reference;
    let procedure = row.contest.policy.of_ranks().filter(|_| is_same);
    let optimum = procedure.zip(kl).and_then(|(procedure, kl)| optimum(&procedure, kl));
    if let Some(optimum) = optimum {
        text += &against_optimum(&row.win_rate, optimum);
    }
    text
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
    use crate::{Frontiers, MatchedComparison, Table};

    #[test]
    fn methods_are_told_apart_where_the_interval_of_their_difference_is_above_nothing() {
        let procedure: Composed = "best-of:2".parse().unwrap();
        let (judge, kl) = (Judge::Reward, 0.5);
        let interval = |estimate, low, high| Some(Interval { estimate, low, high, level: 0.95 });
        let row = |method: &str, win_rate| Matched {
            method: method.into(),
            procedure,
            judge,
            kl,
            win_rate,
            optimum: None,
        };
        let found = |low, high| {
            let difference = interval(0.02, low, high);
            let (method, baseline) = ("strong".into(), "plain".into());
            let one = MatchedComparison { method, baseline, procedure, judge, kl, difference };
            let at_common_kl = Frontiers {
                rows: vec![
                    row("plain", interval(0.6, 0.5, 0.7)),
                    row("strong", interval(0.62, 0.52, 0.72)),
                ],
                comparisons: vec![one],
                bands: Vec::new(),
            };
            let table = Table { rows: Vec::new(), comparisons: Vec::new() };
            let (common_kl, findings) = (Some(kl), Vec::new());
            let judged = Judged { judge, table, common_kl, at_common_kl, findings };
            finding(&judged, &procedure, 0.95).unwrap()
        };
        let (alike, apart) = (found(-0.01, 0.05), found(0.01, 0.03));
        assert!(alike.contains("above plain, and cannot be told from it (95 %"), "{alike}");
        assert!(apart.contains("above plain (95 %"), "{apart}");
    }

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
