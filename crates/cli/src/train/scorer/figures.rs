//! The figures of a scorer: its calibration, and what its rewards cost.

use std::collections::BTreeMap;

use infalign_decode::KlKind;
use infalign_evaluate::{Curve, Figure, KL_AND_WIN_RATE, Panel, Point, distinct, optimum_curve};
use infalign_train::{LengthReport, ScorerReport, ValueBin};
use infalign_transform::Procedure;

use super::row::{Mean, Row, all_weights};
use crate::recipe::ScorerRecipe;

/// Values against rewards, one line a range of prefix lengths.
pub(super) fn calibration(report: &ScorerReport) -> Figure {
    const IDEAL: &str = "calibrated";
    let title = |range: &LengthReport| format!("{} to {} tokens", range.from, range.to);
    let shown = shown(report);
    let values = || shown.iter().flat_map(|range| &range.calibration).map(|bin| bin.value);
    let low = values().fold(f64::INFINITY, f64::min);
    let high = values().fold(f64::NEG_INFINITY, f64::max);
    let point = |bin: &ValueBin| Point {
        name: report.name.clone(),
        x: bin.value,
        y: [bin.reward; 3],
        label: None,
    };
    let panel = |range: &&LengthReport| Panel {
        title: title(range),
        points: range.calibration.iter().map(point).collect(),
        curves: vec![Curve { name: IDEAL.to_owned(), points: vec![(low, low), (high, high)] }],
        bands: Vec::new(),
    };
    Figure {
        title: format!("{}: values of prefixes, and the rewards that came of them", report.name),
        legend: vec![IDEAL.to_owned(), report.name.clone()],
        note: "points: equally many held-out prefixes each, by value".to_owned(),
        axes: ["mean value", "mean reward"].map(str::to_owned),
        panels: shown.iter().map(panel).collect(),
    }
}

/// The shortest prefixes, those in the middle and the longest, of the ranges that have enough of them; all together where none has.
fn shown(report: &ScorerReport) -> Vec<&LengthReport> {
    const FEWEST: usize = 30;
    let enough: Vec<&LengthReport> =
        report.by_length.iter().filter(|range| range.prefixes >= FEWEST).collect();
    let Some(last) = enough.len().checked_sub(1) else { return vec![&report.all] };
    distinct([0, enough.len() / 2, last]).into_iter().map(|place| enough[place]).collect()
}

/// A panel a reward: what procedures and policies reach for their KL.
pub(super) fn reward_against_kl(recipe: &ScorerRecipe, rows: &[Row]) -> Figure {
    let panel = |name: &str| panel(name, rows, |row| &row.rewards);
    Figure {
        title: "Expected reward against KL, on held-out prompts".to_owned(),
        legend: distinct(rows.iter().map(|row| row.front(rows))),
        note: note(recipe, rows),
        axes: [KL_AND_WIN_RATE[0], "mean reward"].map(str::to_owned),
        panels: recipe.measures().map(|(name, _)| panel(name)).collect(),
    }
}

/// A panel a reward: how often procedures and policies win over plain samples of the base for their KL, below the most that any policy could.
pub(super) fn win_rate_against_kl(recipe: &ScorerRecipe, rows: &[Row]) -> Figure {
    let farthest = rows.iter().map(|row| row.kl().nats).fold(0.2, f64::max);
    let optimum = optimum_curve(&Procedure::Sample, 1.05 * farthest);
    let panel = |name: &str| {
        let curves = optimum.iter().cloned().collect();
        Panel { curves, ..panel(name, rows, |row| &row.win_rates) }
    };
    let fronts = rows.iter().map(|row| row.front(rows));
    let curves = optimum.iter().map(|curve| curve.name.clone());
    Figure {
        title: "Win rate over plain samples against KL, on held-out prompts".to_owned(),
        legend: distinct(fronts.chain(curves)),
        note: note(recipe, rows),
        axes: KL_AND_WIN_RATE.map(str::to_owned),
        panels: recipe.measures().map(|(name, _)| panel(name)).collect(),
    }
}

/// The rows that were measured so.
///
/// - `of`: what a row has of each reward.
fn panel(name: &str, rows: &[Row], of: impl Fn(&Row) -> &BTreeMap<String, Mean>) -> Panel {
    let point = |row: &Row| {
        let mean = of(row).get(name)?;
        let y = [mean.estimate, mean.low, mean.high];
        Some(Point { name: row.front(rows), x: row.kl().nats, y, label: row.number() })
    };
    let points = rows.iter().filter_map(point).collect();
    Panel { title: name.to_owned(), points, ..Panel::default() }
}

fn note(recipe: &ScorerRecipe, rows: &[Row]) -> String {
    let weights = match &all_weights(rows)[..] {
        [weights] if recipe.head.len() > 1 => format!("; weights: {weights}"),
        _ => String::new(),
    };
    format!("bars: 95 % intervals{}{weights}", kinds_of_kl(rows))
}

/// That the KL of some procedures is estimated, or a bound, where it is.
fn kinds_of_kl(rows: &[Row]) -> String {
    let of = |kind: KlKind, word: &str| {
        let procedures = rows.iter().filter(|row| row.kl().kind == kind);
        let names = distinct(procedures.map(|row| without_numbers(&row.procedure.to_string())));
        if names.is_empty() { String::new() } else { format!("; KL {word}: {}", names.join(", ")) }
    };
    of(KlKind::Estimate, "estimated") + &of(KlKind::Bound, "at most that")
}

/// The name of a procedure, such as `best-of over cd-block`.
fn without_numbers(procedure: &str) -> String {
    let parts = procedure.split(" over ").map(|part| part.split(':').next().unwrap_or(part));
    parts.collect::<Vec<_>>().join(" over ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_procedures_have_no_numbers() {
        assert_eq!(without_numbers("sample"), "sample");
        let over = "best-of:2 over cd-block:length=8,samples=4";
        assert_eq!(without_numbers(over), "best-of over cd-block");
    }

    #[test]
    fn ranges_of_a_handful_of_prefixes_are_not_drawn() {
        let range = |from: usize, prefixes: usize| LengthReport {
            from,
            to: from + 3,
            prefixes,
            error: 0.0,
            deviation: 0.0,
            bias: 0.0,
            accuracy: None,
            pairs: 0,
            calibration: vec![ValueBin { prefixes, value: -1.0, reward: 1.0 }],
        };
        let titles = |prefixes: &[usize]| -> Vec<String> {
            let ranges = prefixes.iter().enumerate().map(|(place, n)| range(1 + 4 * place, *n));
            let report = ScorerReport {
                name: "liking".to_owned(),
                all: range(1, 600),
                by_length: ranges.collect(),
            };
            calibration(&report).panels.into_iter().map(|panel| panel.title).collect()
        };
        let three = ["1 to 4 tokens", "9 to 12 tokens", "13 to 16 tokens"];
        assert_eq!(titles(&[512, 512, 512, 200, 2]), three);
        assert_eq!(titles(&[512, 29]), three[..1]);
        assert_eq!(titles(&[7, 2]), three[..1], "all together");
    }
}
