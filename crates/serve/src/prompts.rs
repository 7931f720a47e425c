//! The prompts of a request, as the model reads them.

use std::collections::HashMap;

use infalign_data::{DataError, Message, Prompt, Text};
use infalign_decode::{DecodeError, EncodedPrompt};
use serde_json::Value;

use crate::failure::Failure;
use crate::fields::shown;
use crate::messages;
use crate::service::{Service, State};

/// A text of so many bytes is encoded whatever the context: that costs little, and however long, a word that is unknown is one token.
const SMALL: usize = 1 << 16;
/// Bytes of a text to one of what its tokens stand for, at most: a tokenizer may write letters of four bytes as their plain forms.
const SHRINKING: usize = 4;

/// The code of a prompt, or of a prompt and the response that is asked for, that the model's context has no room for.
pub(crate) const TOO_LONG: &str = "context_length_exceeded";

/// The prompts of a completion: a text or its tokens, or several of one kind.
pub(crate) fn of_completion(
    prompt: Option<Value>,
    state: &State,
) -> Result<Vec<EncodedPrompt>, Failure> {
    let missing = || Failure::field("prompt", "`prompt` is missing");
    let prompt = prompt.ok_or_else(missing)?;
    let list = match prompt {
        Value::Array(list) if !list.is_empty() && !list[0].is_number() => list,
        one => vec![one],
    };
    // Before any of them costs time.
    let most = state.service.most();
    if list.len() > most {
        let what = format!(
            "`prompt` holds {} prompts, but this server makes at most {most} responses at a time",
            list.len()
        );
        return Err(Failure::field("prompt", what));
    }
    let mut seen: HashMap<String, usize> = HashMap::new();
    let encode = |value: Value| {
        let prompt = encoded(value, state)?;
        // The same prompt again draws other responses.
        let times = seen.entry(prompt.id.clone()).or_default();
        *times += 1;
        let id = if *times == 1 { prompt.id } else { format!("{}#{times}", prompt.id) };
        Ok(EncodedPrompt { id, ..prompt })
    };
    list.into_iter().map(encode).collect()
}

fn encoded(prompt: Value, state: &State) -> Result<EncodedPrompt, Failure> {
    let service = &state.service;
    match prompt {
        Value::String(text) => {
            check_size(&text, "prompt", state)?;
            let id = Prompt::new(text.as_str()).id;
            let prompt = EncodedPrompt::new(&id, &text, &service.tokenizer)?;
            check(&prompt.tokens, "prompt", service)?;
            Ok(prompt)
        }
        list @ Value::Array(_) => {
            let text = shown(&list);
            let refuse = |_| {
                let what = "which are no tokens: give their ids, whole numbers of 0 or more";
                Failure::field("prompt", format!("`prompt` holds {text}, {what}"))
            };
            let tokens: Vec<u32> = serde_json::from_value(list).map_err(refuse)?;
            check(&tokens, "prompt", service)?;
            let text = service.tokenizer.decode(&tokens).map_err(DecodeError::from)?;
            Ok(EncodedPrompt { id: Prompt::new(text.as_str()).id, text, tokens })
        }
        other => {
            let found = shown(&other);
            let what = "has to be text, a list of texts, a list of tokens, or a list of such lists";
            Err(Failure::field("prompt", format!("`prompt` holds {found}, but {what}")))
        }
    }
}

/// The messages of a chat, as the model's chat template writes them.
pub(crate) fn of_chat(list: Option<Value>, state: &State) -> Result<EncodedPrompt, Failure> {
    let Some(Value::Array(list)) = list else {
        return Err(Failure::field("messages", "`messages` is missing"));
    };
    let messages: Vec<Message> = messages::read(list)?;
    let service = &state.service;
    let refuse = |error: &DataError| Failure::field("messages", told(error, &service.name));
    let template = state.templates.today().map_err(|error| refuse(&error))?;
    let text = template.prompt(&messages).map_err(|error| refuse(&error))?;
    check_size(&text, "messages", state)?;
    let id = Prompt::new(Text::Messages(messages)).id;
    let prompt = EncodedPrompt::chat(&id, &text, &service.tokenizer)?;
    check(&prompt.tokens, "messages", service)?;
    Ok(prompt)
}

/// Why messages make no prompt; where the model lies is no client's business.
fn told(error: &DataError, model: &str) -> String {
    match error {
        DataError::NoChatTemplate { .. } => {
            format!("the model `{model}` has no chat template; use /v1/completions")
        }
        DataError::ChatTemplate { problem, .. } => {
            format!("the chat template of the model `{model}` cannot be used: {problem}")
        }
        DataError::RefusedByTemplate { reason, .. } => {
            format!("the chat template of the model `{model}` refuses the messages: {reason}")
        }
        DataError::Open { cause, .. } => {
            format!("the chat template of the model `{model}` cannot be read: {cause}")
        }
        other => other.to_string(),
    }
}

/// Refuses a text that no context of the longest tokens could hold, before it is encoded: that takes a hundred times its memory and more.
fn check_size(text: &str, field: &str, state: &State) -> Result<(), Failure> {
    let (length, context) = (text.len(), state.service.engine.model().context());
    if length <= SMALL {
        return Ok(());
    }
    let longest = *state.longest_token.get_or_init(|| longest_token(&state.service));
    if length <= context.saturating_mul(longest).saturating_mul(SHRINKING) {
        return Ok(());
    }
    let message = format!(
        "`{field}` has {length} bytes, more than the model's context of {context} tokens has room for: shorten it"
    );
    Err(Failure::field(field, message).with_code(TOO_LONG))
}

/// The most bytes that a token of the model stands for.
fn longest_token(service: &Service) -> usize {
    let bytes = |token| service.tokenizer.token_bytes(None, token).map_or(0, |bytes| bytes.len());
    (0..service.engine.model().vocabulary() as u32).map(bytes).max().unwrap_or(0)
}

/// Refuses a prompt without tokens, one with tokens that the model has no place for, which a text may spell out, and one that leaves no room
/// for a response.
fn check(tokens: &[u32], field: &str, service: &Service) -> Result<(), Failure> {
    let model = service.engine.model();
    let (length, vocabulary, context) = (tokens.len(), model.vocabulary(), model.context());
    if tokens.is_empty() {
        return Err(Failure::field(field, format!("`{field}` is empty")));
    }
    if let Some(token) = tokens.iter().find(|token| **token as usize >= vocabulary) {
        let message =
            format!("`{field}` has the token {token}, but the model has {vocabulary} tokens");
        return Err(Failure::field(field, message));
    }
    if length >= context {
        let message = format!(
            "`{field}` has {length} tokens, but the model's context of {context} has to hold prompt and response: shorten it"
        );
        return Err(Failure::field(field, message).with_code(TOO_LONG));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_the_model_and_no_path() {
        let path = std::path::PathBuf::from("models/secret");
        let why = "it is odd".to_owned();
        for (error, expected) in [
            (
                DataError::NoChatTemplate { folder: path.clone() },
                "the model `m` has no chat template; use /v1/completions",
            ),
            (
                DataError::ChatTemplate { path: path.clone(), problem: why.clone() },
                "the chat template of the model `m` cannot be used: it is odd",
            ),
            (
                DataError::RefusedByTemplate { path, reason: why },
                "the chat template of the model `m` refuses the messages: it is odd",
            ),
        ] {
            assert_eq!(told(&error, "m"), expected);
        }
    }
}
