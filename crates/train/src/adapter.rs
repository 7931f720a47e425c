//! What training begins with where an adapter is trained.

use infalign_decode::Stream;
use infalign_model::{CausalLm, LoraConfig, ModelError};

/// The policy before the first step, which computes what the reference does: with a new adapter, if one is asked for.
pub(crate) fn starting_policy(
    reference: &CausalLm,
    lora: Option<&LoraConfig>,
    seed: u64,
) -> Result<CausalLm, ModelError> {
    let policy = reference.clone();
    let Some(config) = lora else { return Ok(policy) };
    policy.with_new_adapter(config.clone(), &mut adapter_uniforms(seed))
}

/// The numbers that a new adapter begins with: uniform in [0, 1), the same for the same seed.
pub(crate) fn adapter_uniforms(seed: u64) -> impl FnMut() -> f32 {
    let mut uniform = Stream::new(seed, "lora", "", 0).uniforms(0);
    move || uniform() as f32
}
