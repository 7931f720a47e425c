//! Step 1 of CTRL: rewards of the reference policy's responses, into a calibration table.

use std::collections::{BTreeMap, HashSet};
use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use infalign_calibrate::Calibration;
use infalign_decode::{EncodedPrompt, Sampler};
use infalign_model::Tokenizer;
use infalign_reward::Reward;

use crate::TrainError;

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
    /// Time that scoring took.
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
                self.fill_block(table, block, numbers.clone(), &mut filled)?;
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

    fn fill_block(
        &self,
        table: &mut Calibration,
        prompts: &[EncodedPrompt],
        numbers: Range<usize>,
        filled: &mut Filled,
    ) -> Result<(), TrainError> {
        let start = Instant::now();
        let responses = self.sampler.generate(prompts, numbers.clone())?;
        filled.sampling += start.elapsed();
        let mut texts = Vec::with_capacity(prompts.len() * numbers.len());
        for (prompt, responses) in prompts.iter().zip(&responses) {
            for response in responses {
                texts.push(self.tokenizer.decode_response(&prompt.tokens, &response.tokens)?);
            }
        }
        let owners =
            prompts.iter().flat_map(|p| std::iter::repeat_n(p.text.as_str(), numbers.len()));
        let pairs: Vec<(&str, &str)> = owners.zip(texts.iter().map(String::as_str)).collect();
        let start = Instant::now();
        let rewards = self.reward.score(&pairs)?;
        filled.scoring += start.elapsed();
        for (prompt, rewards) in prompts.iter().zip(rewards.chunks(numbers.len())) {
            table.extend(&prompt.id, &prompt.text, rewards.to_vec())?;
        }
        filled.prompts += prompts.len();
        filled.responses += texts.len();
        Ok(())
    }
}
