//! Pearson's correlation: how closely two numbers of each thing lie on a line.

/// Pearson's correlation of pairs of numbers, in [−1, 1]; None where one side does not vary.
///
/// Equation: Σ(x − x̄)(y − ȳ) / √(Σ(x − x̄)²·Σ(y − ȳ)²).
#[must_use]
pub fn correlation(pairs: &[(f64, f64)]) -> Option<f64> {
    let varies = |of: fn(&(f64, f64)) -> f64| pairs.iter().any(|pair| of(pair) != of(&pairs[0]));
    if !varies(|pair| pair.0) || !varies(|pair| pair.1) {
        return None;
    }
    let n = pairs.len() as f64;
    let (x, y) = pairs.iter().fold((0.0, 0.0), |(x, y), pair| (x + pair.0 / n, y + pair.1 / n));
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for pair in pairs {
        let (dx, dy) = (pair.0 - x, pair.1 - y);
        (xx, xy, yy) = (xx + dx * dx, xy + dx * dy, yy + dy * dy);
    }
    Some(xy / (xx * yy).sqrt()).filter(|correlation| correlation.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_vary_has_none() {
        for constant in [0.0, f64::from(0.1_f32), 1e300] {
            let pairs: Vec<(f64, f64)> = (0..7).map(|x| (f64::from(x), constant)).collect();
            let turned: Vec<(f64, f64)> = pairs.iter().map(|(x, y)| (*y, *x)).collect();
            assert_eq!([correlation(&pairs), correlation(&turned)], [None, None]);
        }
        assert_eq!(correlation(&[]), None);
    }

    #[test]
    fn lines_and_a_sample_worked_by_hand() {
        let line = |slope: f64| [0.0, 1.0, 5.0].map(|x| (x, slope * x + 2.0));
        assert!((correlation(&line(3.0)).unwrap() - 1.0).abs() < 1e-12);
        assert!((correlation(&line(-0.1)).unwrap() + 1.0).abs() < 1e-12);
        // Sums of squares 2 and 8/3, of products 2: 2/√(16/3).
        let sample = [(1.0, 1.0), (2.0, 1.0), (3.0, 3.0)];
        assert!((correlation(&sample).unwrap() - 0.75_f64.sqrt()).abs() < 1e-12);
    }
}
