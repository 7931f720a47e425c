//! Several prompts at one β, as training has them, where rewards of the reference's responses are known.

use super::{Outcomes, groups, kl_divergence};
use crate::beta::Beta;
use crate::error::{TransformError, check_kl};
use crate::numerics::root::bracketed;
use crate::procedure::Procedure;

/// ln β between which a KL is looked for.
const LOG_BETA: (f64, f64) = (-60.0, 60.0);

/// Responses of π_ref to several prompts, with their rewards and with what a policy is trained on.
///
/// What training on the reward itself leads to depends on how rewards are spread, so that no one curve tells it, as for transforms of calibrated
/// rewards. Of rewards that were sampled it can be computed: on every prompt the policy is π ∝ π_ref·exp(v/β), v being what it is trained on, with
/// the same β.
///
/// ```
/// use infalign_transform::discrete::{Outcomes, Prompts};
/// // The second prompt's rewards are ten times as far apart.
/// let prompt = |spread: f64| Outcomes::new(vec![0.25; 4], [0.0, 1.0, 2.0, 3.0].map(|r| r * spread).into());
/// let prompts = [prompt(1.0)?, prompt(10.0)?];
/// let raw = Prompts::new(prompts.clone().map(|prompt| (prompt.rewards().to_vec(), prompt)))?;
/// let calibrated = Prompts::new(prompts.map(|prompt| (prompt.calibrated(), prompt)))?;
/// let best_of_4 = "best-of:4".parse()?;
/// let wins = |prompts: &Prompts| prompts.win_rate(&best_of_4, &prompts.at_kl(0.5)?);
/// assert!(wins(&raw)? < wins(&calibrated)?);
/// # Ok::<(), infalign_transform::TransformError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Prompts {
    prompts: Vec<(Vec<f64>, Outcomes)>,
}

/// A policy over the responses to each of several prompts.
#[derive(Clone, Debug)]
pub struct Policies {
    /// The KL coefficient, in units of what is trained on per nat.
    pub beta: Beta,
    /// KL from the reference policy in nats, the mean over prompts.
    pub kl: f64,
    /// Probabilities, of each prompt's responses in their order.
    pub policies: Vec<Vec<f64>>,
}

impl Prompts {
    /// - `prompts`: of each, what its outcomes are trained on, finite, and the outcomes; one prompt or more.
    ///
    /// # Errors
    /// [`TransformError::OutcomeCount`] without any prompt, and where there is not one number an outcome; [`TransformError::Reward`] for a number that
    /// is not finite.
    pub fn new(
        prompts: impl IntoIterator<Item = (Vec<f64>, Outcomes)>,
    ) -> Result<Self, TransformError> {
        let prompts: Vec<(Vec<f64>, Outcomes)> = prompts.into_iter().collect();
        let counts = prompts.iter().map(|(trained, of)| (trained.len(), of.rewards.len()));
        let unequal = counts.clone().find(|(numbers, outcomes)| numbers != outcomes);
        if let Some((probabilities, rewards)) = unequal.or((counts.len() == 0).then_some((0, 0))) {
            return Err(TransformError::OutcomeCount { probabilities, rewards });
        }
        for (trained, _) in &prompts {
            if let Some(index) = trained.iter().position(|value| !value.is_finite()) {
                return Err(TransformError::Reward { index, value: trained[index] });
            }
        }
        Ok(Self { prompts })
    }

    /// The policy whose mean v − β·KL is the greatest.
    pub fn at_beta(&self, beta: Beta) -> Policies {
        let policy = |(trained, outcomes): &(Vec<f64>, Outcomes)| {
            // Less the greatest, so that nothing overflows at a small β.
            let best = trained.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let log = |(value, p): (&f64, &f64)| p.ln() + (value - best) / beta.get();
            let logs: Vec<f64> = trained.iter().zip(&outcomes.probabilities).map(log).collect();
            groups::normalised(&logs)
        };
        let policies: Vec<Vec<f64>> = self.prompts.iter().map(policy).collect();
        let both = policies.iter().zip(&self.prompts);
        let kl = mean(both.map(|(policy, (_, of))| kl_divergence(policy, &of.probabilities)));
        Policies { beta, kl, policies }
    }

    /// The policy whose mean v is the greatest with a KL of `kl` nats, the mean over prompts.
    ///
    /// # Errors
    /// [`TransformError::Kl`]; [`TransformError::UnreachableKl`] where no β between e^−60 and e^60 has it: K responses allow ln K nats, and fewer where
    /// the best tie.
    pub fn at_kl(&self, kl: f64) -> Result<Policies, TransformError> {
        check_kl(kl)?;
        let at = |log_beta: f64| Ok(self.at_beta(Beta::new(log_beta.exp())?));
        let (low, high) = LOG_BETA;
        let found = bracketed(|x| at(x).map_or(f64::NAN, |found| found.kl) - kl, low, high);
        if let Some(log_beta) = found {
            return at(log_beta);
        }
        let (supremum, infimum) = (at(low)?.kl, at(high)?.kl);
        let transform = "what is trained on".to_owned();
        Err(TransformError::UnreachableKl { transform, kl, infimum, supremum })
    }

    /// W^T(π ≻ π_ref) in [0, 1], ties counted half, the mean over prompts.
    ///
    /// # Errors
    /// As for [`Outcomes::win_rate`].
    pub fn win_rate(
        &self,
        procedure: &Procedure,
        policies: &Policies,
    ) -> Result<f64, TransformError> {
        let both = self.prompts.iter().zip(&policies.policies);
        let won = both.map(|((_, outcomes), policy)| outcomes.win_rate(procedure, policy));
        Ok(mean(won.collect::<Result<Vec<f64>, _>>()?.into_iter()))
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len();
    values.sum::<f64>() / count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tilt, Transform};

    /// `count` outcomes without ties, as good as the continuous limit.
    fn ranks(count: usize) -> Outcomes {
        let rewards = (0..count).map(|k| k as f64).collect();
        Outcomes::new(vec![1.0 / count as f64; count], rewards).unwrap()
    }

    #[test]
    fn many_ranks_are_the_continuous_limit() {
        for name in ["identity", "exp:10", "exp:-5"] {
            let transform: Transform = name.parse().unwrap();
            let outcomes = ranks(4000);
            let trained = outcomes.calibrated().iter().map(|&u| transform.apply(u)).collect();
            let prompts = Prompts::new([(trained, outcomes)]).unwrap();
            let found = prompts.at_kl(0.5).unwrap();
            assert!((found.kl - 0.5).abs() < 1e-12);
            let (transform, beta) = Transform::at_kl(name, 0.5).unwrap();
            let limit = Tilt::new(&transform, beta).unwrap();
            for procedure in ["sample", "best-of:4", "worst-of:4"].map(|p| p.parse().unwrap()) {
                let (won, theory) =
                    (prompts.win_rate(&procedure, &found).unwrap(), limit.win_rate(&procedure));
                assert!((won - theory.unwrap()).abs() < 1e-5, "{name} {procedure}");
            }
        }
    }

    #[test]
    fn one_beta_serves_all_prompts() {
        let wide = Outcomes::new(vec![0.5, 0.5], vec![0.0, 2.0]).unwrap();
        let narrow = Outcomes::new(vec![0.5, 0.5], vec![0.0, 1.0]).unwrap();
        let prompts = Prompts::new([(vec![0.0, 2.0], wide), (vec![0.0, 1.0], narrow)]).unwrap();
        let found = prompts.at_kl(0.1).unwrap();
        let logit = |policy: &[f64]| (policy[1] / policy[0]).ln();
        let [wide, narrow] = [0, 1].map(|k| logit(&found.policies[k]));
        assert!(
            (wide - 2.0 * narrow).abs() < 1e-12 && (narrow - 1.0 / found.beta.get()).abs() < 1e-12
        );
    }

    #[test]
    fn the_least_beta_leaves_the_best_alone() {
        let outcomes = Outcomes::new(vec![0.5, 0.5], vec![1e300, -1e300]).unwrap();
        let prompts = Prompts::new([(vec![1e300, -1e300], outcomes)]).unwrap();
        let found = prompts.at_beta(Beta::new(1e-300).unwrap());
        assert_eq!(found.policies, [[1.0, 0.0]]);
        assert!((found.kl - std::f64::consts::LN_2).abs() < 1e-15);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(Prompts::new([]).is_err());
        assert!(Prompts::new([(vec![0.0], ranks(2))]).is_err());
        assert!(Prompts::new([(vec![0.0, f64::NAN], ranks(2))]).is_err());
        let prompts = Prompts::new([(vec![0.0, 1.0], ranks(2))]).unwrap();
        assert!(matches!(prompts.at_kl(0.0), Err(TransformError::Kl(_))));
        let error = prompts.at_kl(0.7).unwrap_err().to_string();
        assert!(error.contains("6.931e-1"), "{error}");
    }
}
