//! Ridge regression on standardised features.

use serde::{Deserialize, Serialize};

/// y ≈ intercept + Σ weightᵢ·(hᵢ − meanᵢ)/spreadᵢ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ridge {
    mean: Vec<f64>,
    spread: Vec<f64>,
    weight: Vec<f64>,
    intercept: f64,
}

impl Ridge {
    /// Minimises Σ (y − ŷ)² + strength·n·|weight|², n the number of examples.
    ///
    /// - `features`: `[n][width]`; `targets`: n of them; `strength`: above 0.
    pub(crate) fn fit(features: &[&[f32]], targets: &[f64], strength: f64) -> Self {
        let n = features.len() as f64;
        let width = features.first().map_or(0, |h| h.len());
        let column = |i: usize| features.iter().map(move |h| f64::from(h[i]));
        let mean: Vec<f64> = (0..width).map(|i| column(i).sum::<f64>() / n).collect();
        let spread = |i: usize| (column(i).map(|x| (x - mean[i]).powi(2)).sum::<f64>() / n).sqrt();
        // A feature that never changes says nothing.
        let spread: Vec<f64> =
            (0..width).map(spread).map(|s| if s > 0.0 { s } else { 1.0 }).collect();
        let intercept = targets.iter().sum::<f64>() / n;
        let centred: Vec<f64> = targets.iter().map(|y| y - intercept).collect();
        let z: Vec<Vec<f64>> = features.iter().map(|h| standardised(h, &mean, &spread)).collect();
        let weight = if features.len() < width {
            dual(&z, &centred, strength * n)
        } else {
            primal(&z, &centred, strength * n)
        };
        Self { mean, spread, weight, intercept }
    }

    pub(crate) fn at(&self, features: &[f32]) -> f64 {
        self.intercept + dot(&self.weight, &standardised(features, &self.mean, &self.spread))
    }

    /// Whether all parts have one length.
    pub(crate) fn is_whole(&self) -> bool {
        self.mean.len() == self.weight.len() && self.spread.len() == self.weight.len()
    }

    pub(crate) fn width(&self) -> usize {
        self.weight.len()
    }
}

fn standardised(features: &[f32], mean: &[f64], spread: &[f64]) -> Vec<f64> {
    let parts = features.iter().zip(mean).zip(spread);
    parts.map(|((&h, mean), spread)| (f64::from(h) - mean) / spread).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// (ZᵀZ + λ)⁻¹·Zᵀy.
fn primal(z: &[Vec<f64>], y: &[f64], lambda: f64) -> Vec<f64> {
    let width = z[0].len();
    let mut gram = vec![vec![0.0; width]; width];
    let mut right = vec![0.0; width];
    for (row, y) in z.iter().zip(y) {
        for i in 0..width {
            right[i] += row[i] * y;
            for j in 0..=i {
                gram[i][j] += row[i] * row[j];
            }
        }
    }
    solve(gram, right, lambda)
}

/// Zᵀ·(ZZᵀ + λ)⁻¹·y: the same, cheaper where there are fewer examples than features.
fn dual(z: &[Vec<f64>], y: &[f64], lambda: f64) -> Vec<f64> {
    let gram = (0..z.len()).map(|i| (0..z.len()).map(|j| dot(&z[i], &z[j])).collect()).collect();
    let shares = solve(gram, y.to_vec(), lambda);
    let sum = |i: usize| z.iter().zip(&shares).map(|(row, share)| row[i] * share).sum();
    (0..z[0].len()).map(sum).collect()
}

/// (A + λ)⁻¹·b by Cholesky's decomposition, of a positive semidefinite A whose lower half is given.
fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>, lambda: f64) -> Vec<f64> {
    let n = b.len();
    for i in 0..n {
        a[i][i] += lambda;
        for j in 0..=i {
            let (above, below) = a.split_at_mut(i);
            let (row_j, row_i) = (if j < i { &above[j] } else { &below[0] }, &below[0]);
            let rest = row_i[j] - dot(&row_i[..j], &row_j[..j]);
            let value = if j < i { rest / row_j[j] } else { rest.sqrt() };
            below[0][j] = value;
        }
        b[i] = (b[i] - dot(&a[i][..i], &b[..i])) / a[i][i];
    }
    for i in (0..n).rev() {
        let rest: f64 = (i + 1..n).map(|k| a[k][i] * b[k]).sum();
        b[i] = (b[i] - rest) / a[i][i];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_fulfil_the_normal_equations() {
        let z = vec![
            vec![1.0, 2.0, -1.0],
            vec![0.5, -1.0, 3.0],
            vec![2.0, 0.0, 1.0],
            vec![-1.0, 1.0, 1.0],
        ];
        let (y, lambda) = ([1.0, -2.0, 0.5, 3.0], 0.7);
        for weight in [primal(&z, &y, lambda), dual(&z, &y, lambda)] {
            for i in 0..3 {
                let left: f64 =
                    z.iter().zip(&y).map(|(row, y)| row[i] * (dot(row, &weight) - y)).sum();
                assert!((left + lambda * weight[i]).abs() < 1e-12, "{weight:?}");
            }
        }
    }

    #[test]
    fn a_line_is_found_and_constant_features_are_harmless() {
        let features: Vec<Vec<f32>> = (0..20).map(|i| vec![i as f32, 4.0]).collect();
        let rows: Vec<&[f32]> = features.iter().map(Vec::as_slice).collect();
        let targets: Vec<f64> = (0..20).map(|i| 3.0 * f64::from(i) - 1.0).collect();
        let ridge = Ridge::fit(&rows, &targets, 1e-12);
        assert!((ridge.at(&[30.0, 4.0]) - 89.0).abs() < 1e-6);
        assert_eq!(ridge.width(), 2);
    }
}
