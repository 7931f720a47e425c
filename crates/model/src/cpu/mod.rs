//! Inference on the CPU without tensors: what generation and scoring spend their time on, written for it.
//!
//! A step of generation is many small operations, each of which costs a tensor library more to start than to do. Here a step is a few
//! loops over slices, and every number of a sequence is computed in an order that depends on nothing but that sequence: the same bits come
//! out whatever else is in the batch, on however many threads, in one pass or token by token.
//!
//! It is a second implementation of the forward pass of `transformer.rs`, for inference only; the two check each other in the parity tests.

mod attention;
mod layers;
mod matrix;
mod model;
mod row;
mod session;

pub use model::CpuModel;
