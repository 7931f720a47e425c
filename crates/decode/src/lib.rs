//! Batched generation and inference-time procedures.
//!
#![doc = include_str!("../README.md")]
//!
//! # Types
//! Three kinds of [`Sampler`] draw responses. [`Generator`] runs a model in this process, in batches whose composition changes no result (beyond
//! rounding on other devices than the CPU): every draw comes from a [`Stream`] that belongs to one response. [`SharedGenerator`] does the same on an [`Engine`] that many callers
//! share. [`RemoteGenerator`] asks a server that speaks OpenAI's protocol.
//! [`guided`] draws responses that values of prefixes guide. [`ProcedureDecoder`] puts a [`Procedure`](infalign_transform::Procedure) such as
//! best-of-N on top of any.
//! [`exact`] computes the distribution of a procedure on a tabular model, without drawing.
//!
//! Devices are those of [`backend`], which the cargo features compile in: `flex` (the CPU, default), `wgpu`, `cuda`, `cuda-nvrtc`, `autotune`.

mod decoder;
mod engine;
mod error;
pub mod exact;
mod gather;
mod generator;
pub mod guided;
mod kl;
mod rejection;
mod remote;
mod sampler;
mod sampling;
mod stop_texts;
mod stream;
mod text_stream;

pub use decoder::{Cost, Decoded, Decoder, ProcedureDecoder};
pub use engine::{Draws, Engine, Load, SharedGenerator, SharedWatch};
pub use error::DecodeError;
pub use generator::{EncodedPrompt, Event, Finish, Generator, Response, Watch};
pub use infalign_backend as backend;
pub use infalign_backend::functions::Partition;
pub use infalign_model as model;
pub use infalign_remote::RemoteError;
pub use infalign_reward as reward;
pub use infalign_transform as transform;
pub use kl::{Kl, KlKind, best_of_kl_bound, best_of_kl_estimate};
pub use rejection::Ranks;
pub use remote::{Patience, RemoteGenerator, Server};
pub use sampler::{Finished, Sampler, check_samples};
pub use sampling::{Draw, Sampling};
pub use stop_texts::StopTexts;
pub use stream::Stream;
pub use text_stream::TextStream;
