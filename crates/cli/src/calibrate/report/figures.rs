//! The plots of a calibration report.

use std::cmp::Ordering;

use infalign_calibrate::pit::Uniformity;
use infalign_calibrate::{Calibration, noisy_transform};
use infalign_evaluate::{Band, Curve, Figure, Panel, Point, distinct};
use infalign_transform::Transform;

/// Most prompts that are drawn: more are closer to each other than a plot tells.
const MOST_DRAWN: usize = 501;

/// Quantiles of each prompt's rewards, prompts by their median: of many prompts some, evenly spaced from the first to the last.
pub(super) fn spread(table: &Calibration) -> Figure {
    let at = |values: &[f32], level: f64| {
        f64::from(values[(level * (values.len() - 1) as f64).round() as usize])
    };
    let mut rows: Vec<&[f32]> = table.rows().iter().map(|row| row.values()).collect();
    // Of prompts with the same median the other lines rise, too.
    let levels = [("median", 0.5), ("95 %", 0.95), ("5 %", 0.05)];
    rows.sort_by(|a, b| {
        let order = levels.map(|(_, level)| at(a, level).total_cmp(&at(b, level)));
        order.into_iter().fold(Ordering::Equal, Ordering::then)
    });
    let (last, drawn) = (rows.len().max(2) - 1, rows.len().min(MOST_DRAWN));
    let place = |i: usize| i * last / (drawn.max(2) - 1);
    let share = |place: usize| place as f64 / last as f64;
    let point = |place: usize, level: f64| (share(place), at(rows[place], level));
    let curve = |(name, level): (&str, f64)| Curve {
        name: name.to_owned(),
        points: (0..drawn).map(|i| point(place(i), level)).collect(),
    };
    figure(
        "Reference rewards",
        &["prompts, by median reward (share)", "reward"],
        Panel { curves: levels.map(curve).to_vec(), ..Panel::default() },
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
    let panel = Panel { curves, ..Panel::default() };
    figure("Transformed reward", &["calibrated reward u", "Φ, scaled"], panel)
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
    let exact = || "95 % of exact tables".to_owned();
    let bins = || found.bins.iter().enumerate();
    let end = |of: fn(&infalign_calibrate::pit::Bin) -> f64| Curve {
        name: exact(),
        points: bins().map(|(bin, found)| (place(bin), of(found))).collect(),
    };
    let between = bins().map(|(bin, found)| (place(bin), found.low, found.high));
    let panel = Panel {
        bands: vec![Band { name: exact(), points: between.collect() }],
        curves: vec![end(|bin| bin.low), end(|bin| bin.high)],
        points: bins().map(point).collect(),
        ..Panel::default()
    };
    figure("Fresh reference responses", &["calibrated reward u", "density"], panel)
}

fn figure(title: &str, axes: &[&str; 2], panel: Panel) -> Figure {
    let points = panel.points.iter().map(|point| &point.name);
    let names = points.chain(panel.curves.iter().map(|curve| &curve.name));
    Figure {
        title: title.to_owned(),
        legend: distinct(names.cloned()),
        note: String::new(),
        axes: axes.map(str::to_owned),
        panels: vec![panel],
    }
}

#[cfg(test)]
mod tests {
    use infalign_calibrate::CalibrationMeta;
    use infalign_calibrate::pit::Bin;

    use super::*;

    /// A table whose prompts, in the order of their median, have their place as reward.
    fn ascending(prompts: usize) -> Calibration {
        let mut table = Calibration::new(CalibrationMeta::default());
        for place in (0..prompts).rev() {
            let prompt = place.to_string();
            table.insert(&prompt, &prompt, vec![place as f32; 2]).unwrap();
        }
        table
    }

    #[test]
    fn of_many_prompts_some_are_drawn_at_their_own_places() {
        for (prompts, drawn) in [(1, 1), (3, 3), (501, 501), (502, 501), (1733, 501)] {
            let figure = spread(&ascending(prompts));
            let last = (prompts - 1) as f64;
            for curve in &figure.panels[0].curves {
                let (points, name) = (&curve.points, &curve.name);
                assert_eq!(points.len(), drawn, "{name} of {prompts}");
                assert_eq!(points[0], (0.0, 0.0), "{name} of {prompts}");
                assert_eq!(points[drawn - 1].1, last, "{name} of {prompts}");
                for &(share, place) in points {
                    assert!((share * last - place).abs() < 1e-9, "{name} of {prompts}: {place}");
                }
                let even = last / (drawn.max(2) - 1) as f64;
                let mut steps = points.windows(2).map(|pair| pair[1].1 - pair[0].1);
                assert!(steps.all(|step| (step - even).abs() < 1.0), "{name} of {prompts}");
            }
        }
    }

    #[test]
    fn exact_tables_are_one_band_with_one_name() {
        let bin = |density: f64| Bin { density, low: 0.8, high: 1.2 };
        let found = Uniformity {
            responses: 40,
            distance: 0.1,
            p_value: 0.5,
            bins: [0.9, 1.1].map(bin).into(),
        };
        let figure = uniformity(&found);
        assert_eq!(figure.legend, ["fresh responses", "95 % of exact tables"]);
        assert_eq!(figure.panels[0].bands[0].points, [(0.25, 0.8, 1.2), (0.75, 0.8, 1.2)]);
    }
}
