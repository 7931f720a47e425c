//! The first tokens of the responses to a prompt, which have one distribution.

use infalign_backend::functions::softmax_weights;

use crate::{Draw, Sampling};

/// Draws the first token of each response to a prompt, as [`Sampling::draw`] draws it. What several have in common is computed once where they are
/// drawn from the model's own distribution, as in training.
///
/// - `uniforms`: the number of each response.
/// - `weights`: room to work in.
pub(super) fn first_tokens(
    sampling: &Sampling,
    logits: &[f32],
    uniforms: &[f64],
    weights: &mut Vec<f32>,
) -> Vec<Draw> {
    if uniforms.len() == 1 || !sampling.is_of_the_model_itself() {
        return uniforms.iter().map(|uniform| sampling.draw(logits, *uniform, weights)).collect();
    }
    let partition = softmax_weights(logits, 1.0, weights);
    let mut mass = 0.0;
    let add = |weight: &f32| {
        mass += f64::from(*weight);
        mass
    };
    let sums: Vec<f64> = weights.iter().map(add).collect();
    // Rounding never passes it.
    let last = weights.iter().rposition(|weight| *weight > 0.0).unwrap_or(0);
    let draw = |uniform: &f64| {
        let target = uniform * partition.total;
        let passed = sums.partition_point(|sum| *sum <= target);
        let token = if passed < sums.len() { passed } else { last };
        let log_prob = logits.get(token).map_or(f32::NAN, |logit| partition.log_prob(*logit));
        Draw { token: token as u32, log_prob }
    };
    uniforms.iter().map(draw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stream;

    /// That all are drawn together as each of them alone, bit for bit.
    fn check(sampling: &Sampling, logits: &[f32], uniforms: &[f64]) {
        let together = first_tokens(sampling, logits, uniforms, &mut Vec::new());
        let alone = |uniform: &f64| sampling.draw(logits, *uniform, &mut Vec::new());
        let alone: Vec<Draw> = uniforms.iter().map(alone).collect();
        assert_eq!(together, alone, "{sampling:?}");
    }

    #[test]
    fn first_tokens_are_those_that_are_drawn_one_by_one() {
        let (mut stream, default) = (Stream::new(1, "first tokens", "", 0), Sampling::default);
        let logits: Vec<f32> = (0..3_000).map(|k| stream.normal(k) as f32 * 3.0).collect();
        let mut uniforms: Vec<f64> = (10_000..12_000).map(|k| stream.uniform(k)).collect();
        uniforms.extend([0.0, 1.0 - f64::EPSILON / 2.0]);
        for sampling in [
            default(),
            Sampling { temperature: 0.7, ..default() },
            Sampling { temperature: 0.0, ..default() },
            Sampling { top_k: 20, top_p: 0.9, ..default() },
        ] {
            check(&sampling, &logits, &uniforms);
        }
    }

    #[test]
    fn impossible_tokens_and_the_ends_are_as_for_one() {
        let never = f32::NEG_INFINITY;
        // The last of the second has a weight that the sum does not feel.
        for logits in [vec![never, 0.0, never, 1.0, never], vec![0.0, -40.0, never]] {
            let ends = [0.0, 0.3, 1.0 - f64::EPSILON / 2.0, 1.0];
            check(&Sampling::default(), &logits, &ends);
        }
        for logits in [&[f32::NAN; 3][..], &[never; 3], &[0.0, f32::INFINITY, 1.0], &[]] {
            let draws = first_tokens(&Sampling::default(), logits, &[0.3, 0.6], &mut Vec::new());
            assert!(draws.len() == 2 && draws.iter().all(|draw| draw.log_prob.is_nan()));
        }
    }
}
