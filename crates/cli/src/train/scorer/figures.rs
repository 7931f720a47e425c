//! The figures of a scorer: its calibration, and what its rewards cost.

use infalign_evaluate::{Curve, Figure, Panel, Point, distinct};
use infalign_train::{LengthReport, ScorerReport, ValueBin};

use super::row::Row;
use crate::recipe::Head;

/// Values against rewards, one line a range of prefix lengths.
pub(super) fn calibration(report: &ScorerReport) -> Figure {
    const IDEAL: &str = "calibrated";
    let title = |range: &LengthReport| format!("{} to {} tokens", range.from, range.to);
    let shown: Vec<&LengthReport> =
        [0, report.by_length.len() / 2, report.by_length.len().saturating_sub(1)]
            .into_iter()
            .filter_map(|place| report.by_length.get(place))
            .collect();
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

/// A panel a reward: what procedures and policies reach for their KL.
pub(super) fn reward_against_kl(heads: &[Head], rows: &[Row]) -> Figure {
    let legend = distinct(rows.iter().map(Row::series));
    let point = |head: &Head, row: &Row| {
        let mean = &row.rewards[&head.name];
        Point {
            name: row.series(),
            x: row.kl().nats,
            y: [mean.estimate, mean.low, mean.high],
            label: None,
        }
    };
    let panel = |head: &Head| Panel {
        title: head.name.clone(),
        points: rows.iter().map(|row| point(head, row)).collect(),
        curves: Vec::new(),
        bands: Vec::new(),
    };
    Figure {
        title: "Expected reward against KL, on held-out prompts".to_owned(),
        legend,
        note: "bars: 95 % intervals; KL of blocks: a bound".to_owned(),
        axes: ["KL from the base, nats per response", "mean reward"].map(str::to_owned),
        panels: heads.iter().map(panel).collect(),
    }
}
