//! Requests to servers over HTTP: how long to wait for one, how often to ask again, and what its refusals say.
//!
#![doc = include_str!("../README.md")]

mod address;
mod client;
mod error;
mod patience;
mod refusal;

pub use client::Client;
pub use error::RemoteError;
pub use patience::Patience;
