//! Calibration tables of a real model: the same however they were made, right by a fresh sample, and blind to the scale of rewards.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use infalign_calibrate::pit::{Group, uniformity};
use infalign_calibrate::{Calibration, CalibrationMeta};
use infalign_decode::{EncodedPrompt, Generator, Sampler, Sampling, Stream};
use infalign_model::{CausalLm, Sequence, Tokenizer, TransformerConfig, write_word_tokenizer};
use infalign_reward::{Reward, RewardError};
use infalign_train::{
    Calibrator, CtrlConfig, CtrlTrainer, Keep, OptimizerConfig, ReferenceRewards, TrainError,
};

/// Depends on every word and its place, through an increasing map.
struct Mapped(fn(f32) -> f32);

impl Reward for Mapped {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        let value = |text: &str| {
            let words = text.split_whitespace().map(|word| u32::from(word.as_bytes()[0]) % 7);
            (words.fold(1_u32, |code, word| code * 7 + word) * 37 % 101) as f32 / 16.0
        };
        Ok(pairs.iter().map(|(_, response)| self.0(value(response))).collect())
    }
}

/// Gives up at the n-th call.
struct Failing(AtomicUsize);

impl Reward for Failing {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        match self.0.fetch_sub(1, Ordering::Relaxed) {
            0 => Err(RewardError::NotInTable { response: "test".into() }),
            _ => Mapped(|r| r).score(pairs),
        }
    }
}

struct Fixture {
    model: CausalLm,
    tokenizer: Tokenizer,
    prompts: Vec<EncodedPrompt>,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let vocabulary = write_word_tokenizer(dir.path(), ["a b c d e f g h"].into_iter()).unwrap();
    let config = TransformerConfig::llama(vocabulary, 16, 24, 2, 2, 32);
    let tokenizer = Tokenizer::load(dir.path(), &config).unwrap();
    let mut normal = Stream::new(5, "weights", "", 0).normals(0);
    let device = infalign_backend::device(None).unwrap();
    let model = CausalLm::random(config, &mut || 8.0 * normal(), &device).unwrap();
    let texts = ["a", "b c", "d e f", "g", "h a", "b b", "c d", "e", "f g h", "a c"];
    let encode = |text: &&str| EncodedPrompt::new(text, text, &tokenizer).unwrap();
    let prompts = texts.iter().map(encode).collect();
    Fixture { model, tokenizer, prompts }
}

impl Fixture {
    fn generator(&self) -> Generator<'_> {
        static NO_STOPS: BTreeSet<u32> = BTreeSet::new();
        let sampling = Sampling { max_tokens: 5, ..Sampling::default() };
        Generator::new(&self.model, &NO_STOPS, &sampling, 3, "calibration", 64)
    }

    /// Fills a table up to K, and gives up after some blocks.
    fn fill(
        &self,
        table: &mut Calibration,
        prompts: &[EncodedPrompt],
        samples: usize,
        reward: &dyn Reward,
        mut blocks: usize,
    ) -> Result<(), TrainError> {
        let sampler = self.generator();
        let rewards = ReferenceRewards {
            sampler: &sampler,
            tokenizer: &self.tokenizer,
            reward,
            samples,
            block: 64,
        };
        let mut stop = |_: &Calibration, _: &_| {
            blocks -= 1;
            if blocks == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        rewards.fill(table, prompts, &mut stop).map(|_| ())
    }

    fn table(&self, samples: usize, reward: &dyn Reward) -> Calibration {
        let mut table = Calibration::new(CalibrationMeta::default());
        self.fill(&mut table, &self.prompts, samples, reward, usize::MAX).unwrap();
        table
    }
}

/// Rows by prompt, whatever their order.
fn rows(table: &Calibration) -> Vec<(&str, &[f32])> {
    let mut rows: Vec<_> = table.rows().iter().map(|row| (row.id(), row.values())).collect();
    rows.sort_by_key(|row| row.0);
    rows
}

#[test]
fn a_table_is_the_same_however_often_it_was_left() {
    let fixture = fixture();
    let reward = Mapped(|r| r);
    let whole = fixture.table(48, &reward);
    assert!(whole.rows().iter().all(|row| row.samples() == 48));
    let mut parts = Calibration::new(CalibrationMeta::default());
    // Some prompts with few samples; then all, interrupted; then again.
    fixture.fill(&mut parts, &fixture.prompts[..4], 20, &reward, usize::MAX).unwrap();
    fixture.fill(&mut parts, &fixture.prompts, 48, &reward, 2).unwrap();
    assert!(parts.len() < 10, "it was interrupted");
    fixture.fill(&mut parts, &fixture.prompts, 48, &reward, usize::MAX).unwrap();
    assert_eq!(rows(&parts), rows(&whole));
    // A prompt that is there twice is calibrated once.
    let twice = [fixture.prompts[0].clone(), fixture.prompts[0].clone()];
    let mut table = Calibration::new(CalibrationMeta::default());
    fixture.fill(&mut table, &twice, 8, &reward, usize::MAX).unwrap();
    assert_eq!(table.len(), 1);
}

#[test]
fn a_failing_reward_loses_nothing_that_was_finished() {
    let fixture = fixture();
    let mut table = Calibration::new(CalibrationMeta::default());
    let failing = Failing(AtomicUsize::new(3));
    assert!(fixture.fill(&mut table, &fixture.prompts, 32, &failing, usize::MAX).is_err());
    assert_eq!(table.len(), 6, "three blocks of two prompts");
    fixture.fill(&mut table, &fixture.prompts, 32, &Mapped(|r| r), usize::MAX).unwrap();
    assert_eq!(rows(&table), rows(&fixture.table(32, &Mapped(|r| r))));
}

#[test]
fn fresh_responses_are_uniform_under_a_table_of_a_hundred() {
    let fixture = fixture();
    let reward = Mapped(|r| r);
    let table = fixture.table(100, &reward);
    let fresh = fixture.generator().generate(&fixture.prompts, 100..140).unwrap();
    let mut uniform = Stream::new(1, "pit", "", 0).uniforms(0);
    let groups: Vec<Group> = fixture
        .prompts
        .iter()
        .zip(&fresh)
        .map(|(prompt, responses)| {
            let text = |r: &infalign_decode::Response| {
                fixture.tokenizer.decode_response(&prompt.tokens, &r.tokens).unwrap()
            };
            let texts: Vec<String> = responses.iter().map(text).collect();
            let pairs: Vec<(&str, &str)> =
                texts.iter().map(|text| (prompt.text.as_str(), text.as_str())).collect();
            let rewards = reward.score(&pairs).unwrap();
            Group::new(table.row(&prompt.text).unwrap(), &rewards, &mut uniform).unwrap()
        })
        .collect();
    let found = uniformity(&groups, 199, &mut uniform).unwrap();
    assert_eq!(found.responses, 400);
    assert!(found.p_value > 0.01, "{found:?}");
    let inside = found.bins.iter().filter(|bin| bin.low <= bin.density && bin.density <= bin.high);
    assert!(inside.count() >= 16, "{found:?}");
}

/// The log-probabilities of some sequences under the policy that CTRL makes of a mapped reward, and its win rates.
fn trained(fixture: &Fixture, map: fn(f32) -> f32, calibrator: Calibrator<'_>) -> Vec<u32> {
    let optimizer = OptimizerConfig { final_share: 0.5, ..OptimizerConfig::new(5e-3) };
    let config = CtrlConfig {
        steps: 5,
        prompts_per_step: 4,
        samples_per_prompt: 8,
        target_kl: Some(0.3),
        beta: None,
        checkpoint_every: 100,
        keep: Keep::Last,
        solver: infalign_train::SolverConfig::default(),
        optimizer,
        lora: None,
    };
    let dir = tempfile::tempdir().unwrap();
    let trainer = CtrlTrainer {
        config: &config,
        objective: &"exp:10".parse().unwrap(),
        prompts: &fixture.prompts,
        reference: &fixture.model,
        tokenizer: &fixture.tokenizer,
        reward: &Mapped(map),
        rollouts: None,
        calibrator,
        sampling: Sampling { max_tokens: 5, ..Sampling::default() },
        batch: 64,
        seed: 1,
        checkpoints: dir.path().to_path_buf(),
    };
    let policy = trainer.run(&mut |_, _| Ok(()), &AtomicBool::new(false)).unwrap();
    let sequences: Vec<Sequence> = (3..8)
        .map(|token| Sequence { tokens: vec![1, token, 4, token, 5], prompt_length: 1 })
        .collect();
    policy.log_probs(&sequences).unwrap().concat().into_iter().map(f32::to_bits).collect()
}

#[test]
fn increasing_maps_of_the_reward_change_no_bit() {
    let fixture = fixture();
    let maps: [fn(f32) -> f32; 4] =
        [|r| r, |r| 3.0 * r - 100.0, |r| r.exp(), |r| (r - 3.0).powi(3)];
    let mut seen = Vec::new();
    for map in maps {
        let table = fixture.table(32, &Mapped(map));
        let quantiles: Vec<u64> = (0..100)
            .map(|k| table.rows()[k % 10].quantile(map((k * 37 % 101) as f32 / 16.0)).to_bits())
            .collect();
        let policy = trained(&fixture, map, Calibrator::Table(&table));
        seen.push((quantiles, policy, trained(&fixture, map, Calibrator::Group)));
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
    assert_ne!(seen[0].1, seen[0].2, "a table is not a group");
    let decreasing = fixture.table(32, &Mapped(|r| -r));
    let other = trained(&fixture, |r| -r, Calibrator::Table(&decreasing));
    assert_ne!(other, seen[0].1, "the order of rewards matters");
}
