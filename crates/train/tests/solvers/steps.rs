//! What a step does, by what it writes of itself and by the policy after it.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use infalign_decode::Sampling;
use infalign_model::CausalLm;
use infalign_train::{CtrlConfig, CtrlTrainer, OptimizerConfig, StepMetrics};

use super::{SOLVERS, STEPS, config, fixture, parameters, wild};

#[test]
fn the_time_of_a_step_is_its_own() {
    let fixture = fixture();
    let (config, objective) = (wild(0.05), "identity".parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let (start, pause, mut all) = (Instant::now(), Duration::from_millis(50), 0.0);
    let mut observe = |metrics: &StepMetrics, _: &CausalLm| {
        assert!(metrics.seconds > 0.0 && metrics.tokens > 0, "{metrics:?}");
        all += metrics.seconds;
        std::thread::sleep(pause);
        Ok(())
    };
    fixture
        .trainer(&config, &objective, dir.path())
        .run(&mut observe, &AtomicBool::new(false))
        .unwrap();
    let most = start.elapsed().saturating_sub(STEPS as u32 * pause);
    assert!(all < most.as_secs_f64(), "{all} s of {most:?}");
}

#[test]
fn the_learning_rate_warms_up_and_decays() {
    let optimizer = OptimizerConfig { warmup_steps: 1, final_share: 0.2, ..wild(1e-2).optimizer };
    let (seen, _) = fixture().run(&CtrlConfig { optimizer, ..wild(1e-2) });
    // 1/2, 1, 0.2 + 0.8·2/3 and 0.2 + 0.8·1/3 of the peak.
    let expected = [5e-3, 1e-2, 7.333_333_333e-3, 4.666_666_667e-3];
    for (metrics, expected) in seen.iter().zip(expected) {
        assert!((metrics.learning_rate - expected).abs() < 1e-11, "{metrics:?}");
    }
    assert_eq!(seen.len(), STEPS);
}

#[test]
fn options_that_differ_make_policies_that_differ() {
    let fixture = fixture();
    for (one, other) in [
        (r#"{"kind": "ppo"}"#, r#"{"kind": "ppo", "value_learning_rate": 0.02}"#),
        (r#"{"kind": "ppo"}"#, r#"{"kind": "ppo", "gae_lambda": 0.5}"#),
        (r#"{"kind": "ppo", "clip": 0.01}"#, r#"{"kind": "ppo", "clip": 0.01, "clip_high": 0.9}"#),
        (
            r#"{"kind": "grpo", "epochs": 4, "clip": 0.01}"#,
            r#"{"kind": "grpo", "epochs": 4, "clip": 0.01, "clip_high": 0.9}"#,
        ),
        (
            r#"{"kind": "grpo", "scale_by_std": false}"#,
            r#"{"kind": "grpo", "scale_by_std": false, "length_normalised": false}"#,
        ),
    ] {
        // What a value model has learned at one step shows in the policy at the next.
        let policies = [one, other].map(|solver| {
            let config = CtrlConfig { steps: 2, ..config(solver, 8) };
            parameters(&fixture.run(&config).1)
        });
        assert!(policies[0] != policies[1], "{other}");
    }
}

#[test]
fn each_time_that_a_prompt_comes_up_it_has_other_stored_responses() {
    let fixture = fixture();
    let offline = config(r#"{"kind": "regression", "rollouts": "reference"}"#, 8);
    let config = CtrlConfig { prompts_per_step: 1, ..offline };
    let (dir, objective) = (tempfile::tempdir().unwrap(), "identity".parse().unwrap());
    let trainer = CtrlTrainer {
        prompts: &fixture.prompts[..1],
        ..fixture.trainer(&config, &objective, dir.path())
    };
    let mut seen = BTreeSet::new();
    let mut observe = |metrics: &StepMetrics, _: &CausalLm| {
        seen.insert(metrics.rollout.clone());
        Ok(())
    };
    trainer.run(&mut observe, &AtomicBool::new(false)).unwrap();
    assert_eq!(seen.len(), STEPS);
}

#[test]
fn the_metrics_of_a_step_say_what_the_solver_did() {
    let fixture = fixture();
    for solver in SOLVERS {
        let (seen, _) = fixture.run(&config(solver, 32));
        let clips = solver.contains("clip");
        for metrics in &seen {
            assert!(metrics.log_prob_gap < 1e-4, "{solver}: {metrics:?}");
            assert_eq!(metrics.clip_fraction > 0.0, clips, "{solver}: {metrics:?}");
            assert_eq!(metrics.value_loss.is_some(), solver.contains("ppo"), "{solver}");
        }
        let first = &seen[0];
        assert!(first.kl.abs() < 1e-5 && first.kl_k1.abs() < 1e-5, "π is π_ref: {first:?}");
        assert!(seen[STEPS - 1].kl > 1e-3, "{solver}: the policy has moved: {seen:?}");
    }
}

#[test]
fn a_response_is_cut_where_no_token_ends_it() {
    let fixture = fixture();
    let config = CtrlConfig { steps: 1, ..config(r#"{"kind": "reinforce"}"#, 32) };
    let vocabulary = fixture.tokenizer.vocabulary() as u32;
    let cut = |stop_token_ids: BTreeSet<u32>| {
        let (dir, objective) = (tempfile::tempdir().unwrap(), "identity".parse().unwrap());
        let sampling = Sampling { max_tokens: 1, stop_token_ids, ..Sampling::default() };
        let trainer = fixture.trainer(&config, &objective, dir.path());
        let mut seen = 0.0;
        let mut observe = |metrics: &StepMetrics, _: &CausalLm| {
            seen = metrics.cut;
            Ok(())
        };
        let trainer = CtrlTrainer { sampling, ..trainer };
        trainer.run(&mut observe, &AtomicBool::new(false)).unwrap();
        seen
    };
    assert_eq!(cut((0..vocabulary).collect()), 0.0, "every token ends one");
    // The same responses, of one token each, of which each is cut where all tokens but its own end one.
    let but = |token: u32| (0..vocabulary).filter(|other| *other != token).collect();
    let stops = fixture.tokenizer.stops();
    let parts = (0..vocabulary).filter(|token| !stops.contains(token)).map(|token| cut(but(token)));
    let (all, sum) = (cut(BTreeSet::new()), parts.sum::<f64>());
    assert!(all > 0.0 && (all - sum).abs() < 1e-9, "{all} and {sum}");
}
