//! The figure of a scorer's calibration.

use infalign_evaluate::{Curve, Figure, Panel, Point};
use infalign_train::{LengthReport, ScorerReport, ValueBin};

/// Values against rewards, one line a range of prefix lengths.
pub(super) fn figure(report: &ScorerReport) -> Figure {
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
