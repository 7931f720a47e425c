//! `infalign evaluate`, `compare` and `report` as a user runs them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod responses;
mod runs;

use std::process::Output;

use common::{assert_done, infalign};

fn run(args: &[&str]) -> Output {
    common::run(infalign(args))
}

fn stdout(output: &Output) -> String {
    assert_done(output);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
