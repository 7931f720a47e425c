//! How a name of the legend is drawn: its colour, its marker and its pattern of lines.

use plotters::style::RGBColor;

use super::{BY_JUDGE, Figure, OPTIMUM};

/// Colours that people with colour-blindness can tell apart: those of Okabe and Ito without the palest and the optimum's, a grey and a dark brown.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 0, 0),
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(110, 110, 110),
    RGBColor(117, 60, 20),
];

/// Patterns of lines.
const DASHES: [Dashes; 4] = [None, Some((6, 9)), Some((3, 4)), Some((18, 4))];

/// The optimum's colour and its patterns, the second and those behind it for optima beside it: none of them is among the above.
const OF_OPTIMUM: RGBColor = RGBColor(230, 159, 0);
const OF_OPTIMA: [Dashes; 4] = [Some((10, 5)), Some((4, 6)), Some((15, 3)), Some((2, 8))];

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
    let (colour, dashes) = if is_optimum(name) {
        let optima = figure.legend.iter().filter(|name| is_optimum(name));
        let before = optima.take_while(|other| *other != name).count();
        (OF_OPTIMUM, OF_OPTIMA[before % OF_OPTIMA.len()])
    } else {
        // A colour comes again with another pattern.
        let pattern = index + index / COLOURS.len();
        (COLOURS[index % COLOURS.len()], DASHES[pattern % DASHES.len()])
    };
    // A colour comes again with another marker: after three rounds of the colours, or four of the markers, one is left out.
    let marker = marker(index + index / (3 * COLOURS.len()));
    Look { colour, marker, hollow, dashes }
}

/// Whether a name is that of the optimum, or of the one at some KL.
fn is_optimum(name: &str) -> bool {
    name.strip_prefix(OPTIMUM).is_some_and(|rest| rest.is_empty() || rest.starts_with(" at "))
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
    fn optima_at_several_kls_are_yellow_and_dashed_differently() {
        let names = ["optimum at 0.1 nats", "optimum at 0.5 nats", "optimum at 2 nats", "identity"];
        let figure = figure(names.map(str::to_owned).to_vec());
        let looks = names.map(|name| look(&figure, name));
        assert_eq!(looks[0].dashes, Some((10, 5)));
        for (index, one) in looks[..3].iter().enumerate() {
            assert_eq!(one.colour, RGBColor(230, 159, 0), "{}", names[index]);
            let same = looks.iter().filter(|other| other.dashes == one.dashes).count();
            assert_eq!((same, one.dashes.is_some()), (1, true), "{}", names[index]);
        }
        assert!(looks[3].colour != looks[0].colour);
    }

    #[test]
    fn markers_and_colours_repeat_at_different_places() {
        let names: Vec<String> = (0..42).map(|method| method.to_string()).collect();
        let figure = figure(names.clone());
        let looks: Vec<Look> = names.iter().map(|name| look(&figure, name)).collect();
        // Lines do for somewhat fewer.
        for (index, one) in looks[..32].iter().enumerate() {
            let same = |other: &&Look| (other.colour, other.dashes) == (one.colour, one.dashes);
            assert_eq!(looks[..32].iter().filter(same).count(), 1, "{index}");
        }
        for (index, one) in looks.iter().enumerate() {
            let same = |other: &&Look| (other.colour, &other.marker) == (one.colour, &one.marker);
            assert_eq!(looks.iter().filter(same).count(), 1, "{index}");
        }
    }
}
