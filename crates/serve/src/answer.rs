//! Answers as one JSON document.

use std::sync::Arc;

use infalign_decode::guided::ScorerSet;
use infalign_decode::{DecodeError, Decoded, EncodedPrompt, Finish};
use infalign_model::Tokenizer;
use serde_json::{Map, Number, Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::failure::Failure;
use crate::generation::{Generation, Token};
use crate::log_probs::{self, Offsets, Scored};
use crate::request::{Asked, Form};
use crate::service::State;

/// What the documents of an answer have in common.
pub(crate) struct Head {
    pub(crate) id: String,
    created: i64,
    model: String,
    /// As it was sent.
    seed: Number,
    procedure: String,
    /// Weights of the prefix scorers, where they guide.
    scorers: Option<Value>,
    form: Form,
}

impl Head {
    pub(crate) fn new(state: &State, asked: &Asked, id: String) -> Self {
        let scorers = &state.service.scorers;
        Self {
            id,
            created: infalign_record::clock::now().unix_timestamp(),
            model: state.service.name.clone(),
            seed: asked.seed.clone(),
            procedure: asked.procedure.to_string(),
            scorers: asked.weights.as_deref().map(|weights| named_weights(scorers, weights)),
            form: asked.form,
        }
    }

    /// A document of the answer, or a part of it.
    pub(crate) fn document(&self, choices: Vec<Value>, part: bool) -> Value {
        let object = match (self.form, part) {
            (Form::Completion, _) => "text_completion",
            (Form::Chat, false) => "chat.completion",
            (Form::Chat, true) => "chat.completion.chunk",
        };
        let mut document = json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices,
            "seed": self.seed, "procedure": self.procedure,
        });
        if let Some(scorers) = &self.scorers {
            document["scorers"] = scorers.clone();
        }
        document
    }
}

/// Weights of prefix scorers by the names of their rewards.
pub(crate) fn named_weights(scorers: &ScorerSet, weights: &[f64]) -> Value {
    let named = scorers.names().into_iter().zip(weights);
    named.map(|(name, weight)| (name.to_owned(), json!(weight))).collect::<Map<_, _>>().into()
}

/// What an answer took: tokens of the prompts, and of the responses that it holds.
pub(crate) fn usage(prompt_tokens: usize, completion_tokens: usize) -> Value {
    json!({
        "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    })
}

/// How a response ended, and what is known of it besides.
pub(crate) fn ending(choice: &mut Value, decoded: &Decoded) {
    choice["finish_reason"] = match decoded.response.finish {
        Finish::Length => json!("length"),
        Finish::Stop | Finish::Cancelled => json!("stop"),
    };
    choice["score"] = json!(decoded.score);
    choice["value"] = json!(decoded.value);
    choice["kl"] = json!(decoded.kl);
    choice["truncation"] = json!(decoded.truncation);
    choice["model_tokens"] = json!(decoded.cost.model_tokens);
    choice["scorer_calls"] = json!(decoded.cost.scorer_calls);
}

/// The log-probabilities of a part of a response to the prompt; `told` are its tokens before, which `places` has had.
pub(crate) fn log_probs_of(
    form: Form,
    tokenizer: &Tokenizer,
    prompt: &EncodedPrompt,
    told: &[u32],
    scored: &[Scored],
    places: &mut Offsets<'_>,
) -> Result<Value, Failure> {
    let before = told.last().or(prompt.tokens.last()).copied().unwrap_or_default();
    let told = match form {
        Form::Completion => log_probs::of_completion(scored, tokenizer, before, places),
        Form::Chat => log_probs::of_chat(scored, tokenizer, before),
    };
    told.map_err(|error| DecodeError::from(error).into())
}

/// Waits for all responses, and puts them into one document.
pub(crate) async fn whole(
    state: Arc<State>,
    asked: Arc<Asked>,
    id: String,
) -> Result<Value, Failure> {
    let (mut generation, mut tokens) = Generation::begin(state.clone(), asked.clone()).await?;
    let mut choices: Vec<Option<Decoded>> = vec![None; asked.prompts.len() * asked.n];
    while let Some(done) = generation.done().await {
        let done = done?;
        for (sample, decoded) in done.decoded.into_iter().enumerate() {
            choices[done.prompt * asked.n + sample] = Some(decoded);
        }
    }
    let choices: Vec<Decoded> = choices.into_iter().flatten().collect();
    let mut scored = with_alternatives(&mut tokens, choices.len());
    let mut listed = Vec::with_capacity(choices.len());
    for (index, decoded) in choices.iter().enumerate() {
        if scored[index].is_empty() {
            scored[index] = scored_from(decoded, 0);
        }
        listed.push(choice(&state, &asked, index, decoded, &scored[index])?);
    }
    let tokens = choices.iter().map(|one| one.response.tokens.len()).sum();
    let mut document = Head::new(&state, &asked, id).document(listed, false);
    document["usage"] = usage(asked.prompt_tokens(), tokens);
    Ok(document)
}

/// The tokens of a response from the number `from` on, without alternatives.
pub(crate) fn scored_from(decoded: &Decoded, from: usize) -> Vec<Scored> {
    let response = &decoded.response;
    let pairs = response.tokens.iter().zip(&response.log_probs).skip(from);
    pairs.map(|(&token, &log_prob)| Scored { token, log_prob, alternatives: Vec::new() }).collect()
}

/// What was told while the responses were drawn, response by response.
fn with_alternatives(tokens: &mut UnboundedReceiver<Token>, choices: usize) -> Vec<Vec<Scored>> {
    let mut scored = vec![Vec::new(); choices];
    while let Ok(Token { choice, scored: one }) = tokens.try_recv() {
        scored[choice].push(one);
    }
    scored
}

fn choice(
    state: &State,
    asked: &Asked,
    index: usize,
    decoded: &Decoded,
    scored: &[Scored],
) -> Result<Value, Failure> {
    let mut choice = match asked.form {
        Form::Completion => json!({ "index": index, "text": decoded.text }),
        Form::Chat => json!({
            "index": index,
            "message": { "role": "assistant", "content": decoded.text, "refusal": null },
        }),
    };
    let prompt = &asked.prompts[index / asked.n];
    choice["logprobs"] = match asked.log_probs {
        Some(_) => {
            let tokenizer = &state.service.tokenizer;
            let mut places = Offsets::new(tokenizer, prompt);
            log_probs_of(asked.form, tokenizer, prompt, &[], scored, &mut places)?
        }
        None => Value::Null,
    };
    if asked.token_ids {
        choice["token_ids"] = json!(decoded.response.tokens);
        choice["prompt_token_ids"] = json!(prompt.tokens);
    }
    ending(&mut choice, decoded);
    Ok(choice)
}
