//! Answers in parts, as server-sent events.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use infalign_decode::{DecodeError, Decoded, TextStream};
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::Instant;

use crate::answer::{Head, ending, log_probs_of, scored_from, usage};
use crate::connections::AtWork;
use crate::failure::Failure;
use crate::generation::{Done, Generation, Token};
use crate::log_probs::{Offsets, Scored};
use crate::request::{Asked, Form};
use crate::service::State;

/// Tokens that come within this time are told together: nobody reads faster, and an event costs more than a token of a small model.
const PAUSE: Duration = Duration::from_millis(20);
/// A sign of life is given so often, since proxies close connections on which nothing comes.
const SILENCE: Duration = Duration::from_secs(15);
/// Events that may wait for a slow client.
const EVENTS: usize = 16;

/// Begins the work, and answers with its parts as they come; it is at work until the last of them.
pub(crate) async fn parts(
    state: Arc<State>,
    asked: Arc<Asked>,
    id: String,
    work: Option<AtWork>,
) -> Result<Response, Failure> {
    let (generation, tokens) = Generation::begin(state.clone(), asked.clone()).await?;
    let (sender, receiver) = mpsc::channel::<String>(EVENTS);
    tokio::spawn(async move {
        let deadline = generation.deadline();
        let telling = tell(&state, &asked, id, generation, tokens, &sender);
        tokio::select! {
            () = telling => {}
            // The client has gone away.
            () = sender.closed() => {}
            // It does not read what it asked for; what generation takes too long for is told by itself.
            () = tokio::time::sleep_until(deadline + SILENCE) => {}
        }
    });
    let events = stream::unfold((receiver, work), async |(mut receiver, work)| {
        let event = receiver.recv().await?;
        Some((Ok::<_, Infallible>(event), (receiver, work)))
    });
    let mut response = Body::from_stream(events).into_response();
    let headers = response.headers_mut();
    headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// Why no more is told.
enum End {
    /// Nobody receives it.
    Gone,
    Failed(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Sends all events of an answer.
async fn tell(
    state: &State,
    asked: &Asked,
    id: String,
    generation: Generation,
    tokens: UnboundedReceiver<Token>,
    sender: &mpsc::Sender<String>,
) {
    let mut telling = Telling::new(state, asked, id);
    let end = match tell_parts(&mut telling, generation, tokens, sender).await {
        Ok(()) if asked.usage => {
            let mut document = telling.head.document(Vec::new(), true);
            document["usage"] = usage(asked.prompt_tokens(), telling.tokens);
            format!("data: {document}\n\n")
        }
        Ok(()) => String::new(),
        Err(End::Failed(failure)) => {
            state.failed(&telling.head.id, &failure);
            format!("data: {}\n\n", failure.json())
        }
        Err(End::Gone) => return,
    };
    let _ = send(sender, format!("{end}data: [DONE]\n\n")).await;
}

/// Sends the parts of all responses, until the last has ended.
async fn tell_parts(
    telling: &mut Telling<'_>,
    mut generation: Generation,
    mut tokens: UnboundedReceiver<Token>,
    sender: &mpsc::Sender<String>,
) -> Result<(), End> {
    send(sender, telling.events(telling.opening())).await?;
    // Until then, tokens are only gathered.
    let mut pause = Instant::now();
    loop {
        let pausing = Instant::now() < pause;
        let parts = tokio::select! {
            biased;
            done = generation.done() => match done {
                Some(done) => telling.finished(done?, &mut tokens)?,
                None => return Ok(()),
            },
            Some(token) = tokens.recv(), if !pausing => {
                generation.tell();
                pause = Instant::now() + PAUSE;
                telling.gathered(Some(token), &mut tokens)?
            }
            () = tokio::time::sleep_until(pause), if pausing => continue,
            () = tokio::time::sleep(SILENCE) => {
                send(sender, ": still at work\n\n".to_owned()).await?;
                continue;
            }
        };
        send(sender, telling.events(parts)).await?;
    }
}

async fn send(sender: &mpsc::Sender<String>, events: String) -> Result<(), End> {
    if events.is_empty() {
        return Ok(());
    }
    sender.send(events).await.map_err(|_| End::Gone)
}

/// An answer that has been told in part.
struct Telling<'a> {
    state: &'a State,
    asked: &'a Asked,
    head: Head,
    choices: Vec<Choice<'a>>,
    /// Of all responses that are finished.
    tokens: usize,
}

/// A response that has been told in part.
struct Choice<'a> {
    text: TextStream<'a>,
    /// Its tokens so far.
    told: Vec<u32>,
    /// Where those begin, as far as log-probabilities are told.
    places: Offsets<'a>,
}

impl<'a> Telling<'a> {
    fn new(state: &'a State, asked: &'a Asked, id: String) -> Self {
        let tokenizer = &state.service.tokenizer;
        let choice = |index: usize| {
            let prompt = &asked.prompts[index / asked.n];
            let text = TextStream::new(tokenizer, &asked.draws.stop_texts, prompt);
            Choice { text, told: Vec::new(), places: Offsets::new(tokenizer, prompt) }
        };
        let choices = (0..asked.prompts.len() * asked.n).map(choice).collect();
        Self { state, asked, head: Head::new(state, asked, id), choices, tokens: 0 }
    }

    /// An event a part.
    fn events(&self, parts: Vec<Value>) -> String {
        let event = |part| {
            let mut document = self.head.document(vec![part], true);
            // Whoever wants it finds it in every part, and a value in the last.
            if self.asked.usage {
                document["usage"] = Value::Null;
            }
            format!("data: {document}\n\n")
        };
        parts.into_iter().map(event).collect()
    }

    /// In a chat, who is about to speak.
    fn opening(&self) -> Vec<Value> {
        let n = if self.asked.form == Form::Chat { self.choices.len() } else { 0 };
        let opening = |index: usize| {
            let delta = json!({ "role": "assistant", "content": "" });
            let mut part =
                json!({ "index": index, "delta": delta, "logprobs": null, "finish_reason": null });
            if self.asked.token_ids {
                part["prompt_token_ids"] = json!(self.asked.prompts[index / self.asked.n].tokens);
            }
            part
        };
        (0..n).map(opening).collect()
    }

    /// Parts of all responses of which tokens have come.
    fn gathered(
        &mut self,
        first: Option<Token>,
        tokens: &mut UnboundedReceiver<Token>,
    ) -> Result<Vec<Value>, Failure> {
        let mut new: BTreeMap<usize, Vec<Scored>> = BTreeMap::new();
        let rest = std::iter::from_fn(|| tokens.try_recv().ok());
        for token in first.into_iter().chain(rest) {
            new.entry(token.choice).or_default().push(token.scored);
        }
        let mut parts = Vec::new();
        for (index, scored) in new {
            let ids: Vec<u32> = scored.iter().map(|one| one.token).collect();
            let text = self.choices[index].text.push(&ids).map_err(DecodeError::from)?.to_owned();
            if !text.is_empty() || self.asked.log_probs.is_some() || self.asked.token_ids {
                parts.push(self.part(index, &text, &scored)?);
            } else {
                self.choices[index].told.extend(ids);
            }
        }
        Ok(parts)
    }

    /// The last parts of the responses to a prompt, after those of tokens that have come.
    fn finished(
        &mut self,
        done: Done,
        tokens: &mut UnboundedReceiver<Token>,
    ) -> Result<Vec<Value>, Failure> {
        let mut parts = self.gathered(None, tokens)?;
        let first = done.prompt * self.asked.n;
        let last = |(sample, decoded): (usize, Decoded)| {
            let index = first + sample;
            let choice = &self.choices[index];
            let scored = scored_from(&decoded, choice.told.len());
            let rest = choice.text.rest(&decoded.text).to_owned();
            let mut part = self.part(index, &rest, &scored)?;
            ending(&mut part, &decoded);
            self.tokens += decoded.response.tokens.len();
            Ok(part)
        };
        let ends: Result<Vec<Value>, Failure> =
            done.decoded.into_iter().enumerate().map(last).collect();
        parts.extend(ends?);
        Ok(parts)
    }

    /// More of a response.
    fn part(&mut self, index: usize, text: &str, scored: &[Scored]) -> Result<Value, Failure> {
        let Self { state, asked, choices, .. } = self;
        let Choice { told, places, .. } = &mut choices[index];
        let mut part = match asked.form {
            Form::Completion => json!({ "index": index, "text": text }),
            Form::Chat => json!({ "index": index, "delta": { "content": text } }),
        };
        part["logprobs"] = match asked.log_probs {
            Some(_) if !scored.is_empty() => {
                let prompt = &asked.prompts[index / asked.n];
                let tokenizer = &state.service.tokenizer;
                log_probs_of(asked.form, tokenizer, prompt, told, scored, places)?
            }
            _ => Value::Null,
        };
        part["finish_reason"] = Value::Null;
        let ids: Vec<u32> = scored.iter().map(|one| one.token).collect();
        if asked.token_ids {
            // Its first part; in a chat, the opening was that.
            if told.is_empty() && asked.form == Form::Completion {
                part["prompt_token_ids"] = json!(asked.prompts[index / asked.n].tokens);
            }
            part["token_ids"] = json!(ids);
        }
        told.extend_from_slice(&ids);
        Ok(part)
    }
}
