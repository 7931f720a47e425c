//! Root finding between two points of opposite sign.

/// Values of `f` nearer to 0 than this count as 0.
const ZERO: f64 = 1e-14;

/// The x in [a, b] where the continuous `f`, of order one, changes sign, to about 4 units in the last place
/// of x or of 1 in f.
///
/// Chandrupatla's method: inverse quadratic interpolation where the last three points allow it,
/// bisection elsewhere. Returns `None` when `f(a)` and `f(b)` have the same sign, or one is NaN.
pub(crate) fn bracketed(f: impl Fn(f64) -> f64, a: f64, b: f64) -> Option<f64> {
    let f = |x: f64| {
        let value = f(x);
        if value.abs() < ZERO { 0.0 } else { value }
    };
    let (mut a, mut b) = (a, b);
    let (mut fa, mut fb) = (f(a), f(b));
    let brackets = (fa <= 0.0 && fb >= 0.0) || (fa >= 0.0 && fb <= 0.0);
    if !brackets {
        return None;
    }
    let mut share = 0.5;
    for _ in 0..200 {
        let x = a + share * (b - a);
        let fx = f(x);
        let (c, fc) = if (fx > 0.0) == (fa > 0.0) {
            (a, fa)
        } else {
            let previous = (b, fb);
            (b, fb) = (a, fa);
            previous
        };
        (a, fa) = (x, fx);
        let best = if fa.abs() < fb.abs() { a } else { b };
        let least_share = 2.0 * f64::EPSILON * best.abs() / (b - a).abs();
        if fa == 0.0 || fb == 0.0 || least_share > 0.5 {
            return Some(best);
        }
        share = next_share((a, fa), (b, fb), (c, fc)).clamp(least_share, 1.0 - least_share);
    }
    Some(a)
}

/// Where between a and b to look next, as a share of the way.
fn next_share((a, fa): (f64, f64), (b, fb): (f64, f64), (c, fc): (f64, f64)) -> f64 {
    let xi = (a - b) / (c - b);
    let phi = (fa - fb) / (fc - fb);
    let interpolates = phi * phi < xi && (1.0 - phi).powi(2) < 1.0 - xi;
    if !interpolates {
        return 0.5;
    }
    fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_roots_of_flat_and_steep_functions() {
        let cube = bracketed(|x| (x - 0.7).powi(3), -5.0, 9.0).unwrap();
        assert!((cube - 0.7).abs() < 1e-5);
        let log = bracketed(|x| (x + 460.5).atan(), -690.0, 690.0).unwrap();
        assert!((log + 460.5).abs() < 1e-12);
        let cosine = bracketed(f64::cos, 0.0, 3.0).unwrap();
        assert!((cosine - std::f64::consts::FRAC_PI_2).abs() < 1e-15);
    }

    #[test]
    fn needs_a_change_of_sign() {
        assert_eq!(bracketed(|x| x * x + 1.0, -1.0, 1.0), None);
        assert_eq!(bracketed(|_| f64::NAN, -1.0, 1.0), None);
    }
}
