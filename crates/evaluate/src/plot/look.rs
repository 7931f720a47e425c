//! How a name of the legend is drawn: its colour, its marker and its pattern of lines.

use plotters::style::RGBColor;

use super::{BY_JUDGE, Figure, OPTIMUM};

/// Colours that people with colour-blindness can tell apart: those of Okabe and Ito without the palest and the optimum's, and a grey.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 0, 0),
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(110, 110, 110),
];

/// Patterns of lines.
const DASHES: [Dashes; 4] = [None, Some((6, 9)), Some((3, 4)), Some((18, 4))];

/// The optimum's colour and pattern, neither of which is among the above.
const OF_OPTIMUM: (RGBColor, Dashes) = (RGBColor(230, 159, 0), Some((10, 5)));

/// Lengths of dashes and gaps; none for a whole line.
type Dashes = Option<(i32, i32)>;

/// How a name is drawn.
pub(super) struct Look {
    pub(super) colour: RGBColor,
    /// Corners about the place of a point.
    pub(super) marker: Vec<(i32, i32)>,
    /// Whether the marker is an outline alone.
    pub(super) hollow: bool,
    pub(super) dashes: Dashes,
}

/// The look of a place in the legend, of the optimum, or of what the judge says of a method.
pub(super) fn look(figure: &Figure, name: &str) -> Look {
    let place = |name: &str| figure.legend.iter().position(|n| *n == name);
    let (index, hollow) = match (place(name), name.strip_suffix(BY_JUDGE)) {
        (None, Some(method)) => (place(method).unwrap_or(0), true),
        (index, _) => (index.unwrap_or(0), false),
    };
    let (colour, dashes) = match name {
        OPTIMUM => OF_OPTIMUM,
        _ => (COLOURS[index % COLOURS.len()], DASHES[index % DASHES.len()]),
    };
    Look { colour, marker: marker(index), hollow, dashes }
}

/// A disc, a square, triangles, a diamond, a cross.
fn marker(index: usize) -> Vec<(i32, i32)> {
    match index % 6 {
        0 => (0..16)
            .map(|k| (f64::from(k) * std::f64::consts::TAU / 16.0).sin_cos())
            .map(|(sin, cos)| ((5.5 * cos).round() as i32, (5.5 * sin).round() as i32))
            .collect(),
        1 => vec![(-5, -5), (5, -5), (5, 5), (-5, 5)],
        2 => vec![(-6, 5), (6, 5), (0, -6)],
        3 => vec![(0, -7), (7, 0), (0, 7), (-7, 0)],
        4 => vec![(-6, -5), (6, -5), (0, 6)],
        _ => [(-2, -6), (2, -6), (2, -2), (6, -2), (6, 2), (2, 2)]
            .into_iter()
            .chain([(2, 6), (-2, 6), (-2, 2), (-6, 2), (-6, -2), (-2, -2)])
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(legend: Vec<String>) -> Figure {
        let (title, note) = (String::new(), String::new());
        Figure { title, legend, note, axes: [String::new(), String::new()], panels: Vec::new() }
    }

    #[test]
    fn nothing_else_looks_like_the_optimum() {
        for before in 0..30 {
            let others: Vec<String> = (0..30).map(|method| method.to_string()).collect();
            let mut names = others.clone();
            names.insert(before, OPTIMUM.to_owned());
            let figure = figure(names);
            let optimum = look(&figure, OPTIMUM);
            assert_eq!((optimum.colour, optimum.dashes), (RGBColor(230, 159, 0), Some((10, 5))));
            for name in &others {
                let other = look(&figure, name);
                assert!(other.colour != optimum.colour, "{name}");
                assert!(other.dashes != optimum.dashes, "{name}");
            }
        }
    }

    #[test]
    fn markers_and_colours_repeat_at_different_places() {
        let names: Vec<String> = (0..42).map(|method| method.to_string()).collect();
        let figure = figure(names.clone());
        let looks: Vec<Look> = names.iter().map(|name| look(&figure, name)).collect();
        for (index, one) in looks.iter().enumerate() {
            let same = |other: &&Look| (other.colour, &other.marker) == (one.colour, &one.marker);
            assert_eq!(looks.iter().filter(same).count(), 1, "{index}");
        }
    }
}
