//! From prompts to tokens: texts as they stand, messages by the model's chat template.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use infalign_data::{ChatTemplate, DataError, Message, Prompt, Text, Turn, prompts};
use infalign_decode::{DecodeError, EncodedPrompt, Sampler};
use infalign_model::{ModelError, Tokenizer};

/// A text of so many bytes is encoded whatever the context: that costs little, and however long, a word that is unknown is one token.
const SMALL: usize = 1 << 16;
/// More bytes than the tokens of a text stand for on average: the longest of common vocabularies are 128.
const BYTES_PER_TOKEN: usize = 256;
/// What is said of a prompt and a response of different kinds.
const MIXED: &str = "one of prompt and response is text, the other a list of messages";

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

    /// The prompt as the model reads it, the tokens of prompt and response, and how many of them are the prompt's. The response is a text that
    /// the model may have written: it follows the prompt as it stands.
    ///
    /// # Errors
    /// As [`Encoder::prompt`], without the prompt's name; when the prompt is empty.
    pub(crate) fn pair(&self, prompt: &Text, response: &str) -> Result<(String, Vec<u32>, usize)> {
        let text = self.text(prompt)?;
        let (tokens, length) = match prompt {
            Text::Plain(_) => self.tokenizer.encode_pair(&text, response)?,
            Text::Messages(_) => self.tokenizer.encode_chat_pair(&text, response)?,
        };
        check_begun(length)?;
        Ok((text, tokens, length))
    }

    /// The same of a response to learn from, with the token that ends it, where there is one. Of messages the response is what the chat template
    /// writes of the assistant's.
    ///
    /// # Errors
    /// As [`Encoder::pair`]; when the template's text of the response cannot be told apart, or ends with a token at which the model does not stop.
    pub(crate) fn example(
        &self,
        prompt: &Text,
        response: &Text,
    ) -> Result<(String, Vec<u32>, usize)> {
        let (text, (mut tokens, length), end) = match (prompt, response) {
            (Text::Plain(prompt), Text::Plain(response)) => {
                let pair = self.tokenizer.encode_pair(prompt, response)?;
                (prompt.clone(), pair, self.tokenizer.end())
            }
            (Text::Messages(prompt), Text::Messages(response)) => {
                let Turn { prompt, response, closing } = self.turn(prompt, response)?;
                let (before, end) = self.end(&closing)?;
                let pair = self.tokenizer.encode_chat_pair(&prompt, &(response + before))?;
                (prompt, pair, end)
            }
            _ => bail!(MIXED),
        };
        check_begun(length)?;
        let is_ended = tokens.len() > length && tokens.last().copied() == end;
        tokens.extend(end.filter(|_| !is_ended));
        Ok((text, tokens, length))
    }

    /// The text of a response's tokens, which follow those of a prompt.
    ///
    /// # Errors
    /// When the tokenizer cannot read them.
    pub(crate) fn response(&self, prompt: &[u32], tokens: &[u32]) -> Result<String> {
        Ok(self.tokenizer.decode_response(prompt, tokens)?)
    }

    /// The first token at which the model stops of what closes a turn, and what is written before it; where no special token closes turns, the
    /// one that ends texts.
    fn end<'c>(&self, closing: &'c str) -> Result<(&'c str, Option<u32>)> {
        let written = |token: u32| self.tokenizer.token_text(None, token);
        let (tokens, stops) = (self.tokenizer.encode_chat(closing)?, self.tokenizer.stops());
        if let Some(end) = tokens.iter().copied().find(|token| stops.contains(token)) {
            let before = closing.split_once(written(end)?.as_str()).map_or("", |parts| parts.0);
            return Ok((before, Some(end)));
        }
        for token in tokens {
            let text = written(token)?;
            // Special tokens are those that are left out of texts; that of unknown words stands for others.
            let is_special = self.tokenizer.decode(&[token])?.is_empty();
            let all: Vec<u32> = stops.iter().copied().chain([token]).collect();
            ensure!(
                text.is_empty() || !is_special || !closing.contains(&text),
                "the chat template closes responses with `{text}`, at which the model does not stop: write \"eos_token_id\": {all:?} into the model's generation_config.json, or into a new file of that name"
            );
        }
        Ok(("", self.tokenizer.end()))
    }

    /// SHA-256 of the chat template in hexadecimal; empty where all prompts are texts, which it does not touch.
    ///
    /// # Errors
    /// When there is no template for prompts of messages.
    pub(crate) fn template_sha256(&self, prompts: &[Prompt]) -> Result<String> {
        let needed = prompts.iter().any(|prompt| matches!(prompt.text, Text::Messages(_)));
        if needed { Ok(self.template()?.sha256().to_owned()) } else { Ok(String::new()) }
    }

    /// The tokens of a prompt and a response as one text, as a reward model reads it. Rewards are given before whatever the chat template puts
    /// behind a message.
    ///
    /// # Errors
    /// When the tokenizer refuses the text, the chat template the messages, or there is none for them; when the last message is not the
    /// assistant's, or the template's text of it cannot be told apart.
    pub(crate) fn whole(&self, prompt: &Text, response: &Text) -> Result<Vec<u32>> {
        let text = match (prompt, response) {
            (Text::Plain(prompt), Text::Plain(response)) => format!("{prompt}{response}"),
            (Text::Messages(prompt), Text::Messages(response)) => {
                let Turn { prompt, response, .. } = self.turn(prompt, response)?;
                prompt + &response
            }
            _ => bail!(MIXED),
        };
        Ok(self.tokenizer.encode_whole(&text)?)
    }

    /// The tokens with which [`Encoder::whole`] begins, those of the prompt.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn beginning(&self, prompt: &Text) -> Result<Vec<u32>> {
        Ok(self.tokenizer.encode_whole(&self.text(prompt)?)?)
    }

    /// The text of a prompt.
    fn text(&self, prompt: &Text) -> Result<String> {
        Ok(match prompt {
            Text::Plain(text) => text.clone(),
            Text::Messages(messages) => self.template()?.prompt(messages)?,
        })
    }

    fn turn(&self, prompt: &[Message], response: &[Message]) -> Result<Turn> {
        Ok(self.template()?.turn(&[prompt, response].concat())?)
    }

    fn template(&self) -> Result<&ChatTemplate> {
        self.template.as_ref().map_err(|error| anyhow!("{error}"))
    }
}

/// Refuses a prompt without tokens, which a response cannot follow.
fn check_begun(prompt_length: usize) -> Result<()> {
    ensure!(
        prompt_length > 0,
        "the prompt is empty, and the tokenizer puts nothing before a text that a response could follow: write a prompt, or remove the row"
    );
    Ok(())
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
    use infalign_data::Role;
    use infalign_model::CausalLm;

    use super::*;

    /// What is read for the quickstart's model with this chat template.
    fn reading<T>(template: &str, read: impl FnOnce(&Encoder<'_>, &Tokenizer) -> T) -> T {
        let dir = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/quickstart/model");
        for file in std::fs::read_dir(source).unwrap().flatten() {
            std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
        }
        std::fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
        let model = CausalLm::load(dir.path(), &infalign_backend::device(None).unwrap()).unwrap();
        let tokenizer = Tokenizer::load(dir.path(), model.config()).unwrap();
        read(&Encoder::new(&tokenizer), &tokenizer)
    }

    fn said(role: Role, content: &str) -> Text {
        vec![Message { role, content: content.into() }].into()
    }

    #[test]
    fn of_messages_what_the_template_writes_is_learned_up_to_where_the_model_stops() {
        let template = "\
{{ bos_token }}{% for m in messages %} {{ m.role }} : {% if m.role == 'assistant' %}warm and {% endif %}{{ m.content }} . {{ eos_token }} on{% endfor %}\
{% if add_generation_prompt %} assistant :{% endif %}";
        let prompt = "<s> user : the soup . </s> on assistant :";
        reading(template, |encoder, tokenizer| {
            let [ask, answer] = [said(Role::User, "the soup"), said(Role::Assistant, "was nice")];
            let tokens = tokenizer.encode_chat(&format!("{prompt} warm and was nice . </s>"));
            let length = tokenizer.encode_chat(prompt).unwrap().len();
            let expected = (prompt.to_owned(), tokens.unwrap(), length);
            assert_eq!(encoder.example(&ask, &answer).unwrap(), expected);
            // A reward model reads the same, without what closes the turn.
            let read = tokenizer.encode_whole(&format!("{prompt} warm and was nice")).unwrap();
            assert_eq!(encoder.whole(&ask, &answer).unwrap(), read);
            assert_eq!(encoder.beginning(&ask).unwrap(), read[..length]);
            // A text that may have been drawn stands as it is.
            let drawn = tokenizer.encode_chat(&format!("{prompt} was nice")).unwrap();
            assert_eq!(encoder.pair(&ask, " was nice").unwrap().1, drawn);
        });
    }

    #[test]
    fn a_response_that_ends_by_itself_is_not_ended_twice() {
        reading("", |encoder, _| {
            let tokens =
                |response: &str| encoder.example(&"the soup".into(), &response.into()).unwrap().1;
            assert_eq!(tokens(" was nice . </s>"), tokens(" was nice ."));
            assert_eq!(tokens(" was nice .").last(), Some(&2));
        });
    }

    #[test]
    fn a_turn_that_ends_with_a_special_token_at_which_the_model_goes_on_is_refused() {
        let example = |end: &str| {
            let template =
                format!("{{% for m in messages %}}{{{{ m.content }}}}{end}{{% endfor %}}");
            let talk = [said(Role::User, "the soup"), said(Role::Assistant, " was nice")];
            reading(&template, |encoder, _| encoder.example(&talk[0], &talk[1]))
        };
        let error = example(" <unk>").unwrap_err().to_string();
        let told = "closes responses with `<unk>`, at which the model does not stop: write \"eos_token_id\": [1, 2, 0] into";
        assert!(error.contains(told), "{error}");
        // A word that closes turns, known or not, is no special token.
        for end in [" noon", " midnight"] {
            assert_eq!(example(end).unwrap().1.last(), Some(&2), "{end}");
        }
    }

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
