//! A server of one model in OpenAI's protocol, with inference-time procedures.
//!
#![doc = include_str!("../README.md")]
//!
//! # What holds
//! 1. A request may name a procedure, such as best-of-N by the reward that the server was started with, and a seed. The same request with the
//!    same seed has the same answer, whatever else is asked for at the time (on other devices than the CPU up to rounding, of which
//!    [`Generator`](infalign_decode::Generator) tells): all requests share the batches of one [`Engine`](infalign_decode::Engine).
//! 2. A field that the server does not know, or a value that it does not follow, is refused; nothing is ignored that would change an answer.
//! 3. Responses are streamed as soon as it is certain what they say: under `sample` and `cd-token` token by token, under `cd-block` block by block,
//!    and where a procedure chooses among several, once it has chosen.
//! 4. A procedure that prefix scorers guide takes their weights from the request. Its candidates have a batch of their own.
//! 5. A request that nobody waits for any more, be it that the client has gone or that it took too long, leaves the engine.
//! 6. What fails by the server's own fault is told to [`Service::tell`], without prompts and responses; an engine that has stopped ends the server.
//!
//! `request` is what is asked for, `generation` does it, `answer` and `streaming` say it.
//!
//! Devices are those of [`backend`], which the cargo features compile in: `flex` (the CPU, default), `wgpu`, `cuda`, `cuda-nvrtc`, `autotune`.

mod access;
mod answer;
mod body;
mod connections;
mod failure;
mod fields;
mod generation;
mod guided;
mod log;
mod log_probs;
mod messages;
mod metrics;
mod patient;
mod places;
mod prompts;
mod request;
mod routes;
mod serve;
mod service;
mod streaming;
mod templates;

pub use infalign_backend as backend;
pub use infalign_decode as decode;
pub use infalign_model as model;
pub use infalign_reward as reward;
pub use serve::{ServeError, run};
pub use service::{Limits, Service};
