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

/// Examples that several regressions have in common.
pub(crate) struct Design {
    mean: Vec<f64>,
    spread: Vec<f64>,
    /// `[n][width]`: the features, standardised.
    z: Vec<Vec<f64>>,
    /// The lower half of ZᵀZ, or of ZZᵀ where there are fewer examples than features.
    gram: Vec<Vec<f64>>,
}

/// The regressions of one strength.
pub(crate) struct Regressions<'a> {
    design: &'a Design,
    /// The lower factor of the Gram matrix with the strength on its diagonal.
    factor: Vec<Vec<f64>>,
}

impl Design {
    /// - `features`: `[n][width]`.
    pub(crate) fn new(features: &[&[f32]]) -> Self {
        let n = features.len() as f64;
        let width = features.first().map_or(0, |h| h.len());
        let column = |i: usize| features.iter().map(move |h| f64::from(h[i]));
        let mean: Vec<f64> = (0..width).map(|i| column(i).sum::<f64>() / n).collect();
        let spread = |i: usize| (column(i).map(|x| (x - mean[i]).powi(2)).sum::<f64>() / n).sqrt();
        // A feature that never changes says nothing.
        let spread: Vec<f64> =
            (0..width).map(spread).map(|s| if s > 0.0 { s } else { 1.0 }).collect();
        let z: Vec<Vec<f64>> = features.iter().map(|h| standardised(h, &mean, &spread)).collect();
        let gram = if z.len() < width { gram_of_rows(&z) } else { gram_of_columns(&z) };
        Self { mean, spread, z, gram }
    }

    /// - `strength`: above 0.
    pub(crate) fn regressions(&self, strength: f64) -> Regressions<'_> {
        let factor = cholesky(self.gram.clone(), strength * self.z.len() as f64);
        Regressions { design: self, factor }
    }
}

impl Regressions<'_> {
    /// Minimises Σ (y − ŷ)² + strength·n·|weight|², n the number of examples.
    ///
    /// - `targets`: n of them.
    pub(crate) fn fit(&self, targets: &[f64]) -> Ridge {
        let Design { mean, spread, z, .. } = self.design;
        let intercept = targets.iter().sum::<f64>() / targets.len() as f64;
        let centred: Vec<f64> = targets.iter().map(|y| y - intercept).collect();
        let weight = if z.len() < mean.len() {
            // Zᵀ·(ZZᵀ + λ)⁻¹·y: the same, cheaper where there are fewer examples than features.
            transposed(z, &solve(&self.factor, centred))
        } else {
            // (ZᵀZ + λ)⁻¹·Zᵀy.
            solve(&self.factor, transposed(z, &centred))
        };
        Ridge { mean: mean.clone(), spread: spread.clone(), weight, intercept }
    }
}

impl Ridge {
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

/// The lower half of ZᵀZ.
fn gram_of_columns(z: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let width = z[0].len();
    let mut gram: Vec<Vec<f64>> = (1..=width).map(|below| vec![0.0; below]).collect();
    for row in z {
        for (sums, &x) in gram.iter_mut().zip(row) {
            sums.iter_mut().zip(row).for_each(|(sum, y)| *sum += x * y);
        }
    }
    gram
}

/// The lower half of ZZᵀ.
fn gram_of_rows(z: &[Vec<f64>]) -> Vec<Vec<f64>> {
    (0..z.len()).map(|i| (0..=i).map(|j| dot(&z[i], &z[j])).collect()).collect()
}

/// Zᵀ·y.
fn transposed(z: &[Vec<f64>], y: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0; z[0].len()];
    for (row, y) in z.iter().zip(y) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x * y);
    }
    sums
}

/// The lower factor L of A + λ = L·Lᵀ, of a positive semidefinite A whose lower half is given.
fn cholesky(mut a: Vec<Vec<f64>>, lambda: f64) -> Vec<Vec<f64>> {
    for i in 0..a.len() {
        let (above, below) = a.split_at_mut(i);
        let row = &mut below[0];
        row[i] += lambda;
        for j in 0..i {
            row[j] = (row[j] - dot(&row[..j], &above[j][..j])) / above[j][j];
        }
        row[i] = (row[i] - dot(&row[..i], &row[..i])).sqrt();
    }
    a
}

/// (L·Lᵀ)⁻¹·b.
fn solve(factor: &[Vec<f64>], mut b: Vec<f64>) -> Vec<f64> {
    for i in 0..b.len() {
        b[i] = (b[i] - dot(&factor[i][..i], &b[..i])) / factor[i][i];
    }
    for i in (0..b.len()).rev() {
        let rest: f64 = (i + 1..b.len()).map(|k| factor[k][i] * b[k]).sum();
        b[i] = (b[i] - rest) / factor[i][i];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_equations_are_fulfilled_by_many_examples_and_by_few() {
        let all = [[1.0_f32, 2.0, -1.0], [0.5, -1.0, 3.0], [2.0, 0.0, 1.0], [-1.0, 1.0, 1.0]];
        let (targets, strength) = ([1.0, -2.0, 0.5, 3.0], 0.2);
        for count in [4, 2] {
            let features: Vec<&[f32]> = all[..count].iter().map(|row| &row[..]).collect();
            let design = Design::new(&features);
            let y = &targets[..count];
            let ridge = design.regressions(strength).fit(y);
            for i in 0..3 {
                let residual = |(row, y): (&Vec<f64>, &f64)| {
                    row[i] * (ridge.intercept + dot(row, &ridge.weight) - y)
                };
                let left: f64 = design.z.iter().zip(y).map(residual).sum();
                let penalty = strength * count as f64 * ridge.weight[i];
                assert!((left + penalty).abs() < 1e-12, "{count}: {:?}", ridge.weight);
            }
        }
    }

    #[test]
    fn a_line_is_found_and_constant_features_are_harmless() {
        let features: Vec<Vec<f32>> = (0..20).map(|i| vec![i as f32, 4.0]).collect();
        let rows: Vec<&[f32]> = features.iter().map(Vec::as_slice).collect();
        let targets: Vec<f64> = (0..20).map(|i| 3.0 * f64::from(i) - 1.0).collect();
        let ridge = Design::new(&rows).regressions(1e-12).fit(&targets);
        assert!((ridge.at(&[30.0, 4.0]) - 89.0).abs() < 1e-6);
        assert_eq!(ridge.width(), 2);
    }
}
