//! Texts that are plain or made of messages, as chat data sets have them.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::rows::{Row, kind};

/// What to do with a conversation that has more than is read.
const RENDER: &str =
    "Render the conversation with transformers' apply_chat_template and give `prompt` as text.";

/// Keys of rows that change what a chat template writes.
const OPTIONS: [&str; 2] = ["tools", "chat_template_kwargs"];

/// Keys of messages that chat templates read besides `role` and `content`.
const UNREAD: [&str; 5] = ["tool_calls", "reasoning_content", "reasoning", "thinking", "name"];

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
    /// What is said, exactly as the file has it; of parts, one behind the other.
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
                refuse_unread(&OPTIONS, |key| row.get(key))?;
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

/// Refuses keys that say something to chat templates, which would be left out of what the model reads.
fn refuse_unread<'a>(
    keys: &[&str],
    value_of: impl Fn(&str) -> Option<&'a Value>,
) -> Result<(), String> {
    match keys.iter().find(|key| value_of(key).is_some_and(|value| !is_empty(value))) {
        None => Ok(()),
        Some(key) => Err(format!("The key `{key}` is there, but not read. {RENDER}")),
    }
}

/// Whether a value says nothing. CSV has lists and objects as text, and Parquet every key of an object, with something empty in it.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => ["", "[]", "{}", "null"].contains(&text.trim()),
        Value::Array(items) => items.iter().all(is_empty),
        Value::Object(items) => items.values().all(is_empty),
        _ => false,
    }
}

fn message(value: &Value) -> Result<Message, String> {
    let required = |key: &str| {
        let missing = || format!("The key `{key}` is missing. Messages have `role` and `content`.");
        value.get(key).ok_or_else(missing)
    };
    let role = match required("role")? {
        Value::String(role) => role.as_str(),
        other => return Err(format!("The key `role` has to be text, not {}.", kind(other))),
    };
    let role = match role {
        "system" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        other => {
            return Err(format!("The role `{other}` is none of system, user, assistant. {RENDER}"));
        }
    };
    refuse_unread(&UNREAD, |key| value.get(key))?;
    Ok(Message { role, content: content(required("content")?)? })
}

/// What is said: text, or parts that are text, which are put together as chat templates do that know parts.
fn content(value: &Value) -> Result<String, String> {
    let other = match value {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(parts) => match parts.iter().map(text_of).collect::<Option<String>>() {
            Some(text) => return Ok(text),
            None => "a list of other parts",
        },
        other => kind(other),
    };
    Err(format!(
        "The key `content` has to be text or a list of parts {{\"type\": \"text\", \"text\": …}}, not {other}. {RENDER}"
    ))
}

/// The text of a part.
fn text_of(part: &Value) -> Option<&str> {
    let is_text = part.get("type").and_then(Value::as_str) == Some("text");
    part.get("text").and_then(Value::as_str).filter(|_| is_text)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Place;

    /// The messages of a row with this message, and with other keys.
    fn read(message: &Value, others: &Value) -> Result<Text, String> {
        let mut values = serde_json::Map::from_iter([("messages".to_owned(), json!([message]))]);
        values.extend(others.as_object().unwrap().clone());
        Text::of_prompt(&Row { place: Place::Line(1), values })
    }

    #[test]
    fn contents_may_be_parts_of_text() {
        let part = |text: &str| json!({ "type": "text", "text": text, "image": null });
        let message = json!({ "role": "user", "content": [part("Hi"), part(" there")] });
        let expected = Message { role: Role::User, content: "Hi there".into() };
        assert_eq!(read(&message, &json!({})), Ok(Text::Messages(vec![expected])));
        for (content, told) in [
            (json!([{ "type": "image", "url": "x" }]), "not a list of other parts"),
            (json!(["Hi"]), "not a list of other parts"),
            (json!(null), "not null"),
        ] {
            let error =
                read(&json!({ "role": "user", "content": content }), &json!({})).unwrap_err();
            assert!(error.contains(told) && error.contains("apply_chat_template"), "{error}");
        }
    }

    #[test]
    fn what_is_not_read_is_refused_with_the_way_to_render_it() {
        for role in ["developer", "tool"] {
            let error = read(&json!({ "role": role, "content": "" }), &json!({})).unwrap_err();
            assert!(
                error.contains(&format!("The role `{role}`")) && error.contains(RENDER),
                "{error}"
            );
        }
        let calls = json!({ "role": "assistant", "content": "", "tool_calls": [{ "id": "1" }] });
        let error = read(&calls, &json!({})).unwrap_err();
        assert!(error.contains("`tool_calls`") && error.contains(RENDER), "{error}");
        for key in ["reasoning_content", "reasoning", "thinking", "name"] {
            let message = json!({ "role": "assistant", "content": "Hi", (key): "Ada" });
            let error = read(&message, &json!({})).unwrap_err();
            let told = format!("The key `{key}` is there, but not read. {RENDER}");
            assert!(error.contains(&told), "{error}");
        }
        let message = json!({ "role": "user", "content": "Hi", "tool_calls": null, "reasoning_content": null, "name": "" });
        for others in [
            json!({ "tools": [{ "type": "function" }] }),
            json!({ "tools": "[{}]" }),
            json!({ "chat_template_kwargs": { "enable_thinking": false } }),
        ] {
            let error = read(&message, &others).unwrap_err();
            assert!(error.contains("is there, but not read. Render"), "{error}");
        }
        for others in [
            json!({ "tools": null, "chat_template_kwargs": {} }),
            json!({ "tools": [], "chat_template_kwargs": { "enable_thinking": null } }),
            json!({ "tools": "[]" }),
        ] {
            assert!(read(&message, &others).is_ok(), "{others}");
        }
        // A prompt that was rendered has them in it.
        let rendered = json!({ "prompt": "Hi", "tools": [{ "type": "function" }] });
        assert_eq!(read(&message, &rendered), Ok("Hi".into()));
    }
}
