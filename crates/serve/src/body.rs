//! Bodies of requests, as far as the server reads them and has memory for them.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{StatusCode, header, request::Parts};
use futures_util::StreamExt;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::failure::Failure;
use crate::service::Limits;

/// The longest that a body may take to come.
const LONGEST: Duration = Duration::from_secs(60);
/// How long a body that is refused is still received.
const PATIENCE: Duration = Duration::from_secs(10);

/// The memory that all bodies have together.
pub(crate) struct Memory {
    bytes: usize,
    /// One for each byte that is free.
    permits: Semaphore,
}

impl Memory {
    pub(crate) fn new(bytes: usize) -> Self {
        let bytes = bytes.min(Semaphore::MAX_PERMITS);
        Self { bytes, permits: Semaphore::new(bytes) }
    }

    /// Bytes that bodies have taken.
    pub(crate) fn taken(&self) -> usize {
        self.bytes.saturating_sub(self.permits.available_permits())
    }

    fn room_for(&self, bytes: usize) -> Result<SemaphorePermit<'_>, Failure> {
        let bytes = u32::try_from(bytes).ok();
        let permit = bytes.and_then(|bytes| self.permits.try_acquire_many(bytes).ok());
        permit.ok_or_else(|| {
            let message =
                "the server has no memory left for the bodies of requests: try again later";
            Failure::new(StatusCode::TOO_MANY_REQUESTS, message).with_code("queue_full")
        })
    }
}

/// The bytes of a body, and its share of the memory.
type Received<'m> = (Vec<u8>, SemaphorePermit<'m>);

/// Receives a body within the limits.
///
/// - memory: a body takes its share as it comes, so that one that is small finds room beside large ones that are not whole.
pub(crate) async fn read<'m>(
    head: &Parts,
    body: Body,
    limits: &Limits,
    memory: &'m Memory,
) -> Result<Received<'m>, Failure> {
    let receiving = receive(head, body, limits.body, memory);
    tokio::time::timeout(limits.timeout.min(LONGEST), receiving).await.unwrap_or_else(|_| {
        let message = "the body of the request did not come in time";
        Err(Failure::new(StatusCode::REQUEST_TIMEOUT, message))
    })
}

async fn receive<'m>(
    head: &Parts,
    body: Body,
    limit: usize,
    memory: &'m Memory,
) -> Result<Received<'m>, Failure> {
    let mut parts = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut permit = memory.room_for(0)?;
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| {
            Failure::request(format!("the body of the request cannot be read: {error}"))
        })?;
        let is_larger = bytes.len() + part.len() > limit;
        let more = if is_larger { Err(too_large(limit)) } else { memory.room_for(part.len()) };
        match more {
            Ok(more) => permit.merge(more),
            Err(refusal) => {
                drop((bytes, permit));
                receive_rest(head, parts).await;
                return Err(refusal);
            }
        }
        bytes.extend_from_slice(&part);
    }
    Ok((bytes, permit))
}

/// A client that is still sending does not read the answer, and would see nothing but a broken connection.
async fn receive_rest(head: &Parts, parts: BodyDataStream) {
    if !head.headers.contains_key(header::EXPECT) {
        let rest = parts.for_each(async |_| ());
        let _ = tokio::time::timeout(PATIENCE, rest).await;
    }
}

fn too_large(limit: usize) -> Failure {
    let message = format!(
        "the body of the request is larger than {limit} bytes, the most that this server reads"
    );
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}
