//! KL(π‖π_ref) of sampled responses, exact at every token.

use infalign_backend::in_order;
use infalign_model::{CausalLm, ModelError, ResponseBatch, Sequence};

/// Σ_t KL(π(· | x, y_<t) ‖ π_ref(· | x, y_<t)) of each response, in nats.
///
/// Averaged over responses sampled from π this estimates KL(π‖π_ref) without bias, and with less variance than the log-ratio of the
/// sampled tokens, whose conditional expectation it is (Rao-Blackwell).
///
/// # Errors
/// [`ModelError`] for sequences that do not fit the models.
pub fn kl_per_response(
    policy: &CausalLm,
    reference: &CausalLm,
    sequences: &[Sequence],
) -> Result<Vec<f64>, ModelError> {
    let (policy, reference) = (policy.valid(), reference.valid());
    let measure = |pass: &[Sequence]| {
        let batch = ResponseBatch::new(pass, policy.config(), &policy.device())?;
        let [ours, theirs] = [&policy, &reference].map(|model| model.response_hidden(&batch));
        let compared = policy.compare(ours, &reference, theirs, &batch);
        let mut values = compared.kl.into_iter().map(f64::from);
        Ok(batch.lengths.iter().map(|&length| values.by_ref().take(length).sum()).collect())
    };
    let passes = policy.passes(sequences);
    Ok(in_order::<_, Vec<f64>, ModelError>(&policy.device(), passes, measure)?.concat())
}
