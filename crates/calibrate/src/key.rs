//! What names a prompt in a table: its text, not an id that two data sets may give to different prompts.

use std::fmt;

use sha2::{Digest, Sha256};

/// The SHA-256 of a prompt's text as the model reads it, chat template applied.
///
/// ```
/// use infalign_calibrate::PromptKey;
/// let key = PromptKey::of("abc");
/// assert!(key.to_string().starts_with("ba7816bf"));
/// assert_ne!(key, PromptKey::of("abd"));
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

impl fmt::Debug for PromptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
