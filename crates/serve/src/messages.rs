//! The messages of a conversation, as OpenAI's clients write them.

use infalign_data::{Message, Role};
use serde_json::Value;

use crate::failure::Failure;
use crate::fields::{Fields, shown};

/// Reads `messages`.
pub(crate) fn read(messages: Vec<Value>) -> Result<Vec<Message>, Failure> {
    let message = |(index, value)| message(value, &format!("messages[{index}]"));
    messages.into_iter().enumerate().map(message).collect()
}

fn message(value: Value, place: &str) -> Result<Message, Failure> {
    let mut fields = Fields::of(value, place)?;
    let role = match fields.take::<String>("role")?.as_deref() {
        // The newer name of the same.
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some(other) => {
            let what = format!("is `{other}`, but has to be system, user or assistant");
            return Err(fields.refuse("role", what));
        }
        None => return Err(fields.refuse("role", "is missing")),
    };
    let content = match fields.take::<Value>("content")? {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => text_of(parts, &format!("{place}.content"))?,
        Some(other) => {
            let what = format!("is {}, but has to be text or a list of parts", shown(&other));
            return Err(fields.refuse("content", what));
        }
        None => return Err(fields.refuse("content", "is missing")),
    };
    fields.finish()?;
    Ok(Message { role, content })
}

/// The text of parts, all of which have to be text: one behind the other, as in files.
fn text_of(parts: Vec<Value>, place: &str) -> Result<String, Failure> {
    let text = |(index, part)| {
        let mut fields = Fields::of(part, &format!("{place}[{index}]"))?;
        match fields.take::<String>("type")?.as_deref() {
            Some("text") => {}
            other => {
                let found = other.unwrap_or("missing");
                return Err(fields.refuse("type", format!("is {found}, but only text is read")));
            }
        }
        let text = fields.take::<String>("text")?;
        let text = text.ok_or_else(|| fields.refuse("text", "is missing"))?;
        fields.finish()?;
        Ok(text)
    };
    parts.into_iter().enumerate().map(text).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_parts_and_the_newer_name_of_system_are_read() {
        let messages = read(vec![
            json!({"role": "developer", "content": "Be short."}),
            json!({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": null}]}),
            json!({"role": "assistant", "content": "c", "refusal": null, "tool_calls": null}),
        ]);
        let message = |role, content: &str| Message { role, content: content.into() };
        assert_eq!(
            messages.unwrap(),
            [
                message(Role::System, "Be short."),
                message(Role::User, "ab"),
                message(Role::Assistant, "c")
            ]
        );
    }

    #[test]
    fn what_is_no_text_is_refused_by_its_place() {
        for (message, told) in [
            (json!("hi"), "`messages[0]` has to be a JSON object"),
            (json!({"content": "a"}), "`messages[0].role` is missing"),
            (json!({"role": "tool", "content": "a"}), "`messages[0].role` is `tool`"),
            (json!({"role": "user"}), "`messages[0].content` is missing"),
            (json!({"role": "user", "content": 3}), "`messages[0].content` is 3"),
            (
                json!({"role": "user", "content": "a", "name": "x"}),
                "the field `messages[0].name` is unknown",
            ),
            (
                json!({"role": "user", "content": [{"type": "image_url"}]}),
                "`messages[0].content[0].type` is image_url",
            ),
        ] {
            let failure = read(vec![message]).unwrap_err();
            let message = failure.json()["error"]["message"].as_str().unwrap().to_owned();
            assert!(message.contains(told), "{message}");
        }
    }
}
