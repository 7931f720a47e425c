//! A probability density given on panels, with both of its tails at any point.

use super::legendre::{self, Row};

/// The probabilities on either side of a point, each with its own relative accuracy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tails {
    /// The probability below the point.
    pub(crate) below: f64,
    /// The probability above it.
    pub(crate) above: f64,
}

/// Share of the mass in the last terms of a panel's series above which the panel is halved.
const UNRESOLVED: f64 = 1e-15;
/// Width below which a panel is not halved: what is left there is a jump.
const NARROWEST: f64 = 1e-12;
/// Most panels that a density is resolved on.
const MOST_PANELS: usize = 20_000;

/// Panels that shrink geometrically towards both ends, the last one first.
fn graded() -> Vec<(f64, f64)> {
    let shrinking = || (0..12).map(|k| 0.5 * 0.125f64.powi(k));
    let towards_far = shrinking().skip(1).map(|gap| 1.0 - gap);
    let mut edges: Vec<f64> = shrinking().chain(towards_far).chain([0.0, 1.0]).collect();
    edges.sort_by(f64::total_cmp);
    edges.windows(2).rev().map(|pair| (pair[0], pair[1])).collect()
}

/// A density on v in [0, 1], v the distance from the top, smooth on each panel.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Piecewise {
    /// Panel ends in ascending v, from 0 to 1.
    edges: Vec<f64>,
    panels: Vec<Panel>,
}

#[derive(Clone, Debug, PartialEq)]
struct Panel {
    /// The density, as a series.
    density: Row,
    /// Its mean between the near end and v, and between v and the far end turned round, as series.
    mean: [Row; 2],
    /// The probabilities before the near end and beyond the far one.
    outside: [f64; 2],
}

impl Piecewise {
    /// Normalises the density whose values at the panels' nodes are given.
    pub(crate) fn new(edges: Vec<f64>, mut values: Vec<Row>) -> Self {
        let masses = |values: &[Row]| -> Vec<f64> {
            let mass = |(ends, row): (&[f64], &Row)| {
                0.5 * (ends[1] - ends[0]) * legendre::integral_and_tail(row).0
            };
            edges.windows(2).zip(values).map(mass).collect()
        };
        let whole: f64 = masses(&values).iter().sum();
        values.iter_mut().flatten().for_each(|value| *value /= whole);
        let masses = masses(&values);
        let above = sums_before(masses.iter());
        let mut below = sums_before(masses.iter().rev());
        below.reverse();
        let ends = above.into_iter().zip(below);
        let panels =
            values.iter().zip(ends).map(|(row, (above, below))| Panel::new(row, above, below));
        Piecewise { panels: panels.collect(), edges }
    }

    /// Resolves the density `f`, of any scale, on panels that are halved until its series has converged on
    /// each; `None` where that would take too many, or where all is 0 or beyond `f64`.
    pub(crate) fn resolve(f: impl Fn(f64) -> f64) -> Option<Self> {
        let mut open = graded();
        let mass = |&(a, b): &(f64, f64)| {
            (b - a) * legendre::integral_and_tail(&legendre::points(a, b).map(&f)).0
        };
        let whole: f64 = open.iter().map(mass).sum();
        if !(whole > 0.0 && whole.is_finite()) {
            return None;
        }
        let (mut edges, mut values) = (vec![0.0], Vec::new());
        while let Some((a, b)) = open.pop() {
            let row = legendre::points(a, b).map(&f);
            let middle = 0.5 * (a + b);
            let tail = (b - a) * legendre::integral_and_tail(&row).1;
            if tail > UNRESOLVED * whole && b - a > NARROWEST {
                if open.len() + values.len() > MOST_PANELS {
                    return None;
                }
                open.push((middle, b));
                open.push((a, middle));
            } else {
                edges.push(b);
                values.push(row);
            }
        }
        Some(Self::new(edges, values))
    }

    /// The panel of v and the place within it, in [−1, 1].
    fn locate(&self, v: f64) -> (usize, f64) {
        let index = panel_at(&self.edges, v);
        let (near, far) = (self.edges[index], self.edges[index + 1]);
        (index, 2.0 * ((v - near) / (far - near)) - 1.0)
    }

    /// The density at v.
    pub(crate) fn density(&self, v: f64) -> f64 {
        let (index, x) = self.locate(v);
        legendre::value(&self.panels[index].density, x)
    }

    /// The probabilities between v and the bottom, and between v and the top; the lesser one is summed up,
    /// so that both keep their digits.
    pub(crate) fn tails(&self, v: f64) -> Tails {
        let (index, x) = self.locate(v);
        let Panel { mean, outside, .. } = &self.panels[index];
        let sum = |end: usize, width: f64, x: f64| {
            (outside[end] + width * legendre::value(&mean[end], x)).max(0.0)
        };
        let above = sum(0, v - self.edges[index], x);
        if above <= 0.5 {
            return Tails { below: 1.0 - above, above };
        }
        let below = sum(1, self.edges[index + 1] - v, -x);
        Tails { below, above: 1.0 - below }
    }

    /// Whether the density never rises towards the bottom, by its values at the nodes.
    pub(crate) fn falls(&self) -> bool {
        let at_nodes = |ends: &[f64]| legendre::points(ends[0], ends[1]);
        let values: Vec<f64> =
            self.edges.windows(2).flat_map(at_nodes).map(|v| self.density(v)).collect();
        let most = values.iter().copied().fold(0.0, f64::max);
        values.windows(2).all(|pair| pair[1] <= pair[0] + 1e-10 * most)
    }

    pub(crate) fn edges(&self) -> &[f64] {
        &self.edges
    }

    /// Nodes by ascending v with their masses, on panels no wider than `widest`: sums over them are integrals over the density.
    pub(crate) fn points(&self, widest: f64) -> Vec<(f64, f64)> {
        let mut points = Vec::new();
        for (ends, panel) in self.edges.windows(2).zip(&self.panels) {
            let parts = ((ends[1] - ends[0]) / widest).ceil().max(1.0);
            let half = 0.5 * (ends[1] - ends[0]);
            for part in 0..parts as usize {
                for i in 0..legendre::NODES {
                    let from_end = (2.0 * part as f64 + 1.0 + legendre::node(i)) / parts;
                    let density = legendre::value(&panel.density, from_end - 1.0);
                    let width = half / parts * legendre::weight(i);
                    points.push((ends[0] + half * from_end, width * density));
                }
            }
        }
        points
    }
}

impl Panel {
    fn new(values: &Row, above: f64, below: f64) -> Self {
        let mut turned = *values;
        turned.reverse();
        Panel {
            density: legendre::fit(values),
            mean: [values, &turned].map(legendre::running_mean),
            outside: [above, below],
        }
    }
}

/// The panel that v lies in, of those between ascending `edges`; beyond the ends, the nearest.
pub(crate) fn panel_at(edges: &[f64], v: f64) -> usize {
    edges.partition_point(|&edge| edge <= v).clamp(1, edges.len() - 1) - 1
}

/// The sum of all masses before each.
fn sums_before<'a>(masses: impl Iterator<Item = &'a f64>) -> Vec<f64> {
    let before = |sum: &mut f64, mass: &f64| Some(std::mem::replace(sum, *sum + mass));
    masses.scan(0.0, before).collect()
}
