//! Gauss–Legendre quadrature: one panel, and panels halved until they agree with themselves.

use super::legendre;

/// Nodes and weights of the 20-point rule on [−1, 1]; the negative nodes mirror these.
pub(super) const RULE: [(f64, f64); 10] = [
    (0.9931285991850949, 0.017614007139152118),
    (0.9639719272779138, 0.04060142980038694),
    (0.912234428251326, 0.06267204833410907),
    (0.8391169718222188, 0.08327674157670475),
    (0.7463319064601508, 0.10193011981724044),
    (0.636053680726515, 0.11819453196151841),
    (0.5108670019508271, 0.13168863844917664),
    (0.37370608871541955, 0.14209610931838204),
    (0.22778585114164507, 0.14917298647260374),
    (0.07652652113349734, 0.15275338713072584),
];

/// Panels whose series end in less than this are not halved.
const TOLERANCE: f64 = 1e-14;
/// Greatest number of halvings of one panel.
const DEEPEST: u32 = 40;

/// ∫ₐᵇ f by the 20-point rule: exact for polynomials of degree 39.
pub(crate) fn panel(f: impl Fn(f64) -> f64, a: f64, b: f64) -> f64 {
    let (middle, half) = (0.5 * (a + b), 0.5 * (b - a));
    let pair =
        |&(node, weight): &(f64, f64)| weight * (f(middle - half * node) + f(middle + half * node));
    half * RULE.iter().map(pair).sum::<f64>()
}

/// ∫ₐᵇ f, halving until the series of f on each panel ends in terms below [`TOLERANCE`], an absolute
/// error: the rule itself is then far more exact.
pub(crate) fn adaptive(f: &impl Fn(f64) -> f64, a: f64, b: f64) -> f64 {
    let mut open = vec![(a, b, 0)];
    let mut sum = 0.0;
    while let Some((a, b, depth)) = open.pop() {
        let half = 0.5 * (b - a);
        let (integral, tail) = legendre::integral_and_tail(&legendre::points(a, b).map(f));
        if half * tail > TOLERANCE && depth < DEEPEST {
            let middle = 0.5 * (a + b);
            open.push((a, middle, depth + 1));
            open.push((middle, b, depth + 1));
        } else {
            sum += half * integral;
        }
    }
    sum
}

/// ∫₀¹ f(log y) dy for an integrand that may change quickly near either end of y.
///
/// Panels shrink geometrically towards both ends, and `f` receives log y, which keeps its digits near
/// y = 1 too. Meant for f of order one; absolute error about 1e-13.
pub(crate) fn unit(f: impl Fn(f64) -> f64) -> f64 {
    let from_zero = |y: f64| f(y.ln());
    let from_one = |z: f64| f((-z).ln_1p());
    let mut sum = 0.0;
    let mut top = 0.5;
    while top > 1e-15 {
        let bottom = top / 8.0;
        sum += adaptive(&from_zero, bottom, top);
        sum += adaptive(&from_one, bottom, top);
        top = bottom;
    }
    sum + panel(from_zero, 0.0, top) + panel(from_one, 0.0, top)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_panel_is_exact_for_degree_39() {
        for degree in [0, 1, 2, 20, 38, 39] {
            let exact = (1.0 - (-0.5f64).powi(degree + 1)) / f64::from(degree + 1);
            let got = panel(|x| x.powi(degree), -0.5, 1.0);
            assert!((got - exact).abs() < 1e-15, "degree {degree}: {got} against {exact}");
        }
    }

    #[test]
    fn halving_resolves_a_narrow_bell() {
        let bell = |x: f64| (-((x - 0.3) / 0.01).powi(2)).exp();
        let exact = 0.01 * std::f64::consts::PI.sqrt();
        assert!((adaptive(&bell, 0.0, 0.7) - exact).abs() < 1e-15);
    }

    #[test]
    fn unit_integral_resolves_powers_at_both_ends() {
        // ∫ y^p = 1/(p+1), from nearly constant to nearly all at y = 1; and the mirror image.
        for power in [1e-6, 0.3, 1.0, 100.0, 1e6, 1e9] {
            let exact = 1.0 / (power + 1.0);
            let got = unit(|log_y| (power * log_y).exp());
            assert!((got - exact).abs() < 1e-13, "power {power}: {got} against {exact}");
            let mirrored = unit(|log_y| (power * (-log_y.exp()).ln_1p()).exp());
            assert!((mirrored - exact).abs() < 1e-13, "power {power}: {mirrored}");
        }
    }
}
