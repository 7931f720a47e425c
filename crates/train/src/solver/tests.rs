//! Gradients against full enumeration, on a transformer whose every response can be listed.

use std::sync::Mutex;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use infalign_decode::Stream;
use infalign_model::{
    CausalLm, ResponseBatch, Sequence, Tokenizer, Transformer, TransformerConfig,
    write_word_tokenizer,
};
use infalign_reward::{Length, LengthUnit};

use super::on_policy::OnPolicy;
use super::passes::{Passes, Seen};
use super::{KlTerm, Task};
use crate::optimizer::{Optimizer, OptimizerConfig};
use crate::rollout::{Rollout, Scoring};
use crate::{Calibrator, Objective, leave_one_out};

const VOCABULARY: u32 = 4;
const LENGTH: usize = 3;
const BETA: f64 = 0.25;

pub(super) fn model(seed: u64) -> CausalLm {
    let config = TransformerConfig::llama(VOCABULARY as usize, 16, 24, 2, 2, 16);
    let mut normal = Stream::new(seed, "weights", "", 0).normals(0);
    let device = infalign_backend::device(None).unwrap();
    CausalLm::random(config, &mut || 8.0 * normal(), &device).unwrap()
}

/// Every response to the prompt 1: those that end with token 0, and those that are cut. Rewards depend on the order of the tokens.
fn everything() -> Rollout {
    let (mut open, mut all) = (vec![Vec::new()], Vec::new());
    for length in 1..=LENGTH {
        let extended = open.iter().flat_map(|prefix: &Vec<u32>| {
            (0..VOCABULARY).map(move |token| [prefix.as_slice(), &[token]].concat())
        });
        let (ended, longer): (Vec<Vec<u32>>, _) =
            extended.partition(|response| length == LENGTH || response[length - 1] == 0);
        all.extend(ended);
        open = longer;
    }
    let phi = |response: &Vec<u32>| {
        f64::from(response.iter().fold(1, |code, token| code * 7 + token) * 37 % 101) / 100.0
    };
    Rollout {
        samples: all.len(),
        transformed: all.iter().map(phi).collect(),
        log_probs: all.iter().map(|response| vec![0.0; response.len()]).collect(),
        sequences: all
            .into_iter()
            .map(|r| Sequence { tokens: [&[1], r.as_slice()].concat(), prompt_length: 1 })
            .collect(),
        ..Rollout::default()
    }
}

/// Hands over a first step on [`everything`], of which no prompt and no reward is asked.
pub(super) fn with_task(test: impl FnOnce(&Task<'_>)) {
    let dir = tempfile::tempdir().unwrap();
    write_word_tokenizer(dir.path(), ["a"].into_iter()).unwrap();
    let (reference, rollout) = (model(1), everything());
    let tokenizer = Tokenizer::load(dir.path(), reference.config()).unwrap();
    let scoring = Scoring {
        tokenizer: &tokenizer,
        reward: &Length { unit: LengthUnit::Words },
        calibrator: Calibrator::Group,
        objective: &Objective::Raw,
        unit: 1.0,
        stops: tokenizer.stops(),
    };
    test(&Task {
        reference: &reference,
        prompts: &[],
        rollout: &rollout,
        scoring: &scoring,
        beta: BETA,
        seed: 1,
        step: 0,
    });
}

/// The gradient of every parameter, one after the other.
struct Flat<'a> {
    grads: &'a GradientsParams,
    values: Vec<f64>,
}

impl ModuleVisitor for Flat<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let grad = self.grads.get::<D>(param.id).unwrap();
        self.values.extend(grad.into_data().iter::<f32>().map(f64::from));
    }
}

fn flat(net: &Transformer, grads: &GradientsParams) -> Vec<f64> {
    let mut flat = Flat { grads, values: Vec::new() };
    net.visit(&mut flat);
    flat.values
}

struct Problem {
    policy: CausalLm,
    reference: CausalLm,
    rollout: Rollout,
}

impl Problem {
    fn passes(&self, kl: KlTerm) -> Passes<'_> {
        Passes {
            policy: &self.policy,
            reference: Some(&self.reference),
            rollout: &self.rollout,
            kl,
            length_normalised: false,
        }
    }

    fn log_probs(&self, model: &CausalLm) -> Vec<f64> {
        let tokens = model.log_probs(&self.rollout.sequences).unwrap();
        tokens.iter().map(|t| t.iter().map(|&l| f64::from(l)).sum()).collect()
    }

    /// What each response adds to the gradient of −J/β, with a baseline and `reward` times its Φ.
    fn by_response(&self, kl: KlTerm, reward: f64, baseline: f64) -> Vec<Vec<f64>> {
        let passes = self.passes(kl);
        let one = |i: usize| {
            let phi = reward * self.rollout.transformed[i] / BETA - baseline;
            let weigh = |seen: &Seen<'_>| vec![phi - seen.penalties[0]; seen.lengths[0]];
            flat(self.policy.net(), &passes.gradient(&[i], &weigh).unwrap().0)
        };
        (0..self.rollout.sequences.len()).map(one).collect()
    }

    /// The expectation of vectors under the policy.
    fn mean(&self, vectors: &[Vec<f64>]) -> Vec<f64> {
        let mut mean = vec![0.0; vectors[0].len()];
        for (p, vector) in self.log_probs(&self.policy).iter().zip(vectors) {
            mean.iter_mut().zip(vector).for_each(|(m, v)| *m += p.exp() * v);
        }
        mean
    }

    /// The trace of their covariance.
    fn variance(&self, vectors: &[Vec<f64>]) -> f64 {
        let mean = self.mean(vectors);
        let spread = |v: &Vec<f64>| v.iter().zip(&mean).map(|(v, m)| (v - m).powi(2)).sum::<f64>();
        self.log_probs(&self.policy).iter().zip(vectors).map(|(p, v)| p.exp() * spread(v)).sum()
    }

    /// KL(π‖π_ref) of whole responses, differentiated as it is written.
    fn gradient_of_kl(&self) -> Vec<f64> {
        let policy = self.policy.valid().train();
        let device = policy.device();
        let batch = ResponseBatch::new(&self.rollout.sequences, policy.config(), &device).unwrap();
        let n_tokens: usize = batch.lengths.iter().sum();
        let mut first = 0;
        let mut sum_of = vec![0.0_f32; batch.lengths.len() * n_tokens];
        for (row, &length) in sum_of.chunks_mut(n_tokens).zip(&batch.lengths) {
            row[first..first + length].fill(1.0);
            first += length;
        }
        let sum_of = TensorData::new(sum_of, [batch.lengths.len(), n_tokens]);
        let sum_of = Tensor::<2>::from_data(sum_of, &device);
        let of = |model: &CausalLm| sum_of.clone().matmul(model.response_log_probs(&batch));
        let (ours, theirs) = (of(&policy), of(&self.reference));
        let kl = (ours.clone().exp() * (ours - theirs)).sum();
        let grads = GradientsParams::from_grads(kl.backward(), policy.net());
        flat(policy.net(), &grads)
    }
}

fn norm(v: &[f64]) -> f64 {
    v.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// The length of a − b in units of that of b.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>()) / norm(b)
}

#[test]
fn the_kl_of_responses_has_its_gradient_in_the_reward_and_exactly_in_the_loss() {
    let problem = Problem { policy: model(1).train(), reference: model(2), rollout: everything() };
    let total: f64 = problem.log_probs(&problem.policy).iter().map(|l| l.exp()).sum();
    assert!((total - 1.0).abs() < 1e-5, "the enumeration is complete");
    let expected = problem.gradient_of_kl();
    let found = |kl| problem.mean(&problem.by_response(kl, 0.0, 0.0));
    for kl in [KlTerm::Reward, KlTerm::Exact] {
        let off = distance(&found(kl), &expected);
        assert!(off < 1e-4, "{kl:?} is off by {off}");
    }
    // What their documentation says: both leave out what a token does to the KL of later ones, and k3 is of the forward KL.
    for kl in [KlTerm::K2, KlTerm::K3] {
        let off = distance(&found(kl), &expected);
        assert!(off > 0.1, "{kl:?} is off by {off} only");
    }
    let numbers = problem.rollout.numbers();
    let alone = numbers.iter().map(|&i| {
        let none = |seen: &Seen<'_>| vec![0.0; seen.lengths[0]];
        flat(problem.policy.net(), &problem.passes(KlTerm::Exact).gradient(&[i], &none).unwrap().0)
    });
    let off = distance(&problem.mean(&alone.collect::<Vec<_>>()), &expected);
    assert!(off > 0.1, "without the KL of later tokens it is off by {off} only");
}

/// Variances of one response's gradient with the KL in the reward and exact in the loss, from π_ref to the optimum.
#[test]
fn which_kl_has_the_lower_variance_depends_on_how_far_the_policy_has_come() {
    let reference = model(2);
    let policy = reference.clone().train();
    let mut problem = Problem { policy, reference, rollout: everything() };
    let config = OptimizerConfig { max_grad_norm: 1e3, ..OptimizerConfig::new(3e-3) };
    let mut optimizer = Optimizer::new(&config);
    let n = problem.rollout.sequences.len() as f64;
    let mut ratios = Vec::new();
    for step in 0..=400 {
        let ours = problem.log_probs(&problem.policy);
        let theirs = problem.log_probs(&problem.reference);
        let kl: f64 = ours.iter().zip(&theirs).map(|(o, t)| o.exp() * (o - t)).sum();
        let phi: f64 =
            ours.iter().zip(&problem.rollout.transformed).map(|(o, phi)| o.exp() * phi).sum();
        if [0, 10, 30, 100, 400].contains(&step) {
            // The baseline of a large group.
            let [reward, exact] = [KlTerm::Reward, KlTerm::Exact]
                .map(|term| problem.by_response(term, 1.0, phi / BETA - kl));
            assert!(distance(&problem.mean(&exact), &problem.mean(&reward)) < 0.02 || step == 400);
            let [reward, exact] = [reward, exact].map(|vectors| problem.variance(&vectors));
            // The gradient of the KL alone, without a reward.
            let alone = [KlTerm::Reward, KlTerm::Exact]
                .map(|term| problem.variance(&problem.by_response(term, 0.0, -kl)));
            println!(
                "step {step}: KL {kl:.4}, in the reward {reward:.4}, exact {exact:.4}; alone {alone:?}"
            );
            ratios.push(exact / reward);
            assert!(step == 0 || alone[1] < alone[0], "of the KL alone: {alone:?}");
        }
        let weigh = |seen: &Seen<'_>| {
            let of = |(&i, penalty): (&usize, &f64)| {
                n * ours[i].exp() * (problem.rollout.transformed[i] / BETA - penalty)
            };
            let weights = seen.responses.iter().zip(&seen.penalties).map(of).zip(seen.lengths);
            weights.flat_map(|(w, &length)| std::iter::repeat_n(w, length)).collect()
        };
        let numbers = problem.rollout.numbers();
        let (grads, _) = problem.passes(KlTerm::Reward).gradient(&numbers, &weigh).unwrap();
        let net = problem.policy.net().clone();
        let (net, _) = optimizer.step(net, grads, config.learning_rate);
        problem.policy = problem.policy.with_net(net);
    }
    println!("exact over in the reward: {ratios:?}");
    assert!((ratios[0] - 1.0).abs() < 1e-3, "at π_ref the two are the same: {ratios:?}");
    assert!(ratios[4] > 2.0, "at the optimum R is constant, and k1 has no variance: {ratios:?}");
}

/// To the bit on the CPU: beside a reference they come from another kernel.
#[test]
fn a_reference_changes_neither_log_probabilities_nor_their_gradient() {
    let problem = Problem { policy: model(1).train(), reference: model(2), rollout: everything() };
    let found = |reference: Option<&CausalLm>| {
        let log_probs = Mutex::new(Vec::new());
        let weigh = |seen: &Seen<'_>| {
            let tokens = seen.log_probs.iter().map(|&l| f64::from(l));
            log_probs.lock().unwrap().extend(tokens);
            vec![1.0; seen.log_probs.len()]
        };
        let passes = Passes { reference, ..problem.passes(KlTerm::Reward) };
        let (grads, _) = passes.gradient(&problem.rollout.numbers(), &weigh).unwrap();
        (log_probs.into_inner().unwrap(), flat(problem.policy.net(), &grads))
    };
    let (alone, beside) = (found(None), found(Some(&problem.reference)));
    assert_eq!(beside.0.len(), alone.0.len());
    let most = if infalign_backend::is_cpu(&problem.policy.device()) { 0.0 } else { 1e-5 };
    let off = [distance(&beside.0, &alone.0), distance(&beside.1, &alone.1)];
    assert!(off.iter().all(|&off| off <= most), "off by {off:?}");
}

#[test]
fn small_passes_give_the_gradient_of_one() {
    let mut rollout = everything();
    // Groups of four, each with its own leave-one-out mean.
    rollout.samples = 4;
    let n = rollout.sequences.len();
    assert_eq!(n % 4, 0);
    let problem = Problem { policy: model(1).train(), reference: model(2), rollout };
    for (kl, length_normalised) in [(KlTerm::Reward, false), (KlTerm::Exact, true)] {
        let passes = Passes { length_normalised, ..problem.passes(kl) };
        let weigh = |seen: &Seen<'_>| {
            let rewards = seen.responses.iter().zip(&seen.penalties);
            let rewards: Vec<f64> =
                rewards.map(|(&i, kl)| problem.rollout.transformed[i] / BETA - kl).collect();
            let advantages = rewards.chunks(4).flat_map(leave_one_out).zip(seen.lengths);
            advantages.flat_map(|(a, &length)| std::iter::repeat_n(a, length)).collect()
        };
        let by = |rows| {
            let numbers = problem.rollout.numbers();
            let (grads, tally) = passes.gradient_by(rows, &numbers, &weigh).unwrap();
            (flat(problem.policy.net(), &grads), tally.log_ratios)
        };
        let (whole, small) = (by(n), by(4));
        let off = distance(&small.0, &whole.0);
        assert!(off < 1e-5, "{kl:?}: {off}");
        assert!(whole.1.iter().zip(&small.1).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}

/// Of two prompts with more responses each than a pass takes, on a policy that is not the reference.
#[test]
fn parts_of_groups_give_the_gradient_of_whole_ones() {
    with_task(|task| {
        let (copies, once) = (26, task.rollout);
        let samples = copies * once.samples;
        let mut rollout = Rollout {
            samples,
            sequences: vec![once.sequences.as_slice(); 2 * copies].concat(),
            log_probs: vec![once.log_probs.as_slice(); 2 * copies].concat(),
            transformed: vec![once.transformed.as_slice(); 2 * copies].concat(),
            ..Rollout::default()
        };
        // The second prompt is the easier one.
        rollout.transformed[samples..].iter_mut().for_each(|phi| *phi += 1.0);
        let task = &Task { rollout: &rollout, ..*task };
        let policy = model(2).train();
        for (kl, length_normalised) in
            [(KlTerm::Reward, false), (KlTerm::Exact, true), (KlTerm::K3, true)]
        {
            let seen = Mutex::new(Vec::new());
            let advantages = |responses: &[usize], penalties: &[f64]| -> Vec<f64> {
                seen.lock().unwrap().push(responses.len());
                let rewards = task.rewards(responses, penalties);
                rewards.chunks(samples).flat_map(leave_one_out).collect()
            };
            let step = OnPolicy { kl, length_normalised, group: samples, advantages, task };
            let (whole, expected) = step.by_whole_groups(&policy, samples).unwrap();
            let (parts, found) = step.gradient(&policy).unwrap();
            let off = distance(&flat(policy.net(), &parts), &flat(policy.net(), &whole));
            assert!(off < 1e-4, "{kl:?}: {off}");
            let near = 1e-4 * expected.penalty.abs();
            assert!((found.penalty - expected.penalty).abs() <= near, "{kl:?}");
            let pairs = found.log_ratios.iter().zip(&expected.log_ratios);
            assert!(pairs.clone().count() == 2 * samples);
            assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-4), "{kl:?}");
            // A pass for each group, and then all before the passes.
            assert_eq!(seen.into_inner().unwrap(), [samples, samples, 2 * samples], "{kl:?}");
        }
    });
}
