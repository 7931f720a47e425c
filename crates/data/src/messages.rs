//! Texts that are plain or made of messages, as chat data sets have them.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::rows::{Row, kind};

/// Who speaks a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Whoever set the assistant up; only the first message may be theirs.
    System,
    /// Who asks.
    User,
    /// Who answers.
    Assistant,
}

/// One turn of a conversation; its keys stand in this order in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said, exactly as the file has it.
    pub content: String,
}

/// A text, or a conversation. In JSON it looks as files have it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum Text {
    /// Exactly as the file has it.
    Plain(String),
    /// In turns; never empty. User and assistant alternate, after at most one system message.
    Messages(Vec<Message>),
}

impl Text {
    /// The text of `key`: text, or a list of objects with `role` and `content`.
    pub(crate) fn of(row: &Row, key: &str) -> Result<Self, String> {
        match row.required(key)? {
            Value::String(text) => Ok(Self::Plain(text.clone())),
            Value::Array(list) if list.is_empty() => {
                Err(format!("The list of messages `{key}` is empty. Add one or remove the row."))
            }
            Value::Array(list) => {
                let parse = |(index, value)| {
                    message(value).map_err(|what| format!("`{key}`, message {}: {what}", index + 1))
                };
                let messages: Vec<_> =
                    list.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
                check_turns(&messages).map_err(|what| format!("`{key}`, {what}"))?;
                Ok(Self::Messages(messages))
            }
            other => {
                let other = kind(other);
                Err(format!("The key `{key}` has to be text or a list of messages, not {other}."))
            }
        }
    }

    /// The text of `prompt`, or of `messages` where there is no `prompt`.
    pub(crate) fn of_prompt(row: &Row) -> Result<Self, String> {
        let chat = row.get("prompt").is_none() && row.get("messages").is_some();
        Self::of(row, if chat { "messages" } else { "prompt" })
    }

    /// How many characters are said.
    pub(crate) fn characters(&self) -> usize {
        match self {
            Self::Plain(text) => text.chars().count(),
            Self::Messages(messages) => messages.iter().map(|m| m.content.chars().count()).sum(),
        }
    }

    /// Whether nothing but white space is said.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        match self {
            Self::Plain(text) => text.trim().is_empty(),
            Self::Messages(messages) => messages.iter().all(|m| m.content.trim().is_empty()),
        }
    }
}

fn message(value: &Value) -> Result<Message, String> {
    let text = |key: &str| match value.get(key) {
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(other) => Err(format!("The key `{key}` has to be text, not {}.", kind(other))),
        None => Err(format!("The key `{key}` is missing. Messages have `role` and `content`.")),
    };
    let role = match text("role")? {
        "system" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        other => return Err(format!("The role `{other}` is none of system, user, assistant.")),
    };
    Ok(Message { role, content: text("content")?.to_owned() })
}

/// Refuses a system message that is not the first, and two messages of one role in a row.
pub(crate) fn check_turns(messages: &[Message]) -> Result<(), String> {
    for (index, pair) in messages.windows(2).enumerate() {
        let (before, role) = (pair[0].role, pair[1].role);
        if role == Role::System || role == before {
            return Err(format!(
                "message {}: The role {role} cannot follow {before}. User and assistant have to \
                 alternate, after at most one system message.",
                index + 2
            ));
        }
    }
    Ok(())
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::Plain(text.to_owned())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::Plain(text)
    }
}

impl From<Vec<Message>> for Text {
    fn from(messages: Vec<Message>) -> Self {
        Self::Messages(messages)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        })
    }
}
