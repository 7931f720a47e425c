//! Who may ask, and how often who asked.

use std::sync::Arc;

use axum::extract::{ConnectInfo, MatchedPath, Request, State as Shared};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use infalign_record::hash::sha256_bytes;

use crate::connections::Asker;
use crate::failure::Failure;
use crate::service::State;

/// Lets through who knows the key, where there is one.
pub(crate) async fn check_key(
    Shared(state): Shared<Arc<State>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(key) = &state.service.api_key else { return next.run(request).await };
    let given = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let given = given.map(|value| value.strip_prefix(b"Bearer ").unwrap_or_default());
    let refuse = |message: &str| {
        Failure::new(StatusCode::UNAUTHORIZED, message).with_code("invalid_api_key").into_response()
    };
    match given {
        // Hashes, so that the time that the comparison takes tells nothing of the key.
        Some(given) if sha256_bytes(given) == sha256_bytes(key.as_bytes()) => {
            next.run(request).await
        }
        Some(_) => refuse("the API key is wrong"),
        None => refuse("there is no API key: send it as `Authorization: Bearer KEY`"),
    }
}

/// Counts answers, and who may be waiting for one.
pub(crate) async fn count(
    Shared(state): Shared<Arc<State>>,
    request: Request,
    next: Next,
) -> Response {
    if let Some(ConnectInfo(asker)) = request.extensions().get::<ConnectInfo<Asker>>() {
        asker.ask();
    }
    let path = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    // Not the path that was asked for: there would be no end of them.
    let path = path.as_ref().map_or("other", MatchedPath::as_str);
    state.metrics.count(path, response.status().as_u16());
    response
}
