//! The text of a response while its tokens come.

use infalign_model::{ModelError, Tokenizer};

use crate::EncodedPrompt;
use crate::stop_texts::first_in;

/// Tokens of the prompt that are read at least before a response: white space depends on whether something stands before.
const BEFORE: usize = 8;

/// Turns the tokens of a response into text as they come: the parts, one after the other, are the text of the whole response.
///
/// A part is held back until it is sure: bytes until they are characters, and what may become a stop text until it is none.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    stop_texts: &'a [String],
    /// The prompt's last tokens and the response's.
    tokens: Vec<u32>,
    /// Where the tokens begin from which text is made, and up to where it has been.
    window: (usize, usize),
    /// The response's text so far, and how much of it has been told.
    text: String,
    told: usize,
}

impl<'a> TextStream<'a> {
    /// The text of a response to the prompt.
    pub fn new(tokenizer: &'a Tokenizer, stop_texts: &'a [String], prompt: &EncodedPrompt) -> Self {
        let start = prompt.tokens.len().saturating_sub(BEFORE);
        let tokens = prompt.tokens[tokenizer.start_before(&prompt.tokens, start)..].to_vec();
        let window = (0, tokens.len());
        Self { tokenizer, stop_texts, tokens, window, text: String::new(), told: 0 }
    }

    /// The text that is sure with these tokens.
    ///
    /// # Errors
    /// [`ModelError`] when the tokenizer fails.
    pub fn push(&mut self, tokens: &[u32]) -> Result<&str, ModelError> {
        self.tokens.extend_from_slice(tokens);
        let (start, read) = self.window;
        let before = self.tokenizer.decode(&self.tokens[start..read])?;
        let now = self.tokenizer.decode(&self.tokens[start..])?;
        // Of a row of tokens that are bytes, one that makes no character unmakes all others.
        let in_bytes = tokens.last().is_some_and(|token| self.tokenizer.is_byte(*token));
        if let Some(new) = now.strip_prefix(&before)
            && !in_bytes
            && !new.is_empty()
            && !new.ends_with(char::REPLACEMENT_CHARACTER)
        {
            self.text += new;
            self.window = (read, self.tokens.len());
        }
        let from = self.told;
        self.told = self.sure().max(from);
        Ok(&self.text[from..self.told])
    }

    /// What is still missing of the whole text of the response: where it is not as it was told, everything from there on.
    pub fn rest<'t>(&self, whole: &'t str) -> &'t str {
        let pairs = whole.chars().zip(self.text[..self.told].chars());
        let same = pairs.take_while(|(of_whole, told)| of_whole == told);
        &whole[same.map(|(of_whole, _)| of_whole.len_utf8()).sum::<usize>()..]
    }

    /// Where the text ends that no stop text can take away again.
    fn sure(&self) -> usize {
        if let Some(stopped) = first_in(self.stop_texts, &self.text) {
            return stopped;
        }
        let begun = |stop: &String| {
            let mut lengths = (1..stop.len()).rev().filter(|&n| stop.is_char_boundary(n));
            lengths.find(|&n| self.text.ends_with(&stop[..n])).unwrap_or(0)
        };
        self.text.len() - self.stop_texts.iter().map(begun).max().unwrap_or(0)
    }
}
