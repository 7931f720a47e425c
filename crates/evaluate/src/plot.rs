//! Win rate against KL: one panel a procedure, points with intervals, curves of the continuous limit. SVG and PNG from one drawing.

use std::sync::Once;

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use crate::EvaluateError;

/// A measured method.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Name in the legend; the same name has the same colour in every panel.
    pub name: String,
    /// KL in nats.
    pub x: f64,
    /// Win rate with the ends of its interval.
    pub y: [f64; 3],
}

/// A curve of the theory.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Name of the method that it belongs to.
    pub name: String,
    /// KL and win rate.
    pub points: Vec<(f64, f64)>,
}

/// One procedure.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// Heading.
    pub title: String,
    /// Measurements.
    pub points: Vec<Point>,
    /// Theory.
    pub curves: Vec<Curve>,
}

/// Panels side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Heading of the whole.
    pub title: String,
    /// From left to right.
    pub panels: Vec<Panel>,
}

const PANEL: (u32, u32) = (480, 460);
const HEADER: u32 = 78;
/// Colours that people with colour-blindness can tell apart (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 0, 0),
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// Draws a figure as SVG.
///
/// # Errors
/// [`EvaluateError::Plot`].
pub fn draw_svg(figure: &Figure) -> Result<String, EvaluateError> {
    let mut text = String::new();
    draw(figure, SVGBackend::with_string(&mut text, size(figure)).into_drawing_area())?;
    Ok(text)
}

/// Draws a figure as PNG.
///
/// # Errors
/// [`EvaluateError::Plot`].
pub fn draw_png(figure: &Figure) -> Result<Vec<u8>, EvaluateError> {
    let (width, height) = size(figure);
    let mut pixels = vec![0; (width * height * 3) as usize];
    draw(figure, BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area())?;
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&pixels).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

fn size(figure: &Figure) -> (u32, u32) {
    (PANEL.0 * figure.panels.len() as u32, PANEL.1 + HEADER)
}

fn failed(error: impl std::fmt::Display) -> EvaluateError {
    EvaluateError::Plot(error.to_string())
}

fn draw<B: DrawingBackend>(
    figure: &Figure,
    area: DrawingArea<B, plotters::coord::Shift>,
) -> Result<(), EvaluateError> {
    static FONT: Once = Once::new();
    // The only failure is a font that cannot be parsed, and this one is compiled in.
    FONT.call_once(|| {
        drop(register_font("sans-serif", FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT))
    });
    area.fill(&WHITE).map_err(failed)?;
    let (header, body) = area.split_vertically(HEADER);
    draw_header(figure, &header)?;
    for (panel, part) in
        figure.panels.iter().zip(body.split_evenly((1, figure.panels.len().max(1))))
    {
        draw_panel(figure, panel, &part)?;
    }
    area.present().map_err(failed)
}

/// Names in the order in which the figure first shows them.
fn names(figure: &Figure) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for name in figure.panels.iter().flat_map(|panel| panel.points.iter().map(|p| p.name.as_str()))
    {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn colour(figure: &Figure, name: &str) -> RGBColor {
    let index = names(figure).iter().position(|n| *n == name).unwrap_or(0);
    COLOURS[index % COLOURS.len()]
}

fn draw_header<B: DrawingBackend>(
    figure: &Figure,
    area: &DrawingArea<B, plotters::coord::Shift>,
) -> Result<(), EvaluateError> {
    let text = |size: i32| ("sans-serif", size).into_font().color(&BLACK);
    area.draw(&Text::new(figure.title.clone(), (16, 10), text(20))).map_err(failed)?;
    let mut x = 16;
    for name in names(figure) {
        let colour = colour(figure, name);
        area.draw(&Circle::new((x + 6, 56), 5, colour.filled())).map_err(failed)?;
        area.draw(&Text::new(name.to_owned(), (x + 18, 47), text(17))).map_err(failed)?;
        x += 44 + 9 * name.len() as i32;
    }
    let note = "bars: 95 % intervals over prompts; lines: continuous limit";
    area.draw(&Text::new(note, (x + 12, 47), text(17).color(&BLACK.mix(0.6)))).map_err(failed)
}

fn draw_panel<B: DrawingBackend>(
    figure: &Figure,
    panel: &Panel,
    area: &DrawingArea<B, plotters::coord::Shift>,
) -> Result<(), EvaluateError> {
    let (x_end, y) = ranges(figure);
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..x_end, y.0..y.1)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc("KL from the reference, nats per response")
        .y_desc("win rate against the reference")
        .x_labels(6)
        .y_labels(6)
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .label_style(("sans-serif", 15))
        .draw()
        .map_err(failed)?;
    for curve in &panel.curves {
        let style = colour(figure, &curve.name).mix(0.7).stroke_width(2);
        chart.draw_series(LineSeries::new(curve.points.iter().copied(), style)).map_err(failed)?;
    }
    draw_points(figure, panel, &mut chart)
}

fn draw_points<B: DrawingBackend>(
    figure: &Figure,
    panel: &Panel,
    chart: &mut ChartContext<'_, B, Cartesian2d<RangedCoordf64, RangedCoordf64>>,
) -> Result<(), EvaluateError> {
    for point in &panel.points {
        let colour = colour(figure, &point.name);
        let [estimate, low, high] = point.y;
        let bar = ErrorBar::new_vertical(point.x, low, estimate, high, colour.stroke_width(2), 9);
        chart.draw_series([bar]).map_err(failed)?;
        chart
            .draw_series([Circle::new((point.x, estimate), 5, colour.filled())])
            .map_err(failed)?;
    }
    Ok(())
}

/// Common axes of all panels: KL from 0, and the win rates with some room.
fn ranges(figure: &Figure) -> (f64, (f64, f64)) {
    let points = || figure.panels.iter().flat_map(|panel| &panel.points);
    let curves = || {
        figure.panels.iter().flat_map(|panel| panel.curves.iter().flat_map(|curve| &curve.points))
    };
    let x = points().map(|p| p.x).chain(curves().map(|c| c.0)).fold(0.1, f64::max);
    let low = points().map(|p| p.y[1]).chain(curves().map(|c| c.1)).fold(0.5, f64::min);
    let high = points().map(|p| p.y[2]).chain(curves().map(|c| c.1)).fold(0.6, f64::max);
    (x * 1.05, (low - 0.03, (high + 0.03).min(1.02)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn svg_and_png_show_every_name_and_panel() {
        let point = |name: &str| Point { name: name.into(), x: 0.5, y: [0.7, 0.65, 0.75] };
        let curve = Curve { name: "exp:10".into(), points: vec![(0.0, 0.5), (1.0, 0.9)] };
        let panel = |title: &str| Panel {
            title: title.into(),
            points: vec![point("raw"), point("exp:10")],
            curves: vec![curve.clone()],
        };
        let figure = Figure {
            title: "quickstart".into(),
            panels: vec![panel("sample"), panel("best-of:4")],
        };
        let svg = draw_svg(&figure).unwrap();
        assert!(
            ["quickstart", "raw", "exp:10", "best-of:4", "nats"]
                .iter()
                .all(|text| svg.contains(text))
        );
        assert!(draw_png(&figure).unwrap().len() > 5_000);
    }
}
