//! A transformer whose every response to one prompt can be enumerated, and a reward of them.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod training;

use infalign_calibrate::{Calibration, CalibrationMeta};
use infalign_decode::exact::responses;
use infalign_decode::{EncodedPrompt, Sampling, Stream};
use infalign_model::{CausalLm, Sequence, Tokenizer, TransformerConfig, write_word_tokenizer};
use infalign_reward::{Reward, RewardError};

/// Longest response, in tokens.
pub(crate) const LENGTH: usize = 3;
/// Reference responses that the calibration table stands for.
const TABLE: f64 = 20_000.0;

/// A reward that depends on the order of the words: nothing is additive in them.
pub(crate) struct Ordered;

impl Reward for Ordered {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        let value = |text: &str| {
            let code = text
                .split_whitespace()
                .fold(1_u32, |code, word| code * 7 + u32::from(word.as_bytes()[0]) % 7);
            (code * 37 % 101) as f32
        };
        Ok(pairs.iter().map(|(_, response)| value(response)).collect())
    }

    /// The first word.
    fn answer<'t>(&self, response: &'t str) -> Option<&'t str> {
        response.split_whitespace().next()
    }
}

/// One prompt, all of whose responses are known.
pub(crate) struct Problem {
    pub(crate) model: CausalLm,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) prompt: EncodedPrompt,
    /// Every response as tokens.
    pub(crate) responses: Vec<Vec<u32>>,
    pub(crate) texts: Vec<String>,
    /// p of each.
    pub(crate) reference: Vec<f64>,
    pub(crate) rewards: Vec<f32>,
    pub(crate) calibration: Calibration,
}

/// The probability of every response under a model.
pub(crate) fn probabilities(
    model: &CausalLm,
    prompt: &EncodedPrompt,
    responses: &[Vec<u32>],
) -> Vec<f64> {
    let sequences: Vec<Sequence> =
        responses.iter().map(|response| prompt.followed_by(response)).collect();
    let log_probs = model.log_probs(&sequences).unwrap();
    log_probs.iter().map(|tokens| tokens.iter().map(|&l| f64::from(l)).sum::<f64>().exp()).collect()
}

pub(crate) fn problem() -> Problem {
    let dir = tempfile::tempdir().unwrap();
    let vocabulary = write_word_tokenizer(dir.path(), ["a b c"].into_iter()).unwrap();
    let config = TransformerConfig::llama(vocabulary, 24, 48, 2, 2, 16);
    let tokenizer = Tokenizer::load(dir.path(), &config).unwrap();
    let mut normal = Stream::new(11, "weights", "", 0).normals(1);
    let device = infalign_backend::device(None).unwrap();
    let model = CausalLm::random(config, &mut || 6.0 * normal(), &device).unwrap();
    let prompt = EncodedPrompt::new("p", "a", &tokenizer).unwrap();
    let sampling = Sampling { max_tokens: LENGTH, ..Sampling::default() };
    let responses = responses(&model, &prompt, &sampling, tokenizer.stops()).unwrap();
    let responses: Vec<Vec<u32>> = responses.into_iter().map(|one| one.tokens).collect();
    let reference = probabilities(&model, &prompt, &responses);
    assert!((reference.iter().sum::<f64>() - 1.0).abs() < 1e-5, "the enumeration is complete");
    let texts: Vec<String> =
        responses.iter().map(|r| tokenizer.decode_response(&prompt.tokens, r).unwrap()).collect();
    let rewards =
        Ordered.score(&texts.iter().map(|t| ("a", t.as_str())).collect::<Vec<_>>()).unwrap();
    let calibration = calibration(&reference, &rewards);
    Problem { model, tokenizer, prompt, responses, texts, reference, rewards, calibration }
}

/// A table that holds each reward in proportion to its probability.
fn calibration(reference: &[f64], rewards: &[f32]) -> Calibration {
    let mut calibration = Calibration::new(CalibrationMeta::default());
    let copies = |(p, r): (&f64, &f32)| std::iter::repeat_n(*r, (p * TABLE).round() as usize);
    calibration.insert("p", "a", reference.iter().zip(rewards).flat_map(copies).collect()).unwrap();
    calibration
}

/// KL(p‖q) in nats.
pub(crate) fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum()
}
