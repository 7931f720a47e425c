//! log Z of the optimum π* = π_ref e^{Φ/β}/Z, from a prompt's row of the calibration table.

use infalign_calibrate::Row;

use crate::objective::{Pointwise, RewardScale};

/// log E[e^{Φ(u)/β}] of a fresh response of π_ref, u as the trainer computes it from the row.
///
/// Where no two rewards of the row are equal, a fresh reward falls into each of the K + 1 gaps between them with the same probability, so that
/// u is uniform on (j + ½)/(K + 1), and this is the integral ∫e^{Φ/β} as far as K rewards know u. Where all rewards tie they are atoms, each
/// with its share. Between the two, let s be the share of the rewards that tie: one that came once is an atom to the part s, and to the part
/// 1 − s it gives half of its place to the gap on either side, and a whole one beyond it where it is the least or the greatest. So an accidental
/// tie changes little, but for one of the two greatest, which is an atom where Φ may be steepest. The reward itself is no function of u; there each reward of the row has its share.
///
/// That is a mean over tables. Of one table, whose gaps are not equally likely, log Z is off, for `exp:10` at half a nat with a standard
/// deviation of 0.26 for K = 16, 0.17 for 64 and 0.12 for 128.
///
/// - scale: what r is measured by on the row's prompt.
/// - beta: on the scale of [`Pointwise::apply`].
pub(crate) fn log_partition(
    row: &Row,
    objective: Pointwise<'_>,
    scale: RewardScale,
    beta: f64,
) -> f64 {
    let phi = |reward: f32, u: f64| objective.apply(reward, u, scale) / beta;
    let places = row.samples() as f64 + 1.0;
    let of_gap = |(weight, below): (f64, usize)| (weight, phi(0.0, (below as f64 + 0.5) / places));
    let atoms: Vec<&[f32]> = row.values().chunk_by(|a, b| a == b).collect();
    let of_atom = |atom: &&[f32]| (atom.len() as f64, phi(atom[0], row.quantile(atom[0])));
    let calibrated = matches!(objective, Pointwise::Calibrated(_));
    if calibrated && row.rewards().is_some() {
        let shares = of_single(&atoms);
        let of_atom = |atom: &&[f32]| {
            let (weight, phi) = of_atom(atom);
            (if weight > 1.0 { weight } else { shares.0 }, phi)
        };
        let gaps = gaps(&atoms, shares.1).into_iter().zip(counts_below(&atoms));
        return log_mean_exp(atoms.iter().map(of_atom).chain(gaps.map(of_gap)));
    }
    // A tie of quantiles is no tie of rewards, but a share of them.
    if calibrated && atoms.len() == row.values().len() {
        return log_mean_exp((0..=row.samples()).map(|below| of_gap((1.0, below))));
    }
    log_mean_exp(atoms.iter().map(of_atom))
}

/// Which parts of a reward that came once are an atom, and belong to the gaps beside it.
fn of_single(atoms: &[&[f32]]) -> (f64, f64) {
    let all: usize = atoms.iter().map(|atom| atom.len()).sum();
    let singles = atoms.iter().filter(|atom| atom.len() == 1).count();
    let to_gaps = singles as f64 / all as f64;
    (1.0 - to_gaps, to_gaps)
}

/// The places of each gap, from below the least atom to above the greatest: of either neighbour that came once, half of what it gives.
fn gaps(atoms: &[&[f32]], given: f64) -> Vec<f64> {
    let half = |atom: &[f32]| if atom.len() == 1 { 0.5 * given } else { 0.0 };
    let last = atoms.len() - 1;
    let of_gap = |gap: usize| half(atoms[gap.saturating_sub(1)]) + half(atoms[gap.min(last)]);
    (0..=atoms.len()).map(of_gap).collect()
}

/// How many rewards are below each gap.
fn counts_below(atoms: &[&[f32]]) -> Vec<usize> {
    let after = |below: &mut usize, atom: &&[f32]| {
        *below += atom.len();
        Some(*below)
    };
    std::iter::once(0).chain(atoms.iter().scan(0, after)).collect()
}

/// log of the mean of e^x, of pairs of weight and x.
fn log_mean_exp(terms: impl Iterator<Item = (f64, f64)>) -> f64 {
    // What has no weight must not set the scale.
    let terms: Vec<(f64, f64)> = terms.filter(|(weight, _)| *weight > 0.0).collect();
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
        // Of a prompt with rewards 0, 0, 1 and 1: u is 3/10 and 7/10.
        let expected = (0.5 * 3_f64.exp() + 0.5 * 7_f64.exp()).ln();
        assert!((log_z(vec![0.0, 1.0, 0.0, 1.0], "identity", 0.1) - expected).abs() < 1e-12);
        // Of 0, 0, 0 and 1, which came once: 3 places at 2/5, ¾ at 4/5, and of what is left half between them at 7/10 and a whole above, at 9/10.
        let places =
            3.0 * 4_f64.exp() + 0.75 * 8_f64.exp() + 0.125 * 7_f64.exp() + 0.25 * 9_f64.exp();
        let found = log_z(vec![0.0, 1.0, 0.0, 0.0], "identity", 0.1);
        assert!((found - (places / 4.125).ln()).abs() < 1e-12, "{found}");
        assert_eq!(log_z(vec![3.0; 16], "identity", 1e-4), 5000.0, "one atom at ½, without gaps");
        let raw = (0.5 + 0.5 * 1_f64.exp()).ln();
        assert!((log_z(vec![0.0, 1.0], "raw", 0.5) - raw).abs() < 1e-12, "in units of the spread");
        let standardised = (0.5 * (-2_f64 / 0.5).exp() + 0.5).ln();
        assert!((log_z(vec![0.0, 1.0], "standardized", 0.5) - standardised).abs() < 1e-12);
    }

    /// `exp:10` at half a nat, whose β is 7011.9 on the raw scale.
    #[test]
    fn an_accidental_tie_changes_little() {
        let beta = 7011.9 / 10_f64.exp_m1();
        let of = |rewards: Vec<f32>| log_z(rewards, "exp:10", beta);
        let apart: Vec<f32> = (0..16_u16).map(f32::from).collect();
        // Not at the top, where it takes two places of what is above.
        for tie in 1..15 {
            let mut tied = apart.clone();
            tied[tie] = tied[tie - 1];
            assert!((of(tied) - of(apart.clone())).abs() < 0.05, "{tie}");
        }
    }
}
