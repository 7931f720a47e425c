//! KL(π‖π_ref) of responses sampled from π, by three estimators.

use infalign_backend::in_order;
use infalign_model::{CausalLm, ModelError, ResponseBatch, Sequence};
use serde::{Deserialize, Serialize};

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
/// # Errors
/// [`ModelError::Vocabularies`] for models of different vocabularies, and [`ModelError`] for sequences that do not fit both.
pub fn kl_per_response(
    policy: &CausalLm,
    reference: &CausalLm,
    sequences: &[Sequence],
) -> Result<Vec<KlSample>, ModelError> {
    let [ours, theirs] = [policy, reference].map(|model| model.config().vocab_size);
    if ours != theirs {
        return Err(ModelError::Vocabularies { ours, theirs });
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
    Ok(in_order::<_, Vec<KlSample>, ModelError>(&policy.device(), passes, measure)?.concat())
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
