//! Figures of several panels side by side: points with intervals, and curves. SVG and PNG from one drawing.

mod draw;
mod labels;
mod look;
mod ticks;
mod title;

use plotters::prelude::*;

use crate::EvaluateError;

/// Name of the best that there is, which has the same colour and the same pattern of line in every figure, wherever it is in the legend. What
/// is called this and ` at ` something has the same colour.
pub const OPTIMUM: &str = "optimum";

/// What follows the name of a method, in that of a point, where the judge's word stands beside the reward's: it looks as the method does, but
/// its marker is hollow.
pub(crate) const BY_JUDGE: &str = ", by the judge";

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

/// Panels side by side, with one legend and a common horizontal axis; the vertical one is common where they show win rates, and else follows
/// what its panel shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Heading of the whole.
    pub title: String,
    /// Names of points and curves, in the order of the legend. Each has a colour, a marker and a pattern of line of its own, so that they can
    /// be told apart in black and white, too; the seventh has the first one's marker, the ninth its colour, with another marker and another
    /// pattern. `optimum` has a colour and a pattern of its own in every figure: yellow, and dashed.
    pub legend: Vec<String>,
    /// What the legend does not say, below it.
    pub note: String,
    /// What the axes measure: horizontal, vertical.
    pub axes: [String; 2],
    /// From left to right.
    pub panels: Vec<Panel>,
}

/// Draws a figure as SVG. Control characters of its texts, of which XML has none, are shown as `\u{fffd}`.
///
/// # Errors
/// [`EvaluateError::Plot`].
pub fn draw_svg(figure: &Figure) -> Result<String, EvaluateError> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, draw::size(figure)).into_drawing_area();
    draw::draw(figure, area)?;
    let is_no_xml = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
    Ok(text.replace(is_no_xml, "\u{fffd}"))
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

    /// A figure of one panel with one point.
    fn of_point(name: &str, y: f64) -> Figure {
        Figure {
            title: String::new(),
            legend: vec!["a".into()],
            note: String::new(),
            axes: ["tokens".into(), "reward".into()],
            panels: vec![Panel {
                points: vec![Point { name: name.into(), x: 80.0, y: [y; 3], label: None }],
                ..Panel::default()
            }],
        }
    }

    #[test]
    fn what_the_judge_says_is_hollow_and_has_its_methods_colour() {
        let shapes = |name: &str| {
            let svg = draw_svg(&of_point(name, 2.0)).unwrap();
            ["<polygon", "<polyline"].map(|shape| svg.matches(shape).count())
        };
        let (filled, hollow) = (shapes("a"), shapes(&format!("a{BY_JUDGE}")));
        // The legend's marker is there for those of the method's own name.
        assert_eq!(filled, [2, filled[1]]);
        assert!(hollow[1] > filled[1], "an outline: {hollow:?}, {filled:?}");
    }

    #[test]
    fn control_characters_do_not_get_into_a_drawing() {
        let title = "a\u{1}<b>\u{1b}[31mx".to_owned();
        let svg = draw_svg(&Figure { title, ..of_point("a", 2.0) }).unwrap();
        assert!(svg.contains("a\u{fffd}&lt;b&gt;\u{fffd}[31mx"), "{svg}");
    }

    #[test]
    fn long_titles_are_drawn_whole_on_lines_of_their_own() {
        let name = "recipe ".repeat(14);
        let title = format!("{name}: score against what decoding costs, by the judge");
        let (short, long) = (of_point("a", 2.0), Figure { title, ..of_point("a", 2.0) });
        assert!(draw::size(&long).1 > draw::size(&short).1);
        let svg = draw_svg(&long).unwrap();
        assert!(svg.contains("by the judge") && svg.contains('…'), "{svg}");
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
        let figure = |y: f64| of_point("a", y);
        // Negative, large and small rewards have axes, too.
        for (y, mark) in [(-7.5, "-7"), (250.0, "250"), (2e-4, "2.00e-4"), (0.0, "0.2")] {
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

    /// The pixels of the corners of a shape.
    fn corners(shape: &str) -> Vec<(f64, f64)> {
        let points = shape.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        let pixel = |pair: &str| {
            let (x, y) = pair.split_once(',').unwrap();
            (x.parse().unwrap(), y.parse().unwrap())
        };
        points.split_whitespace().map(pixel).collect()
    }

    /// A figure whose points are on the line y = x, and where the points and the ends of the line are drawn.
    fn on_a_diagonal(places: [f64; 3], axis: &str) -> [Vec<(f64, f64)>; 2] {
        let point = |x: f64| Point { name: "a".into(), x, y: [x; 3], label: None };
        let ends = vec![(places[0], places[0]), (places[2], places[2])];
        let panel = Panel {
            points: places.map(point).into(),
            curves: vec![Curve { name: "calibrated".into(), points: ends }],
            ..Panel::default()
        };
        let figure = Figure {
            legend: vec!["calibrated".into(), "a".into()],
            axes: [axis.into(), "mean reward".into()],
            panels: vec![panel],
            ..of_point("a", 0.0)
        };
        let svg = draw_svg(&figure).unwrap();
        let of = |start: &str, look: &str| -> Vec<Vec<(f64, f64)>> {
            let shapes = svg.lines().filter(|line| line.starts_with(start) && line.contains(look));
            shapes.map(corners).collect()
        };
        let middle = |corners: &Vec<(f64, f64)>| {
            let mean = |of: fn(&(f64, f64)) -> f64| {
                corners.iter().map(of).sum::<f64>() / corners.len() as f64
            };
            (mean(|corner| corner.0), mean(|corner| corner.1))
        };
        // The first marker is the legend's.
        let points = of("<polygon", "#D55E00").iter().skip(1).map(middle).collect();
        let lines = of("<polyline", "opacity=\"0.8\"");
        [points, lines.concat()]
    }

    #[test]
    fn what_is_left_of_zero_or_far_from_it_is_drawn_where_it_is() {
        let near = |a: f64, b: f64| (a - b).abs() < 1.5;
        for places in [[-1.0, 0.0, 1.0], [-3.0, -2.0, -1.0], [17.0, 19.5, 22.0]] {
            let [points, line] = on_a_diagonal(places, "mean value");
            assert_eq!((points.len(), line.len()), (3, 2), "{places:?}");
            for (end, point) in [(line[0], points[0]), (line[1], points[2])] {
                assert!(near(end.0, point.0) && near(end.1, point.1), "{places:?}");
            }
            // Equally far from each other, and over most of the panel.
            assert!(near(points[1].0 - points[0].0, points[2].0 - points[1].0), "{places:?}");
            assert!(points[2].0 - points[0].0 > 300.0, "{places:?}: {points:?}");
        }
        // A KL is seen from 0 on.
        let [points, _] = on_a_diagonal([1.0, 1.1, 1.2], crate::KL_AND_WIN_RATE[0]);
        assert!(points[2].0 - points[0].0 < 100.0, "{points:?}");
    }

    #[test]
    fn notes_are_below_the_legend_whole() {
        let figure = Figure { note: "a long note ".repeat(12), ..of_point("a", 2.0) };
        assert!(draw::size(&figure).1 > draw::size(&of_point("a", 2.0)).1 + 50);
        let svg = draw_svg(&figure).unwrap();
        assert_eq!(svg.matches("note").count(), 12);
    }
}
