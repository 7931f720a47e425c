//! A prompt and a response that follows it, as tokens.

use tokenizers::decoders::DecoderWrapper;

use super::Tokenizer;
use crate::ModelError;

/// Texts to put before a response, so that it does not begin the text. The second is for responses whose tokens join with the first.
const ANCHORS: [&str; 2] = ["\n", "0"];

/// How much of a text an error shows, in characters.
const SHOWN: usize = 20;

impl Tokenizer {
    /// Token ids of a prompt and a response that follows it, and how many of them are the prompt's.
    ///
    /// They are those of the whole text, as [`Tokenizer::encode_whole`] reads it, where its tokens begin with the prompt's. Where a token
    /// would reach across the border, prompt and response are read apart, since a model that continues the prompt could not have drawn that
    /// token. The response is then read as what follows a text: the space that Llama's tokenizers put before a text is not in it.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when the tokenizer refuses the text, or has tokens for the response only where it begins a text.
    pub fn encode_pair(
        &self,
        prompt: &str,
        response: &str,
    ) -> Result<(Vec<u32>, usize), ModelError> {
        self.pair(prompt, response, Self::encode_whole)
    }

    /// As [`Tokenizer::encode_pair`], for a prompt that a chat template wrote.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_pair`].
    pub fn encode_chat_pair(
        &self,
        prompt: &str,
        response: &str,
    ) -> Result<(Vec<u32>, usize), ModelError> {
        self.pair(prompt, response, Self::encode_chat)
    }

    fn pair(
        &self,
        prompt: &str,
        response: &str,
        encode: impl Fn(&Self, &str) -> Result<Vec<u32>, ModelError>,
    ) -> Result<(Vec<u32>, usize), ModelError> {
        let mut tokens = encode(self, prompt)?;
        let prompt_length = tokens.len();
        let whole = encode(self, &format!("{prompt}{response}"))?;
        if whole.starts_with(&tokens) && whole.len() > prompt_length {
            return Ok((whole, prompt_length));
        }
        let apart = self.apart(&tokens, response)?;
        tokens.extend(apart.ok_or_else(|| self.fail(begins_a_text(prompt, response)))?);
        Ok((tokens, prompt_length))
    }

    /// Tokens of a response behind those of its prompt, which spell it there; None where there are none.
    fn apart(&self, prompt: &[u32], response: &str) -> Result<Option<Vec<u32>>, ModelError> {
        let alone = self.ids(response, false)?;
        if self.parts_by_spaces() || self.spells(prompt, &alone, response)? {
            return Ok(Some(alone));
        }
        Ok(ANCHORS.iter().find_map(|anchor| self.behind(anchor, response)))
    }

    /// Whether texts are tokens with a space between any two, so that no token has a space of its own.
    fn parts_by_spaces(&self) -> bool {
        matches!(self.inner.get_decoder(), None | Some(DecoderWrapper::WordPiece(_)))
    }

    /// Whether tokens behind those of a prompt have exactly this text, special tokens written out.
    fn spells(&self, prompt: &[u32], tokens: &[u32], text: &str) -> Result<bool, ModelError> {
        let (before, whole) = (self.written(prompt)?, self.written(&[prompt, tokens].concat())?);
        Ok(whole.strip_prefix(before.as_str()) == Some(text))
    }

    /// The tokens of a text behind another; None where some are of both, or the other has none of its own.
    fn behind(&self, anchor: &str, text: &str) -> Option<Vec<u32>> {
        let before = self.ids(anchor, false).ok()?;
        if !self.written(&before).ok()?.ends_with(anchor) {
            return None;
        }
        let whole = self.ids(&format!("{anchor}{text}"), false).ok()?;
        whole.strip_prefix(before.as_slice()).map(<[u32]>::to_vec)
    }
}

/// Why a response has no tokens behind a prompt.
fn begins_a_text(prompt: &str, response: &str) -> String {
    let before_end = prompt.chars().count().saturating_sub(SHOWN);
    let end: String = prompt.chars().skip(before_end).collect();
    let beginning: String = response.chars().take(SHOWN).collect();
    format!(
        "behind a prompt that ends in {end:?}, there are no tokens for the response {beginning:?}, but only for one with a space before it; end the prompt before a space, and begin the response with that"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;

    /// A tokenizer in Llama's manner, which puts a space before every text, of the letters a and b, spaces, `▁a`, and more.
    fn with_spaces(more: &[&str]) -> Tokenizer {
        let tokens = ["▁", "a", "b", "▁a"].iter().chain(more);
        let vocabulary: serde_json::Map<String, Value> =
            tokens.enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
        let spaces = |from: &str, to: &str| json!({ "type": "Replace", "pattern": { "String": from }, "content": to });
        let contents = json!({
            "version": "1.0", "added_tokens": [], "pre_tokenizer": null, "post_processor": null,
            "normalizer": { "type": "Sequence", "normalizers": [{ "type": "Prepend", "prepend": "▁" }, spaces(" ", "▁")] },
            "decoder": { "type": "Sequence", "decoders": [spaces("▁", " "), { "type": "ByteFallback" }, { "type": "Fuse" },
                { "type": "Strip", "content": " ", "start": 1, "stop": 0 }] },
            "model": { "type": "BPE", "vocab": vocabulary, "merges": [["▁", "a"]], "byte_fallback": true },
        });
        Tokenizer::from_bytes(contents.to_string(), BTreeSet::new(), None, 0).unwrap()
    }

    #[test]
    fn a_response_gets_no_space_that_nobody_wrote() {
        for more in ["<0x0A>", "0"] {
            let tokenizer = with_spaces(&[more]);
            // `a ` is ▁a ▁, whose ▁ is one token with the second a.
            for (response, expected) in [("a", &[1][..]), ("a b", &[1, 0, 2]), (" a", &[3])] {
                let (tokens, prompt_length) = tokenizer.encode_pair("a ", response).unwrap();
                let (prompt, tokens) = tokens.split_at(prompt_length);
                assert_eq!((prompt, tokens), (&[3, 0][..], expected), "{more}");
                assert_eq!(tokenizer.decode_response(prompt, tokens).unwrap(), response);
            }
        }
    }

    #[test]
    fn a_response_without_tokens_of_its_own_is_refused() {
        let prompt = "b".repeat(30) + " ";
        let error = with_spaces(&[]).encode_pair(&prompt, "a").unwrap_err().to_string();
        let end = format!("ends in \"{} \"", "b".repeat(SHOWN - 1));
        for told in [end.as_str(), "response \"a\"", "end the prompt before a space"] {
            assert!(error.contains(told), "{error}");
        }
    }
}
