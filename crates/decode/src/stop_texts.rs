//! Texts that end a response.

use infalign_model::{ModelError, Tokenizer};

/// Tokens that are read besides those that a text can take.
const SPARE: usize = 8;

/// Texts of which the first to appear ends a response. The text of the response ends before it; its tokens include it.
#[derive(Clone, Copy)]
pub struct StopTexts<'a> {
    /// Turns tokens into text.
    pub tokenizer: &'a Tokenizer,
    /// The texts; an empty one ends nothing.
    pub texts: &'a [String],
}

impl StopTexts<'_> {
    /// Whether the last token of a response has completed one of the texts.
    ///
    /// # Errors
    /// [`ModelError`] when the tokenizer fails.
    pub(crate) fn ended(&self, prompt: &[u32], response: &[u32]) -> Result<bool, ModelError> {
        let Some(longest) = self.texts.iter().map(String::len).max().filter(|n| *n > 0) else {
            return Ok(false);
        };
        // A token has a byte at least, but for a few that have none.
        let first = response.len().saturating_sub(longest + SPARE);
        // White space depends on whether something stands before.
        let before = match first {
            0 => &prompt[prompt.len().saturating_sub(SPARE)..],
            _ => &response[first.saturating_sub(SPARE)..first],
        };
        let text = self.tokenizer.decode_response(before, &response[first..])?;
        Ok(self.first_in(&text).is_some())
    }

    /// The part of a response's text before the first of the texts.
    pub fn cut<'t>(&self, text: &'t str) -> &'t str {
        &text[..self.first_in(text).unwrap_or(text.len())]
    }

    fn first_in(&self, text: &str) -> Option<usize> {
        self.texts.iter().filter(|stop| !stop.is_empty()).filter_map(|stop| text.find(stop)).min()
    }
}
