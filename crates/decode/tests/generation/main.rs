//! The promises of the engine: what is generated does not depend on what it is generated with.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod endings;
#[path = "../fixture/mod.rs"]
mod fixture;
mod samples;
mod steps;
