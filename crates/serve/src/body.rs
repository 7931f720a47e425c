//! Bodies of requests, as far as the server reads them.

use std::time::Duration;

use axum::body::Body;
use axum::http::{StatusCode, header, request::Parts};
use futures_util::StreamExt;

use crate::failure::Failure;

/// How long a body that is too large is still received.
const PATIENCE: Duration = Duration::from_secs(10);

/// The bytes of a body, at most `limit`, within `timeout`.
pub(crate) async fn read(
    head: &Parts,
    body: Body,
    limit: usize,
    timeout: Duration,
) -> Result<Vec<u8>, Failure> {
    let reading = tokio::time::timeout(timeout, receive(head, body, limit));
    reading.await.unwrap_or_else(|_| {
        let message = "the body of the request did not come in time";
        Err(Failure::new(StatusCode::REQUEST_TIMEOUT, message))
    })
}

async fn receive(head: &Parts, body: Body, limit: usize) -> Result<Vec<u8>, Failure> {
    let mut parts = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| {
            Failure::request(format!("the body of the request cannot be read: {error}"))
        })?;
        if bytes.len() + part.len() > limit {
            // A client that is still sending does not read the answer, and would see nothing but a broken connection.
            if !head.headers.contains_key(header::EXPECT) {
                let rest = parts.for_each(async |_| ());
                let _ = tokio::time::timeout(PATIENCE, rest).await;
            }
            let message = format!(
                "the body of the request is larger than {limit} bytes, the most that this server reads"
            );
            return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}
