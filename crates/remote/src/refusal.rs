//! What a server says when it refuses a request.

use serde_json::Value;

/// The longest message that is told, in characters.
const LONGEST: usize = 1000;

/// The beginning of what a refusal says: of the message of vLLM's, llama.cpp's or FastAPI's form, or of the text as it is.
pub(crate) fn message(body: &str) -> String {
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let places = [&json["error"]["message"], &json["error"], &json["message"], &json["detail"]];
    match places.into_iter().find(|place| !place.is_null()) {
        Some(Value::String(message)) => beginning(message),
        Some(other) => beginning(&other.to_string()),
        None if body.trim().is_empty() => "without a message".to_owned(),
        None => beginning(body.trim()),
    }
}

/// It ends before a word, where there is one: the beginning of a key would not be known as one.
fn beginning(text: &str) -> String {
    let end = text.char_indices().nth(LONGEST).map_or(text.len(), |(end, _)| end);
    let cut = &text[..end];
    let whole_words = if end < text.len() { cut.rfind(char::is_whitespace) } else { None };
    cut[..whole_words.unwrap_or(end)].to_owned()
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

    #[test]
    fn long_messages_are_cut_in_every_form_and_words_are_not() {
        let long = format!("{} opensesame{}", "é".repeat(LONGEST - 5), " more".repeat(99));
        for body in [
            serde_json::json!({ "error": { "message": long } }).to_string(),
            serde_json::json!({ "message": long }).to_string(),
            serde_json::json!({ "error": long }).to_string(),
            long.clone(),
        ] {
            assert_eq!(message(&body), "é".repeat(LONGEST - 5));
        }
        let list = serde_json::json!({ "detail": [{ "msg": long }] }).to_string();
        assert_eq!(message(&list), format!("[{{\"msg\":\"{}", "é".repeat(LONGEST - 9)));
        assert_eq!(message(&"x".repeat(2 * LONGEST)), "x".repeat(LONGEST));
        assert_eq!(message(&"x y".repeat(LONGEST / 3)), "x y".repeat(LONGEST / 3));
    }
}
