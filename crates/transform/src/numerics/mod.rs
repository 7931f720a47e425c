//! Numerical tools: quadrature, root finding, and functions that would otherwise cancel.

pub(crate) mod gauss;
pub(crate) mod laplace;
pub(crate) mod legendre;
pub(crate) mod piecewise;
pub(crate) mod root;

/// e^x − 1 − x, without cancellation near 0; about x²/2 there.
pub(crate) fn exp_m1_minus(x: f64) -> f64 {
    if x.abs() > 0.5 {
        return x.exp_m1() - x;
    }
    let mut term = 0.5 * x * x;
    let mut sum = term;
    // Below 2⁻⁵³ relative after 14 terms: 0.5¹⁴·2/16! is 6e-18.
    for k in 3..17 {
        term *= x / f64::from(k);
        sum += term;
    }
    sum
}

/// f·log f − f + 1 of a density f given as its logarithm: its integral over [0, 1] is the KL of f.
///
/// Never negative, and small to second order where f is near 1, so that small divergences keep all
/// their digits.
pub(crate) fn divergence(log_density: f64) -> f64 {
    if log_density < -40.0 {
        return 1.0 + (log_density - 1.0) * log_density.exp();
    }
    log_density.exp() * exp_m1_minus(-log_density)
}

/// log p of a probability p, from 1 − p when that is the smaller of the two.
pub(crate) fn log_of_share(p: f64, complement: f64) -> f64 {
    if complement < 0.5 { (-complement).ln_1p() } else { p.ln() }
}

/// The greatest of numbers from 0 on; NaN if any is, which must not be passed over.
pub(crate) fn greatest(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, |most: f64, one| if most >= one || most.is_nan() { most } else { one })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_arguments_keep_their_digits() {
        for x in [1e-9, -1e-9, 1e-4, -1e-4] {
            let series = x * x / 2.0 * (1.0 + x / 3.0 + x * x / 12.0);
            assert!((exp_m1_minus(x) / series - 1.0).abs() < 1e-12, "{x}");
        }
        let (below, above) = (exp_m1_minus(0.5), exp_m1_minus(0.5 + 1e-15));
        assert!((below - above).abs() < 1e-14);
    }

    #[test]
    fn divergence_is_its_definition_and_survives_extremes() {
        for log_density in [-30.0, -1.0, -0.3, 0.2, 1.0, 5.0f64] {
            let f = log_density.exp();
            let direct = f * log_density - f + 1.0;
            assert!((divergence(log_density) - direct).abs() < 1e-12 * (1.0 + direct));
        }
        assert_eq!(divergence(-800.0), 1.0);
        assert_eq!(divergence(0.0), 0.0);
    }
}
