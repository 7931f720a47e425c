//! Responses of the reference policy and their rewards: into a calibration table, step 1 of CTRL, or whole, for offline methods.

use std::collections::{BTreeMap, HashSet};
use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use infalign_calibrate::Calibration;
use infalign_calibrate::rollouts::{ReferenceResponse, Rollouts};
use infalign_decode::{EncodedPrompt, Response, Sampler};
use infalign_model::Tokenizer;
use infalign_reward::Reward;

use crate::TrainError;
use crate::fit::check_counts;
use crate::rollout::rewards;

/// What samples and scores the responses of π_ref.
pub struct ReferenceRewards<'a> {
    /// Samples from π_ref.
    pub sampler: &'a dyn Sampler,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// r.
    pub reward: &'a dyn Reward,
    /// K, the responses to each prompt, numbered from 0.
    pub samples: usize,
    /// About how many responses are sampled and scored before they are put into the table.
    pub block: usize,
}

/// What has been done, and how long that took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Filled {
    /// Prompts that have K rewards.
    pub prompts: usize,
    /// Responses sampled.
    pub responses: usize,
    /// Time that sampling took.
    pub sampling: Duration,
    /// Time that scoring took, decoding included.
    pub scoring: Duration,
}

impl ReferenceRewards<'_> {
    /// Brings every prompt of the table to K rewards: new prompts get K, and those with fewer the rest. Since draws go by the numbers of
    /// responses, the result does not depend on how often the table was left and taken up again.
    ///
    /// - prompts: equal texts count once.
    /// - observe: called after every block with the table; it stops the work by [`ControlFlow::Break`].
    ///
    /// # Errors
    /// [`TrainError`] when sampling or scoring fails, or the table refuses a reward; it then holds every block that was finished.
    pub fn fill(
        &self,
        table: &mut Calibration,
        prompts: &[EncodedPrompt],
        observe: &mut dyn FnMut(&Calibration, &Filled) -> ControlFlow<()>,
    ) -> Result<Filled, TrainError> {
        let (complete, missing) = self.missing(table, prompts);
        let mut filled = Filled { prompts: complete, ..Filled::default() };
        for (present, prompts) in missing {
            let numbers = present..self.samples;
            for block in prompts.chunks((self.block / numbers.len()).max(1)) {
                let (_, rewards) = self.block(block, numbers.clone(), &mut filled)?;
                for (prompt, rewards) in block.iter().zip(rewards.chunks(numbers.len())) {
                    table.extend(&prompt.id, &prompt.text, rewards.to_vec())?;
                }
                if observe(table, &filled).is_break() {
                    return Ok(filled);
                }
            }
        }
        Ok(filled)
    }

    /// How many prompts are complete, and the others by the number of rewards that they have.
    fn missing(
        &self,
        table: &Calibration,
        prompts: &[EncodedPrompt],
    ) -> (usize, BTreeMap<usize, Vec<EncodedPrompt>>) {
        let (mut complete, mut seen) = (0, HashSet::new());
        let mut missing: BTreeMap<usize, Vec<EncodedPrompt>> = BTreeMap::new();
        for prompt in prompts.iter().filter(|prompt| seen.insert(prompt.text.as_str())) {
            match table.get(&prompt.text).map_or(0, |row| row.samples()) {
                present if present >= self.samples => complete += 1,
                present => missing.entry(present).or_default().push(prompt.clone()),
            }
        }
        (complete, missing)
    }

    /// Adds all K responses of the prompts that have none yet, with their rewards and log-probabilities, in the order of the prompts. As with
    /// [`fill`](Self::fill), the result does not depend on how often the rollouts were left and taken up again.
    ///
    /// - rollouts: of K responses to a prompt; prompts: equal texts count once.
    /// - observe: called after every block with the rollouts; it stops the work by [`ControlFlow::Break`].
    ///
    /// # Errors
    /// [`TrainError`] when sampling or scoring fails, the rollouts refuse a response, or K is 0; they then hold every block that was finished.
    pub fn fill_rollouts(
        &self,
        rollouts: &mut Rollouts,
        prompts: &[EncodedPrompt],
        observe: &mut dyn FnMut(&Rollouts, &Filled) -> ControlFlow<()>,
    ) -> Result<Filled, TrainError> {
        check_counts(&[("samples", self.samples)])?;
        if rollouts.samples() != self.samples {
            let reason = format!(
                "rollouts of {} responses a prompt cannot take {}",
                rollouts.samples(),
                self.samples
            );
            return Err(TrainError::Data(reason));
        }
        let mut seen = HashSet::new();
        let distinct = prompts.iter().filter(|prompt| seen.insert(prompt.text.as_str()));
        let (complete, missing): (Vec<&EncodedPrompt>, Vec<&EncodedPrompt>) =
            distinct.partition(|prompt| rollouts.of(&prompt.text).is_ok());
        let missing: Vec<EncodedPrompt> = missing.into_iter().cloned().collect();
        let mut filled = Filled { prompts: complete.len(), ..Filled::default() };
        for block in missing.chunks((self.block / self.samples).max(1)) {
            let (responses, rewards) = self.block(block, 0..self.samples, &mut filled)?;
            let scored = responses.into_iter().zip(rewards.chunks(self.samples));
            for (prompt, (responses, rewards)) in block.iter().zip(scored) {
                let scored = responses.into_iter().zip(rewards).map(|(response, &reward)| {
                    let Response { tokens, log_probs, .. } = response;
                    ReferenceResponse { tokens, log_probs, reward }
                });
                rollouts.insert(&prompt.id, &prompt.text, scored.collect())?;
            }
            if observe(rollouts, &filled).is_break() {
                break;
            }
        }
        Ok(filled)
    }

    /// Samples and scores some responses of some prompts: `[prompts][numbers]`, and the rewards one prompt after the other.
    fn block(
        &self,
        prompts: &[EncodedPrompt],
        numbers: Range<usize>,
        filled: &mut Filled,
    ) -> Result<(Vec<Vec<Response>>, Vec<f32>), TrainError> {
        let start = Instant::now();
        let responses = self.sampler.generate(prompts, numbers.clone())?;
        filled.sampling += start.elapsed();
        let start = Instant::now();
        let rewards = rewards(prompts, &responses, self.tokenizer, self.reward)?;
        filled.scoring += start.elapsed();
        filled.prompts += prompts.len();
        filled.responses += rewards.len();
        Ok((responses, rewards))
    }
}
