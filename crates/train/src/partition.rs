//! log Z of the optimum π* = π_ref e^{Φ/β}/Z, from a prompt's row of the calibration table.

use infalign_calibrate::Row;

use crate::objective::{Pointwise, RewardScale};

/// log E[e^{Φ(u)/β}] of a fresh response of π_ref, u as the trainer computes it from the row.
///
/// Where no two rewards of the row are equal, a fresh reward falls into each of the K + 1 gaps between them with the same probability, so that
/// u is uniform on (j + ½)/(K + 1), and this is the integral ∫e^{Φ/β} as far as K rewards know u. Where rewards tie they are atoms, each with
/// its share of the row. The reward itself is no function of u; there each reward of the row has its share.
///
/// - scale: what r is measured by on the row's prompt.
/// - beta: on the scale of [`Pointwise::apply`].
pub(crate) fn log_partition(
    row: &Row,
    objective: Pointwise<'_>,
    scale: RewardScale,
    beta: f64,
) -> f64 {
    let values = row.values();
    let ties = values.windows(2).any(|pair| pair[0] == pair[1]);
    if ties || !matches!(objective, Pointwise::Calibrated(_)) {
        let atoms = values.chunk_by(|a, b| a == b);
        return log_mean_exp(atoms.map(|atom| {
            let phi = objective.apply(atom[0], row.quantile(atom[0]), scale);
            (atom.len() as f64, phi / beta)
        }));
    }
    let gaps = row.samples() + 1;
    let u = (0..gaps).map(|j| (j as f64 + 0.5) / gaps as f64);
    log_mean_exp(u.map(|u| (1.0, objective.apply(0.0, u, scale) / beta)))
}

/// log of the mean of e^x, of pairs of weight and x.
fn log_mean_exp(terms: impl Iterator<Item = (f64, f64)>) -> f64 {
    let terms: Vec<(f64, f64)> = terms.collect();
    let greatest = terms.iter().map(|(_, x)| *x).fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = terms.iter().map(|(w, x)| w * (x - greatest).exp()).sum();
    greatest + (total / terms.iter().map(|(w, _)| w).sum::<f64>()).ln()
}

#[cfg(test)]
mod tests {
    use infalign_calibrate::{Calibration, CalibrationMeta};

    use super::*;
    use crate::Objective;

    fn log_z(rewards: Vec<f32>, objective: &str, beta: f64) -> f64 {
        let mut table = Calibration::new(CalibrationMeta::default());
        table.insert("x", "x", rewards).unwrap();
        let scale = RewardScale { unit: 2.0, mean: 1.0, deviation: 0.5 };
        let objective: Objective = objective.parse().unwrap();
        log_partition(table.row("x").unwrap(), objective.pointwise().unwrap(), scale, beta)
    }

    #[test]
    fn without_ties_it_is_the_integral() {
        let rewards: Vec<f32> = (0..999_u16).map(f32::from).collect();
        // ∫e^{u/β} = β (e^{1/β} − 1), and ∫u^{1/β} = β/(1 + β).
        let identity = (0.25 * 4_f64.exp_m1()).ln();
        assert!((log_z(rewards.clone(), "identity", 0.25) - identity).abs() < 1e-5);
        assert!((log_z(rewards, "log", 0.5) - (1.0_f64 / 3.0).ln()).abs() < 1e-5);
    }

    #[test]
    fn atoms_have_their_shares() {
        // Of a prompt with rewards 0, 0, 0 and 1: u is 2/5 and 4/5.
        let expected = (0.75 * (0.4_f64 / 0.1).exp() + 0.25 * (0.8_f64 / 0.1).exp()).ln();
        assert!((log_z(vec![0.0, 1.0, 0.0, 0.0], "identity", 0.1) - expected).abs() < 1e-12);
        let raw = (0.5 + 0.5 * 1_f64.exp()).ln();
        assert!((log_z(vec![0.0, 1.0], "raw", 0.5) - raw).abs() < 1e-12, "in units of the spread");
        let standardised = (0.5 * (-2_f64 / 0.5).exp() + 0.5).ln();
        assert!((log_z(vec![0.0, 1.0], "standardized", 0.5) - standardised).abs() < 1e-12);
    }
}
