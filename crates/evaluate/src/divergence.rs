//! KL of a policy from the reference, and of what a procedure makes of a policy, with what kind of number each is.

use std::num::NonZeroUsize;

use infalign_decode::{KlKind, best_of_kl_bound};
use infalign_stats::{Choice, mean_and_standard_error};
use infalign_transform::{Composed, Procedure};
use serde::{Deserialize, Serialize};

use crate::contest::{Named, choice_among, weights};
use crate::{EvaluateError, Sampled};

/// A mean over prompts with its standard error, in nats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub estimate: f64,
    /// Its standard error over prompts.
    pub standard_error: f64,
}

/// A KL in nats per response.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kl {
    /// The KL.
    pub estimate: f64,
    /// Its standard error over prompts.
    pub standard_error: f64,
    /// What kind of number it is.
    pub kind: KlKind,
    /// The same from log-ratios alone; of estimates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k1: Option<Estimate>,
    /// The same from log-ratios, in the form that is never negative; of estimates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k3: Option<Estimate>,
}

/// KL(π‖π_ref) from the samples of a method, exact at every token; none where they do not tell it.
///
/// # Errors
/// [`EvaluateError::Stats`] for fewer than two prompts.
pub(crate) fn of_policy(sampled: &Sampled) -> Result<Option<Kl>, EvaluateError> {
    let Some(kl) = &sampled.kl else { return Ok(None) };
    let over = |values: Vec<f64>| -> Result<Estimate, EvaluateError> {
        let (estimate, standard_error) = mean_and_standard_error(&values)?;
        Ok(Estimate { estimate, standard_error })
    };
    let Estimate { estimate, standard_error } = over(kl.iter().map(|kl| kl.exact).collect())?;
    Ok(Some(Kl {
        estimate,
        standard_error,
        kind: KlKind::Estimate,
        k1: Some(over(kl.iter().map(|kl| kl.k1).collect())?),
        k3: Some(over(kl.iter().map(|kl| kl.k3).collect())?),
    }))
}

/// KL(T(π)‖π_ref) of what the procedure keeps, where the samples tell it: KL(T(π)‖π) + E_{T(π)}\[log π/π_ref\]. This is not the sum of
/// KL(T(π)‖π) and KL(π‖π_ref): what T keeps is where π is more, or less, ahead of π_ref than on average.
///
/// The standard error is at most the one that is given, the sum of those of both terms.
///
/// - `from_policy`: KL(T(π)‖π).
///
/// # Errors
/// [`EvaluateError`] when the procedure cannot be computed from the samples, or for fewer than two prompts.
pub(crate) fn to_reference(
    (method, sampled): Named<'_>,
    procedure: &Composed,
    from_policy: Option<Kl>,
) -> Result<Option<Kl>, EvaluateError> {
    let (Some(own), Some(ratios)) = (from_policy, &sampled.log_ratios) else { return Ok(None) };
    if *procedure == Procedure::Sample.into() {
        return Ok(None);
    }
    let choice = choice_among(method, sampled, procedure)?;
    let ratios: Vec<Vec<f64>> =
        ratios.iter().map(|of| of.iter().map(|&ratio| f64::from(ratio)).collect()).collect();
    let (mean, error) = mean_and_standard_error(&of_kept(choice, sampled, &ratios)?)?;
    let (estimate, standard_error) = (own.estimate + mean, own.standard_error + error);
    Ok(Some(Kl { estimate, standard_error, ..own }))
}

/// KL(T(π)‖π) of what the procedure keeps from the policy that it decodes from, where something is known of it.
///
/// A choice of one of N responses costs at most log N − (N−1)/N, which is what the best costs where no two rewards tie; blocks of M tokens, K of
/// them to choose from, at most that of K times the expected number of blocks (controlled decoding, arXiv 2310.17022, §3). A choice among
/// responses of another procedure costs that of the choice, and at most by how much the procedure may have made the kept one likelier.
///
/// # Errors
/// [`EvaluateError`] when the procedure cannot be computed from the samples, or for fewer than two prompts.
pub(crate) fn of_procedure(
    (method, sampled): Named<'_>,
    procedure: &Composed,
) -> Result<Option<Kl>, EvaluateError> {
    if sampled.procedure == Some(*procedure) && sampled.procedure_kl.is_some() {
        return Ok(sampled.procedure_kl);
    }
    let known = |estimate, standard_error, kind| {
        Ok(Some(Kl { estimate, standard_error, kind, k1: None, k3: None }))
    };
    match (procedure.selection, procedure.inner) {
        (selection, Procedure::Sample) => {
            let kl = infalign_decode::Kl::of_selection(selection);
            known(kl.nats, 0.0, kl.kind)
        }
        (Procedure::Sample, Procedure::CdBlock { length, samples }) => {
            let Some(tokens) = &sampled.tokens else { return Ok(None) };
            let blocks = |tokens: &usize| tokens.div_ceil(length.get()) as f64;
            let per_prompt: Vec<f64> = tokens
                .iter()
                .map(|all| all.iter().map(blocks).sum::<f64>() / all.len() as f64)
                .collect();
            let (mean, error) = mean_and_standard_error(&per_prompt)?;
            let block = best_of_kl_bound(samples);
            known(block * mean, block * error, KlKind::Bound)
        }
        (Procedure::Sample, _) => Ok(None),
        (selection, inner) => {
            let Some(likelier) = likelier(inner, sampled) else { return Ok(None) };
            let choice = choice_among(method, sampled, procedure)?;
            let (mean, error) = mean_and_standard_error(&of_kept(choice, sampled, &likelier)?)?;
            known(infalign_decode::Kl::of_selection(selection).nats + mean, error, KlKind::Bound)
        }
    }
}

/// At most how much likelier a procedure made each response than the policy does, in nats: `[prompts][samples]`. None where its responses do
/// not say.
fn likelier(procedure: Procedure, sampled: &Sampled) -> Option<Vec<Vec<f64>>> {
    let ln = |n: NonZeroUsize| (n.get() as f64).ln();
    let (once, a_block, length) = match procedure {
        Procedure::CdBlock { length, samples } => (0.0, ln(samples), length),
        Procedure::Beam { width, branch, length } => (ln(width), ln(branch), length),
        Procedure::PrunedBestOf { n, length, .. } => (ln(n), 0.0, length),
        _ => return None,
    };
    let of = |tokens: &usize| once + a_block * tokens.div_ceil(length.get()) as f64;
    Some(sampled.tokens.as_ref()?.iter().map(|all| all.iter().map(of).collect()).collect())
}

/// The mean of a number of each response over what is kept, prompt by prompt.
fn of_kept(
    choice: Choice,
    sampled: &Sampled,
    numbers: &[Vec<f64>],
) -> Result<Vec<f64>, EvaluateError> {
    let of_prompt = |(prompt, numbers): (usize, &Vec<f64>)| {
        let weights = weights(choice, sampled, prompt)?;
        Ok(weights.iter().zip(numbers).map(|(weight, number)| weight * number).sum())
    };
    numbers.iter().enumerate().map(of_prompt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_samples::samples;

    #[test]
    fn estimates_come_with_their_rivals_and_errors() {
        let kl = of_policy(&samples(0.0)).unwrap().unwrap();
        assert!((kl.estimate - 0.5).abs() < 1e-12 && (kl.standard_error - 0.1).abs() < 1e-12);
        assert!((kl.k1.unwrap().estimate - 0.55).abs() < 1e-12 && kl.kind == KlKind::Estimate);
        let unknown = Sampled { kl: None, ..samples(0.0) };
        assert_eq!(of_policy(&unknown).unwrap(), None);
    }

    #[test]
    fn procedures_have_a_kl_of_their_own_where_it_is_known() {
        let of = |procedure: &str| {
            of_procedure(("a", &samples(0.0)), &procedure.parse().unwrap()).unwrap()
        };
        for one in ["sample", "best-of:1"] {
            assert_eq!(of(one).map(|kl| (kl.estimate, kl.kind)), Some((0.0, KlKind::Exact)));
        }
        let four = of("worst-of:4").unwrap();
        assert!((four.estimate - (4f64.ln() - 0.75)).abs() < 1e-12 && four.kind == KlKind::Bound);
        assert_eq!(of("cd-token:lambda=1"), None);
        // 3 tokens are two blocks of 2.
        let block = of("cd-block:length=2,samples=2").unwrap();
        assert!((block.estimate - 2.0 * (2f64.ln() - 0.5)).abs() < 1e-12, "{block:?}");
    }

    #[test]
    fn any_choice_of_four_costs_at_most_what_the_best_does() {
        let rejection = "rejection:quantile=0.9,draws=4";
        for procedure in ["majority:4", "soft-best-of:4,temperature=0.5", rejection] {
            let kl =
                of_procedure(("a", &samples(0.0)), &procedure.parse().unwrap()).unwrap().unwrap();
            assert!((kl.estimate - (4f64.ln() - 0.75)).abs() < 1e-12, "{procedure}: {kl:?}");
            assert_eq!((kl.standard_error, kl.kind), (0.0, KlKind::Bound), "{procedure}");
        }
    }

    #[test]
    fn the_error_of_blocks_is_that_of_their_number() {
        // Of 3 and 7 tokens, 2 and 4 blocks of 2: 3 in the mean, with an error of 1.
        let sampled = Sampled { tokens: Some(vec![vec![3; 4], vec![7; 4]]), ..samples(0.0) };
        let procedure = "cd-block:length=2,samples=2".parse().unwrap();
        let kl = of_procedure(("a", &sampled), &procedure).unwrap().unwrap();
        let block = 2f64.ln() - 0.5;
        assert!((kl.estimate - 3.0 * block).abs() < 1e-12, "{kl:?}");
        assert!((kl.standard_error - block).abs() < 1e-12, "{kl:?}");
    }

    /// Responses of the policy e^{au}/Z of a rank u, at half a nat, at the middles of quantiles of equal mass.
    fn tilted_ranks() -> Sampled {
        let log_mass = |a: f64| (a.exp_m1() / a).ln();
        let kl = |a: f64| a / -(-a).exp_m1() - 1.0 - log_mass(a);
        let (mut low, mut high) = (1.0, 20.0);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if kl(middle) < 0.5 { low = middle } else { high = middle }
        }
        let n = 400;
        let rank = |k: usize| (((k as f64 + 0.5) / n as f64) * low.exp_m1()).ln_1p() / low;
        let ranks: Vec<f64> = (0..n).map(rank).collect();
        let ratios = ranks.iter().map(|u| (low * u - log_mass(low)) as f32).collect();
        let texts = vec![String::new(); n];
        Sampled {
            responses: vec![texts; 2],
            rewards: vec![ranks; 2],
            log_ratios: Some(vec![ratios; 2]),
            tokens: None,
            ..samples(0.0)
        }
    }

    #[test]
    fn what_is_kept_is_not_as_far_as_the_sum_of_both_kls() {
        let sampled = tilted_ranks();
        let of = |procedure: &str| {
            let procedure = procedure.parse().unwrap();
            let own = of_procedure(("a", &sampled), &procedure).unwrap();
            to_reference(("a", &sampled), &procedure, own).unwrap()
        };
        // By quadrature of log 4 − ¾ + ∫ 4F³ g log g du, and with (1 − F)³.
        for (procedure, expected) in [("best-of:4", 1.824), ("worst-of:4", 0.192)] {
            let kl = of(procedure).unwrap();
            assert!((kl.estimate - expected).abs() < 0.01, "{procedure}: {kl:?}");
            assert_eq!(kl.kind, KlKind::Bound);
        }
        assert_eq!(of("sample"), None, "it is the policy's own");
        assert_eq!(of("cd-token:lambda=1"), None, "of which nothing is known");
        let unknown = Sampled { log_ratios: None, ..sampled.clone() };
        let best = "best-of:4".parse().unwrap();
        let own = of_procedure(("a", &unknown), &best).unwrap();
        assert_eq!(to_reference(("a", &unknown), &best, own).unwrap(), None);
    }

    #[test]
    fn the_kl_that_was_measured_is_of_the_procedure_that_made_the_responses() {
        let made: Composed = "cd-block:length=2,samples=2".parse().unwrap();
        let measured =
            Kl { estimate: 0.25, standard_error: 0.01, kind: KlKind::Estimate, k1: None, k3: None };
        let sampled =
            Sampled { procedure: Some(made), procedure_kl: Some(measured), ..samples(0.0) };
        assert_eq!(of_procedure(("a", &sampled), &made).unwrap(), Some(measured));
    }

    #[test]
    fn a_choice_among_guided_responses_has_the_bound_of_both() {
        let bound = |inner: &str, tokens: [usize; 4]| {
            let made: Composed = inner.parse().unwrap();
            let tokens = Some(vec![tokens.to_vec(); 2]);
            let sampled = Sampled { procedure: Some(made), tokens, ..samples(0.0) };
            let over = format!("best-of:4 over {inner}").parse().unwrap();
            of_procedure(("a", &sampled), &over).unwrap()
        };
        let choice = 4f64.ln() - 0.75;
        // Of four, the last is kept, with 3 blocks; of one number of responses, as many as are begun.
        for (inner, nats) in [
            ("cd-block:length=2,samples=3", 3.0 * 3f64.ln()),
            ("beam:width=2,branch=3,length=2", 2f64.ln() + 3.0 * 3f64.ln()),
            ("pruned-best-of:8,length=2,keep=0.5", 8f64.ln()),
        ] {
            let kl = bound(inner, [1, 1, 1, 5]).unwrap();
            assert!((kl.estimate - choice - nats).abs() < 1e-12, "{inner}: {kl:?}");
            assert_eq!((kl.standard_error, kl.kind), (0.0, KlKind::Bound));
        }
        assert_eq!(bound("cd-token:lambda=1", [1; 4]), None);
    }
}
