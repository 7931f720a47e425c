//! How near a policy is to the exact optimum of what it is trained on, where all responses can be listed.
//!
//! For a prompt x, with p = π_ref(·|x) and the trained reward Φ of each response, the greatest E[Φ] − β KL(π‖p) is β log Σ p e^{Φ/β}, at
//! π* ∝ p e^{Φ/β} (InfAlign, arXiv 2412.19792, the solution of KL-regularised RL). Φ is that of the trainer, estimated by the same table.
//! Of a win rate, the greatest W^T(π ≻ p) − β KL(π‖p) is that of [`Outcomes::optimum`], by the exact probabilities of the reference.

use infalign_decode::exact::responses;
use infalign_decode::{EncodedPrompt, Response, Sampling};
use infalign_model::{CausalLm, Sequence, Tokenizer};
use infalign_reward::Reward;
use infalign_transform::{Beta, Outcomes, Procedure, TransformError};
use serde::{Deserialize, Serialize};

use crate::objective::Group;
use crate::passes::sum;
use crate::rollout::rewards;
use crate::{Calibrator, Objective, TrainError};

/// All responses of a reference policy to some prompts, with their probabilities and rewards.
pub struct Enumeration<'a> {
    prompts: &'a [EncodedPrompt],
    /// `[prompts][responses]`.
    responses: Vec<Vec<Response>>,
    /// log p of each.
    log_probs: Vec<Vec<f64>>,
    /// p and r of each prompt's responses.
    outcomes: Vec<Outcomes>,
}

/// A policy beside the exact optimum of what it was trained on. All but `beta` and `lacking` are means over prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Nearness {
    /// β, on the scale of the trained reward, above 0.
    pub beta: f64,
    /// KL(π‖π_ref) of the policy, exact, in nats.
    pub kl: f64,
    /// E\[Φ\] of the reference, or its win rate.
    pub start: f64,
    /// E\[Φ\] − β KL of the policy, or the same with its win rate.
    pub value: f64,
    /// The greatest there is.
    pub optimum: f64,
    /// What the policy lacks of what there was to gain: (optimum − value)/(optimum − start); 0 where there was nothing.
    pub lacking: f64,
    /// What it lacks in nats, (optimum − value)/β. Where E\[Φ\] is maximised that is KL(π‖π*), π* being the optimal policy; of a win rate that is
    /// concave in the policy, as under best-of-N, it is that or more.
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

/// What is maximised on one prompt, and the log-probabilities of the reference and of a policy.
struct Problem<'a> {
    outcomes: &'a Outcomes,
    aim: Aim,
    reference: &'a [f64],
    policy: Vec<f64>,
}

/// What is maximised, but for the KL.
enum Aim {
    /// E\[Φ\], Φ of each response.
    Mean(Vec<f64>),
    /// W^T over the reference.
    WinRate(Procedure),
}

impl<'a> Enumeration<'a> {
    /// Lists and scores every response to every prompt.
    ///
    /// - `sampling`: how long responses are, and where they end.
    ///
    /// # Errors
    /// [`TrainError::Decode`] for prompts that do not fit, [`TrainError::Reward`] where the reward fails, [`TrainError::Transform`] for a
    /// reward that is no number, and [`TrainError::Data`] where the responses listed are not all there are.
    pub fn new(
        reference: &CausalLm,
        prompts: &'a [EncodedPrompt],
        tokenizer: &Tokenizer,
        reward: &dyn Reward,
        sampling: &Sampling,
    ) -> Result<Self, TrainError> {
        let mut found =
            Self { prompts, responses: Vec::new(), log_probs: Vec::new(), outcomes: Vec::new() };
        for prompt in prompts {
            let listed = vec![responses(reference, prompt, sampling, tokenizer.stops())?];
            let rewards = rewards(std::slice::from_ref(prompt), &listed, tokenizer, reward)?;
            let rewards = rewards.into_iter().map(f64::from).collect();
            let log_probs = listed[0].iter().map(|response| response.log_probs.as_slice());
            let log_probs = whole(prompt, log_probs)?;
            found.outcomes.push(Outcomes::new(exp(&log_probs), rewards)?);
            found.log_probs.push(log_probs);
            found.responses.extend(listed);
        }
        Ok(found)
    }

    /// How near a policy is to the optimum.
    ///
    /// - `beta`: what it was trained with, above 0, on the scale of the trained reward. Without, that at which the optimum is as far from the
    ///   reference as the policy, so that both are compared at one KL; or, where no optimum is that far, one that spends as much as any.
    /// - `procedures`: those whose win rates are told.
    ///
    /// # Errors
    /// [`TrainError::Calibrate`] for a prompt that the table lacks, [`TrainError::Transform`] for a procedure that does not select by reward
    /// and for a β out of range, [`TrainError::Data`] as [`Enumeration::new`], and for an expected reward under a procedure, whose optimum is not
    /// computed.
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
        let kl = mean(problems.iter().map(|problem| problem.kl(&problem.policy)));
        let beta = match beta {
            Some(beta) => Beta::new(beta)?.get(),
            None => beta_for_kl(&problems, kl)?,
        };
        let best: Vec<(Vec<f64>, f64)> =
            problems.iter().map(|problem| problem.optimum(beta)).collect::<Result<_, _>>()?;
        let start = mean_of(problems.iter().map(|problem| problem.reached(problem.reference)))?;
        let value =
            mean_of(problems.iter().map(|problem| problem.reached(&problem.policy)))? - beta * kl;
        let optimum = mean(best.iter().map(|(_, value)| *value));
        let (gain, lack) = (optimum - start, optimum - value);
        let win_rates = procedures.iter().map(|procedure| win_rate(*procedure, &problems, &best));
        Ok(Nearness {
            beta,
            kl,
            start,
            value,
            optimum,
            // Where all Φ are equal, rounding is all that there is to gain.
            lacking: if gain > 1e-12 * (1.0 + optimum.abs()) { lack / gain } else { 0.0 },
            distance: lack / beta,
            win_rates: win_rates.collect::<Result<_, _>>()?,
        })
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
        let aim = match objective {
            Objective::WinRate(procedure) => Aim::WinRate(*procedure),
            Objective::Reward(_) => {
                return Err(TrainError::Data(format!(
                    "the exact optimum of objective {objective} is not computed"
                )));
            }
            objective => {
                let quantiles = calibrator.quantiles(prompt, &rewards)?;
                let scale = calibrator.scale(prompt, unit)?;
                let group = Group {
                    rewards: &rewards,
                    quantiles: &quantiles,
                    answers: &[],
                    scale,
                    row: None,
                };
                Aim::Mean(objective.of_group(&group)?)
            }
        };
        let sequences: Vec<Sequence> =
            self.responses[index].iter().map(|response| response.sequence(prompt)).collect();
        let log_probs = policy.log_probs(&sequences)?;
        let policy = whole(prompt, log_probs.iter().map(Vec::as_slice))?;
        Ok(Problem { outcomes, aim, reference: &self.log_probs[index], policy })
    }
}

impl Problem<'_> {
    /// log π*, and the greatest that is maximised less β KL.
    fn optimum(&self, beta: f64) -> Result<(Vec<f64>, f64), TransformError> {
        match &self.aim {
            Aim::Mean(phi) => Ok(self.tilt(phi, beta)),
            Aim::WinRate(procedure) => {
                let best = self.outcomes.optimum(procedure, Beta::new(beta)?)?;
                Ok((best.policy.into_iter().map(f64::ln).collect(), best.objective))
            }
        }
    }

    /// log π*, π* ∝ p e^{Φ/β}, and its value β log Σ p e^{Φ/β}.
    fn tilt(&self, phi: &[f64], beta: f64) -> (Vec<f64>, f64) {
        let tilted: Vec<f64> =
            self.reference.iter().zip(phi).map(|(log_p, phi)| log_p + phi / beta).collect();
        let most = tilted.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_z = most + tilted.iter().map(|log| (log - most).exp()).sum::<f64>().ln();
        (tilted.into_iter().map(|log| log - log_z).collect(), beta * log_z)
    }

    /// What a policy has of that which is maximised, from its log-probabilities.
    fn reached(&self, policy: &[f64]) -> Result<f64, TransformError> {
        match &self.aim {
            Aim::Mean(phi) => {
                Ok(policy.iter().zip(phi).map(|(log_q, phi)| log_q.exp() * phi).sum())
            }
            Aim::WinRate(procedure) => self.outcomes.win_rate(procedure, &exp(policy)),
        }
    }

    /// How far apart what is maximised can be for two responses.
    fn range(&self) -> f64 {
        match &self.aim {
            Aim::Mean(phi) => {
                let greatest = phi.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                greatest - phi.iter().copied().fold(f64::INFINITY, f64::min)
            }
            // The derivative of a win rate by the probability of one response is one of N that are looked at.
            Aim::WinRate(procedure) => procedure.samples() as f64,
        }
    }

    /// KL of a policy from the reference, in nats.
    fn kl(&self, policy: &[f64]) -> f64 {
        let terms = policy.iter().zip(self.reference);
        let possible = terms.filter(|(log_q, _)| log_q.is_finite());
        possible.map(|(log_q, log_p)| log_q.exp() * (log_q - log_p)).sum()
    }
}

fn win_rate(
    procedure: Procedure,
    problems: &[Problem<'_>],
    best: &[(Vec<f64>, f64)],
) -> Result<ExactWinRate, TrainError> {
    let of_prompt = |(problem, (best, _)): (&Problem<'_>, &(Vec<f64>, f64))| {
        let win_rate = |policy: &[f64]| problem.outcomes.win_rate(&procedure, &exp(policy));
        Ok([win_rate(&problem.policy)?, win_rate(best)?])
    };
    let both: Vec<[f64; 2]> =
        problems.iter().zip(best).map(of_prompt).collect::<Result<_, TrainError>>()?;
    let [policy, optimum] = [0, 1].map(|which| mean(both.iter().map(|pair| pair[which])));
    Ok(ExactWinRate { procedure, policy, optimum })
}

/// The β whose optimum is `kl` nats from the reference. Where no optimum is that far, the least that is tried; where all Φ are equal, and every β
/// has the reference for its optimum, 1.
fn beta_for_kl(problems: &[Problem<'_>], kl: f64) -> Result<f64, TransformError> {
    /// Greatest (max Φ − min Φ)/β: beyond, e^x holds no weight but the greatest.
    const STEEPEST: f64 = 500.0;
    let reached = |beta: f64| mean_of(problems.iter().map(|p| Ok(p.kl(&p.optimum(beta)?.0))));
    let range = problems.iter().map(Problem::range).fold(0.0, f64::max);
    if range <= 0.0 {
        return Ok(1.0);
    }
    // The KL falls as β grows.
    let (mut low, mut high) = (range / STEEPEST, range * 1e6);
    for _ in 0..200 {
        let middle = (low * high).sqrt();
        if middle <= low || middle >= high {
            break;
        }
        if reached(middle)? > kl {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(high)
}

/// The log-probability of every response, from those of their tokens.
fn whole<'l>(
    prompt: &EncodedPrompt,
    log_probs: impl Iterator<Item = &'l [f32]>,
) -> Result<Vec<f64>, TrainError> {
    /// How far from 1 rounding may carry the sum.
    const ROUNDING: f64 = 1e-3;
    let logs: Vec<f64> = log_probs.map(sum).collect();
    let total: f64 = exp(&logs).iter().sum();
    if (total - 1.0).abs() > ROUNDING {
        return Err(TrainError::Data(format!(
            "the responses to prompt {} that were listed have the probability {total} together, and not 1: the model does not end its texts where the list does",
            prompt.name()
        )));
    }
    Ok(logs.into_iter().map(|log| log - total.ln()).collect())
}

fn exp(logs: &[f64]) -> Vec<f64> {
    logs.iter().map(|log| log.exp()).collect()
}

fn mean_of(
    values: impl Iterator<Item = Result<f64, TransformError>>,
) -> Result<f64, TransformError> {
    let values: Vec<f64> = values.collect::<Result<_, _>>()?;
    Ok(mean(values.into_iter()))
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}
