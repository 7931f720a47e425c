//! How a figure is laid out and drawn.

use std::sync::Once;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use super::{Curve, Figure, Panel};
use crate::EvaluateError;

const PANEL: (u32, u32) = (480, 460);
/// Height of the title, and of a line of the legend.
const TITLE: u32 = 47;
const LEGEND_LINE: u32 = 26;
/// Colours that people with colour-blindness can tell apart (Okabe and Ito), the palest left out.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 0, 0),
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

type Chart<'a, B> = ChartContext<'a, B, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

pub(super) fn failed(error: impl std::fmt::Display) -> EvaluateError {
    EvaluateError::Plot(error.to_string())
}

/// Width and height in pixels.
pub(super) fn size(figure: &Figure) -> (u32, u32) {
    (width(figure), PANEL.1 + header(figure))
}

fn width(figure: &Figure) -> u32 {
    PANEL.0 * figure.panels.len().max(1) as u32
}

fn header(figure: &Figure) -> u32 {
    let lines = legend(figure).last().map_or(1, |entry| entry.line + 1);
    TITLE + LEGEND_LINE * lines + 5
}

pub(super) fn draw<B: DrawingBackend>(
    figure: &Figure,
    area: DrawingArea<B, Shift>,
) -> Result<(), EvaluateError> {
    static FONT: Once = Once::new();
    // The only failure is a font that cannot be parsed, and this one is compiled in.
    FONT.call_once(|| {
        drop(register_font("sans-serif", FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT))
    });
    area.fill(&WHITE).map_err(failed)?;
    let (header, body) = area.split_vertically(header(figure));
    draw_header(figure, &header)?;
    for (panel, part) in
        figure.panels.iter().zip(body.split_evenly((1, figure.panels.len().max(1))))
    {
        draw_panel(figure, panel, &part)?;
    }
    area.present().map_err(failed)
}

/// The colour of a name, and whether its line is dashed, which tells names of the same colour apart.
fn style(figure: &Figure, name: &str) -> (RGBColor, bool) {
    let index = figure.legend.iter().position(|n| *n == name).unwrap_or(0);
    match index.checked_sub(COLOURS.len()) {
        None => (COLOURS[index], false),
        // The first colour is for what stands out.
        Some(rest) => (COLOURS[1 + rest % (COLOURS.len() - 1)], true),
    }
}

/// One word of the legend and where it stands.
struct Entry<'a> {
    text: &'a str,
    x: i32,
    line: u32,
}

/// Names and note, broken into lines that fit.
fn legend(figure: &Figure) -> Vec<Entry<'_>> {
    let (mut x, mut line) = (16, 0);
    let mut entries = Vec::new();
    for text in figure.legend.iter().chain([&figure.note]) {
        let wide = 44 + 9 * text.chars().count() as i32;
        if x > 16 && x + wide > width(figure) as i32 {
            (x, line) = (16, line + 1);
        }
        entries.push(Entry { text, x, line });
        x += wide;
    }
    entries
}

fn draw_header<B: DrawingBackend>(
    figure: &Figure,
    area: &DrawingArea<B, Shift>,
) -> Result<(), EvaluateError> {
    let text = |size: i32| ("sans-serif", size).into_font().color(&BLACK);
    area.draw(&Text::new(figure.title.clone(), (16, 10), text(20))).map_err(failed)?;
    for Entry { text: name, x, line } in legend(figure) {
        let y = (TITLE + LEGEND_LINE * line) as i32;
        if figure.legend.iter().any(|known| known == name) {
            draw_key(figure, name, (x, y + 9), area)?;
            area.draw(&Text::new(name.to_owned(), (x + 18, y), text(17))).map_err(failed)?;
        } else {
            let pale = BLACK.mix(0.6);
            let note = Text::new(name.to_owned(), (x + 12, y), text(17).color(&pale));
            area.draw(&note).map_err(failed)?;
        }
    }
    Ok(())
}

/// A dot for what has points, and a line, broken where it is dashed, for what has curves only.
fn draw_key<B: DrawingBackend>(
    figure: &Figure,
    name: &str,
    (x, y): (i32, i32),
    area: &DrawingArea<B, Shift>,
) -> Result<(), EvaluateError> {
    let (colour, dashed) = style(figure, name);
    let mut points = figure.panels.iter().flat_map(|panel| &panel.points);
    if points.any(|point| point.name == name) {
        return area.draw(&Circle::new((x + 6, y), 5, colour.filled())).map_err(failed);
    }
    let parts = if dashed { vec![(-4, 4), (8, 14)] } else { vec![(-4, 14)] };
    for (from, to) in parts {
        let line = [(x + from, y), (x + to, y)];
        area.draw(&PathElement::new(line, colour.stroke_width(3))).map_err(failed)?;
    }
    Ok(())
}

fn draw_panel<B: DrawingBackend>(
    figure: &Figure,
    panel: &Panel,
    area: &DrawingArea<B, Shift>,
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
        .x_desc(&figure.axes[0])
        .y_desc(&figure.axes[1])
        .x_labels(6)
        .y_labels(6)
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .label_style(("sans-serif", 15))
        .draw()
        .map_err(failed)?;
    for curve in panel.curves.iter().rev() {
        draw_curve(figure, curve, &mut chart)?;
    }
    draw_points(figure, panel, &mut chart)
}

fn draw_curve<B: DrawingBackend>(
    figure: &Figure,
    curve: &Curve,
    chart: &mut Chart<'_, B>,
) -> Result<(), EvaluateError> {
    let (colour, dashed) = style(figure, &curve.name);
    let (line, points) = (colour.mix(0.8).stroke_width(2), curve.points.iter().copied());
    if dashed {
        chart.draw_series(DashedLineSeries::new(points, 8, 5, line)).map_err(failed)?;
    } else {
        chart.draw_series(LineSeries::new(points, line)).map_err(failed)?;
    }
    Ok(())
}

fn draw_points<B: DrawingBackend>(
    figure: &Figure,
    panel: &Panel,
    chart: &mut Chart<'_, B>,
) -> Result<(), EvaluateError> {
    for point in &panel.points {
        let (colour, _) = style(figure, &point.name);
        let [estimate, low, high] = point.y;
        if low < high {
            let line = colour.stroke_width(2);
            let bar = ErrorBar::new_vertical(point.x, low, estimate, high, line, 9);
            chart.draw_series([bar]).map_err(failed)?;
        }
        let dot = Circle::new((point.x, estimate), 5, colour.filled());
        chart.draw_series([dot]).map_err(failed)?;
        if let Some(label) = &point.label {
            let width = 4 + 8 * label.chars().count() as i32;
            let beside = EmptyElement::at((point.x, estimate))
                + Rectangle::new([(6, 5), (6 + width, 18)], WHITE.mix(0.8).filled())
                + Text::new(label.clone(), (8, 5), ("sans-serif", 14).into_font().color(&colour));
            chart.draw_series([beside]).map_err(failed)?;
        }
    }
    Ok(())
}

/// Common axes of all panels: the horizontal one from 0, the vertical one with some room.
fn ranges(figure: &Figure) -> (f64, (f64, f64)) {
    let points = || figure.panels.iter().flat_map(|panel| &panel.points);
    let curves = || {
        figure.panels.iter().flat_map(|panel| panel.curves.iter().flat_map(|curve| &curve.points))
    };
    let x = points().map(|p| p.x).chain(curves().map(|c| c.0)).fold(0.1, f64::max);
    let low = points().map(|p| p.y[1]).chain(curves().map(|c| c.1)).fold(0.5, f64::min);
    let high = points().map(|p| p.y[2]).chain(curves().map(|c| c.1)).fold(0.6, f64::max);
    // Shares end at 1.
    let high = if high <= 1.0 { (high + 0.03).min(1.02) } else { 1.05 * high };
    (x * 1.05, (low - 0.03, high))
}
