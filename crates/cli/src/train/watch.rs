//! What becomes of a policy in training: now and then it is sampled from on the prompts held out.

use std::path::Path;

use anyhow::Result;
use infalign_evaluate::{
    Contest, Entry, EvaluateError, Evaluator, Judge, Label, Plan, Sampled, Statistics, table,
};
use infalign_model::CausalLm;
use infalign_record::RecordError;
use infalign_transform::Procedure;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::metrics::{Lines, Metrics};
use super::stages::sample;
use crate::recipe::WatchConfig;

/// Prompts whose first response is written down.
const SHOWN: usize = 3;

/// The open files of the watch on one policy.
pub(super) struct Watch<'a> {
    config: WatchConfig,
    evaluator: Evaluator<'a>,
    contests: Vec<Contest>,
    reference: &'a Sampled,
    evaluations: Lines,
    responses: Lines,
}

/// What was seen of a policy after a step.
pub(super) struct Seen {
    step: usize,
    numbers: Map<String, Value>,
    sampled: Sampled,
}

/// One of the first responses of a policy.
#[derive(Serialize)]
struct Shown<'a> {
    step: usize,
    prompt: &'a str,
    response: &'a str,
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
        procedures: &[Procedure],
        reference: &'a Sampled,
        folder: &Path,
        steps_done: usize,
    ) -> Result<Self> {
        let evaluator = Evaluator { samples: config.samples, judge: None, ..evaluator };
        Ok(Self {
            config,
            evaluator,
            contests: Contest::all(procedures.iter().copied(), None),
            reference,
            evaluations: Lines::of_steps(&folder.join("evaluations.jsonl"), steps_done)?,
            responses: Lines::of_steps(&folder.join("responses.jsonl"), steps_done)?,
        })
    }

    /// Looks at the policy after a step, where it is time.
    ///
    /// # Errors
    /// As [`sample`]; when the reward fails.
    pub(super) fn look(
        &self,
        step: usize,
        policy: &CausalLm,
    ) -> Result<Option<Seen>, EvaluateError> {
        if !step.is_multiple_of(self.config.every) {
            return Ok(None);
        }
        let sampled = sample(&self.evaluator, &policy.valid(), STAGE, &|_| ())?;
        let numbers = self.numbers(step, &sampled)?;
        Ok(Some(Seen { step, numbers, sampled }))
    }

    /// Writes down what was seen.
    ///
    /// # Errors
    /// When a line cannot be written.
    pub(super) fn keep(&mut self, seen: &Seen, metrics: &mut Metrics) -> Result<(), RecordError> {
        metrics.show("held-out/", &seen.numbers)?;
        self.evaluations.append(&seen.numbers)?;
        self.show(seen.step, &seen.sampled)
    }

    /// Brings the lines to the disk.
    ///
    /// # Errors
    /// When they cannot be.
    pub(super) fn sync(&self) -> Result<(), RecordError> {
        self.evaluations.sync()?;
        self.responses.sync()
    }

    /// KL, reward, and win rates against the reference with their intervals.
    fn numbers(&self, step: usize, sampled: &Sampled) -> Result<Map<String, Value>, EvaluateError> {
        let label = Label::named("");
        let statistics = Statistics::new(self.evaluator.seed);
        let plan = Plan::new(&self.contests, Judge::Reward, statistics);
        let entry = Entry { label, sampled, reference: self.reference };
        let mut numbers = Map::new();
        let mut set = |key: String, value: Value| {
            numbers.insert(key, value);
        };
        set("step".into(), json!(step));
        let rewards = sampled.rewards.concat();
        set("reward/raw".into(), json!(rewards.iter().sum::<f64>() / rewards.len() as f64));
        set("response_length".into(), json!(sampled.response_length()));
        for row in table(&[entry], &plan)?.rows {
            let procedure = row.contest.policy;
            if let Some(kl) = row.kl {
                set("kl".into(), json!(kl.estimate));
                set("kl_standard_error".into(), json!(kl.standard_error));
            }
            set(format!("win_rate/{procedure}"), json!(row.win_rate.estimate));
            set(format!("win_rate/{procedure}/low"), json!(row.win_rate.low));
            set(format!("win_rate/{procedure}/high"), json!(row.win_rate.high));
        }
        Ok(numbers)
    }

    /// Writes down what the policy says to the first prompts.
    fn show(&mut self, step: usize, sampled: &Sampled) -> Result<(), RecordError> {
        let first = sampled.prompts.iter().zip(&sampled.responses).zip(&sampled.rewards);
        for ((prompt, responses), rewards) in first.take(SHOWN) {
            let prompt = prompt.text.as_str();
            for (response, &reward) in responses.iter().zip(rewards).take(1) {
                self.responses.append(&Shown { step, prompt, response, reward })?;
            }
        }
        Ok(())
    }
}

/// Random streams of the watch: the same each time, so that one sees what the steps have changed.
const STAGE: &str = "watch-policy";
