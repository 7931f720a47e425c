//! CTRL: calibrate-and-transform reinforcement learning (InfAlign, arXiv 2412.19792), by one of several solvers.
//!
//! Maximises E[Φ(C(x, y))] − β KL(π‖π_ref) over the policy π, where C is the reward's quantile under π_ref on the same prompt.
//! How it departs from the paper:
//! 1. The solver is RLOO (leave-one-out baseline, whole responses, one gradient step a rollout) where the recipe names no other; the paper's
//!    is PPO. `solver/` has them, a file each, and each says how it departs from its own paper.
//! 2. The KL is in the reward, as R = Φ(u)/β − log π(y)/π_ref(y), where the solver's settings do not say otherwise: at the optimum R is the
//!    same for every response of a prompt, so the variance of RLOO's gradient vanishes there.
//! 3. Φ is scaled to [0, 1]; with a target KL, β starts at the value of the continuous limit and is then steered (`controller.rs`).

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use infalign_backend::precision::{POSITIVE, is_positive};
use infalign_calibrate::rollouts::Rollouts;
use infalign_decode::{EncodedPrompt, Generator, Sampling};
use infalign_model::{CausalLm, LoraConfig, Tokenizer};
use infalign_reward::{Reward, RewardError};
use serde::{Deserialize, Serialize};

use crate::adapter::starting_policy;
use crate::batches::{Batches, check_prompts};
use crate::checkpoint;
use crate::controller::Controller;
use crate::fit::{check_counts, check_finite, checkpoint_every};
use crate::optimizer::Optimizer;
use crate::rollout::{Rollout, Scoring, check_sampling};
use crate::solver::{Learner, Solver, Task, check_group};
use crate::{Calibrator, Objective, OptimizerConfig, SolverConfig, StepMetrics, TrainError};

/// What β is in place of 0.
const NO_KL: &str = "above 0, since the gradient is that of E[Φ]/β − KL: for next to no KL take 1e-6, and a `max_grad_norm` a million times as large";

/// Settings of a CTRL run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CtrlConfig {
    /// Rollouts, each good for one optimiser step or, by the solver, several.
    pub steps: usize,
    /// Prompts of one step.
    pub prompts_per_step: usize,
    /// Responses to each; at least 2 for solvers that compare them, and for calibration within groups.
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
    /// The policy that the run ends with.
    #[serde(default)]
    pub keep: Keep,
    /// How the policy is improved.
    #[serde(default)]
    pub solver: SolverConfig,
    /// The optimiser.
    pub optimizer: OptimizerConfig,
    /// A new adapter, which is trained in place of all weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
}

/// Which of its policies a run ends with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// That of the last step.
    #[default]
    Last,
    /// That of the checkpoint before which E[Φ(u)] − β KL(π‖π_ref) was greatest, a mean over the steps since the checkpoint before it, at the
    /// first step's β. The responses are those of the training: no held-out prompt takes part in the choice. Needs a calibration table: within
    /// groups the mean of u is ½ whatever the policy, so that the KL alone would choose.
    Best,
}

impl CtrlConfig {
    /// Refuses settings that are out of range, and sampling from anything but the policy itself.
    ///
    /// # Errors
    /// [`TrainError`] names the setting, its value and the range.
    pub fn check(&self, sampling: &Sampling) -> Result<(), TrainError> {
        self.optimizer.check()?;
        self.lora.as_ref().map_or(Ok(()), LoraConfig::check)?;
        check_sampling(sampling)?;
        check_counts(&[
            ("steps", self.steps),
            ("prompts_per_step", self.prompts_per_step),
            ("samples_per_prompt", self.samples_per_prompt),
            ("checkpoint_every", self.checkpoint_every),
        ])?;
        self.solver.check(self.prompts_per_step, self.samples_per_prompt)?;
        self.check_kl()
    }

    /// Refuses none or both of `target_kl` and `beta`, and values out of range.
    ///
    /// # Errors
    /// As [`CtrlConfig::check`].
    pub fn check_kl(&self) -> Result<(), TrainError> {
        if self.target_kl.is_some() == self.beta.is_some() {
            return Err(TrainError::KlOrBeta);
        }
        let has_kl_term = !matches!(self.solver, SolverConfig::Regression(_));
        if self.beta == Some(0.0) && has_kl_term {
            return Err(TrainError::setting("beta", "0", NO_KL));
        }
        for (key, value) in [("target_kl", self.target_kl), ("beta", self.beta)] {
            if let Some(value) = value.filter(|value| !is_positive(*value)) {
                return Err(TrainError::setting(key, format!("{value:?}"), POSITIVE));
            }
        }
        Ok(())
    }

    /// Refuses to keep the best policy where there is one to choose from: that of the last step, or that of the only checkpoint before it.
    ///
    /// # Errors
    /// [`TrainError::Setting`].
    pub fn check_keep(&self) -> Result<(), TrainError> {
        let after_first = self.steps.saturating_sub(self.checkpoint_every);
        if self.keep == Keep::Best && !self.counts(after_first) {
            let valid = "at most two thirds of `steps` with keep = \"best\", or there is one policy to choose from: lower it, or take keep = \"last\"";
            return Err(TrainError::setting(
                "checkpoint_every",
                self.checkpoint_every.to_string(),
                valid,
            ));
        }
        Ok(())
    }

    /// Whether that many steps since a checkpoint can be the best: a few at the end would win or lose by their noise.
    fn counts(&self, steps: usize) -> bool {
        steps >= self.checkpoint_every.div_ceil(2)
    }

    /// Refuses what cannot be done where responses are calibrated within their group.
    ///
    /// # Errors
    /// [`TrainError::NeedsTable`], [`TrainError::BestOfGroups`], and [`TrainError::Setting`] for groups of one response, whose u is always ½.
    pub fn check_groups(&self) -> Result<(), TrainError> {
        if self.solver.needs_table() {
            return Err(TrainError::NeedsTable { what: "solver \"regression\"".into() });
        }
        if self.keep == Keep::Best {
            return Err(TrainError::BestOfGroups);
        }
        check_group(self.samples_per_prompt)
    }

    /// Refuses an objective that the solver or the number of responses does not allow.
    ///
    /// # Errors
    /// [`TrainError::NotPointwise`], [`TrainError::NotASelection`], and [`TrainError::Setting`] for a win rate or an expected reward whose procedure
    /// looks at all of the responses to a prompt, or more.
    pub fn check_objective(&self, objective: &Objective) -> Result<(), TrainError> {
        self.solver.check_objective(objective)?;
        match objective.choice()? {
            Some(choice) if choice.samples() >= self.samples_per_prompt => {
                let valid = "more than the N that the procedure of the objective keeps one of: a response's share in it is what the others lose without it";
                let samples = self.samples_per_prompt.to_string();
                Err(TrainError::setting("samples_per_prompt", samples, valid))
            }
            _ => Ok(()),
        }
    }

    /// β at the first step, on the scale of the trained reward: fixed, or that of the theory for the target KL.
    ///
    /// # Errors
    /// [`TrainError::KlOrBeta`], and [`TrainError::Transform`] for a KL that the objective cannot reach.
    pub fn first_beta(&self, objective: &Objective) -> Result<f64, TrainError> {
        match (self.beta, self.target_kl) {
            (Some(beta), None) => Ok(beta),
            (None, Some(kl)) => objective.beta_for_kl(kl),
            _ => Err(TrainError::KlOrBeta),
        }
    }
}

/// Everything that one CTRL run needs. It trains a [`CausalLm`]: any other [`LanguageModel`](infalign_model::LanguageModel) can only be sampled from.
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
    /// Stored responses of π_ref, for a solver that learns from such: at least `samples_per_prompt` of every prompt.
    pub rollouts: Option<&'a Rollouts>,
    /// How responses are sampled: at temperature 1 over the whole vocabulary, so that they come from π itself.
    pub sampling: Sampling,
    /// Largest number of responses generated together.
    pub batch: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Folder of the checkpoints, one for each run: the newest that it holds is gone on from, and no setting of the run that wrote it is compared.
    pub checkpoints: PathBuf,
}

/// A run in progress.
struct Run {
    learner: Learner,
    solver: Box<dyn Solver>,
    /// Which prompts belong to which step.
    batches: Batches,
    state: State,
}

/// What a checkpoint holds besides weights, optimiser and what the solver keeps.
#[derive(Serialize, Deserialize)]
struct State {
    /// Steps done.
    step: usize,
    controller: Controller,
    /// The mean objective of the best policy so far, where that is kept.
    best: Option<f64>,
    /// E[Φ(u)] − β KL of each step since the last checkpoint that was due.
    objectives: Vec<f64>,
}

impl CtrlTrainer<'_> {
    /// Trains from the newest checkpoint, or from the reference, to the last step, and returns the policy.
    ///
    /// - observe: called after every step, with the policy that it led to; its error ends the run without a checkpoint of that step.
    /// - interrupted: when it becomes true, the run checkpoints after the current step and stops; a reward that is stopped by itself has it
    ///   checkpoint after the step before, where there was one.
    ///
    /// # Errors
    /// [`TrainError::Interrupted`] and [`TrainError::Diverged`] name the checkpoint to go on from, [`TrainError::State`] a file of one that is
    /// damaged.
    pub fn run(
        &self,
        observe: &mut dyn FnMut(&StepMetrics, &CausalLm) -> Result<(), TrainError>,
        interrupted: &AtomicBool,
    ) -> Result<CausalLm, TrainError> {
        self.check()?;
        let mut run = self.begin()?;
        let (unit, beta) = (self.calibrator.reward_unit(), self.config.first_beta(self.objective)?);
        while run.state.step < self.config.steps {
            let metrics = match self.step(&mut run, unit) {
                // Before anything was learned in this step.
                Err(TrainError::Reward(RewardError::Stopped)) => {
                    let save = || self.save(&run);
                    return Err(checkpoint::stopped(&self.checkpoints, run.state.step, save));
                }
                metrics => metrics?,
            };
            observe(&metrics, &run.learner.policy)?;
            run.state.objectives.push(metrics.reward_transformed - beta * metrics.kl);
            let stop = interrupted.load(Ordering::Relaxed);
            let due = run.state.step % self.config.checkpoint_every == 0
                || run.state.step == self.config.steps;
            if due {
                self.keep_best(&mut run)?;
            }
            if stop || due {
                let dir = self.save(&run)?;
                if stop && run.state.step < self.config.steps {
                    return Err(TrainError::Interrupted { step: run.state.step, dir });
                }
            }
        }
        match run.state.best {
            Some(_) => {
                checkpoint::check(&self.best())?;
                Ok(self.reference.load_trained(&self.best())?)
            }
            None => Ok(run.learner.policy.valid()),
        }
    }

    /// Where the best policy so far is.
    fn best(&self) -> PathBuf {
        self.checkpoints.join("best")
    }

    /// Keeps the policy if the steps since the last checkpoint went better than those before any other.
    fn keep_best(&self, run: &mut Run) -> Result<(), TrainError> {
        let objectives = std::mem::take(&mut run.state.objectives);
        if run.state.best.is_some() && !self.config.counts(objectives.len()) {
            return Ok(());
        }
        let objective = objectives.iter().sum::<f64>() / objectives.len() as f64;
        let better = run.state.best.is_none_or(|best| objective > best);
        if self.config.keep == Keep::Last || !better {
            return Ok(());
        }
        checkpoint::write_folder(&self.best(), |folder| Ok(run.learner.policy.save(folder)?))?;
        run.state.best = Some(objective);
        Ok(())
    }

    fn save(&self, run: &Run) -> Result<PathBuf, TrainError> {
        let Run { learner, solver, state, .. } = run;
        checkpoint::write(&self.checkpoints, state.step, &learner.optimizer, state, |folder| {
            learner.policy.save(folder)?;
            solver.save(folder)
        })
    }

    fn check(&self) -> Result<(), TrainError> {
        self.config.check(&self.sampling)?;
        self.config.check_objective(self.objective)?;
        self.check_rollouts()?;
        match self.calibrator {
            Calibrator::Table(table) => {
                table.check_holds(self.prompts.iter().map(|p| (p.id.as_str(), p.text.as_str())))?;
                let mut rows = self.prompts.iter().filter_map(|prompt| table.get(&prompt.text));
                rows.try_for_each(|row| self.objective.check_row(row))?;
            }
            Calibrator::Group
                if matches!(self.objective, Objective::WinRate(_) | Objective::Reward(_)) =>
            {
                return Err(TrainError::NeedsTable {
                    what: format!("objective {}", self.objective),
                });
            }
            Calibrator::Group => self.config.check_groups()?,
        }
        check_prompts(self.prompts.len(), self.config.prompts_per_step)
    }

    fn check_rollouts(&self) -> Result<(), TrainError> {
        if !self.config.solver.learns_from_reference() {
            return Ok(());
        }
        let needed = self.config.samples_per_prompt;
        match self.rollouts.map_or(0, Rollouts::samples) {
            stored if stored >= needed => Ok(()),
            stored => Err(TrainError::Data(format!(
                "the solver learns from {needed} stored reference responses to a prompt, but there are {stored}"
            ))),
        }
    }

    fn begin(&self) -> Result<Run, TrainError> {
        let newest = checkpoint::intact(&self.checkpoints)?;
        let (config, optimizer) = (self.config, Optimizer::new(&self.config.optimizer));
        let batches = Batches::new(self.seed, self.prompts.len(), config.prompts_per_step);
        let solver = config.solver.begin(self.reference, &config.optimizer, newest.as_deref())?;
        if let Some(path) = newest {
            let policy = self.reference.load_trained(&path)?;
            let learner = Learner::new(policy, optimizer.load(&checkpoint::optimizer_path(&path))?);
            let state: State = checkpoint::load_state(&path)?;
            // What the run may end with, before it goes on for long.
            state.best.map_or(Ok(()), |_| checkpoint::check(&self.best()))?;
            return Ok(Run { learner, solver, batches, state });
        }
        let beta = config.first_beta(self.objective)?;
        let controller = Controller::new(beta, config.target_kl, config.steps);
        let state = State { step: 0, controller, best: None, objectives: Vec::new() };
        let policy = starting_policy(self.reference, config.lora.as_ref(), self.seed)?;
        Ok(Run { learner: Learner::new(policy, optimizer), solver, batches, state })
    }

    /// Samples, scores, and lets the solver improve the policy.
    fn step(&self, run: &mut Run, unit: f64) -> Result<StepMetrics, TrainError> {
        let start = Instant::now();
        let (step, beta) = (run.state.step, run.state.controller.beta());
        let prompts: Vec<EncodedPrompt> =
            run.batches.indices(step).into_iter().map(|i| self.prompts[i].clone()).collect();
        let stops = self.tokenizer.stops() | &self.sampling.stop_token_ids;
        let scoring = Scoring {
            tokenizer: self.tokenizer,
            reward: self.reward,
            calibrator: self.calibrator,
            objective: self.objective,
            unit,
            stops: &stops,
        };
        let rollout = self.rollout(run, &prompts, &scoring)?;
        run.learner.learning_rate = self.config.optimizer.rate(step, self.config.steps);
        let task = Task {
            reference: self.reference,
            prompts: &prompts,
            rollout: &rollout,
            scoring: &scoring,
            beta,
            seed: self.seed,
            step,
        };
        let tally = run.solver.update(&mut run.learner, &task)?;
        let grad_norm = run.learner.take_norm();
        let metrics = tally.metrics(step + 1, &rollout, beta, grad_norm, run.learner.learning_rate);
        let found = [
            ("the KL", metrics.kl),
            ("the gradient's norm", metrics.grad_norm),
            ("the value model's loss", metrics.value_loss.unwrap_or(0.0)),
        ];
        check_finite(&self.checkpoints, metrics.step, &found)?;
        run.state.step += 1;
        run.state.controller.observe(metrics.kl, run.state.step);
        Ok(StepMetrics { seconds: start.elapsed().as_secs_f64(), ..metrics })
    }

    /// Responses to a step's prompts: stored ones of π_ref where the solver learns from such, else the policy's own.
    fn rollout(
        &self,
        run: &Run,
        prompts: &[EncodedPrompt],
        scoring: &Scoring<'_>,
    ) -> Result<Rollout, TrainError> {
        let (step, samples) = (run.state.step, self.config.samples_per_prompt);
        if let Some(rollouts) = self.rollouts.filter(|_| self.config.solver.learns_from_reference())
        {
            // The next of the stored responses each time that a prompt comes up.
            let next = Batches::new(self.seed, rollouts.samples(), samples);
            let numbers = next.indices(run.batches.epoch(step));
            return Rollout::stored(prompts, &numbers, rollouts, scoring);
        }
        let model = run.learner.policy.clone().for_inference();
        let (model, stops, stage) =
            (model.as_ref(), self.tokenizer.stops(), format!("rollout-{step}"));
        let generator = Generator::new(model, stops, &self.sampling, self.seed, &stage, self.batch);
        Rollout::sample(prompts, samples, &generator, scoring)
    }
}
