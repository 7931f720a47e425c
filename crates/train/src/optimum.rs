//! How near a policy is to the exact optimum of what it is trained on, where all responses can be listed.
//!
//! For a prompt x, with p = π_ref(·|x) and the trained reward Φ of each response, the greatest E[Φ] − β KL(π‖p) is β log Σ p e^{Φ/β}, at
//! π* ∝ p e^{Φ/β} (InfAlign, arXiv 2412.19792, the solution of KL-regularised RL). Φ is that of the trainer, estimated by the same table.

use infalign_decode::exact::responses;
use infalign_decode::{EncodedPrompt, Response, Sampling};
use infalign_model::{CausalLm, Sequence, Tokenizer};
use infalign_reward::Reward;
use infalign_transform::{Outcomes, Procedure, kl_divergence};
use serde::{Deserialize, Serialize};

use crate::rollout::rewards;
use crate::{Calibrator, Objective, TrainError};

/// All responses of a reference policy to some prompts, with their probabilities and rewards.
pub struct Enumeration<'a> {
    prompts: &'a [EncodedPrompt],
    /// `[prompts][responses]`.
    responses: Vec<Vec<Response>>,
    /// p and r of each prompt's responses.
    outcomes: Vec<Outcomes>,
}

/// A policy beside the exact optimum of what it was trained on: means over prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Nearness {
    /// β, on the scale of the trained reward.
    pub beta: f64,
    /// KL(π‖π_ref) of the policy, exact, in nats.
    pub kl: f64,
    /// E\[Φ\] − β KL of the policy.
    pub value: f64,
    /// The greatest there is.
    pub optimum: f64,
    /// (optimum − value)/|optimum|.
    pub lacking: f64,
    /// KL(π‖π*) in nats, π* being the optimal policy.
    pub distance: f64,
    /// Win rates of the policy and of π*, exact, ties counted half.
    pub win_rates: Vec<ExactWinRate>,
}

/// The exact win rates under one procedure on both sides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExactWinRate {
    /// The procedure.
    pub procedure: Procedure,
    /// W of the policy over the reference.
    pub policy: f64,
    /// W of the optimal policy over the reference.
    pub optimum: f64,
}

/// Φ of each response to one prompt, and the probabilities of a policy and of the reference.
struct Problem<'a> {
    outcomes: &'a Outcomes,
    phi: Vec<f64>,
    policy: Vec<f64>,
}

impl<'a> Enumeration<'a> {
    /// Lists and scores every response to every prompt.
    ///
    /// - `sampling`: how long responses are, and where they end.
    ///
    /// # Errors
    /// [`TrainError::Decode`] for prompts that do not fit, [`TrainError::Reward`] where the reward fails.
    pub fn new(
        reference: &CausalLm,
        prompts: &'a [EncodedPrompt],
        tokenizer: &Tokenizer,
        reward: &dyn Reward,
        sampling: &Sampling,
    ) -> Result<Self, TrainError> {
        let (mut all, mut outcomes) = (Vec::new(), Vec::new());
        for prompt in prompts {
            let listed = vec![responses(reference, prompt, sampling, tokenizer.stops())?];
            let rewards = rewards(std::slice::from_ref(prompt), &listed, tokenizer, reward)?;
            let rewards = rewards.into_iter().map(f64::from).collect();
            outcomes.push(Outcomes::new(normalised(&log_probs(&listed[0])), rewards)?);
            all.extend(listed);
        }
        Ok(Self { prompts, responses: all, outcomes })
    }

    /// How near a policy is to the optimum.
    ///
    /// - `beta`: what it was trained with, on the scale of the trained reward; without, that at which the optimum is as far from the
    ///   reference as the policy, so that both are compared at one KL.
    /// - `procedures`: those whose win rates are told.
    ///
    /// # Errors
    /// [`TrainError::Calibrate`] for a prompt that the table lacks, [`TrainError::Transform`] for a procedure that does not select by reward.
    pub fn nearness(
        &self,
        policy: &CausalLm,
        objective: &Objective,
        calibrator: Calibrator<'_>,
        beta: Option<f64>,
        procedures: &[Procedure],
    ) -> Result<Nearness, TrainError> {
        let unit = calibrator.reward_unit();
        let problem = |index| self.problem(index, policy, objective, calibrator, unit);
        let problems: Vec<Problem<'_>> =
            (0..self.prompts.len()).map(problem).collect::<Result<_, _>>()?;
        let kl =
            mean(problems.iter().map(|p| kl_divergence(&p.policy, p.outcomes.probabilities())));
        let beta = beta.unwrap_or_else(|| beta_for_kl(&problems, kl));
        let optima: Vec<Vec<f64>> = problems.iter().map(|problem| problem.optimum(beta)).collect();
        let both = || problems.iter().zip(&optima);
        let value = mean(problems.iter().map(|problem| problem.value(&problem.policy, beta)));
        let optimum = mean(both().map(|(problem, best)| problem.value(best, beta)));
        let distance = mean(both().map(|(problem, best)| kl_divergence(&problem.policy, best)));
        let win_rates = procedures.iter().map(|procedure| win_rate(*procedure, &problems, &optima));
        let win_rates = win_rates.collect::<Result<_, _>>()?;
        let lacking = (optimum - value) / optimum.abs();
        Ok(Nearness { beta, kl, value, optimum, lacking, distance, win_rates })
    }

    fn problem(
        &self,
        index: usize,
        policy: &CausalLm,
        objective: &Objective,
        calibrator: Calibrator<'_>,
        unit: f64,
    ) -> Result<Problem<'_>, TrainError> {
        let (prompt, outcomes) = (&self.prompts[index], &self.outcomes[index]);
        let rewards: Vec<f32> = outcomes.rewards().iter().map(|&reward| reward as f32).collect();
        let quantiles = calibrator.quantiles(prompt, &rewards)?;
        let scale = calibrator.scale(prompt, unit)?;
        let phi = rewards.iter().zip(quantiles).map(|(&r, u)| objective.apply(r, u, scale));
        let sequences: Vec<Sequence> =
            self.responses[index].iter().map(|response| response.sequence(prompt)).collect();
        let policy: Vec<f64> = policy.log_probs(&sequences)?.iter().map(|l| whole(l)).collect();
        Ok(Problem { outcomes, phi: phi.collect(), policy: normalised(&policy) })
    }
}

impl Problem<'_> {
    /// π* ∝ p e^{Φ/β}.
    fn optimum(&self, beta: f64) -> Vec<f64> {
        let weights = self.outcomes.probabilities().iter().zip(&self.phi);
        normalised(&weights.map(|(p, phi)| p.ln() + phi / beta).collect::<Vec<_>>())
    }

    /// E\[Φ\] − β KL.
    fn value(&self, policy: &[f64], beta: f64) -> f64 {
        let expected: f64 = policy.iter().zip(&self.phi).map(|(q, phi)| q * phi).sum();
        expected - beta * kl_divergence(policy, self.outcomes.probabilities())
    }
}

fn win_rate(
    procedure: Procedure,
    problems: &[Problem<'_>],
    optima: &[Vec<f64>],
) -> Result<ExactWinRate, TrainError> {
    let of_prompt = |problem: &Problem<'_>, best: &Vec<f64>| {
        let win_rate = |policy: &[f64]| problem.outcomes.win_rate(&procedure, policy);
        Ok([win_rate(&problem.policy)?, win_rate(best)?])
    };
    let both = problems.iter().zip(optima).map(|(problem, best)| of_prompt(problem, best));
    let both: Vec<[f64; 2]> = both.collect::<Result<_, TrainError>>()?;
    let [policy, optimum] = [0, 1].map(|which| mean(both.iter().map(|pair| pair[which])));
    Ok(ExactWinRate { procedure, policy, optimum })
}

/// The β whose optimum is `kl` nats from the reference. Where no optimum is that far, the least β at which every weight e^{Φ/β} is a number.
fn beta_for_kl(problems: &[Problem<'_>], kl: f64) -> f64 {
    /// Greatest (max Φ − min Φ)/β, within what e^x holds.
    const STEEPEST: f64 = 500.0;
    let reached = |beta: f64| {
        mean(problems.iter().map(|p| kl_divergence(&p.optimum(beta), p.outcomes.probabilities())))
    };
    let all = || problems.iter().flat_map(|problem| problem.phi.iter().copied());
    let range = all().fold(f64::NEG_INFINITY, f64::max) - all().fold(f64::INFINITY, f64::min);
    // The KL falls as β grows.
    let (mut low, mut high) = (range / STEEPEST, range * 1e6);
    for _ in 0..200 {
        let middle = (low * high).sqrt();
        if reached(middle) > kl {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// Log-probabilities of whole responses.
fn log_probs(responses: &[Response]) -> Vec<f64> {
    responses.iter().map(|response| whole(&response.log_probs)).collect()
}

fn whole(tokens: &[f32]) -> f64 {
    tokens.iter().map(|&log_prob| f64::from(log_prob)).sum()
}

/// Probabilities from their logarithms, which need not be normalised.
fn normalised(logs: &[f64]) -> Vec<f64> {
    let greatest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logs.iter().map(|log| (log - greatest).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}
