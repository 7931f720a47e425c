//! The plots of a calibration report.

use infalign_calibrate::pit::Uniformity;
use infalign_calibrate::{Calibration, noisy_transform};
use infalign_evaluate::{Curve, Figure, Panel, Point};
use infalign_transform::Transform;

/// Quantiles of each prompt's rewards, prompts by their median.
pub(super) fn spread(table: &Calibration) -> Figure {
    let at = |values: &[f32], level: f64| {
        f64::from(values[(level * (values.len() - 1) as f64).round() as usize])
    };
    let mut rows: Vec<&[f32]> = table.rows().iter().map(|row| row.values()).collect();
    rows.sort_by(|a, b| at(a, 0.5).total_cmp(&at(b, 0.5)));
    let share = |place: usize| place as f64 / (rows.len().max(2) - 1) as f64;
    let curve = |(name, level): (&str, f64)| Curve {
        name: name.to_owned(),
        points: rows.iter().enumerate().map(|(i, row)| (share(i), at(row, level))).collect(),
    };
    let levels = [("median", 0.5), ("5 %", 0.05), ("95 %", 0.95)];
    figure(
        "Reference rewards",
        &["share of the prompts", "reward"],
        levels.map(curve).to_vec(),
        Vec::new(),
    )
}

/// Φ and what K rewards make of it, on [0, 1].
pub(super) fn noise(transform: &Transform, samples: usize) -> Figure {
    let phi = |u: f64| transform.raw(u);
    let (low, high) = (phi(0.01), phi(0.99));
    let scaled = |value: f64| (value - low) / (high - low);
    let inner = || (1..=99).map(|k| f64::from(k) / 100.0);
    let exact = Curve {
        name: transform.to_string(),
        points: inner().map(|u| (u, scaled(phi(u)))).collect(),
    };
    let few = |k: usize| Curve {
        name: format!("K = {k}"),
        points: inner().map(|u| (u, scaled(noisy_transform(phi, k, u)))).collect(),
    };
    let mut curves = vec![exact, few(samples)];
    if samples > 16 {
        curves.push(few(16));
    }
    figure("Transformed reward", &["calibrated reward u", "Φ, scaled"], curves, Vec::new())
}

/// The histogram of fresh responses with the band of exact tables.
pub(super) fn uniformity(found: &Uniformity) -> Figure {
    let width = 1.0 / found.bins.len() as f64;
    let place = |bin: usize| (bin as f64 + 0.5) * width;
    let point = |(bin, found): (usize, &infalign_calibrate::pit::Bin)| Point {
        name: "fresh responses".to_owned(),
        x: place(bin),
        y: [found.density; 3],
        label: None,
    };
    let end = |name: &str, of: fn(&infalign_calibrate::pit::Bin) -> f64| Curve {
        name: name.to_owned(),
        points: found.bins.iter().enumerate().map(|(bin, found)| (place(bin), of(found))).collect(),
    };
    let curves = vec![end("95 of 100 exact tables, from", |b| b.low), end("to", |b| b.high)];
    let points = found.bins.iter().enumerate().map(point).collect();
    figure("Fresh reference responses", &["calibrated reward u", "density"], curves, points)
}

fn figure(title: &str, axes: &[&str; 2], curves: Vec<Curve>, points: Vec<Point>) -> Figure {
    let mut legend: Vec<String> =
        points.first().map(|point| point.name.clone()).into_iter().collect();
    legend.extend(curves.iter().map(|curve| curve.name.clone()));
    let panels = vec![Panel { points, curves, ..Panel::default() }];
    Figure {
        title: title.to_owned(),
        legend,
        note: String::new(),
        axes: axes.map(str::to_owned),
        panels,
    }
}
