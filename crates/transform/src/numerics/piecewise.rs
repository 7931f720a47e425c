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

/// Mass in the last terms of a panel's series above which the panel is halved.
const UNRESOLVED: f64 = 1e-15;
/// Width below which a panel is not halved: what is left there is a jump.
const NARROWEST: f64 = 1e-12;
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
    /// Its mean between v and the end of the panel that `far` tells, as a series.
    mean: Row,
    /// The probability beyond that end.
    beyond: f64,
    /// Whether tails are counted from the far end: where less than half is left there.
    far: bool,
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

    /// Resolves the density `f` on panels that are halved until its series has converged on each.
    pub(crate) fn resolve(f: impl Fn(f64) -> f64) -> Self {
        let mut open = graded();
        let (mut edges, mut values) = (vec![0.0], Vec::new());
        while let Some((a, b)) = open.pop() {
            let row = legendre::points(a, b).map(&f);
            let middle = 0.5 * (a + b);
            if (b - a) * legendre::integral_and_tail(&row).1 > UNRESOLVED && b - a > NARROWEST {
                open.push((middle, b));
                open.push((a, middle));
            } else {
                edges.push(b);
                values.push(row);
            }
        }
        Self::new(edges, values)
    }

    /// The panel of v and the place within it, in [−1, 1].
    fn locate(&self, v: f64) -> (usize, f64) {
        let index = self.edges.partition_point(|&edge| edge <= v).clamp(1, self.panels.len()) - 1;
        let (near, far) = (self.edges[index], self.edges[index + 1]);
        (index, 2.0 * ((v - near) / (far - near)) - 1.0)
    }

    /// The density at v.
    pub(crate) fn density(&self, v: f64) -> f64 {
        let (index, x) = self.locate(v);
        legendre::value(&self.panels[index].density, x)
    }

    /// The probabilities between v and the bottom, and between v and the top.
    pub(crate) fn tails(&self, v: f64) -> Tails {
        let (index, x) = self.locate(v);
        let panel = &self.panels[index];
        if panel.far {
            let width = self.edges[index + 1] - v;
            let below = (panel.beyond + width * legendre::value(&panel.mean, -x)).max(0.0);
            Tails { below, above: (1.0 - below).max(0.0) }
        } else {
            let width = v - self.edges[index];
            let above = (panel.beyond + width * legendre::value(&panel.mean, x)).max(0.0);
            Tails { below: (1.0 - above).max(0.0), above }
        }
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
}

impl Panel {
    fn new(values: &Row, above: f64, below: f64) -> Self {
        let far = above > 0.5;
        let mut from_end = *values;
        if far {
            from_end.reverse();
        }
        Panel {
            density: legendre::fit(values),
            mean: legendre::running_mean(&from_end),
            beyond: if far { below } else { above },
            far,
        }
    }
}

/// The sum of all masses before each.
fn sums_before<'a>(masses: impl Iterator<Item = &'a f64>) -> Vec<f64> {
    let before = |sum: &mut f64, mass: &f64| Some(std::mem::replace(sum, *sum + mass));
    masses.scan(0.0, before).collect()
}
