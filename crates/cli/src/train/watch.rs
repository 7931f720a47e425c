//! What becomes of a policy in training: now and then it is sampled from on the prompts held out.

use std::path::Path;

use anyhow::Result;
use infalign_decode::Sampler;
use infalign_evaluate::{Evaluator, Judge, Label, Sampled, row};
use infalign_model::CausalLm;
use infalign_transform::Procedure;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::metrics::{Lines, Metrics};
use crate::recipe::WatchConfig;

/// Prompts whose first response is written down.
const SHOWN: usize = 3;

/// The open files of the watch on one policy.
pub(super) struct Watch<'a> {
    config: WatchConfig,
    evaluator: Evaluator<'a>,
    procedures: &'a [Procedure],
    reference: &'a Sampled,
    evaluations: Lines,
    responses: Lines,
}

/// One of the first responses of a policy.
#[derive(Serialize)]
struct Shown<'a> {
    step: usize,
    prompt: &'a str,
    response: String,
    reward: f64,
}

impl<'a> Watch<'a> {
    /// Opens the files in a method's folder.
    ///
    /// - evaluator: as that of the end of the run; how many samples it takes is the watch's own.
    /// - reference: the reference's samples.
    /// - steps_done: steps of which there is a checkpoint.
    pub(super) fn open(
        config: WatchConfig,
        evaluator: Evaluator<'a>,
        procedures: &'a [Procedure],
        reference: &'a Sampled,
        folder: &Path,
        steps_done: usize,
    ) -> Result<Self> {
        let evaluator = Evaluator { samples: config.samples, judge: None, ..evaluator };
        let times = steps_done / config.every;
        let shown = SHOWN.min(evaluator.prompts.len());
        Ok(Self {
            config,
            evaluator,
            procedures,
            reference,
            evaluations: Lines::open(&folder.join("evaluations.jsonl"), times)?,
            responses: Lines::open(&folder.join("responses.jsonl"), times * shown)?,
        })
    }

    /// Looks at the policy after a step, where it is time.
    ///
    /// # Errors
    /// When the policy cannot be sampled from, or the reward fails.
    pub(super) fn look(
        &mut self,
        step: usize,
        policy: &CausalLm,
        metrics: &mut Metrics,
    ) -> Result<()> {
        if !step.is_multiple_of(self.config.every) {
            return Ok(());
        }
        let policy = policy.valid();
        let numbers = self.numbers(step, &policy)?;
        metrics.show("held-out/", &numbers);
        self.evaluations.append(&numbers);
        self.show(step, &policy)
    }

    /// Reports the first line that could not be written.
    pub(super) fn finish(self) -> Result<()> {
        self.evaluations.finish()?;
        self.responses.finish()
    }

    /// KL, reward, and win rates against the reference with their intervals.
    fn numbers(&self, step: usize, policy: &CausalLm) -> Result<Map<String, Value>> {
        let sampled = self.evaluator.sample(policy, STAGE)?;
        let rewards = sampled.rewards.concat();
        let reward = rewards.iter().sum::<f64>() / rewards.len() as f64;
        let mut numbers = Map::new();
        let mut set = |key: String, value: Value| {
            numbers.insert(key, value);
        };
        set("step".into(), json!(step));
        set("reward/raw".into(), json!(reward));
        set("response_length".into(), json!(sampled.response_length));
        let label = Label { method: "", kind: None, objective: None, transform: None };
        for procedure in self.procedures {
            let row = row(label, procedure, Judge::Reward, &sampled, self.reference)?;
            set("kl".into(), json!(row.kl.estimate));
            set("kl_standard_error".into(), json!(row.kl.standard_error));
            set(format!("win_rate/{procedure}"), json!(row.win_rate.estimate));
            set(format!("win_rate/{procedure}/low"), json!(row.win_rate.low));
            set(format!("win_rate/{procedure}/high"), json!(row.win_rate.high));
        }
        Ok(numbers)
    }

    /// Writes down what the policy says to the first prompts.
    fn show(&mut self, step: usize, policy: &CausalLm) -> Result<()> {
        let prompts = &self.evaluator.prompts[..SHOWN.min(self.evaluator.prompts.len())];
        let first = Evaluator { prompts, samples: 1, ..self.evaluator };
        let inference = policy.clone().for_inference();
        let responses = first.generator(inference.as_ref(), STAGE).generate(prompts, 0..1)?;
        let rewards = first.rewards(&responses)?;
        for ((prompt, responses), rewards) in prompts.iter().zip(&responses).zip(&rewards) {
            for (response, &reward) in responses.iter().zip(rewards) {
                let tokenizer = self.evaluator.tokenizer;
                let response = tokenizer.decode_response(&prompt.tokens, &response.tokens)?;
                self.responses.append(&Shown { step, prompt: &prompt.text, response, reward });
            }
        }
        Ok(())
    }
}

/// Random streams of the watch: the same each time, so that one sees what the steps have changed.
const STAGE: &str = "watch-policy";
