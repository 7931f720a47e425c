//! Figures of several panels side by side: points with intervals, and curves. SVG and PNG from one drawing.

mod draw;
mod labels;
mod look;

use plotters::prelude::*;

use crate::EvaluateError;

/// Name of the best that there is, which has the same colour and the same pattern of line in every figure, wherever it is in the legend.
pub const OPTIMUM: &str = "optimum";

/// A measured method.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Its name in the legend.
    pub name: String,
    /// Place on the horizontal axis.
    pub x: f64,
    /// Place on the vertical axis with the ends of its interval, which is drawn where it is not empty.
    pub y: [f64; 3],
    /// Written beside the point where there is room, once for points above each other that say the same.
    pub label: Option<String>,
}

/// A line through points.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Its name in the legend.
    pub name: String,
    /// Horizontal and vertical place.
    pub points: Vec<(f64, f64)>,
}

/// The uncertainty of a curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Band {
    /// Whose it is, in the legend.
    pub name: String,
    /// Horizontal place, lower and upper end.
    pub points: Vec<(f64, f64, f64)>,
}

/// One part of a figure.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Panel {
    /// Heading.
    pub title: String,
    /// Drawn beneath everything else.
    pub bands: Vec<Band>,
    /// Drawn over the curves.
    pub points: Vec<Point>,
    /// The first one is drawn last, on top of the others.
    pub curves: Vec<Curve>,
}

/// Panels side by side, with one legend and a common horizontal axis; the vertical one is common where all of them show shares.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Heading of the whole.
    pub title: String,
    /// Names of points and curves, in the order of the legend. Each has a colour, a marker and a pattern of line of its own, so that they can
    /// be told apart in black and white, too; the seventh has the first one's marker, the eighth its colour. `optimum` has a colour and a
    /// pattern of its own in every figure: yellow, and dashed.
    pub legend: Vec<String>,
    /// What the legend does not say, behind it.
    pub note: String,
    /// What the axes measure: horizontal, vertical.
    pub axes: [String; 2],
    /// From left to right.
    pub panels: Vec<Panel>,
}

/// Draws a figure as SVG.
///
/// # Errors
/// [`EvaluateError::Plot`].
pub fn draw_svg(figure: &Figure) -> Result<String, EvaluateError> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, draw::size(figure)).into_drawing_area();
    draw::draw(figure, area)?;
    Ok(text)
}

/// Draws a figure as PNG.
///
/// # Errors
/// [`EvaluateError::Plot`].
pub fn draw_png(figure: &Figure) -> Result<Vec<u8>, EvaluateError> {
    let (width, height) = draw::size(figure);
    let mut pixels = vec![0; (width * height * 3) as usize];
    let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
    draw::draw(figure, area)?;
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().map_err(draw::failed)?;
    writer.write_image_data(&pixels).map_err(draw::failed)?;
    writer.finish().map_err(draw::failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn svg_and_png_show_every_name_and_panel() {
        let point = |name: &str| Point {
            name: name.into(),
            x: 0.5,
            y: [0.7, 0.65, 0.75],
            label: Some("n = 4".into()),
        };
        let curve = Curve { name: "exp:10".into(), points: vec![(0.0, 0.5), (1.0, 0.9)] };
        let panel = |title: &str| Panel {
            title: title.into(),
            bands: vec![Band {
                name: "exp:10".into(),
                points: vec![(0.0, 0.5, 0.5), (1.0, 0.8, 0.95)],
            }],
            points: vec![point("raw"), point("exp:10")],
            curves: vec![curve.clone(), Curve { name: "optimum".into(), ..curve.clone() }],
        };
        let figure = Figure {
            title: "quickstart".into(),
            legend: ["raw", "exp:10", "optimum"].map(str::to_owned).to_vec(),
            note: "bars: 95 % intervals".into(),
            axes: ["nats".into(), "win rate".into()],
            panels: vec![panel("sample"), panel("best-of:4")],
        };
        let svg = draw_svg(&figure).unwrap();
        for text in ["quickstart", "raw", "exp:10", "optimum", "best-of:4", "nats", "95 %", "n = 4"]
        {
            assert!(svg.contains(text), "{text}");
        }
        // Both points of a panel are in one place, and say the same.
        assert_eq!(svg.matches("n = 4").count(), 2);
        // Labels are beneath all markers.
        let after = svg.rsplit("n = 4").next().unwrap();
        assert_eq!(after.matches("<polygon").count(), 2);
        assert!(draw_png(&figure).unwrap().len() > 5_000);
    }

    #[test]
    fn the_legend_shows_every_pattern_of_lines_twice() {
        let dashes = |names: usize| {
            let figure = Figure {
                title: String::new(),
                legend: (0..names).map(|name| name.to_string()).collect(),
                note: String::new(),
                axes: [String::new(), String::new()],
                panels: Vec::new(),
            };
            draw_svg(&figure).unwrap().matches("<polyline").count()
        };
        // A whole line, and three patterns.
        let of_each = [1, 2, 3, 4].map(|names| dashes(names) - dashes(names - 1));
        assert!(of_each[0] == 1 && of_each[1..].iter().all(|n| *n >= 2), "{of_each:?}");
    }

    #[test]
    fn axes_follow_what_is_drawn() {
        let figure = |y: f64| Figure {
            title: String::new(),
            legend: vec!["a".into()],
            note: String::new(),
            axes: ["tokens".into(), "reward".into()],
            panels: vec![Panel {
                points: vec![Point { name: "a".into(), x: 80.0, y: [y; 3], label: None }],
                ..Panel::default()
            }],
        };
        // Negative and large rewards have axes, too.
        for (y, mark) in [(-7.5, "-7"), (250.0, "250")] {
            assert!(draw_svg(&figure(y)).unwrap().contains(mark), "{y}");
        }
        // Panels of different units do not squash each other.
        let both = Figure {
            panels: [-0.25, 250.0].map(|y| figure(y).panels.remove(0)).into(),
            ..figure(0.0)
        };
        let svg = draw_svg(&both).unwrap();
        assert!(svg.contains("-0.25") && svg.contains("250"), "{svg}");
    }
}
