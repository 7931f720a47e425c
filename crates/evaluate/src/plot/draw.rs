//! How a figure is laid out and drawn.

use std::sync::Once;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use super::labels::{self, Frame, Label, Mark, Side};
use super::look::{Look, look};
use super::ticks::{self, Ticks};
use super::{Band, Curve, Figure, Panel, Point, title};
use crate::{EvaluateError, KL_AND_WIN_RATE};

const PANEL: (u32, u32) = (480, 460);
/// Height of a title of one line, of each further one, and of a line of the legend.
const TITLE: u32 = 47;
const TITLE_LINE: u32 = 24;
const LEGEND_LINE: u32 = 26;
/// How much of a figure's width a character of the title takes, one of the note, and how much the margins beside them.
const TITLE_CHARACTER: u32 = 10;
const NOTE_CHARACTER: u32 = 8;
const TITLE_MARGINS: u32 = 32;
/// Length of a line in the legend: every pattern is seen twice.
const KEY: i32 = 44;

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
    title_height(figure) + LEGEND_LINE * lines + 5
}

fn title_lines(figure: &Figure) -> Vec<String> {
    title::lines(&figure.title, room(figure, TITLE_CHARACTER))
}

/// How many characters of some width a line has.
fn room(figure: &Figure, character: u32) -> usize {
    (width(figure).saturating_sub(TITLE_MARGINS) / character) as usize
}

fn title_height(figure: &Figure) -> u32 {
    let further = title_lines(figure).len().saturating_sub(1);
    TITLE + TITLE_LINE * further as u32
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

/// What the legend shows before a name.
#[derive(Clone, Copy, PartialEq)]
enum Key {
    Marker,
    Line,
    /// Before a line of the note.
    Nothing,
}

impl Key {
    /// A marker for what has points, and a line for what has curves only.
    fn of(figure: &Figure, text: &str) -> Self {
        let mut points = figure.panels.iter().flat_map(|panel| &panel.points);
        if points.any(|point| point.name == text) { Self::Marker } else { Self::Line }
    }

    /// From where it begins to where its text does.
    fn width(self) -> i32 {
        match self {
            Self::Marker => 18,
            Self::Line => KEY + 4,
            Self::Nothing => 0,
        }
    }
}

/// A name of the legend or a line of the note, and where it stands.
struct Entry {
    text: String,
    key: Key,
    x: i32,
    line: u32,
}

/// Names, and the note on lines of its own below them, broken into lines that fit.
fn legend(figure: &Figure) -> Vec<Entry> {
    const LEFT: i32 = 16;
    let (mut x, mut line) = (LEFT, 0);
    let mut entries = Vec::new();
    for text in &figure.legend {
        let key = Key::of(figure, text);
        let wide = key.width() + 26 + 9 * text.chars().count() as i32;
        if x > LEFT && x + wide > width(figure) as i32 {
            (x, line) = (LEFT, line + 1);
        }
        entries.push(Entry { text: text.clone(), key, x, line });
        x += wide;
    }
    if !figure.note.is_empty() {
        let first = if entries.is_empty() { 0 } else { line + 1 };
        let note = title::wrapped(&figure.note, room(figure, NOTE_CHARACTER));
        let lines = (first..).zip(note);
        entries.extend(lines.map(|(line, text)| Entry { text, key: Key::Nothing, x: LEFT, line }));
    }
    entries
}

fn draw_header<B: DrawingBackend>(
    figure: &Figure,
    area: &DrawingArea<B, Shift>,
) -> Result<(), EvaluateError> {
    let text = |size: i32| ("sans-serif", size).into_font().color(&BLACK);
    for (line, words) in (0..).zip(title_lines(figure)) {
        let place = (16, 10 + TITLE_LINE as i32 * line);
        area.draw(&Text::new(words, place, text(20))).map_err(failed)?;
    }
    let top = title_height(figure);
    for Entry { text: name, key, x, line } in legend(figure) {
        let y = (top + LEGEND_LINE * line) as i32;
        draw_key(figure, (name.as_str(), key), (x, y + 9), area)?;
        let pale = BLACK.mix(if key == Key::Nothing { 0.6 } else { 1.0 });
        let name = Text::new(name, (x + key.width(), y), text(17).color(&pale));
        area.draw(&name).map_err(failed)?;
    }
    Ok(())
}

fn draw_key<B: DrawingBackend>(
    figure: &Figure,
    (name, key): (&str, Key),
    (x, y): (i32, i32),
    area: &DrawingArea<B, Shift>,
) -> Result<(), EvaluateError> {
    let Look { colour, marker, dashes, .. } = look(figure, name);
    match key {
        Key::Nothing => Ok(()),
        Key::Marker => {
            let at = |(dx, dy): (i32, i32)| (x + 6 + dx, y + dy);
            let corners: Vec<_> = marker.into_iter().map(at).collect();
            area.draw(&Polygon::new(corners, colour.filled())).map_err(failed)
        }
        Key::Line => {
            let (dash, gap) = dashes.unwrap_or((KEY, 0));
            let (mut from, end) = (x - 4, x - 4 + KEY);
            while from < end {
                let line = [(from, y), ((from + dash).min(end), y)];
                area.draw(&PathElement::new(line, colour.stroke_width(3))).map_err(failed)?;
                from += dash + gap;
            }
            Ok(())
        }
    }
}

fn draw_panel<B: DrawingBackend>(
    figure: &Figure,
    panel: &Panel,
    area: &DrawingArea<B, Shift>,
) -> Result<(), EvaluateError> {
    let (x, y) = (horizontal_range(figure), vertical_range(figure, panel));
    let (across, up) = (Ticks::new(x), Ticks::new(y));
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(numbers_width(&up))
        .build_cartesian_2d(x.0..x.1, y.0..y.1)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc(&figure.axes[0])
        .y_desc(&figure.axes[1])
        .x_labels(ticks::MOST)
        .y_labels(ticks::MOST)
        .x_label_formatter(&|x| across.text(*x))
        .y_label_formatter(&|y| up.text(*y))
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .label_style(("sans-serif", 15))
        .draw()
        .map_err(failed)?;
    for band in &panel.bands {
        draw_band(figure, band, &mut chart)?;
    }
    for curve in panel.curves.iter().rev() {
        draw_curve(figure, curve, &mut chart)?;
    }
    draw_points(figure, panel, &mut chart)
}

/// Room for the numbers of the vertical axis, and for its title left of them.
fn numbers_width(ticks: &Ticks) -> i32 {
    /// Of the axis's title with what is left free, and of a digit.
    const BESIDE: i32 = 24;
    const DIGIT: i32 = 8;
    (BESIDE + DIGIT * ticks.longest() as i32).max(52)
}

fn draw_band<B: DrawingBackend>(
    figure: &Figure,
    band: &Band,
    chart: &mut Chart<'_, B>,
) -> Result<(), EvaluateError> {
    let lower = band.points.iter().map(|&(x, low, _)| (x, low));
    let upper = band.points.iter().rev().map(|&(x, _, high)| (x, high));
    let corners: Vec<(f64, f64)> = lower.chain(upper).collect();
    let shade = look(figure, &band.name).colour.mix(0.15).filled();
    chart.draw_series([Polygon::new(corners, shade)]).map_err(failed)?;
    Ok(())
}

fn draw_curve<B: DrawingBackend>(
    figure: &Figure,
    curve: &Curve,
    chart: &mut Chart<'_, B>,
) -> Result<(), EvaluateError> {
    let Look { colour, dashes, .. } = look(figure, &curve.name);
    let (line, points) = (colour.mix(0.8).stroke_width(2), curve.points.iter().copied());
    match dashes {
        Some((dash, gap)) => {
            chart.draw_series(DashedLineSeries::new(points, dash, gap, line)).map_err(failed)?;
        }
        None => {
            chart.draw_series(LineSeries::new(points, line)).map_err(failed)?;
        }
    }
    Ok(())
}

fn draw_points<B: DrawingBackend>(
    figure: &Figure,
    panel: &Panel,
    chart: &mut Chart<'_, B>,
) -> Result<(), EvaluateError> {
    let marks: Vec<Mark<'_>> = panel.points.iter().map(|point| mark(point, chart)).collect();
    let (across, down) = chart.plotting_area().get_pixel_range();
    let (right, bottom) = (across.end - 1, down.end - 1);
    let room = Frame { left: across.start, top: down.start, right, bottom };
    // Beneath the points, none of which they hide.
    for label in labels::place(&marks, room) {
        draw_label(figure, label, chart)?;
    }
    panel.points.iter().try_for_each(|point| draw_point(figure, point, chart))
}

/// The pixels of a point.
fn mark<'a, B: DrawingBackend>(point: &'a Point, chart: &Chart<'_, B>) -> Mark<'a> {
    let [at, low, high] = point.y.map(|y| chart.backend_coord(&(point.x, y)));
    Mark { point, at, bar: (high.1, low.1) }
}

fn draw_label<B: DrawingBackend>(
    figure: &Figure,
    label: Label<'_>,
    chart: &mut Chart<'_, B>,
) -> Result<(), EvaluateError> {
    let Label { mark: Mark { point, at: (x, y), .. }, text, side, frame } = label;
    let (left, right) = (frame.left - x, frame.right - x);
    let (top, bottom) = (frame.top - y, frame.bottom - y);
    // As near to the point as the frame allows.
    let (from, anchor) = match side {
        Side::Right => (left + 2, HPos::Left),
        Side::Left => (right - 2, HPos::Right),
        Side::Middle => ((left + right) / 2, HPos::Center),
    };
    let font = ("sans-serif", 14).into_font().color(&look(figure, &point.name).colour);
    let beside = EmptyElement::at((point.x, point.y[0]))
        + Rectangle::new([(left, top), (right, bottom)], WHITE.mix(0.8).filled())
        + Text::new(text.to_owned(), (from, top + 1), font.pos(Pos::new(anchor, VPos::Top)));
    chart.draw_series([beside]).map_err(failed)?;
    Ok(())
}

fn draw_point<B: DrawingBackend>(
    figure: &Figure,
    point: &Point,
    chart: &mut Chart<'_, B>,
) -> Result<(), EvaluateError> {
    let Look { colour, marker, hollow, .. } = look(figure, &point.name);
    let [estimate, low, high] = point.y;
    if low < high {
        // Plotters' own error bars have a dot in their middle, which would hide the marker.
        let line = colour.stroke_width(if hollow { 1 } else { 2 });
        let bar = PathElement::new([(point.x, low), (point.x, high)], line);
        chart.draw_series([bar]).map_err(failed)?;
        let cap =
            |y: f64| EmptyElement::at((point.x, y)) + PathElement::new([(-5, 0), (5, 0)], line);
        chart.draw_series([cap(low), cap(high)]).map_err(failed)?;
    }
    let at = EmptyElement::at((point.x, estimate));
    if hollow {
        let outline: Vec<(i32, i32)> = marker.iter().chain(marker.first()).copied().collect();
        let outline = PathElement::new(outline, colour.stroke_width(2));
        let inside = Polygon::new(marker, WHITE.filled());
        chart.draw_series([at + inside + outline]).map_err(failed)?;
    } else {
        chart.draw_series([at + Polygon::new(marker, colour.filled())]).map_err(failed)?;
    }
    Ok(())
}

/// The horizontal axis of all panels. It begins at 0 where nothing is left of that and what is drawn begins in the nearer half, and for every
/// KL; and else has some room on both sides.
fn horizontal_range(figure: &Figure) -> (f64, f64) {
    let panels = || figure.panels.iter();
    let points = panels().flat_map(|panel| &panel.points).map(|point| point.x);
    let curves = panels().flat_map(|panel| &panel.curves).flat_map(|curve| &curve.points);
    let bands = panels().flat_map(|panel| &panel.bands).flat_map(|band| &band.points);
    let places = points.chain(curves.map(|place| place.0)).chain(bands.map(|place| place.0));
    let (low, high) =
        places.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    if low > high {
        // Nothing is drawn.
        return (0.0, 1.0);
    }
    let is_kl = figure.axes[0] == KL_AND_WIN_RATE[0];
    if low >= 0.0 && (is_kl || 2.0 * low <= high) {
        (0.0, 1.05 * high.max(0.1))
    } else {
        with_room((low, high))
    }
}

/// The vertical axis of a panel, with some room: a common one where all panels show win rates, and else its own, since panels may show
/// quantities of different units and of any scale.
fn vertical_range(figure: &Figure, panel: &Panel) -> (f64, f64) {
    let (low, high) = extent(&figure.panels);
    let win_rates = figure.axes[1] == KL_AND_WIN_RATE[1];
    if win_rates && low <= high && low >= 0.0 && high <= 1.0 {
        // The middle is always seen, and they end at 1.
        return (low.min(0.5) - 0.03, (high.max(0.6) + 0.03).min(1.02));
    }
    let (low, high) = extent(std::slice::from_ref(panel));
    if low > high {
        // Nothing is drawn.
        return (0.0, 1.0);
    }
    with_room((low, high))
}

/// An axis somewhat longer than what it shows.
fn with_room((low, high): (f64, f64)) -> (f64, f64) {
    let (spread, size) = (high - low, high.abs().max(low.abs()));
    // What differs by less is equal, but for rounding.
    let room = if spread > 1e-6 * size {
        0.06 * spread
    } else if size > 0.0 {
        0.01 * size
    } else {
        0.5
    };
    (low - room, high + room)
}

/// The least and the greatest vertical place; the first above the second where nothing is drawn.
fn extent(panels: &[Panel]) -> (f64, f64) {
    let points = || panels.iter().flat_map(|panel| &panel.points);
    let curves = || panels.iter().flat_map(|panel| &panel.curves).flat_map(|curve| &curve.points);
    let bands = || panels.iter().flat_map(|panel| &panel.bands).flat_map(|band| &band.points);
    let lows = points().map(|p| p.y[1]).chain(curves().map(|c| c.1)).chain(bands().map(|b| b.1));
    let highs = points().map(|p| p.y[2]).chain(curves().map(|c| c.1)).chain(bands().map(|b| b.2));
    (lows.fold(f64::INFINITY, f64::min), highs.fold(f64::NEG_INFINITY, f64::max))
}
