//! From prompts to tokens: texts as they stand, messages by the model's chat template.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use infalign_data::{ChatTemplate, DataError, Message, Prompt, Role, Text, prompts};
use infalign_decode::{DecodeError, EncodedPrompt, Sampler};
use infalign_model::{ModelError, Tokenizer};

/// A text of so many bytes is encoded whatever the context: that costs little, and however long, a word that is unknown is one token.
const SMALL: usize = 1 << 16;
/// More bytes than the tokens of a text stand for on average: the longest of common vocabularies are 128.
const BYTES_PER_TOKEN: usize = 256;

/// A model's tokenizer with its chat template.
pub(crate) struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    /// Only messages need it, and only they meet its error.
    template: Result<ChatTemplate, DataError>,
    /// Tokens that the model reads, where prompts are measured by it.
    context: Option<usize>,
}

impl<'a> Encoder<'a> {
    /// Reads the chat template beside the tokenizer, if there is one. It is told no time, so that results do not depend on the day.
    pub(crate) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, template: ChatTemplate::read(tokenizer.folder(), None), context: None }
    }

    /// The same for prompts of a model that reads so many tokens. One that is far too long is refused before it is taken apart, which takes
    /// minutes and gigabytes.
    #[must_use]
    pub(crate) fn within(self, context: usize) -> Self {
        Self { context: Some(context), ..self }
    }

    /// The prompt as the model reads it.
    ///
    /// # Errors
    /// When the tokenizer refuses the text, the chat template the messages, or there is none for them, or the text is far too long for the
    /// model. The message names the prompt.
    pub(crate) fn prompt(&self, prompt: &Prompt) -> Result<EncodedPrompt> {
        let Prompt { id, text } = prompt;
        Ok(match text {
            Text::Plain(text) => {
                self.check_size(id, text)?;
                EncodedPrompt::new(id, text, self.tokenizer)?
            }
            Text::Messages(messages) => {
                let text = self.template()?.prompt(messages);
                let text = text.with_context(|| format!("prompt `{id}`"))?;
                self.check_size(id, &text)?;
                EncodedPrompt::chat(id, &text, self.tokenizer)?
            }
        })
    }

    fn check_size(&self, id: &str, text: &str) -> Result<()> {
        let Some(context) = self.context else { return Ok(()) };
        ensure!(
            text.len() <= context.saturating_mul(BYTES_PER_TOKEN).max(SMALL),
            "prompt `{id}` has {} bytes, more than the model's context of {context} tokens has room for: shorten it",
            text.len()
        );
        Ok(())
    }

    /// All prompts of a file as the model reads them.
    ///
    /// # Errors
    /// As [`Encoder::prompt`], with the file and the prompt's place in it.
    pub(crate) fn prompts(&self, given: &[Prompt], file: &Path) -> Result<Vec<EncodedPrompt>> {
        let encode = |(index, prompt)| self.prompt(prompt).with_context(|| place(file, index));
        given.iter().enumerate().map(encode).collect()
    }

    /// The prompt as the model reads it, the tokens of prompt and response, and how many of them are the prompt's.
    ///
    /// # Errors
    /// As [`Encoder::prompt`], without the prompt's name.
    pub(crate) fn pair(&self, prompt: &Text, response: &str) -> Result<(String, Vec<u32>, usize)> {
        let (text, (tokens, length)) = match prompt {
            Text::Plain(text) => (text.clone(), self.tokenizer.encode_pair(text, response)?),
            Text::Messages(messages) => {
                let text = self.template()?.prompt(messages)?;
                let pair = self.tokenizer.encode_chat_pair(&text, response)?;
                (text, pair)
            }
        };
        Ok((text, tokens, length))
    }

    /// The text of a response's tokens, which follow those of a prompt.
    ///
    /// # Errors
    /// When the tokenizer cannot read them.
    pub(crate) fn response(&self, prompt: &[u32], tokens: &[u32]) -> Result<String> {
        Ok(self.tokenizer.decode_response(prompt, tokens)?)
    }

    /// The token that ends a response, where there is one: of messages the first behind the assistant's at which the model stops, else the one
    /// that ends texts.
    ///
    /// # Errors
    /// As [`Encoder::pair`].
    pub(crate) fn end(&self, prompt: &Text, response: &str) -> Result<Option<u32>> {
        let Text::Messages(messages) = prompt else { return Ok(self.tokenizer.end()) };
        let response = Message { role: Role::Assistant, content: response.to_owned() };
        let closing = self.template()?.closing(&[messages.as_slice(), &[response]].concat())?;
        let stops = self.tokenizer.stops();
        let tokens = self.tokenizer.encode_chat(&closing)?;
        Ok(tokens.into_iter().find(|token| stops.contains(token)).or(self.tokenizer.end()))
    }

    /// SHA-256 of the chat template in hexadecimal; empty where all prompts are texts, which it does not touch.
    ///
    /// # Errors
    /// When there is no template for prompts of messages.
    pub(crate) fn template_sha256(&self, prompts: &[Prompt]) -> Result<String> {
        let needed = prompts.iter().any(|prompt| matches!(prompt.text, Text::Messages(_)));
        if needed { Ok(self.template()?.sha256().to_owned()) } else { Ok(String::new()) }
    }

    /// The tokens of a prompt and a response as one text, as a reward model reads it.
    ///
    /// # Errors
    /// When the tokenizer refuses the text, the chat template the messages, or there is none for them; when the last message is not the
    /// assistant's.
    pub(crate) fn whole(&self, prompt: &Text, response: &Text) -> Result<Vec<u32>> {
        let text = match (prompt, response) {
            (Text::Plain(prompt), Text::Plain(response)) => format!("{prompt}{response}"),
            (Text::Messages(prompt), Text::Messages(response)) => {
                let messages = [prompt.as_slice(), response.as_slice()].concat();
                let [before @ .., Message { role: Role::Assistant, content }] = &messages[..]
                else {
                    bail!("a response of messages has to end with one of the assistant");
                };
                // Rewards are given before whatever the template puts behind a message.
                self.template()?.prompt(before)? + content
            }
            _ => bail!("one of prompt and response is text, the other a list of messages"),
        };
        Ok(self.tokenizer.encode_whole(&text)?)
    }

    fn template(&self) -> Result<&ChatTemplate> {
        self.template.as_ref().map_err(|error| anyhow!("{error}"))
    }
}

/// Has a sampler check its settings, and then all prompts of a file.
///
/// # Errors
/// Those of the sampler; about a prompt, with the file and the prompt's place in it.
pub(crate) fn check(sampler: &dyn Sampler, prompts: &[EncodedPrompt], file: &Path) -> Result<()> {
    sampler.check(&[])?;
    for (index, prompt) in prompts.iter().enumerate() {
        let checked = sampler.check(std::slice::from_ref(prompt));
        checked.map_err(advised).with_context(|| place(file, index))?;
    }
    Ok(())
}

/// An error about a prompt with what to do where it and the longest response are too long.
pub(crate) fn advised(error: DecodeError) -> anyhow::Error {
    match error {
        DecodeError::Prompt { source: ModelError::TooLong { .. }, .. } => {
            anyhow!("{error}; shorten the prompt, or lower the response limit (max_tokens)")
        }
        error => error.into(),
    }
}

/// The file, which is read again to say so, and where in it a prompt stands.
fn place(file: &Path, index: usize) -> String {
    let places = prompts::places(file).unwrap_or_default();
    let place = places.get(index).map(|place| format!(", {place}")).unwrap_or_default();
    format!("{}{place}", file.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_no_room_for_a_response_is_told_with_what_to_do() {
        let refused = |source: ModelError| {
            advised(DecodeError::Prompt { prompt: "`a`".into(), source }).to_string()
        };
        let long = refused(ModelError::TooLong { length: 9, limit: 8 });
        assert!(long.contains("prompt `a`: a sequence of 9 tokens"), "{long}");
        assert!(long.ends_with("or lower the response limit (max_tokens)"), "{long}");
        assert!(!refused(ModelError::Empty { index: 0 }).contains("max_tokens"));
    }
}
