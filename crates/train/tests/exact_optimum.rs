//! CTRL against the exact optimum: a transformer whose every response can be enumerated.
//!
//! For a prompt with reference probabilities p(y) and trained rewards Φ(u(y)), the optimum of E[Φ] − β KL is π* ∝ p exp(Φ/β), and its value
//! is β log Σ p exp(Φ/β). The trained policy must come close to that value and to π* itself.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod enumerable;

use enumerable::training::{Cost, EXACT, PPO, REGRESSION, RLOO, STORED, train};
use enumerable::{LENGTH, Ordered, Problem, kl, probabilities, problem};
use infalign_decode::{EncodedPrompt, Sampling};
use infalign_model::{CausalLm, LoraConfig};
use infalign_train::baselines::vbon;
use infalign_train::{Calibrator, CtrlConfig, Enumeration, Keep, Nearness, Objective, TrainError};
use infalign_transform::{Beta, Outcomes, Transform};

/// An adapter of every linear module.
fn adapter() -> LoraConfig {
    let config = r#"{"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}"#;
    serde_json::from_str(config).unwrap()
}

/// How near a trained policy is to the optimum.
struct Reached {
    /// What its value lacks, as a share of the best.
    lacking: f64,
    /// KL(π‖π*), nats.
    distance: f64,
}

/// How a policy is trained, and how near the optimum it has to come: in nats, and as a share of the best value. Where another machine rounds
/// otherwise, training ends elsewhere.
#[derive(Clone, Copy)]
struct Training {
    solver: &'static str,
    steps: usize,
    within: f64,
}

/// The default solver.
const DEFAULT: Training = Training { solver: RLOO, steps: 250, within: 0.01 };

fn reaches_the_optimum(transform: &str, beta: f64, by: Training) {
    let reached = reach(transform, beta, by, None);
    assert_near(&reached, by, transform);
}

fn assert_near(reached: &Reached, by: Training, transform: &str) {
    let Training { solver, within, .. } = by;
    let Reached { lacking, distance } = reached;
    assert!(lacking.abs() <= within, "{solver}, {transform}: lacks {lacking}");
    assert!(*distance <= within, "{solver}, {transform}: KL(π‖π*) = {distance} nats");
}

fn reach(transform: &str, beta: f64, by: Training, lora: Option<LoraConfig>) -> Reached {
    let Training { solver, steps, .. } = by;
    let problem = problem();
    let transform: Transform = transform.parse().unwrap();
    let phi: Vec<f64> = problem
        .rewards
        .iter()
        .map(|&r| transform.apply(problem.calibration.quantile("a", r).unwrap()))
        .collect();
    let weights: Vec<f64> =
        problem.reference.iter().zip(&phi).map(|(p, phi)| p * (phi / beta).exp()).collect();
    let z: f64 = weights.iter().sum();
    let optimum: Vec<f64> = weights.iter().map(|w| w / z).collect();
    let value = |policy: &[f64]| {
        policy.iter().zip(&phi).map(|(q, phi)| q * phi).sum::<f64>()
            - beta * kl(policy, &problem.reference)
    };
    let name = transform.to_string();
    let trained = train(&problem, &name, &Cost::Beta(beta), (solver, steps), lora);
    let policy = probabilities(&trained, &problem.prompt, &problem.responses);
    let (start, reached, best) = (value(&problem.reference), value(&policy), beta * z.ln());
    let distance = kl(&policy, &optimum);
    println!(
        "{solver}, {transform}: start {start:.5}, reached {reached:.5}, optimum {best:.5}, KL to the optimum {distance:.5}"
    );
    assert!(
        (value(&optimum) - best).abs() < 1e-6 && best > start + 0.02,
        "the problem is worth solving"
    );
    let found = Reached { lacking: (best - reached) / best.abs(), distance };
    assert!(
        is_told_alike(&found, &nearness(&problem, &name, &trained, Some(beta))),
        "the library tells what is computed here"
    );
    found
}

/// What the library says of a policy.
fn nearness(problem: &Problem, objective: &str, policy: &CausalLm, beta: Option<f64>) -> Nearness {
    nearness_of(problem, objective, policy, beta).unwrap()
}

fn nearness_of(
    problem: &Problem,
    objective: &str,
    policy: &CausalLm,
    beta: Option<f64>,
) -> Result<Nearness, TrainError> {
    let sampling = Sampling { max_tokens: LENGTH, ..Sampling::default() };
    let prompts = std::slice::from_ref(&problem.prompt);
    let tokenizer = &problem.tokenizer;
    let all = Enumeration::new(&problem.model, prompts, tokenizer, &Ordered, &sampling).unwrap();
    let objective = objective.parse().unwrap();
    let calibrator = Calibrator::Table(&problem.calibration);
    all.nearness(policy, &objective, calibrator, beta, &["best-of:4".parse().unwrap()])
}

fn is_told_alike(found: &Reached, told: &Nearness) -> bool {
    let lacking = (told.optimum - told.value) / told.optimum.abs();
    (found.lacking - lacking).abs() < 1e-5 && (found.distance - told.distance).abs() < 1e-5
}

#[test]
fn at_the_kl_of_a_policy_its_optimum_is_as_far_and_no_worse() {
    let problem = problem();
    let reference = nearness(&problem, "exp:10", &problem.model, None);
    assert!(reference.kl.abs() < 1e-6 && reference.distance.abs() < 1e-5, "{reference:?}");
    let policy = train(&problem, "exp:10", &Cost::Kl(0.3), (RLOO, 400), None);
    let told = nearness(&problem, "exp:10", &policy, None);
    let at_its_beta = nearness(&problem, "exp:10", &policy, Some(told.beta));
    assert_eq!(told, at_its_beta);
    assert!((0.0..0.1).contains(&told.lacking), "{told:?}");
    let win_rate = &told.win_rates[0];
    assert!(win_rate.policy > 0.6 && (win_rate.policy - win_rate.optimum).abs() < 0.05, "{told:?}");
}

#[test]
fn an_optimum_that_gives_up_nearly_all_responses_is_told_in_numbers() {
    let problem = problem();
    for beta in [1e-4, 1e-9] {
        let told = nearness(&problem, "identity", &problem.model, Some(beta));
        let [distance, lacking] = [told.distance, told.lacking];
        assert!(distance.is_finite() && distance > 0.1 / beta, "{told:?}");
        assert!((lacking - 1.0).abs() < 1e-6, "the reference has gained nothing: {told:?}");
    }
    assert!(nearness_of(&problem, "identity", &problem.model, Some(0.0)).is_err());
}

#[test]
fn several_prompts_are_told_by_their_means() {
    let Problem { model, tokenizer, prompt, mut calibration, .. } = problem();
    let other = EncodedPrompt::new("q", "b", &tokenizer).unwrap();
    let prompts = [prompt, other];
    calibration.insert("q", "b", vec![3.0, 10.0, 10.0, 40.0, 77.0]).unwrap();
    let sampling = Sampling { max_tokens: LENGTH, ..Sampling::default() };
    let objective = "exp:10".parse().unwrap();
    // Any other model is as good as a trained one.
    let policy = model.clone().with_new_adapter(adapter(), &mut || 0.9).unwrap();
    let of = |prompts: &[EncodedPrompt]| {
        let all = Enumeration::new(&model, prompts, &tokenizer, &Ordered, &sampling).unwrap();
        let calibrator = Calibrator::Table(&calibration);
        all.nearness(&policy, &objective, calibrator, Some(0.3), &["best-of:4".parse().unwrap()])
    };
    let [both, first, second] =
        [&prompts[..], &prompts[..1], &prompts[1..]].map(|some| of(some).unwrap());
    for read in [
        |told: &Nearness| told.kl,
        |told: &Nearness| told.start,
        |told: &Nearness| told.value,
        |told: &Nearness| told.optimum,
        |told: &Nearness| told.distance,
        |told: &Nearness| told.win_rates[0].policy,
        |told: &Nearness| told.win_rates[0].optimum,
    ] {
        let mean = f64::midpoint(read(&first), read(&second));
        assert!((read(&both) - mean).abs() < 1e-9, "{both:?} of {first:?} and {second:?}");
    }
    assert!((first.optimum - second.optimum).abs() > 1e-3, "the prompts differ");
}

#[test]
fn a_target_kl_is_reached() {
    let problem = problem();
    let policy = train(&problem, "exp:10", &Cost::Kl(0.5), (RLOO, 400), None);
    let policy = probabilities(&policy, &problem.prompt, &problem.responses);
    let reached = kl(&policy, &problem.reference);
    assert!((reached / 0.5 - 1.0).abs() < 0.1, "{reached} nats for 0.5");
}

#[test]
fn identity_reaches_the_optimum() {
    reaches_the_optimum("identity", 0.25, DEFAULT);
}

#[test]
fn exp_for_best_of_n_reaches_the_optimum() {
    reaches_the_optimum("exp:10", 0.3, DEFAULT);
}

#[test]
fn exp_for_worst_of_n_reaches_the_optimum() {
    reaches_the_optimum("exp:-10", 0.2, Training { steps: 400, within: 0.02, ..DEFAULT });
}

#[test]
fn an_adapter_comes_close_to_the_optimum() {
    // It leaves the embedding alone, which is the output matrix here.
    let by = Training { steps: 400, within: 0.04, ..DEFAULT };
    assert_near(&reach("identity", 0.25, by, Some(adapter())), by, "an adapter");
}

#[test]
fn the_optimal_transform_reaches_its_optimum() {
    reaches_the_optimum("optimal:best-of:4,beta=0.5", 0.25, Training { steps: 400, ..DEFAULT });
}

/// A test for each other solver: the transform is in the rewards that they are given, so one will do.
macro_rules! reach_the_optimum {
    ($($name:ident by $training:expr;)*) => {
        $(#[test]
        fn $name() {
            reaches_the_optimum("exp:10", 0.3, $training);
        })*
    };
}

/// GRPO's estimator without what biases it.
const UNBIASED: &str = r#"{"kind": "grpo", "scale_by_std": false, "length_normalised": false, "kl_estimator": "exact", "minibatches": 2}"#;

reach_the_optimum! {
    // With the KL in the loss the gradient is noisier near the optimum.
    an_exact_kl_reaches_the_optimum by Training { solver: EXACT, steps: 700, within: 0.02 };
    ppo_reaches_the_optimum by Training { solver: PPO, steps: 250, within: 0.02 };
    regression_reaches_the_optimum by Training { solver: REGRESSION, ..DEFAULT };
    regression_on_stored_responses_reaches_the_optimum by Training { solver: STORED, ..DEFAULT };
    grpo_without_its_biases_reaches_the_optimum by
        Training { solver: UNBIASED, steps: 400, within: 0.02 };
}

#[test]
fn regression_reaches_the_optimum_for_worst_of_n() {
    reaches_the_optimum("exp:-10", 0.2, Training { solver: REGRESSION, steps: 400, within: 0.02 });
}

/// Trained on the win rate itself, without any Φ, the policy is the one of which InfAlign's coupled equations speak.
fn the_win_rate_reaches_its_optimum(procedure: &str, beta: f64, by: Training) {
    let Training { solver, steps, within } = by;
    let problem = problem();
    let objective = format!("win-rate:{procedure}");
    let policy = train(&problem, &objective, &Cost::Beta(beta), (solver, steps), None);
    let told = nearness(&problem, &objective, &policy, Some(beta));
    println!("{solver}, {objective}: {told:?}");
    assert!(told.optimum > told.start + 0.02, "the problem is worth solving: {told:?}");
    assert!((told.start - 0.5).abs() < 1e-6, "the reference wins as often as it loses: {told:?}");
    assert!(told.lacking.abs() <= within && told.distance <= within, "{told:?}");
    let optimum = Outcomes::new(
        problem.reference.iter().map(|p| p / problem.reference.iter().sum::<f64>()).collect(),
        problem.rewards.iter().copied().map(f64::from).collect(),
    );
    let best = optimum.unwrap().optimum(&procedure.parse().unwrap(), Beta::new(beta).unwrap());
    let policy = probabilities(&policy, &problem.prompt, &problem.responses);
    let distance = kl(&policy, &best.unwrap().policy);
    assert!(distance <= within, "{solver}, {objective}: {distance} nats");
}

/// The gradient has noise of the other responses near the optimum, which that of a Φ has not.
const OF_A_WIN_RATE: Training = Training { solver: RLOO, steps: 350, within: 0.02 };

#[test]
fn the_win_rate_of_one_sample_reaches_its_optimum() {
    the_win_rate_reaches_its_optimum("sample", 0.25, OF_A_WIN_RATE);
}

#[test]
fn the_win_rate_under_best_of_n_reaches_its_optimum() {
    the_win_rate_reaches_its_optimum("best-of:4", 0.3, OF_A_WIN_RATE);
}

#[test]
fn the_win_rate_under_worst_of_n_reaches_its_optimum() {
    let by = Training { steps: 700, within: 0.04, ..OF_A_WIN_RATE };
    the_win_rate_reaches_its_optimum("worst-of:4", 0.3, by);
}

#[test]
fn ppo_reaches_the_optimum_of_a_win_rate() {
    let by = Training { solver: PPO, steps: 250, ..OF_A_WIN_RATE };
    the_win_rate_reaches_its_optimum("best-of:4", 0.3, by);
}

#[test]
fn what_does_not_go_with_what_a_group_has_together_is_refused() {
    let config = |solver: &str, samples_per_prompt: usize| CtrlConfig {
        steps: 1,
        prompts_per_step: 1,
        samples_per_prompt,
        target_kl: None,
        beta: Some(0.3),
        checkpoint_every: 1,
        keep: Keep::Last,
        solver: serde_json::from_str(solver).unwrap(),
        optimizer: serde_json::from_str(r#"{"learning_rate": 0.1}"#).unwrap(),
        lora: None,
    };
    for objective in ["win-rate:best-of:4", "reward:best-of:4"] {
        let refused = |solver: &str, samples: usize| {
            let checked = config(solver, samples).check_objective(&objective.parse().unwrap());
            checked.map_err(|error| error.to_string())
        };
        refused(RLOO, 5).unwrap();
        assert!(refused(RLOO, 4).unwrap_err().contains("samples_per_prompt is 4"));
        let message = refused(r#"{"kind": "regression"}"#, 5).unwrap_err();
        assert!(message.contains(objective) && message.contains("regression"), "{message}");
    }
    let problem = problem();
    let refused = nearness_of(&problem, "reward:best-of:4", &problem.model, Some(0.5)).unwrap_err();
    assert!(refused.to_string().contains("is not computed"), "no wrong number: {refused}");
}

#[test]
fn reinforce_reaches_the_optimum() {
    let solver = r#"{"kind": "reinforce"}"#;
    reaches_the_optimum("identity", 0.25, Training { solver, steps: 400, within: 0.02 });
}

#[test]
fn grpo_as_it_was_published_goes_elsewhere() {
    let by = Training { solver: r#"{"kind": "grpo"}"#, steps: 400, ..DEFAULT };
    let reached = reach("identity", 0.25, by, None);
    assert!(reached.lacking > 0.05 && reached.distance > 0.1, "{}", reached.distance);
}

#[test]
fn variational_best_of_n_reaches_its_tilt() {
    let (objective, beta) = vbon(4);
    let by = Training { steps: 400, within: 0.02, ..DEFAULT };
    reaches_the_optimum(&objective.to_string(), beta, by);
}

/// Responses of probability d each, midway through which u is: the best of four is one with probability 4 u³ d + u d³, the tilt's weight is
/// u³ d. So nowhere is the tilt more than 1/(1 − Σ u d³) = 1/(1 − d²/2) times the best of four.
#[test]
fn the_tilt_of_variational_best_of_n_is_nearly_the_best_of_n_of_many_responses() {
    let d = 0.01;
    let reference = Outcomes::new(vec![d; 100], (0..100).map(f64::from).collect()).unwrap();
    let (Objective::Calibrated(transform), beta) = vbon(4) else { panic!("it has a Φ") };
    let tilt = reference.tilt(&transform, Beta::new(beta).unwrap());
    let best_of_4 = reference.under(&"best-of:4".parse().unwrap()).unwrap();
    let distance = kl(&tilt, &best_of_4);
    assert!(distance <= -(1.0 - d * d / 2.0).ln(), "{distance} nats");
}
