//! The numbers that a new adapter begins with.

use infalign_decode::Stream;

/// Uniform numbers in [0, 1), the same for the same seed.
pub(crate) fn adapter_uniforms(seed: u64) -> impl FnMut() -> f32 {
    let mut stream = Stream::new(seed, "lora", "", 0);
    let mut positions = 0..;
    move || positions.next().map_or(0.0, |position| stream.uniform(position) as f32)
}
