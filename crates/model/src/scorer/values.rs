//! The head of a prefix scorer for decoding: plain numbers, and every value in an order that depends on its own prefix alone.

use super::{ScoredReward, ScorerHead, ScorerSpec};
use crate::layout::transpose;

/// Sums that run beside each other.
const LANES: usize = 16;

/// Values of prefixes with the tokens that may follow them, from hidden states.
#[derive(Clone, Debug)]
pub struct PrefixValues {
    spec: ScorerSpec,
    /// `[width, hidden]`.
    inner: Vec<f32>,
    /// `[width]`.
    inner_bias: Vec<f32>,
    /// `[heads, features]`.
    shared: Vec<f32>,
    /// `[vocabulary, heads, features]`.
    tokens: Vec<f32>,
}

impl PrefixValues {
    pub(super) fn new(head: &ScorerHead, spec: ScorerSpec) -> Self {
        let [inner, inner_bias, shared, tokens] = head.numbers();
        let inner = transpose(&inner, spec.width);
        let shared = transpose(&shared, spec.heads.len());
        Self { spec, inner, inner_bias, shared, tokens }
    }

    /// What the scorer is.
    pub fn spec(&self) -> &ScorerSpec {
        &self.spec
    }

    /// What the values of a prefix are read from; room for it is in `features`.
    ///
    /// - `state`: the hidden state of its last token, `[hidden]`.
    pub fn read(&self, state: &[f32], features: &mut Vec<f32>) {
        features.clear();
        features.extend_from_slice(state);
        for (row, bias) in self.inner.chunks_exact(self.spec.hidden).zip(&self.inner_bias) {
            let x = dot(row, state) + bias;
            features.push(x * 0.5 * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2)));
        }
        features.push(1.0);
    }

    /// The value of the prefix with a token, within the rewards that training has seen.
    ///
    /// - `features`: what [`PrefixValues::read`] made of the prefix; `head`: the index of the reward.
    pub fn value(&self, features: &[f32], token: u32, head: usize) -> f64 {
        let (width, heads) = (features.len(), self.spec.heads.len());
        let place = token as usize * heads + head;
        let own = &self.tokens[place * width..(place + 1) * width];
        let shared = &self.shared[head * width..(head + 1) * width];
        let ScoredReward { mean, scale, least, greatest, .. } = self.spec.heads[head];
        let deviations = f64::from(dot(features, shared) + dot(features, own));
        (mean + scale * deviations).clamp(least, greatest)
    }
}

/// a·b, its terms added up lane by lane.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let (whole, rest) = a.as_chunks::<LANES>();
    let (whole_b, rest_b) = b.as_chunks::<LANES>();
    for (a, b) in whole.iter().zip(whole_b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let tail: f32 = rest.iter().zip(rest_b).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + tail
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scorer whose every value is so many deviations of rewards that go from −1 to 1.
    fn values(deviations: f32) -> PrefixValues {
        let name = "reward".into();
        let reward = ScoredReward { name, mean: 0.0, scale: 1.0, least: -1.0, greatest: 1.0 };
        let spec = ScorerSpec {
            heads: vec![reward],
            vocabulary: 1,
            hidden: 1,
            width: 1,
            own_trunk: false,
            soft: None,
            base: "base".into(),
            base_sha256: String::new(),
        };
        let shared = vec![0.0, 0.0, deviations];
        let (inner, inner_bias, tokens) = (vec![0.0], vec![0.0], vec![0.0; 3]);
        PrefixValues { spec, inner, inner_bias, shared, tokens }
    }

    #[test]
    fn values_stay_within_the_rewards_that_training_has_seen() {
        for (deviations, expected) in [(5.0, 1.0), (-5.0, -1.0), (0.5, 0.5)] {
            let (values, mut features) = (values(deviations), Vec::new());
            values.read(&[0.0], &mut features);
            assert_eq!(values.value(&features, 0, 0), expected);
        }
    }
}
