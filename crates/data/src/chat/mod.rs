//! Chat templates: from messages to the text that a model reads, byte for byte as transformers' `apply_chat_template` writes it.
//!
//! A template writes the special tokens itself, so its text is to be encoded without adding any; otherwise it would begin with two
//! tokens for the beginning of the text. Departures from transformers:
//! 1. `strftime_now` tells the time that the caller gives, in UTC, and is not defined where the caller gives none, as in old versions of
//!    transformers: a template that asks whether it is takes a date of its own.
//! 2. `{% generation %}` marks nothing: what it encloses is written as it is.
//! 3. Tools and documents are always none, and of `tojson` only `indent` (up to 100) and `ensure_ascii` are known.
//! 4. `'text' % value` is known where its left side is a text constant.
//! 5. A template that does more work than any conversation needs is stopped. What is not counted as work, such as comparing lists within
//!    lists, or writing them into texts by `~` or a filter, is an error after ten seconds, though its thread goes on, and takes memory.

mod environment;
mod files;
mod json;
mod limits;
mod methods;
mod percent;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Value};
use serde::Serialize;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::{DataError, Message, Role};
use watch::Watch;

/// Time for a template to be read, or to write one text. All the work that it may do takes about a second; the rest is for busy machines.
const PATIENCE: Duration = Duration::from_secs(10);

/// What follows the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Nothing: the conversation is complete.
    Complete,
    /// The header of the assistant's next message, for the model to write it (`add_generation_prompt`).
    GenerationPrompt,
    /// Nothing, and the text ends within the last message, for the model to go on with it (`continue_final_message`).
    Continued,
}

/// What lets a model answer these messages: a new message after one of the user, more of the last one if it is the assistant's.
fn ending(messages: &[Message]) -> Result<Ending, DataError> {
    match messages.last().map(|message| message.role) {
        Some(Role::User) => Ok(Ending::GenerationPrompt),
        Some(Role::Assistant) => Ok(Ending::Continued),
        last => {
            let last = last.map_or("none".to_owned(), |role| format!("of the role {role}"));
            let problem = format!(
                "the last message is {last}; end with one of user, to be answered, or assistant, to be continued"
            );
            Err(DataError::Messages { problem })
        }
    }
}

/// The chat template of a model.
#[derive(Debug)]
pub struct ChatTemplate {
    path: PathBuf,
    environment: Arc<Environment<'static>>,
    watch: Watch,
    /// `bos_token` and its like.
    tokens: BTreeMap<String, String>,
    sha256: String,
}

/// Everything that transformers hands to a template.
#[derive(Serialize)]
struct Context<'a> {
    messages: &'a [Message],
    tools: Option<()>,
    documents: Option<()>,
    add_generation_prompt: bool,
    #[serde(flatten)]
    tokens: &'a BTreeMap<String, String>,
}

/// The three parts of a conversation whose last message is the assistant's: its text is one behind the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// What the model reads before it answers, as [`ChatTemplate::prompt`] has it.
    pub prompt: String,
    /// What follows up to the end of the last message: its content as the template writes it, with what the template puts before it, such as a
    /// blank or an empty thought.
    pub response: String,
    /// What follows that, such as the token that ends a turn.
    pub closing: String,
}

/// Marks where the last message ends; its blank tells whether the template strips messages.
const END_MARK: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

impl ChatTemplate {
    /// Reads `DIR/chat_template.jinja`, or else `chat_template` of `DIR/tokenizer_config.json` (of several named ones, `default`), and
    /// the special tokens in the latter and, where that lists no added tokens, in `DIR/special_tokens_map.json`. `now` is what the template is
    /// told when it asks for the time; results that depend on it depend on the day.
    ///
    /// # Errors
    /// [`DataError::NoChatTemplate`] when there is none; [`DataError::ChatTemplate`] names the file and what is wrong with it, such as more than
    /// 256 KiB, or that reading it does not end within ten seconds.
    pub fn read(dir: &Path, now: Option<OffsetDateTime>) -> Result<Self, DataError> {
        let files::Source { path, template, tokens } = files::read(dir)?;
        let digest = Sha256::digest(template.as_bytes());
        let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let watch = Watch::new(PATIENCE);
        let environment = watch.run(move || environment::environment(template, now));
        let environment = environment.map(Arc::new).map_err(|error| DataError::ChatTemplate {
            path: path.clone(),
            problem: described(&error),
        })?;
        Ok(Self { path, environment, watch, tokens, sha256 })
    }

    /// SHA-256 of the template, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The text of messages that the model is to answer, or to continue if the last is the assistant's.
    ///
    /// # Errors
    /// [`DataError::Messages`] when there is no message, or the last is a system message; and as [`ChatTemplate::render`].
    pub fn prompt(&self, messages: &[Message]) -> Result<String, DataError> {
        self.render(messages, ending(messages)?)
    }

    /// The text of a conversation. A template that takes more than ten seconds is left to itself: its thread goes on until the process ends, and
    /// from then on the template is refused.
    ///
    /// # Errors
    /// [`DataError::RefusedByTemplate`] with the template's own words where it calls `raise_exception`;
    /// [`DataError::Messages`] when the last message is to be continued but the template leaves it out;
    /// [`DataError::ChatTemplate`] when the template fails or does not end.
    pub fn render(&self, messages: &[Message], ending: Ending) -> Result<String, DataError> {
        match messages {
            [before @ .., last] if ending == Ending::Continued => self.continued(before, last),
            _ => self.rendered(messages, ending),
        }
    }

    /// The text of a complete conversation that ends with a message of the assistant, parted where a model that answers begins and ends.
    ///
    /// # Errors
    /// As [`ChatTemplate::prompt`]; [`DataError::Messages`] when the last message is another's, or the text is not what the model reads before it
    /// answers and more, as where the template opens a thought for the model that it leaves out of a finished message.
    pub fn turn(&self, messages: &[Message]) -> Result<Turn, DataError> {
        let [before @ .., last @ Message { role: Role::Assistant, .. }] = messages else {
            let problem = "a response of messages has to end with one of the assistant".to_owned();
            return Err(DataError::Messages { problem });
        };
        let prompt = self.prompt(before)?;
        let text = self.rendered(messages, Ending::Complete)?;
        let answered = match text.strip_prefix(prompt.as_str()) {
            Some(answered) => Some(answered.to_owned()),
            None => self.answered(before, last)?,
        };
        let marked = self.marked(before, last)?;
        let parts = behind_mark(&marked)
            .and_then(|closing| Some((answered.as_deref()?.strip_suffix(closing)?, closing)));
        let Some((response, closing)) = parts else { return Err(self.goes_on_otherwise()) };
        Ok(Turn { response: response.to_owned(), closing: closing.to_owned(), prompt })
    }

    /// What a finished conversation has behind the end of its prompt, which is found by a mark in the question: templates such as Mistral's write
    /// what stands before that otherwise once it is answered.
    fn answered(&self, before: &[Message], last: &Message) -> Result<Option<String>, DataError> {
        let [before @ .., question] = before else { return Ok(None) };
        let question = marked(question);
        let prompt = self.prompt(&[before, std::slice::from_ref(&question)].concat())?;
        let text =
            self.rendered(&[before, &[question, last.clone()]].concat(), Ending::Complete)?;
        let ends = behind_mark(&prompt).zip(behind_mark(&text));
        Ok(ends.and_then(|(prompt, text)| Some(text.strip_prefix(prompt)?.to_owned())))
    }

    /// The text of a conversation with a mark at the end of its last message.
    fn marked(&self, before: &[Message], last: &Message) -> Result<String, DataError> {
        self.rendered(&[before, &[marked(last)]].concat(), Ending::Complete)
    }

    /// The text up to the end of the last message, which is found by the mark.
    fn continued(&self, before: &[Message], last: &Message) -> Result<String, DataError> {
        let text = self.marked(before, last)?;
        let end = text.rfind(END_MARK.trim_end()).ok_or_else(|| self.left_out())?;
        let (kept, rest) = text.split_at(end);
        if !kept.contains(last.content.trim()) {
            return Err(self.left_out());
        }
        let strips = !rest.starts_with(END_MARK);
        Ok(if strips { kept.trim_end() } else { kept }.to_owned())
    }

    fn rendered(&self, messages: &[Message], ending: Ending) -> Result<String, DataError> {
        let context = Context {
            messages,
            tools: None,
            documents: None,
            add_generation_prompt: ending == Ending::GenerationPrompt,
            tokens: &self.tokens,
        };
        let context = Value::from(Serde(&context));
        let environment = Arc::clone(&self.environment);
        let text =
            self.watch.run(move || environment.get_template(environment::NAME)?.render(context));
        text.map_err(|error| match environment::raised(&error) {
            Some(reason) => DataError::RefusedByTemplate { path: self.path.clone(), reason },
            None => self.failed(&error),
        })
    }

    fn failed(&self, error: &minijinja::Error) -> DataError {
        let problem = if environment::lacks_time(&self.environment, error) {
            in_line(error, environment::NO_TIME)
        } else {
            described(error)
        };
        DataError::ChatTemplate { path: self.path.clone(), problem }
    }

    fn goes_on_otherwise(&self) -> DataError {
        let problem = format!(
            "the template in {} does not write a finished response behind what it writes for the model to answer, so that none can be told apart; give prompt and response as texts, each as the model is to read and write it",
            self.path.display()
        );
        DataError::Messages { problem }
    }

    fn left_out(&self) -> DataError {
        let problem = format!(
            "the last message is the assistant's, to be continued, but the template in {} does not write it as it is; end with one of user",
            self.path.display()
        );
        DataError::Messages { problem }
    }
}

/// A message with a mark at its end.
fn marked(message: &Message) -> Message {
    Message { content: format!("{}{END_MARK}", message.content), ..*message }
}

/// What a text has behind the last mark, and behind the mark's own blank, where the template leaves it.
fn behind_mark(text: &str) -> Option<&str> {
    let (_, rest) = text.rsplit_once(END_MARK.trim_end())?;
    Some(rest.strip_prefix(' ').unwrap_or(rest))
}

/// What went wrong and in which line of the template.
fn described(error: &minijinja::Error) -> String {
    match error.kind() {
        ErrorKind::OutOfFuel => in_line(error, "it does more work than any conversation needs"),
        kind => in_line(error, &error.detail().map_or_else(|| kind.to_string(), str::to_owned)),
    }
}

fn in_line(error: &minijinja::Error, what: &str) -> String {
    error.line().map_or_else(|| what.to_owned(), |line| format!("line {line}: {what}"))
}
