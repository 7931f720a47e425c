//! KL(π‖π_ref) of responses sampled from π, by three estimators.

use std::ops::ControlFlow;

use infalign_backend::{Device, in_order};
use infalign_model::{CausalLm, ModelError, ResponseBatch, Sequence};
use serde::{Deserialize, Serialize};

use crate::EvaluateError;

/// Passes for each thread from one look at whether to go on to the next.
const PASSES: usize = 4;

/// What one response, sampled from π, says of KL(π‖π_ref), in nats. Averaged over responses, all three estimate it without bias.
///
/// With ℓ_t = log π(y_t | x, y_<t) − log π_ref(y_t | x, y_<t):
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KlSample {
    /// Σ_t KL(π(· | x, y_<t) ‖ π_ref(· | x, y_<t)), exact at every token. Each term is the conditional expectation of the others' given the
    /// prefix (Rao-Blackwell). The sum mostly varies less than theirs, but not always: where tokens make up for the ratios of those before them,
    /// Σ_t ℓ_t may even be constant.
    pub exact: f64,
    /// Σ_t ℓ_t, the log-ratio: of either sign.
    pub k1: f64,
    /// Σ_t (e^{−ℓ_t} − 1 + ℓ_t): never negative.
    pub k3: f64,
}

/// The estimates of each response.
///
/// - observe: told now and then how many responses are measured; it breaks off the rest by [`ControlFlow::Break`].
///
/// # Errors
/// [`ModelError::Vocabularies`] for models of different vocabularies, and [`ModelError`] for sequences that do not fit both;
/// [`EvaluateError::Stopped`] where it was broken off.
pub fn kl_per_response(
    policy: &CausalLm,
    reference: &CausalLm,
    sequences: &[Sequence],
    observe: &dyn Fn(usize) -> ControlFlow<()>,
) -> Result<Vec<KlSample>, EvaluateError> {
    let [ours, theirs] = [policy, reference].map(|model| model.config().vocab_size);
    if ours != theirs {
        return Err(ModelError::Vocabularies { ours, theirs }.into());
    }
    sequences.iter().try_for_each(|sequence| reference.check(sequence))?;
    let (policy, reference) = (policy.valid(), reference.valid());
    let measure = |pass: &[Sequence]| {
        let batch = ResponseBatch::new(pass, policy.config(), &policy.device())?;
        let [ours, theirs] = [&policy, &reference].map(|model| model.response_hidden(&batch));
        let compared = policy.compare(ours, &reference, theirs, &batch);
        let log_ratios = compared.log_probs.iter().zip(&compared.their_log_probs);
        let tokens: Vec<KlSample> = log_ratios
            .zip(&compared.kl)
            .map(|((ours, theirs), kl)| token(f64::from(*kl), f64::from(ours - theirs)))
            .collect();
        let mut tokens = tokens.into_iter();
        let response =
            |&length: &usize| tokens.by_ref().take(length).fold(KlSample::default(), sum);
        Ok(batch.lengths.iter().map(response).collect())
    };
    let passes = policy.passes(sequences);
    let block = PASSES * rayon::current_num_threads();
    in_blocks((&passes, block), &policy.device(), measure, observe)
}

/// What is measured in some passes, in their order.
///
/// - block: passes that are measured before `observe` is told of how many sequences they are, with those before them.
fn in_blocks(
    (passes, block): (&[&[Sequence]], usize),
    device: &Device,
    measure: impl Fn(&[Sequence]) -> Result<Vec<KlSample>, ModelError> + Sync,
    observe: &dyn Fn(usize) -> ControlFlow<()>,
) -> Result<Vec<KlSample>, EvaluateError> {
    let all: usize = passes.iter().map(|pass| pass.len()).sum();
    let mut measured = Vec::with_capacity(all);
    for block in passes.chunks(block) {
        measured.extend(in_order(device, block.to_vec(), &measure)?.into_iter().flatten());
        if observe(measured.len()).is_break() && measured.len() < all {
            return Err(EvaluateError::Stopped);
        }
    }
    Ok(measured)
}

fn token(exact: f64, log_ratio: f64) -> KlSample {
    KlSample { exact, k1: log_ratio, k3: (-log_ratio).exp_m1() + log_ratio }
}

fn sum(a: KlSample, b: KlSample) -> KlSample {
    KlSample { exact: a.exact + b.exact, k1: a.k1 + b.k1, k3: a.k3 + b.k3 }
}

/// The mean over the responses to one prompt.
pub(crate) fn mean(samples: &[KlSample]) -> KlSample {
    let total = samples.iter().copied().fold(KlSample::default(), sum);
    let n = samples.len() as f64;
    KlSample { exact: total.exact / n, k1: total.k1 / n, k3: total.k3 / n }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn a_prompt_has_the_mean_of_its_responses_not_their_sum() {
        let found = mean(&[
            KlSample { exact: 0.2, k1: -0.1, k3: 0.3 },
            KlSample { exact: 0.4, k1: 0.5, k3: 0.7 },
        ]);
        for (found, expected) in [(found.exact, 0.3), (found.k1, 0.2), (found.k3, 0.5)] {
            assert!((found - expected).abs() < 1e-12, "{found} and not {expected}");
        }
    }

    #[test]
    fn passes_are_measured_in_blocks_and_broken_off_between_them() {
        let sequence = |token| Sequence { tokens: vec![token; 2], prompt_length: 1 };
        let sequences: Vec<Sequence> = (0..5).map(sequence).collect();
        let passes = [&sequences[..1], &sequences[1..3], &sequences[3..4], &sequences[4..]];
        let device = infalign_backend::device(None).unwrap();
        let number =
            |one: &Sequence| KlSample { k1: f64::from(one.tokens[1]), ..KlSample::default() };
        let measure = |pass: &[Sequence]| Ok(pass.iter().map(number).collect());
        let measured = |last: usize| {
            let told = RefCell::new(Vec::new());
            let observe = |done: usize| {
                told.borrow_mut().push(done);
                if done == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let found = in_blocks((&passes, 3), &device, measure, &observe);
            let found = found.map(|all| all.iter().map(|one| one.k1).collect::<Vec<f64>>());
            (found.map_err(|error| error.to_string()), told.into_inner())
        };
        let all: Result<Vec<f64>, String> = Ok(vec![0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(measured(0), (all.clone(), vec![4, 5]));
        assert_eq!(measured(5), (all, vec![4, 5]), "nothing is left to be broken off");
        assert_eq!(measured(4), (Err("measuring the KL was stopped".to_owned()), vec![4]));
    }
}
