//! What a server says when it refuses a request.

use serde_json::Value;

/// The longest message that is told of a text without a form, in characters.
const LONGEST: usize = 300;

/// What a refusal says: the message of vLLM's, llama.cpp's or FastAPI's form, or the beginning of the text as it is.
pub(crate) fn message(body: &str) -> String {
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let places = [&json["error"]["message"], &json["error"], &json["message"], &json["detail"]];
    match places.into_iter().find(|place| !place.is_null()) {
        Some(Value::String(message)) => message.clone(),
        Some(other) => other.to_string(),
        None if body.trim().is_empty() => "without a message".to_owned(),
        None => body.trim().chars().take(LONGEST).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_in_every_form() {
        for (body, expected) in [
            (r#"{"error": {"message": "too long", "code": 400}}"#, "too long"),
            (r#"{"object": "error", "message": "too long"}"#, "too long"),
            (r#"{"error": "too long"}"#, "too long"),
            (r#"{"detail": [{"msg": "too long"}]}"#, r#"[{"msg":"too long"}]"#),
            ("too long\n", "too long"),
            ("", "without a message"),
        ] {
            assert_eq!(message(body), expected);
        }
    }
}
