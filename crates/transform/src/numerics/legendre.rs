//! Functions on one panel as Legendre series through the 20 Gauss nodes, and their integrals.

use std::array::from_fn;
use std::sync::LazyLock;

use super::gauss::RULE;

/// Nodes of the rule, and coefficients of a series.
pub(crate) const NODES: usize = 2 * RULE.len();

/// One value a node, or one coefficient a degree.
pub(crate) type Row = [f64; NODES];

type Matrix = [Row; NODES];

/// What only depends on the rule.
struct Basis {
    /// Values at the nodes → coefficients.
    fit: Matrix,
    /// Values at the nodes → integrals from −1 to each node.
    integrate: Matrix,
    /// Values at the nodes → coefficients of the mean over [−1, x] as a function of x.
    mean: Matrix,
}

static BASIS: LazyLock<Basis> = LazyLock::new(Basis::new);

/// The i-th node in ascending order, in [−1, 1].
pub(crate) fn node(i: usize) -> f64 {
    let half = RULE.len();
    if i < half { -RULE[i].0 } else { RULE[NODES - 1 - i].0 }
}

/// Its weight on [−1, 1].
pub(crate) fn weight(i: usize) -> f64 {
    RULE[i.min(NODES - 1 - i)].1
}

/// P₀(x) to P₂₀(x).
fn polynomials(x: f64) -> [f64; NODES + 1] {
    let mut p = [1.0; NODES + 1];
    p[1] = x;
    for k in 1..NODES {
        let n = k as f64;
        p[k + 1] = ((2.0 * n + 1.0) * x * p[k] - n * p[k - 1]) / (n + 1.0);
    }
    p
}

impl Basis {
    fn new() -> Self {
        let at_nodes: [[f64; NODES + 1]; NODES] = from_fn(|i| polynomials(node(i)));
        let fit: Matrix = from_fn(|k| from_fn(|i| (k as f64 + 0.5) * weight(i) * at_nodes[i][k]));
        // ∫₋₁ˣ P_k = (P_{k+1}(x) − P_{k−1}(x))/(2k + 1), and 1 + x for k = 0.
        let primitive = |i: usize, k: usize| match k {
            0 => 1.0 + node(i),
            _ => (at_nodes[i][k + 1] - at_nodes[i][k - 1]) / (2 * k + 1) as f64,
        };
        let integrate: Matrix =
            from_fn(|i| from_fn(|j| (0..NODES).map(|k| primitive(i, k) * fit[k][j]).sum()));
        let mean: Matrix = from_fn(|k| {
            from_fn(|j| (0..NODES).map(|i| fit[k][i] * integrate[i][j] / (1.0 + node(i))).sum())
        });
        Basis { fit, integrate, mean }
    }
}

fn apply(matrix: &Matrix, values: &Row) -> Row {
    from_fn(|i| dot(&matrix[i], values))
}

fn dot(a: &Row, b: &Row) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The nodes of the panel from `a` to `b`, in that order.
pub(crate) fn points(a: f64, b: f64) -> Row {
    from_fn(|i| 0.5 * (a + b) + 0.5 * (b - a) * node(i))
}

/// Coefficients of the series through the values at the nodes.
pub(crate) fn fit(values: &Row) -> Row {
    apply(&BASIS.fit, values)
}

/// Integrals from −1 to each node.
pub(crate) fn integrals(values: &Row) -> Row {
    apply(&BASIS.integrate, values)
}

/// Coefficients of x ↦ (∫₋₁ˣ f)/(1 + x), the mean to the left of x, which keeps its digits at −1.
pub(crate) fn running_mean(values: &Row) -> Row {
    apply(&BASIS.mean, values)
}

/// ∫₋₁¹ f, and how much of the series is in its last two terms: nothing, if it has converged.
pub(crate) fn integral_and_tail(values: &Row) -> (f64, f64) {
    let sum = (0..NODES).map(|i| weight(i) * values[i]).sum();
    let last = [NODES - 2, NODES - 1].map(|k| dot(&BASIS.fit[k], values).abs());
    (sum, last[0] + last[1])
}

/// (2k + 1)/(k + 1) and (k + 1)/(k + 2) of the recurrence, which would otherwise be divisions at every point.
const CLENSHAW: [(f64, f64); NODES] = {
    let mut factors = [(0.0, 0.0); NODES];
    let mut k = 0;
    while k < NODES {
        let n = k as f64;
        factors[k] = ((2.0 * n + 1.0) / (n + 1.0), (n + 1.0) / (n + 2.0));
        k += 1;
    }
    factors
};

/// The series at x, by Clenshaw's recurrence.
pub(crate) fn value(coefficients: &Row, x: f64) -> f64 {
    let (mut next, mut after) = (0.0, 0.0);
    for (coefficient, (slope, rest)) in coefficients.iter().zip(&CLENSHAW).rev() {
        let here = coefficient + (slope * x) * next - rest * after;
        (next, after) = (here, next);
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_integrals_and_means_of_an_exponential() {
        let values = points(-1.0, 1.0).map(|x| (1.5 * x).exp());
        let (series, mean) = (fit(&values), running_mean(&values));
        for x in [-1.0, -0.999, -0.2, 0.5, 1.0f64] {
            let error = value(&series, x) - (1.5 * x).exp();
            assert!(error.abs() < 1e-13, "{x}: {error}");
            let width = 1.0 + x;
            let exact = if width == 0.0 { 1.0 } else { (1.5 * width).exp_m1() / (1.5 * width) };
            assert!((value(&mean, x) / exact / (-1.5f64).exp() - 1.0).abs() < 1e-13, "{x}");
        }
        let left = integrals(&values);
        for (i, left) in left.iter().enumerate() {
            let exact = (-1.5f64).exp() * (1.5 * (1.0 + node(i))).exp_m1() / 1.5;
            assert!((left - exact).abs() < 1e-14);
        }
        let (whole, tail) = integral_and_tail(&values);
        assert!((whole - 2.0 * 1.5f64.sinh() / 1.5).abs() < 1e-14 && tail < 1e-13);
    }

    #[test]
    fn a_kink_shows_in_the_tail() {
        let (_, tail) = integral_and_tail(&points(-1.0, 1.0).map(|x| (x - 0.3).abs()));
        assert!(tail > 1e-3);
    }
}
