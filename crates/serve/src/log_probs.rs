//! Log-probabilities in the two forms of OpenAI's protocol.

use infalign_decode::{EncodedPrompt, Event};
use infalign_model::{ModelError, Tokenizer};
use serde_json::{Map, Value, json};

/// What stands for the logarithm of 0, which JSON lacks.
const LEAST: f32 = -9999.0;
/// Tokens of the prompt that are read at least before a response: white space depends on whether something stands before.
const BEFORE: usize = 8;

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
    let logits = event.logits;
    let logit = |id: u32| logits[id as usize];
    let partition = event.partition();
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let by_logit = |a: &u32, b: &u32| logit(*b).total_cmp(&logit(*a)).then(a.cmp(b));
    let n = n.min(order.len());
    if n > 0 && n < order.len() {
        order.select_nth_unstable_by(n - 1, by_logit);
    }
    order.truncate(n);
    order.sort_unstable_by(by_logit);
    let told = |id: u32| (id, partition.log_prob(logit(id)).max(LEAST));
    order.into_iter().map(told).collect()
}

/// Where the tokens of a response begin in its text, in characters.
pub(crate) struct Offsets<'a> {
    tokenizer: &'a Tokenizer,
    /// The prompt's last tokens and the response's.
    tokens: Vec<u32>,
    /// Where the tokens begin that are decoded, and up to where their text is settled.
    window: (usize, usize),
    /// Characters of the settled text, and of the whole text so far.
    settled: usize,
    chars: usize,
}

impl<'a> Offsets<'a> {
    /// Those of a response to the prompt.
    pub(crate) fn new(tokenizer: &'a Tokenizer, prompt: &EncodedPrompt) -> Self {
        let start = prompt.tokens.len().saturating_sub(BEFORE);
        let tokens = prompt.tokens[tokenizer.start_before(&prompt.tokens, start)..].to_vec();
        let window = (0, tokens.len());
        Self { tokenizer, tokens, window, settled: 0, chars: 0 }
    }

    /// Where the next token begins. One that is a part of a character begins where the character does, and a special one takes no room.
    ///
    /// - own: characters of the token by itself.
    fn push(&mut self, token: u32, own: usize) -> Result<usize, ModelError> {
        self.tokens.push(token);
        let (start, read) = self.window;
        let before = self.tokenizer.decode(&self.tokens[start..read])?.chars().count();
        let text = self.tokenizer.decode(&self.tokens[start..])?;
        // Bytes at the end may yet become a character.
        let whole = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
        let grown = whole.chars().count().saturating_sub(before);
        let chars = self.chars.max(self.settled + grown);
        let begins = chars.saturating_sub(own).max(self.chars);
        self.chars = chars;
        // Of a row of tokens that are bytes, the next may unmake the characters.
        if grown > 0 && whole.len() == text.len() && !self.tokenizer.is_byte(token) {
            self.settled += grown;
            self.window = (read, self.tokens.len());
        }
        Ok(begins)
    }
}

/// Tokens of a response in a row, after the token `before`; completions also tell where each begins.
pub(crate) fn of_completion(
    scored: &[Scored],
    tokenizer: &Tokenizer,
    before: u32,
    places: &mut Offsets<'_>,
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
        offsets.push(places.push(one.token, text.chars().count())?);
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
    use infalign_decode::{Draw, Sampling};

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

    #[test]
    fn a_token_has_one_log_prob_whichever_is_drawn() {
        let logits: Vec<f32> = (0..97_u8).map(|i| (f32::from(i) * 1.7).sin() * 4.0).collect();
        let draw = |uniform: f64| Sampling::default().draw(&logits, uniform, &mut Vec::new());
        let told = |draw: Draw| {
            Scored::of(&Event { prompt: 0, sample: 0, draw, logits: &logits }, 97).alternatives
        };
        let first = told(draw(0.0));
        for k in 0..50_u8 {
            let drawn = draw(f64::from(k) / 50.0);
            assert_eq!(told(drawn), first);
            assert!(first.contains(&(drawn.token, drawn.log_prob)), "{drawn:?}");
        }
    }
}
