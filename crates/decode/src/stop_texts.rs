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
        let first = self.tokenizer.start_before(response, first);
        // White space depends on whether something stands before.
        let before = if first == 0 { prompt } else { &response[..first] };
        let start = before.len().saturating_sub(SPARE);
        let before = &before[self.tokenizer.start_before(before, start)..];
        let text = self.tokenizer.decode_response(before, &response[first..])?;
        Ok(first_in(self.texts, &text).is_some())
    }

    /// The part of a response's text before the first of the texts.
    pub fn cut<'t>(&self, text: &'t str) -> &'t str {
        &text[..first_in(self.texts, text).unwrap_or(text.len())]
    }
}

/// Where the first of some stop texts begins in a text; an empty one is in none.
pub(crate) fn first_in(stop_texts: &[String], text: &str) -> Option<usize> {
    let stops = stop_texts.iter().filter(|stop| !stop.is_empty());
    stops.filter_map(|stop| text.find(stop.as_str())).min()
}

#[cfg(test)]
mod tests {
    use infalign_model::TransformerConfig;
    use serde_json::json;

    use super::*;

    /// The bytes of the sign for the euro, 0 to 2; the end of a line, 3; and a letter, 4.
    fn tokenizer() -> Tokenizer {
        let contents = json!({
            "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
            "decoder": { "type": "Sequence", "decoders": [{ "type": "ByteFallback" }, { "type": "Fuse" }] },
            "model": {
                "type": "WordLevel", "unk_token": "a",
                "vocab": { "<0xE2>": 0, "<0x82>": 1, "<0xAC>": 2, "<0x0A>": 3, "a": 4 },
            },
        });
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), contents.to_string()).unwrap();
        Tokenizer::load(dir.path(), &TransformerConfig::llama(5, 16, 24, 1, 1, 64)).unwrap()
    }

    #[test]
    fn a_stop_text_is_noticed_at_once_behind_characters_in_bytes() {
        let (tokenizer, texts) = (tokenizer(), ["\n".to_owned()]);
        let stops = StopTexts { tokenizer: &tokenizer, texts: &texts };
        let euros = [[4].as_slice(), &[0, 1, 2].repeat(5)].concat();
        let line = [euros.as_slice(), &[3]].concat();
        for (prompt, before, response) in [
            (&[4][..], &euros[..], &line[..]),
            (&euros[..], &[], &[3]),
            (&euros[..], &[0, 1, 2], &[0, 1, 2, 3]),
        ] {
            assert!(!stops.ended(prompt, before).unwrap(), "{before:?}");
            assert!(stops.ended(prompt, response).unwrap(), "{response:?}");
        }
    }
}
