//! Steps of the optimiser: loss and gradient of each are the CPU's.

use std::sync::atomic::AtomicBool;

use infalign_backend::Device;
use infalign_model::{CausalLm, Sequence};
use infalign_train::{FitMetrics, LanguageModelConfig, train_language_model};

use super::{candidates, cpu, fixture};

/// How much further off the norms of gradients may be where products are not exact. The first steps of AdamW divide each gradient by its own size, so that a weight whose gradient
/// is little but rounding goes a whole step one way or the other. On the CPU, with factors of products rounded at random as coarsely as TF32
/// rounds them, norms come out up to 2.1e-2 of the largest from those without.
const NORMS: f32 = 3.0;

/// Losses and norms of the gradients of four steps, on texts of unequal lengths.
fn steps(name: &str, device: &Device) -> [Vec<f32>; 2] {
    let (dir, _) = fixture(name);
    let text = |k: u32| Sequence {
        tokens: (0..8 + k).map(|t| 3 + (11 * k + 7 * t * t) % 40).collect(),
        prompt_length: 1,
    };
    let texts: Vec<Sequence> = (0..6).map(text).collect();
    let config = serde_json::json!({
        "steps": 4, "texts_per_step": 3, "optimizer": { "learning_rate": 1e-2, "weight_decay": 0.01 },
    });
    let config: LanguageModelConfig = serde_json::from_value(config).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    let mut observe = |metrics: &FitMetrics| {
        losses.push(metrics.loss as f32);
        norms.push(metrics.grad_norm as f32);
    };
    let model = CausalLm::load(&dir, device).unwrap();
    let stop = AtomicBool::new(false);
    train_language_model(model, &texts, &config, 1, folder.path(), &mut observe, &stop).unwrap();
    [losses, norms]
}

#[test]
fn steps_of_the_optimiser_are_those_of_the_cpu() {
    for name in ["llama", "qwen2", "gemma2", "gpt2"] {
        let expected = steps(name, &cpu());
        for candidate in candidates() {
            let found = steps(name, &candidate.device);
            candidate.near(&format!("{name}, losses"), &found[0], &expected[0]);
            let norms = format!("{name}, norms of gradients");
            let further = if candidate.exact { 1.0 } else { NORMS };
            candidate.within(candidate.tolerance * further, &norms, &found[1], &expected[1]);
        }
    }
}
