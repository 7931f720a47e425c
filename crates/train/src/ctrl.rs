//! CTRL: calibrate-and-transform reinforcement learning (InfAlign, arXiv 2412.19792), by REINFORCE leave-one-out.
//!
//! Maximises E[Φ(C(x, y))] − β KL(π‖π_ref) over the policy π, where C is the reward's quantile under π_ref on the same prompt.
//! How it departs from the paper:
//! 1. The solver is RLOO (leave-one-out baseline, whole responses, one gradient step a rollout) instead of PPO.
//! 2. The KL is in the reward, as R = Φ(u)/β − log π(y)/π_ref(y): at the optimum R is the same for every response of a prompt, so
//!    the gradient's variance vanishes there.
//! 3. Φ is scaled to [0, 1]; with a target KL, β starts at the value of the continuous limit and is then steered.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use infalign_decode::{EncodedPrompt, Generator, Sampling};
use infalign_model::{CausalLm, LoraConfig, Tokenizer};
use infalign_reward::Reward;
use serde::{Deserialize, Serialize};

use crate::adapter::adapter_uniforms;
use crate::batches::Batches;
use crate::checkpoint::{self, State};
use crate::controller::Controller;
use crate::gradient::policy_gradient;
use crate::optimizer::Optimizer;
use crate::rollout::{Rollout, Scoring};
use crate::schedule::linear;
use crate::{Calibrator, Objective, OptimizerConfig, StepMetrics, TrainError};

/// Settings of a CTRL run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CtrlConfig {
    /// Optimiser steps.
    pub steps: usize,
    /// Prompts of one step.
    pub prompts_per_step: usize,
    /// Responses to each, at least 2.
    pub samples_per_prompt: usize,
    /// KL(π‖π_ref) to reach, in nats per response. Either this or `beta`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_kl: Option<f64>,
    /// Fixed KL coefficient, on the scale of the trained reward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
    /// Steps from one checkpoint to the next.
    #[serde(default = "checkpoint_every")]
    pub checkpoint_every: usize,
    /// The optimiser.
    pub optimizer: OptimizerConfig,
    /// A new adapter, which is trained in place of all weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
}

fn checkpoint_every() -> usize {
    50
}

impl CtrlConfig {
    /// Refuses settings that are out of range, and sampling from anything but the policy itself.
    ///
    /// # Errors
    /// [`TrainError`] names the setting, its value and the range.
    pub fn check(&self, sampling: &Sampling) -> Result<(), TrainError> {
        self.optimizer.check()?;
        self.lora.as_ref().map_or(Ok(()), LoraConfig::check)?;
        let plain = Sampling { max_tokens: sampling.max_tokens, ..Sampling::default() };
        if *sampling != plain {
            let valid = "at temperature 1, top_k 0 and top_p 1: the policy gradient needs responses of the policy itself";
            return Err(TrainError::Setting {
                key: "generation",
                value: format!("{sampling:?}"),
                valid,
            });
        }
        for (key, value, least, valid) in [
            ("steps", self.steps, 1, "at least 1"),
            ("prompts_per_step", self.prompts_per_step, 1, "at least 1"),
            (
                "samples_per_prompt",
                self.samples_per_prompt,
                2,
                "at least 2: each response is compared with the others",
            ),
            ("checkpoint_every", self.checkpoint_every, 1, "at least 1"),
        ] {
            if value < least {
                return Err(TrainError::Setting { key, value: value.to_string(), valid });
            }
        }
        if self.target_kl.is_some() == self.beta.is_some() {
            return Err(TrainError::KlOrBeta);
        }
        for (key, value) in [("target_kl", self.target_kl), ("beta", self.beta)] {
            if let Some(value) = value.filter(|v| !(*v > 0.0 && v.is_finite())) {
                return Err(TrainError::Setting {
                    key,
                    value: value.to_string(),
                    valid: "above 0",
                });
            }
        }
        Ok(())
    }
}

/// Everything that one CTRL run needs.
pub struct CtrlTrainer<'a> {
    /// Settings.
    pub config: &'a CtrlConfig,
    /// What is maximised.
    pub objective: &'a Objective,
    /// Prompts to train on.
    pub prompts: &'a [EncodedPrompt],
    /// π_ref, from which the policy starts. Of one with an adapter, the adapter alone is trained further.
    pub reference: &'a CausalLm,
    /// The tokenizer of the reference.
    pub tokenizer: &'a Tokenizer,
    /// r.
    pub reward: &'a dyn Reward,
    /// What rewards are calibrated by.
    pub calibrator: Calibrator<'a>,
    /// How responses are sampled: at temperature 1 over the whole vocabulary, so that they come from π itself.
    pub sampling: Sampling,
    /// Largest number of responses generated together.
    pub batch: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Folder of the checkpoints.
    pub checkpoints: PathBuf,
}

/// A run in progress.
struct Run {
    policy: CausalLm,
    optimizer: Optimizer,
    state: State,
}

impl CtrlTrainer<'_> {
    /// Trains from the newest checkpoint, or from the reference, to the last step, and returns the policy.
    ///
    /// - observe: called after every step.
    /// - interrupted: when it becomes true, the run checkpoints after the current step and stops.
    ///
    /// # Errors
    /// [`TrainError::Interrupted`] and [`TrainError::Diverged`] name the checkpoint to go on from.
    pub fn run(
        &self,
        observe: &mut dyn FnMut(&StepMetrics),
        interrupted: &AtomicBool,
    ) -> Result<CausalLm, TrainError> {
        self.check()?;
        let mut run = self.begin()?;
        let unit = self.calibrator.reward_unit();
        while run.state.step < self.config.steps {
            let metrics = self.step(&mut run, unit)?;
            observe(&metrics);
            let stop = interrupted.load(Ordering::Relaxed);
            if stop
                || run.state.step % self.config.checkpoint_every == 0
                || run.state.step == self.config.steps
            {
                let dir =
                    checkpoint::save(&self.checkpoints, &run.policy, &run.optimizer, &run.state)?;
                if stop && run.state.step < self.config.steps {
                    return Err(TrainError::Interrupted { step: run.state.step, dir });
                }
            }
        }
        Ok(run.policy.valid())
    }

    /// Steps that the newest checkpoint holds: what a resumed run will not do again.
    ///
    /// # Errors
    /// [`TrainError::State`] when the checkpoint is damaged.
    pub fn steps_done(&self) -> Result<usize, TrainError> {
        checkpoint::newest(&self.checkpoints)
            .map_or(Ok(0), |path| Ok(checkpoint::load_state::<State>(&path)?.step))
    }

    fn check(&self) -> Result<(), TrainError> {
        self.config.check(&self.sampling)?;
        if let Calibrator::Table(table) = self.calibrator {
            table.check_holds(self.prompts.iter().map(|p| (p.id.as_str(), p.text.as_str())))?;
        }
        let (n, per_step) = (self.prompts.len(), self.config.prompts_per_step);
        if n < per_step {
            let what = format!(
                "prompts_per_step is {per_step}, but there are only {n} prompts to train on"
            );
            return Err(TrainError::Data(what));
        }
        Ok(())
    }

    fn begin(&self) -> Result<Run, TrainError> {
        let optimizer = Optimizer::new(&self.config.optimizer);
        if let Some(path) = checkpoint::newest(&self.checkpoints) {
            let policy = self.reference.load_trained(&path)?.train();
            let optimizer = optimizer.load(&checkpoint::optimizer_path(&path))?;
            return Ok(Run { policy, optimizer, state: checkpoint::load_state(&path)? });
        }
        let beta = match (self.config.beta, self.config.target_kl) {
            (Some(beta), _) => beta,
            (None, Some(kl)) => self.objective.beta_for_kl(kl)?,
            (None, None) => return Err(TrainError::KlOrBeta),
        };
        let state = State { step: 0, controller: Controller::new(beta, self.config.target_kl) };
        Ok(Run { policy: self.start()?.train(), optimizer, state })
    }

    /// The policy before the first step: it computes what the reference does.
    fn start(&self) -> Result<CausalLm, TrainError> {
        let reference = self.reference.clone();
        let Some(config) = &self.config.lora else { return Ok(reference) };
        Ok(reference.with_new_adapter(config.clone(), &mut adapter_uniforms(self.seed))?)
    }

    /// Samples, scores, and takes one optimiser step.
    fn step(&self, run: &mut Run, unit: f64) -> Result<StepMetrics, TrainError> {
        let step = run.state.step;
        let batches = Batches::new(self.seed, self.prompts.len(), self.config.prompts_per_step);
        let prompts: Vec<EncodedPrompt> =
            batches.indices(step).into_iter().map(|i| self.prompts[i].clone()).collect();
        let behaviour = run.policy.clone().for_inference();
        let stage = format!("rollout-{step}");
        let generator = Generator {
            model: behaviour.as_ref(),
            stops: self.tokenizer.stops(),
            sampling: self.sampling,
            seed: self.seed,
            stage: &stage,
            batch: self.batch,
            stop_texts: None,
            watch: None,
        };
        let scoring = Scoring {
            tokenizer: self.tokenizer,
            reward: self.reward,
            calibrator: self.calibrator,
            objective: self.objective,
            unit,
        };
        let rollout =
            Rollout::sample(&prompts, self.config.samples_per_prompt, &generator, &scoring)?;
        let samples = self.config.samples_per_prompt;
        let (grads, divergence) = policy_gradient(
            &run.policy,
            self.reference,
            &rollout,
            samples,
            run.state.controller.beta(),
        )?;
        let factor = linear(
            step,
            self.config.steps,
            self.config.optimizer.warmup_steps,
            self.config.optimizer.final_share,
        );
        let learning_rate = self.config.optimizer.learning_rate * factor;
        let (net, grad_norm) = run.optimizer.step(run.policy.net().clone(), grads, learning_rate);
        let metrics = divergence.metrics(
            step + 1,
            &rollout,
            run.state.controller.beta(),
            grad_norm,
            learning_rate,
        );
        self.check_finite(&metrics)?;
        run.policy = run.policy.clone().with_net(net);
        run.state.step += 1;
        run.state.controller.observe(metrics.kl, run.state.step as f64 / self.config.steps as f64);
        Ok(metrics)
    }

    fn check_finite(&self, metrics: &StepMetrics) -> Result<(), TrainError> {
        for (what, value) in [("the KL", metrics.kl), ("the gradient's norm", metrics.grad_norm)] {
            if !value.is_finite() {
                let checkpoint = checkpoint::newest(&self.checkpoints)
                    .map_or("none".into(), |path| path.display().to_string());
                return Err(TrainError::Diverged { step: metrics.step, what, value, checkpoint });
            }
        }
        Ok(())
    }
}
