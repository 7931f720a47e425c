//! Responses of other origin, as long as the base's own would be.

use std::collections::BTreeSet;

use infalign_decode::Sampling;

use super::super::given::GivenResponse;

/// Cuts responses where the base's own end, at the first token that ends them and at `max_tokens`, and says how many: a value is the expected
/// reward of a response that ends there.
///
/// - `stops`: tokens that end the base's texts.
pub(super) fn cut(
    mut given: Vec<GivenResponse>,
    generation: &Sampling,
    stops: &BTreeSet<u32>,
) -> Vec<GivenResponse> {
    let mut n_cut = 0;
    for GivenResponse { sequence, .. } in &mut given {
        let length = generation.length_of(sequence.response(), stops);
        n_cut += usize::from(length < sequence.response().len());
        sequence.tokens.truncate(sequence.prompt_length + length);
    }
    if n_cut > 0 {
        let (all, most) = (given.len(), generation.max_tokens);
        tell!(
            "completions: {n_cut} of {all} responses go on where the base's own end, at generation.max_tokens = {most} or a token that ends responses: they are cut there"
        );
    }
    given
}
