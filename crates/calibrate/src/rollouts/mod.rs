//! Reference rollouts: responses of π_ref with their rewards and log-probabilities, and their Parquet file.
//!
//! A file has a row a response, the responses of a prompt one after the other in the order of their numbers.
//!
//! | column | type | content |
//! |---|---|---|
//! | `prompt_id` | string | names the prompt for people |
//! | `prompt_sha256` | binary | 32 bytes, the SHA-256 of the prompt as the model reads it |
//! | `reward` | float | r(x, y) |
//! | `tokens` | list of 32-bit integers | the response, the token that ended it included |
//! | `log_probs` | list of float | log π_ref of each token given everything before it, in nats |
//!
//! The key-value metadata are those of a calibration table and `infalign.samples`, the responses to each prompt.

mod file;

pub use file::{read, read_from, write_to};

use std::collections::HashMap;

use crate::error::CalibrateError;
use crate::table::check_rewards;
use crate::{CalibrationMeta, PromptKey};

/// What [`Rollouts::check`] calls them.
const WHAT: &str = "this file of rollouts";

/// A response of the reference policy.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceResponse {
    /// Its tokens, the one that ended it included: at least 1.
    pub tokens: Vec<u32>,
    /// log π_ref of each token given everything before it, in nats.
    pub log_probs: Vec<f32>,
    /// r(x, y), finite.
    pub reward: f32,
}

impl ReferenceResponse {
    /// log π_ref(y | x) in nats.
    pub fn log_prob(&self) -> f64 {
        self.log_probs.iter().map(|&token| f64::from(token)).sum()
    }
}

/// The responses of π_ref to one prompt.
#[derive(Clone, Debug, PartialEq)]
struct Prompt {
    id: String,
    key: PromptKey,
    responses: Vec<ReferenceResponse>,
}

/// Independent responses of the reference policy, as many of every prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollouts {
    meta: CalibrationMeta,
    samples: usize,
    prompts: Vec<Prompt>,
    places: HashMap<PromptKey, usize>,
}

impl Rollouts {
    /// None yet; `samples` of each prompt are to come, made as `meta` says.
    pub fn new(meta: CalibrationMeta, samples: usize) -> Self {
        Self { meta, samples, prompts: Vec::new(), places: HashMap::new() }
    }

    /// Responses to each prompt.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// How many prompts there are.
    pub fn len(&self) -> usize {
        self.prompts.len()
    }

    /// Whether there is no prompt.
    pub fn is_empty(&self) -> bool {
        self.prompts.is_empty()
    }

    /// Refuses rollouts that were made from anything else than `expected`, or are not `samples` a prompt.
    ///
    /// # Errors
    /// [`CalibrateError::Mismatch`] naming the first field that differs.
    pub fn check(&self, expected: &CalibrationMeta, samples: usize) -> Result<(), CalibrateError> {
        self.meta.check(expected, WHAT)?;
        if self.samples == samples {
            return Ok(());
        }
        Err(CalibrateError::Mismatch {
            what: WHAT,
            field: "samples",
            found: self.samples.to_string(),
            expected: samples.to_string(),
        })
    }

    /// Adds the responses to a prompt.
    ///
    /// - `id`: for people; `text`: the prompt as the model reads it.
    ///
    /// # Errors
    /// [`CalibrateError::Rollouts`] for another number of them, and for a response that is empty or has not a finite log-probability a token;
    /// [`CalibrateError::NotFinite`]; [`CalibrateError::Duplicate`]. Nothing is added then.
    pub fn insert(
        &mut self,
        id: &str,
        text: &str,
        responses: Vec<ReferenceResponse>,
    ) -> Result<(), CalibrateError> {
        self.push(Prompt { id: id.to_owned(), key: PromptKey::of(text), responses })
    }

    /// The responses to a prompt.
    ///
    /// # Errors
    /// [`CalibrateError::NoRollouts`].
    pub fn of(&self, text: &str) -> Result<&[ReferenceResponse], CalibrateError> {
        let place = self.places.get(&PromptKey::of(text));
        place.map(|&place| self.prompts[place].responses.as_slice()).ok_or_else(|| {
            CalibrateError::NoRollouts {
                prompt: text.chars().take(60).collect(),
                known: self.len(),
            }
        })
    }

    fn push(&mut self, prompt: Prompt) -> Result<(), CalibrateError> {
        let Prompt { id, key, responses } = &prompt;
        let refuse = |reason| Err(CalibrateError::Rollouts { prompt_id: id.clone(), reason });
        if responses.len() != self.samples {
            return refuse(format!("there are {}, not {}", responses.len(), self.samples));
        }
        for response in responses {
            let (tokens, log_probs) = (response.tokens.len(), response.log_probs.len());
            if tokens == 0 || tokens != log_probs {
                return refuse(format!("{tokens} tokens have {log_probs} log-probabilities"));
            }
            check_rewards(id, &[response.reward], 0)?;
            if let Some(value) = response.log_probs.iter().find(|value| !value.is_finite()) {
                return refuse(format!("a log-probability is {value}"));
            }
        }
        if self.places.contains_key(key) {
            return Err(CalibrateError::Duplicate(id.clone()));
        }
        self.places.insert(*key, self.prompts.len());
        self.prompts.push(prompt);
        Ok(())
    }
}
