//! What names a prompt in a table: its text, not an id that two data sets may give to different prompts.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::CalibrateError;

/// The SHA-256 of a prompt's text as the model reads it, chat template applied.
///
/// ```
/// use infalign_calibrate::PromptKey;
/// let key = PromptKey::of("abc");
/// assert!(key.to_string().starts_with("ba7816bf"));
/// assert_ne!(key, PromptKey::of("abd"));
/// assert_eq!(key.to_string().parse::<PromptKey>()?, key);
/// # Ok::<(), infalign_calibrate::CalibrateError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PromptKey([u8; 32]);

impl PromptKey {
    /// The key of a text.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// 64 hexadecimal digits.
impl fmt::Display for PromptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Reads the 64 digits, in upper case, too.
impl FromStr for PromptKey {
    type Err = CalibrateError;

    fn from_str(text: &str) -> Result<Self, CalibrateError> {
        let digit = |digit: char| digit.to_digit(16).map(|digit| digit as u8);
        let digits: Option<Vec<u8>> = text.chars().map(digit).collect();
        let digits = digits.filter(|digits| digits.len() == 64);
        let digits = digits.ok_or_else(|| CalibrateError::Key(text.to_owned()))?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = 16 * pair[0] + pair[1];
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for PromptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
