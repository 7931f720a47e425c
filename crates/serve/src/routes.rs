//! Paths and what is done for them.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State as Shared};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use infalign_decode::Load;
use serde_json::{Value, json};

use crate::answer::named_weights;
use crate::connections::AtWork;
use crate::failure::Failure;
use crate::generation::too_long;
use crate::metrics::Now;
use crate::request::{Asked, Form, no_model};
use crate::service::{Service, State};
use crate::{access, answer, body, streaming};

/// All paths. `/health` and `/metrics` need no key.
pub(crate) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route_layer(from_fn_with_state(state.clone(), access::check))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(wrong_method)
        .fallback(nothing_here)
        .layer(from_fn_with_state(state.clone(), access::count))
        .with_state(state)
}

async fn completions(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    respond(state, Form::Completion, request).await
}

async fn chat(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    respond(state, Form::Chat, request).await
}

async fn respond(state: Arc<State>, form: Form, request: Request) -> Response {
    let (number, seed) = state.number();
    let id = state.id(form, number);
    answered(&state, form, request, (&id, seed)).await.unwrap_or_else(|failure| {
        state.failed(&id, &failure);
        failure.into_response()
    })
}

/// The answer to a request, by the id that it has and the seed that it has unless it brings one.
async fn answered(
    state: &Arc<State>,
    form: Form,
    request: Request,
    (id, seed): (&str, u64),
) -> Result<Response, Failure> {
    let (head, body) = request.into_parts();
    let work = AtWork::on(&head);
    let asked = Arc::new(read(state, form, &head, body, seed).await?);
    let (state, id) = (state.clone(), id.to_owned());
    if asked.stream {
        return streaming::parts(state, asked, id, work).await;
    }
    Ok(document(&answer::whole(state, asked, id).await?))
}

/// What a request asks for, once it is its turn: a long prompt takes a while to encode, and memory. Other requests go on meanwhile. Its body is
/// not kept.
async fn read(
    state: &State,
    form: Form,
    head: &Parts,
    body: Body,
    seed: u64,
) -> Result<Asked, Failure> {
    let limits = &state.service.limits;
    let (bytes, _memory) = body::read(head, body, limits, &state.bodies).await?;
    let turn = tokio::time::timeout(limits.timeout, state.reading.acquire()).await;
    let _turn = turn.map_err(|_| too_long(state))?;
    tokio::task::block_in_place(|| Asked::read(form, &bytes, state, seed))
}

fn described(state: &State) -> Value {
    let Service { name, engine, scorers, .. } = &state.service;
    let mut model = json!({
        "id": name, "object": "model", "created": state.created, "owned_by": "infalign",
        "max_model_len": engine.model().context(),
    });
    if !scorers.is_empty() {
        model["scorers"] = named_weights(scorers, &scorers.weights());
    }
    model
}

async fn models(Shared(state): Shared<Arc<State>>) -> Response {
    document(&json!({ "object": "list", "data": [described(&state)] }))
}

async fn model(
    Shared(state): Shared<Arc<State>>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Response {
    // What is no text is the name of no model, and is told as it was written.
    let written = || uri.path().trim_start_matches("/v1/models/").to_owned();
    let name = path.map_or_else(|_| written(), |Path(name)| name);
    if name == state.service.name {
        document(&described(&state))
    } else {
        no_model(&name, &state.service).into_response()
    }
}

async fn health(Shared(state): Shared<Arc<State>>) -> Response {
    if state.service.engine.is_working() {
        return document(&json!({ "status": "ok" }));
    }
    let message = "the engine has stopped: start the server again";
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, message).into_response()
}

async fn metrics(Shared(state): Shared<Arc<State>>) -> Response {
    let (engine, guided) = (state.service.engine.load(), state.guided.load());
    let load =
        Load { running: engine.running + guided.running, waiting: engine.waiting + guided.waiting };
    let text = state.metrics.text(&Now {
        load,
        batch: state.service.engine.batch(),
        places: state.places.taken(),
        threads: state.threads.taken(),
        connections: state.connections.taken(),
        bodies: state.bodies.taken(),
    });
    typed(text, "text/plain; version=0.0.4; charset=utf-8")
}

async fn nothing_here(request: Request) -> Response {
    let message = format!("there is nothing at {}", request.uri().path());
    Failure::new(StatusCode::NOT_FOUND, message).into_response()
}

async fn wrong_method(request: Request) -> Response {
    let message = format!("{} does not answer to {}", request.uri().path(), request.method());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, message).into_response()
}

fn document(document: &Value) -> Response {
    typed(document.to_string(), "application/json")
}

fn typed(body: String, kind: &'static str) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
