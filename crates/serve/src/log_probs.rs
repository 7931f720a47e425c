//! Log-probabilities in the two forms of OpenAI's protocol.

use infalign_decode::Event;
use infalign_model::{ModelError, Tokenizer};
use serde_json::{Map, Value, json};

/// What stands for the logarithm of 0, which JSON lacks.
const LEAST: f32 = -9999.0;

/// A token of a response, what the model said of it, and of the tokens that it held most probable in its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scored {
    pub(crate) token: u32,
    pub(crate) log_prob: f32,
    pub(crate) alternatives: Vec<(u32, f32)>,
}

impl Scored {
    /// A token with its alternatives, of which there are none where the model's distribution is not told.
    pub(crate) fn of(event: &Event<'_>, alternatives: usize) -> Self {
        let alternatives =
            if alternatives == 0 { Vec::new() } else { most_probable(event, alternatives) };
        Self { token: event.draw.token, log_prob: event.draw.log_prob, alternatives }
    }
}

/// The tokens that the model held most probable, the most probable first, equal ones by id.
fn most_probable(event: &Event<'_>, n: usize) -> Vec<(u32, f32)> {
    let (logits, draw) = (event.logits, event.draw);
    let logit = |id: u32| logits[id as usize];
    // Logits differ from log-probabilities by the same for all tokens.
    let shift = f64::from(draw.log_prob) - f64::from(logit(draw.token));
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let by_logit = |a: &u32, b: &u32| logit(*b).total_cmp(&logit(*a)).then(a.cmp(b));
    let n = n.min(order.len());
    if n > 0 && n < order.len() {
        order.select_nth_unstable_by(n - 1, by_logit);
    }
    order.truncate(n);
    order.sort_unstable_by(by_logit);
    let log_prob = |id: u32| ((f64::from(logit(id)) + shift) as f32).max(LEAST);
    order.into_iter().map(|id| (id, log_prob(id))).collect()
}

/// Tokens of a response in a row, after the token `before`; completions also tell where each begins, counted in characters from `offset` on,
/// which is moved on.
pub(crate) fn of_completion(
    scored: &[Scored],
    tokenizer: &Tokenizer,
    before: u32,
    offset: &mut usize,
) -> Result<Value, ModelError> {
    let mut before = Some(before);
    let (mut tokens, mut log_probs) = (Vec::new(), Vec::new());
    let (mut alternatives, mut offsets) = (Vec::new(), Vec::new());
    for one in scored {
        let text = tokenizer.token_text(before, one.token)?;
        let mut others: Map<String, Value> = Map::new();
        for (id, log_prob) in &one.alternatives {
            // Of tokens with the same text, the first is the most probable.
            others.entry(tokenizer.token_text(before, *id)?).or_insert(json!(log_prob));
        }
        others.entry(text.clone()).or_insert(json!(one.log_prob));
        alternatives.push(others);
        offsets.push(*offset);
        *offset += text.chars().count();
        tokens.push(text);
        log_probs.push(one.log_prob);
        before = Some(one.token);
    }
    Ok(json!({
        "tokens": tokens, "token_logprobs": log_probs, "top_logprobs": alternatives, "text_offset": offsets,
    }))
}

/// The same for a chat.
pub(crate) fn of_chat(
    scored: &[Scored],
    tokenizer: &Tokenizer,
    before: u32,
) -> Result<Value, ModelError> {
    let told = |before, token, log_prob: f32| -> Result<Value, ModelError> {
        let text = tokenizer.token_text(Some(before), token)?;
        // Those of the token: its text has none of a character that it is only a part of.
        let bytes = tokenizer.token_bytes(Some(before), token)?;
        Ok(json!({ "token": text, "logprob": log_prob, "bytes": bytes }))
    };
    let mut before = before;
    let mut content = Vec::new();
    for one in scored {
        let mut token = told(before, one.token, one.log_prob)?;
        let others = one.alternatives.iter().map(|(id, log_prob)| told(before, *id, *log_prob));
        token["top_logprobs"] = others.collect::<Result<Vec<_>, _>>()?.into();
        content.push(token);
        before = one.token;
    }
    Ok(json!({ "content": content, "refusal": null }))
}

#[cfg(test)]
mod tests {
    use infalign_decode::Draw;

    use super::*;

    #[test]
    fn alternatives_are_the_most_probable_tokens_with_their_log_probs() {
        let logits = [0.0_f32, 2.0, 1.0, 2.0, -1.0];
        let total: f32 = logits.iter().map(|logit| logit.exp()).sum();
        let log_prob = |id: usize| logits[id] - total.ln();
        let draw = Draw { token: 2, log_prob: log_prob(2) };
        let event = Event { prompt: 0, sample: 0, draw, logits: &logits };
        let scored = Scored::of(&event, 3);
        let ids: Vec<u32> = scored.alternatives.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [1, 3, 2]);
        for (id, found) in scored.alternatives {
            assert!((found - log_prob(id as usize)).abs() < 1e-6, "{id}");
        }
        assert_eq!(Scored::of(&event, 0).alternatives, []);
        assert_eq!(Scored::of(&event, 9).alternatives.len(), 5);
    }
}
