//! PPO, proximal policy optimisation (Schulman et al., arXiv 1707.06347), token by token, with a value model.
//!
//! How it departs from the paper and its use in RLHF:
//! 1. A token's reward is −β times the KL's share at it, and Φ at the last; γ = 1. The value after the last token is 0, for a response that
//!    was cut at the limit as well: its reward is that of what it says.
//! 2. The value model is a network of its own, which starts from π_ref and has an optimiser of its own: no coefficient sets its loss against
//!    the policy's. A reference with an adapter is merged into it, and all its weights are trained. It starts with values of 0, and Φ is
//!    counted from its mean in the first rollout: a constant added to the reward would otherwise have to be learned, and pass for an advantage
//!    of every token until it is.
//! 3. Advantages are not whitened: that would change the scale of J against a KL in the loss from one minibatch to the next.
//! 4. There is no entropy bonus, and no early stop by KL.
//! 5. Gradients are means over responses of sums over tokens, in units of J/β, as for the other solvers.
//!
//! With λ below 1 the gradient has the bias of the value model's errors.

use std::path::{Path, PathBuf};

use infalign_backend::precision::{LIMIT, POSITIVE, is_limit, is_positive};
use infalign_model::{CausalLm, ResponseBatch, Sequence, SequenceClassifier};
use serde::{Deserialize, Serialize};

use super::clipped::{Reuse, Surrogate};
use super::passes::cut;
use super::{KlEstimator, KlPlace, KlTerm, Learner, Solver, Task, gae};
use crate::checkpoint::{read_json, state_error, write_json};
use crate::fit::{Trainable, backward, check_settings};
use crate::optimizer::Optimizer;
use crate::passes::{column, sum_gradients};
use crate::tally::Tally;
use crate::{OptimizerConfig, TrainError};

/// Settings of PPO.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ppo {
    /// Where the KL is.
    #[serde(default)]
    pub kl: KlPlace,
    /// How it is estimated: k1 in the reward, exact in the loss where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl_estimator: Option<KlEstimator>,
    /// Times that a rollout is gone through.
    #[serde(default = "epochs")]
    pub epochs: usize,
    /// Optimiser steps each time.
    #[serde(default = "minibatches")]
    pub minibatches: usize,
    /// How far a ratio of new to old probability may move before its gradient is cut; 0.2 where a rollout is used more than once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
    /// The same of a ratio that has risen, where it may move further, or less far, than one that has fallen; that of `clip` where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_high: Option<f64>,
    /// How far a value may move from that of the rollout before its gradient is cut, in units of Φ; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_clip: Option<f64>,
    /// λ of the advantages, in [0, 1].
    #[serde(default = "lambda")]
    pub gae_lambda: f64,
    /// Peak learning rate of the value model; the policy's where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_learning_rate: Option<f64>,
}

fn epochs() -> usize {
    4
}

fn minibatches() -> usize {
    1
}

fn lambda() -> f64 {
    0.95
}

impl Ppo {
    pub(crate) fn check(&self, responses: usize) -> Result<(), TrainError> {
        let reuse = self.reuse();
        reuse.check(responses)?;
        self.term()?;
        let positive = |value: Option<f64>| value.is_none_or(is_positive);
        let shown = |value: Option<f64>| value.map_or("none".into(), |v| format!("{v:?}"));
        check_settings([
            (
                "solver.value_clip",
                shown(self.value_clip),
                self.value_clip.is_none_or(is_limit),
                LIMIT,
            ),
            (
                "solver.value_clip",
                shown(self.value_clip),
                self.value_clip.is_none() || !reuse.is_single(),
                "left out with one epoch and one minibatch: no value has moved then",
            ),
            (
                "solver.gae_lambda",
                self.gae_lambda.to_string(),
                (0.0..=1.0).contains(&self.gae_lambda),
                "between 0 and 1",
            ),
            (
                "solver.value_learning_rate",
                shown(self.value_learning_rate),
                positive(self.value_learning_rate),
                POSITIVE,
            ),
        ])
    }

    fn reuse(&self) -> Reuse {
        let Self { epochs, minibatches, clip, clip_high, .. } = *self;
        Reuse { epochs, minibatches, clip, clip_high }
    }

    fn term(&self) -> Result<KlTerm, TrainError> {
        KlTerm::new(self.kl, self.kl_estimator, KlEstimator::Exact)
    }

    pub(crate) fn begin(
        &self,
        reference: &CausalLm,
        optimizer: &OptimizerConfig,
        checkpoint: Option<&Path>,
    ) -> Result<WithValue, TrainError> {
        let peak = self.value_learning_rate.unwrap_or(optimizer.learning_rate);
        let (config, share) = (self.clone(), peak / optimizer.learning_rate);
        let fresh = Optimizer::new(optimizer);
        let (value, optimizer) = match checkpoint {
            Some(dir) => {
                let value = SequenceClassifier::load(&value_path(dir), &reference.device())?;
                (value, fresh.load(&optimizer_path(dir))?)
            }
            None => (SequenceClassifier::on(reference.clone().merge()?, 0), fresh),
        };
        let origin = checkpoint.map(|dir| read_json(&origin_path(dir))).transpose()?;
        Ok(WithValue { config, value: value.train(), optimizer, share, origin })
    }
}

/// Where a checkpoint holds the value model.
fn value_path(checkpoint: &Path) -> PathBuf {
    checkpoint.join("value")
}

/// Where a checkpoint holds the value model's optimiser.
fn optimizer_path(checkpoint: &Path) -> PathBuf {
    checkpoint.join("value-optimizer.bpk")
}

/// Where a checkpoint holds what Φ is counted from.
fn origin_path(checkpoint: &Path) -> PathBuf {
    checkpoint.join("value-origin.json")
}

/// PPO and its value model.
pub(crate) struct WithValue {
    config: Ppo,
    value: SequenceClassifier,
    optimizer: Optimizer,
    /// The value model's learning rate in units of the policy's.
    share: f64,
    /// Mean Φ of the first rollout, from which that of all is counted.
    origin: Option<f64>,
}

/// What the value model said of a rollout, and what it should have said.
struct Returns {
    /// V of what stands before each token of each response.
    values: Vec<Vec<f64>>,
    /// The same plus its advantage.
    targets: Vec<Vec<f64>>,
}

impl Solver for WithValue {
    fn update(&mut self, learner: &mut Learner, task: &Task<'_>) -> Result<Tally, TrainError> {
        let kl = self.config.term()?;
        let (old, mut tally) = task.passes(&learner.policy, kl, false).observe()?;
        tally.check(task.step, &task.reference.device())?;
        let values = self.values(&task.rollout.sequences)?;
        let transformed = &task.rollout.transformed;
        let mean = || transformed.iter().sum::<f64>() / transformed.len() as f64;
        let origin = *self.origin.get_or_insert_with(mean);
        let rewards = transformed.iter().zip(&old.penalties);
        let rewards =
            rewards.map(|(phi, penalties)| token_rewards(phi - origin, penalties, task.beta));
        let advantages: Vec<Vec<f64>> = rewards
            .zip(&values)
            .map(|(rewards, values)| gae::advantages(&rewards, values, self.config.gae_lambda))
            .collect();
        let targets = values.iter().zip(&advantages).map(|(v, a)| add(v, a)).collect();
        let returns = Returns { values, targets };
        let advantages = advantages
            .iter()
            .map(|tokens| tokens.iter().map(|a| a / task.beta).collect())
            .collect();
        let surrogate =
            Surrogate { old: old.log_probs, advantages, kl, length_normalised: false, task };
        let reuse = self.config.reuse();
        let (mut losses, learning_rate) = (Vec::new(), learner.learning_rate * self.share);
        tally.clip_fraction = surrogate.improve(learner, &reuse, &mut |responses| {
            losses.push(self.fit(responses, &task.rollout.sequences, &returns, learning_rate)?);
            Ok(())
        })?;
        tally.value_loss = Some(losses.iter().sum::<f64>() / losses.len() as f64);
        Ok(tally)
    }

    fn save(&self, checkpoint: &Path) -> Result<(), TrainError> {
        let dir = value_path(checkpoint);
        std::fs::create_dir_all(&dir).map_err(|error| state_error(&dir, error))?;
        self.value.valid().save(&dir)?;
        if let Some(origin) = self.origin {
            write_json(&origin_path(checkpoint), &origin)?;
        }
        self.optimizer.save(&optimizer_path(checkpoint))
    }
}

/// −β times the KL's share at each token, and Φ at the last.
fn token_rewards(phi: f64, penalties: &[f32], beta: f64) -> Vec<f64> {
    let last = penalties.len().saturating_sub(1);
    let rewards = penalties.iter().enumerate();
    rewards.map(|(t, &p)| if t == last { phi } else { 0.0 } - beta * f64::from(p)).collect()
}

fn add(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

impl WithValue {
    /// V of what stands before each token of each response.
    fn values(&self, sequences: &[Sequence]) -> Result<Vec<Vec<f64>>, TrainError> {
        let values = self.value.prefix_values(sequences)?;
        // The last is that of the whole response, which nothing follows.
        let before =
            |values: Vec<f32>| values[..values.len() - 1].iter().map(|&v| f64::from(v)).collect();
        Ok(values.into_iter().map(before).collect())
    }

    /// Takes one step of the value model on some responses; returns its loss, a mean over their tokens.
    fn fit(
        &mut self,
        responses: &[usize],
        sequences: &[Sequence],
        returns: &Returns,
        learning_rate: f64,
    ) -> Result<f64, TrainError> {
        let chosen: Vec<&Sequence> = responses.iter().map(|&i| &sequences[i]).collect();
        let tokens = chosen.iter().map(|s| s.response().len()).sum::<usize>() as f64;
        let rows = cut(chosen.iter().map(|s| s.tokens.len()), 1);
        let clip = self.config.value_clip.unwrap_or(0.2);
        let net = self.value.net();
        let parts: Vec<_> = chosen.chunks(rows).zip(responses.chunks(rows)).collect();
        let (losses, grads) = sum_gradients(&net, parts.len(), |part| {
            let (sequences, responses) = parts[part];
            // Leaves of its own, as in a pass of the policy.
            let value = self.value.leaves();
            let device = self.value.device();
            let batch = ResponseBatch::new(sequences, value.config(), &device)?;
            let found = value.values_before(&batch);
            let chosen = |of: &[Vec<f64>]| {
                column(responses.iter().flat_map(|&i| &of[i]).map(|&v| v as f32).collect(), &device)
            };
            let (old, targets) = (chosen(&returns.values), chosen(&returns.targets));
            let near = old.clone() + (found.clone() - old).clamp(-clip, clip);
            let loss = (found - targets.clone()).square().max_pair((near - targets).square());
            let share = loss.dims()[0] as f64 / tokens;
            Ok(backward(loss.mean().mul_scalar(0.5 * share), &value.net()))
        })?;
        let (net, _) = self.optimizer.step(net, grads, learning_rate);
        self.value = self.value.clone().with_net(net);
        Ok(losses.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::Rollout;
    use crate::solver::tests::{model, with_task};

    /// The loss of a value model that says 0 of every token.
    ///
    /// - responses: of each its length, and of its tokens the value at the rollout and the target.
    fn loss(config: &str, responses: &[(usize, f64, f64)]) -> f64 {
        let config: Ppo = serde_json::from_str(config).unwrap();
        let optimizer = OptimizerConfig::new(0.1);
        let mut solver = config.begin(&model(1), &optimizer, None).unwrap();
        let sequence = |length: usize| Sequence { tokens: vec![1; 1 + length], prompt_length: 1 };
        let sequences: Vec<Sequence> =
            responses.iter().map(|&(length, ..)| sequence(length)).collect();
        let returns = Returns {
            values: responses.iter().map(|&(length, value, _)| vec![value; length]).collect(),
            targets: responses.iter().map(|&(length, _, target)| vec![target; length]).collect(),
        };
        let numbers: Vec<usize> = (0..responses.len()).collect();
        solver.fit(&numbers, &sequences, &returns, 0.1).unwrap()
    }

    #[test]
    fn a_pass_of_the_value_model_counts_by_its_tokens() {
        // 256 sequences of 16 tokens make one pass: 3,840 response tokens at ½, then 220 at ½·9.
        let responses = [vec![(15, 0.0, 1.0); 256], vec![(5, 0.0, 3.0); 44]].concat();
        let found = loss("{}", &responses);
        assert!((found - 0.5 * (3840.0 + 220.0 * 9.0) / 4060.0).abs() < 1e-5, "{found}");
    }

    #[test]
    fn a_value_that_has_moved_far_enough_loses_what_it_would_at_the_border() {
        // From 1 to 0, where the target is: at the border it is 0.8 and 0.5.
        for (config, expected) in [("{}", 0.32), (r#"{"value_clip": 0.5}"#, 0.125)] {
            let found = loss(config, &[(1, 1.0, 0.0)]);
            assert!((found - expected).abs() < 1e-6, "{config}: {found}");
        }
    }

    #[test]
    fn a_value_that_has_moved_away_from_its_target_loses_all_of_its_error() {
        // From −1, where the target is, to 0: at the border it is −0.8.
        let found = loss("{}", &[(1, -1.0, -1.0)]);
        assert!((found - 0.5).abs() < 1e-6, "{found}");
    }

    /// The rollout of a task as a policy draws it, with something added to each Φ.
    fn drawn(task: &Task<'_>, policy: &CausalLm, added: f64) -> Rollout {
        let sequences = task.rollout.sequences.clone();
        Rollout {
            samples: task.rollout.samples,
            log_probs: policy.valid().log_probs(&sequences).unwrap(),
            transformed: task.rollout.transformed.iter().map(|phi| phi + added).collect(),
            sequences,
            ..Rollout::default()
        }
    }

    #[test]
    fn the_value_model_follows_the_schedule_of_the_policy() {
        with_task(|task| {
            let config: Ppo = serde_json::from_str("{}").unwrap();
            let optimizer = OptimizerConfig::new(0.01);
            let mut learner = Learner::new(model(2), Optimizer::new(&optimizer));
            let rollout = drawn(task, &learner.policy, 0.0);
            let task = Task { rollout: &rollout, ..*task };
            let mut solver = config.begin(task.reference, &optimizer, None).unwrap();
            for (learning_rate, learns) in [(0.0, false), (0.01, true)] {
                learner.learning_rate = learning_rate;
                solver.update(&mut learner, &task).unwrap();
                let values = solver.values(&rollout.sequences).unwrap().concat();
                assert_eq!(values.iter().any(|&v| v != 0.0), learns, "at {learning_rate}");
            }
        });
    }

    /// The policy's log-probabilities of everything after two updates, the second by a solver that was saved and loaded.
    fn trained(constant: f64) -> Vec<f32> {
        let mut found = Vec::new();
        with_task(|task| {
            let config: Ppo = serde_json::from_str("{}").unwrap();
            let optimizer = OptimizerConfig::new(0.01);
            let mut learner = Learner::new(model(2), Optimizer::new(&optimizer));
            learner.learning_rate = 0.01;
            let dir = tempfile::tempdir().unwrap();
            // The second rollout is better than the first.
            for (checkpoint, better) in [(None, 0.0), (Some(dir.path()), 1.0)] {
                let rollout = drawn(task, &learner.policy, constant + better);
                let task = Task { rollout: &rollout, ..*task };
                let mut solver = config.begin(task.reference, &optimizer, checkpoint).unwrap();
                solver.update(&mut learner, &task).unwrap();
                solver.save(dir.path()).unwrap();
            }
            found = learner.policy.valid().log_probs(&task.rollout.sequences).unwrap().concat();
        });
        found
    }

    #[test]
    fn a_checkpoint_that_does_not_say_what_phi_is_counted_from_is_refused() {
        let config: Ppo = serde_json::from_str("{}").unwrap();
        let (reference, optimizer) = (model(1), OptimizerConfig::new(0.1));
        let mut solver = config.begin(&reference, &optimizer, None).unwrap();
        let sequences = [Sequence { tokens: vec![1; 2], prompt_length: 1 }];
        let returns = Returns { values: vec![vec![0.0]], targets: vec![vec![1.0]] };
        solver.fit(&[0], &sequences, &returns, 0.1).unwrap();
        solver.origin = Some(0.5);
        let dir = tempfile::tempdir().unwrap();
        solver.save(dir.path()).unwrap();
        let begin = || config.begin(&reference, &optimizer, Some(dir.path()));
        assert_eq!(begin().unwrap().origin, Some(0.5));
        std::fs::write(origin_path(dir.path()), "null").unwrap();
        assert!(matches!(begin(), Err(TrainError::State { .. })));
        std::fs::remove_file(origin_path(dir.path())).unwrap();
        assert!(matches!(begin(), Err(TrainError::State { .. })));
    }

    #[test]
    fn a_constant_in_the_reward_changes_nothing() {
        let (plain, shifted) = (trained(0.0), trained(64.0));
        let pairs = plain.iter().zip(&shifted);
        let apart = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-4, "{apart}");
    }
}
