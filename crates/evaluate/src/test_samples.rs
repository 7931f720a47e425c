//! Samples for unit tests.

use crate::kl::KlSample;
use crate::{PromptText, Sampled};

/// Two prompts, four samples: a shift moves all rewards of the first prompt and one of the second.
pub(crate) fn samples(shift: f64) -> Sampled {
    let rewards = vec![
        vec![0.0 + shift, 1.0 + shift, 2.0 + shift, 3.0 + shift],
        vec![5.0, 5.0, 7.0, 9.0 + shift],
    ];
    let kl = |exact: f64| KlSample { exact, k1: exact + 0.05, k3: exact };
    let prompt = |p: usize| PromptText { id: format!("p{p}"), text: "Say".into(), sha256: None };
    let text = |prompt: usize, sample: usize| format!(" response {sample} to {prompt}");
    Sampled {
        prompts: (0..2).map(prompt).collect(),
        responses: (0..2).map(|p| (0..4).map(|s| text(p, s)).collect()).collect(),
        rewards,
        tokens: Some(vec![vec![3; 4]; 2]),
        kl: Some(vec![kl(0.4), kl(0.6)]),
        ..Sampled::default()
    }
}
