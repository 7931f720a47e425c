//! Finitely many outcomes: a line with a procedure, one with β, and `{"probabilities": […], "rewards": […]}`.
#![no_main]

use infalign_fuzz::parts;
use infalign_transform::{Beta, Outcomes, Procedure, Transform};
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;

#[derive(Deserialize)]
struct Problem {
    probabilities: Vec<f64>,
    rewards: Vec<f64>,
}

fuzz_target!(|data: &[u8]| {
    let [procedure, beta, problem] =
        parts(data).map(|part| std::str::from_utf8(part).unwrap_or_default());
    let Ok(procedure) = procedure.parse::<Procedure>() else { return };
    let Some(beta) = beta.parse().ok().and_then(|beta| Beta::new(beta).ok()) else { return };
    let Ok(Problem { probabilities, rewards }) = serde_json::from_str(problem) else { return };
    let Ok(outcomes) = Outcomes::new(probabilities, rewards) else { return };
    for name in ["identity", "log", "exp:10"] {
        let transform: Transform = name.parse().expect("a transform");
        check(&outcomes.tilt(&transform, beta));
    }
    if let Ok(law) = outcomes.under(&procedure) {
        check(&law);
    }
    if let Ok(best) = outcomes.optimum(&procedure, beta) {
        check(&best.policy);
        assert!((0.0..=1.0 + 1e-9).contains(&best.win_rate) && best.kl >= -1e-9, "{best:?}");
    }
});

fn check(policy: &[f64]) {
    let total: f64 = policy.iter().sum();
    assert!((total - 1.0).abs() < 1e-6 && policy.iter().all(|p| *p >= 0.0), "{policy:?}");
}
