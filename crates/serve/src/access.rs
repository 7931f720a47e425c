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
    let refuse = |message: &str| {
        Failure::new(StatusCode::UNAUTHORIZED, message).with_code("invalid_api_key").into_response()
    };
    match given {
        // Hashes, so that the time that the comparison takes tells nothing of the key.
        Some(given)
            if key_of(given)
                .is_some_and(|given| sha256_bytes(given) == sha256_bytes(key.as_bytes())) =>
        {
            next.run(request).await
        }
        Some(_) => refuse("the API key is wrong"),
        None => refuse("there is no API key: send it as `Authorization: Bearer KEY`"),
    }
}

/// The key in the header's value; none where its scheme is another one. The scheme may be written in either case (RFC 9110, section 11.1).
fn key_of(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"Bearer ";
    match value.split_at_checked(SCHEME.len()) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(SCHEME) => Some(key),
        _ => None,
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

#[cfg(test)]
mod tests {
    use super::key_of;

    #[test]
    fn the_scheme_is_bearer_in_either_case() {
        for value in ["Bearer a b", "bearer a b", "BEARER a b"] {
            assert_eq!(key_of(value.as_bytes()), Some(&b"a b"[..]));
        }
        for value in ["", "Bearer", "Basic a b", "a b"] {
            assert_eq!(key_of(value.as_bytes()), None);
        }
    }
}
