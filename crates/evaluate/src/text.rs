//! Tables as text, for a terminal and as Markdown.

use infalign_stats::Interval;
use infalign_transform::{Composed, Procedure};

use crate::statistics::reversed;
use crate::{Comparison, Row};

/// Each once, in the order in which they come.
pub fn distinct<T: PartialEq>(all: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for one in all {
        if !seen.contains(&one) {
            seen.push(one);
        }
    }
    seen
}

/// A level such as 0.95 in percent.
pub fn percent(level: f64) -> String {
    format!("{} %", (1000.0 * level).round() / 10.0)
}

/// An estimate and its interval.
pub fn with_interval(Interval { estimate, low, high, .. }: &Interval) -> String {
    format!("{estimate:.3} [{low:.3}, {high:.3}]")
}

/// The same with signs, for differences.
pub(crate) fn with_signs(Interval { estimate, low, high, .. }: &Interval) -> String {
    format!("{estimate:+.3} [{low:+.3}, {high:+.3}]")
}

/// A score and its interval. Scores have any scale, so the interval has three digits at least.
pub fn score_with_interval(Interval { estimate, low, high, .. }: &Interval) -> String {
    let (width, size) = (high - low, low.abs().max(high.abs()));
    // A narrower one is that of equal scores, but for rounding.
    let scale = if width > 1e-9 * size { width } else { size };
    let text = |score: f64| score_at(score, scale);
    format!("{} [{}, {}]", text(*estimate), text(*low), text(*high))
}

/// A score beside others, with as many decimals as the greatest of them has; what is nothing beside that is 0.
///
/// - `greatest`: the greatest size of them.
pub(crate) fn score_among(score: f64, greatest: f64) -> String {
    /// Scores of sums differ from 0 by rounding alone.
    const NOTHING: f64 = 1e-6;
    let text = score_at(if score.abs() < NOTHING * greatest { 0.0 } else { score }, greatest);
    match text.strip_prefix('-') {
        Some(zero) if !zero.contains(|c: char| ('1'..='9').contains(&c)) => zero.to_owned(),
        _ => text,
    }
}

/// A score with as many decimals as show three digits of a scale, and three at least.
fn score_at(score: f64, scale: f64) -> String {
    const LEAST: f64 = 3.0;
    const MOST: f64 = 12.0;
    let needed = if scale > 0.0 { 2.0 - scale.log10().floor() } else { LEAST };
    if needed > MOST {
        return format!("{score:.2e}");
    }
    let decimals = needed.max(LEAST) as usize;
    format!("{score:.decimals$}")
}

/// A KL and its standard error; a dash where it is not known.
pub fn kl_text(row: &Row) -> String {
    row.kl.map_or("–".to_owned(), |kl| format!("{:.3} ± {:.3}", kl.estimate, kl.standard_error))
}

/// The rows as a table for people: a line a method, a column a procedure.
pub fn text_table(rows: &[Row]) -> String {
    let contests = distinct(rows.iter().map(|row| row.contest.to_string()));
    let methods = distinct(rows.iter().map(|row| row.method.as_str()));
    let longest = methods.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(12);
    let mut text = format!("{:<longest$} {:>14}", "method", "KL (nats)");
    for contest in &contests {
        text += &format!("  {contest:>29}");
    }
    text.push('\n');
    for method in methods {
        let of_method: Vec<&Row> = rows.iter().filter(|row| row.method == method).collect();
        let Some(first) = of_method.first() else { continue };
        text += &format!("{method:<longest$} {:>14}", kl_text(first));
        for row in of_method {
            let predicted = row.predicted_win_rate.map_or(String::new(), |p| format!(" ({p:.3})"));
            text += &format!("  {:>29}", format!("{}{predicted}", with_interval(&row.win_rate)));
        }
        text.push('\n');
    }
    text
}

/// The comparisons as lines for people.
pub fn text_comparisons(comparisons: &[Comparison], level: f64) -> String {
    let title = |one: &Comparison| format!("{} − {}, {}", one.method, one.baseline, one.contest);
    let longest = comparisons.iter().map(|one| title(one).chars().count()).max().unwrap_or(0);
    let width = longest.max(30);
    let line = |one: &Comparison| {
        let (title, difference) = (title(one), with_signs(&one.difference));
        format!("{title:<width$} {difference}  {}\n", one.verdict(level))
    };
    comparisons.iter().map(line).collect()
}

/// Decoders for people: the greatest win rate first, what each costs in KL and in tokens, and how far it is from the first.
///
/// - `rows`, `comparisons`: of [`decoders`](crate::decoders).
pub fn text_decoders(rows: &[Row], comparisons: &[Comparison], level: f64) -> String {
    let mut rows: Vec<&Row> = rows.iter().collect();
    rows.sort_by(|a, b| b.win_rate.estimate.total_cmp(&a.win_rate.estimate));
    let Some(first) = rows.first() else { return String::new() };
    let title = format!("decoder, against {} of the reference", first.contest.reference);
    let names: Vec<String> =
        rows.iter().map(|row| format!("{} under {}", row.method, row.contest.policy)).collect();
    let length = |name: &String| name.chars().count();
    let width = names.iter().chain([&title]).map(length).max().unwrap_or(0);
    let mut text =
        format!("{title:<width$}  {:<20}  KL (nats)  tokens  less the first\n", "win rate");
    for (row, name) in rows.iter().zip(&names) {
        let win_rate = with_interval(&row.win_rate);
        let tokens = row.tokens.map_or("–".to_owned(), |tokens| format!("{tokens:.1}"));
        let less = comparisons.iter().find_map(|one| less(one, of(row), of(first), level));
        let line = format!("{name:<width$}  {win_rate}  {:>9}  {tokens:>6}", decoder_kl(row));
        text += &format!("{line}  {}", less.unwrap_or_default());
        text = text.trim_end().to_owned() + "\n";
    }
    text
}

/// What a row is of.
fn of(row: &Row) -> (&str, Composed) {
    (&row.method, row.contest.policy)
}

/// The win rate of one decoder less that of another, and what follows, if the comparison is of the two.
fn less(
    one: &Comparison,
    decoder: (&str, Composed),
    subtracted: (&str, Composed),
    level: f64,
) -> Option<String> {
    let ours = (one.method.as_str(), one.contest.policy);
    let theirs = (one.baseline.as_str(), one.baseline_procedure.unwrap_or(one.contest.policy));
    let difference = match [ours, theirs] {
        sides if sides == [decoder, subtracted] => one.difference,
        sides if sides == [subtracted, decoder] => reversed(one.difference),
        _ => return None,
    };
    let verdict = Comparison { difference, ..one.clone() }.verdict(level);
    Some(format!("{}  {verdict}", with_signs(&difference)))
}

/// How far what a decoder keeps is from the reference, as far as it is known.
fn decoder_kl(row: &Row) -> String {
    let is_plain = row.contest.policy == Procedure::Sample.into();
    let Some(kl) = row.kl_to_reference.or(row.kl.filter(|_| is_plain)) else {
        return "–".to_owned();
    };
    format!("{}{:.3}", kl.kind.sign(), kl.estimate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_of_any_scale_are_seen() {
        let interval = |estimate: f64, width: f64| {
            let (low, high) = (estimate - width / 2.0, estimate + width / 2.0);
            score_with_interval(&Interval { estimate, low, high, level: 0.95 })
        };
        for (estimate, width, expected) in [
            (0.5, 0.25, "0.500 [0.375, 0.625]"),
            (250.0, 20.0, "250.000 [240.000, 260.000]"),
            (0.000_125, 0.000_05, "0.0001250 [0.0001000, 0.0001500]"),
            (0.75, 0.0, "0.750 [0.750, 0.750]"),
            (-0.001_5, 0.0, "-0.00150 [-0.00150, -0.00150]"),
            (0.0, 0.0, "0.000 [0.000, 0.000]"),
            (3e-20, 2e-20, "3.00e-20 [2.00e-20, 4.00e-20]"),
        ] {
            assert_eq!(interval(estimate, width), expected);
        }
        for (score, greatest, expected) in [
            (0.000_012_34, 0.000_012_34, "0.0000123"),
            (-2.5, 2.5, "-2.500"),
            (0.0, 0.0, "0.000"),
            (-2.98e-8, 4.0, "0.000"),
            (-0.000_1, 4.0, "0.000"),
            (-0.001, 4.0, "-0.001"),
        ] {
            assert_eq!(score_among(score, greatest), expected);
        }
    }
}
