//! Repository commands: `cargo xtask COMMAND [--backend cpu|wgpu|cuda] …`.
//!
//! `test` and `tidy` check the repository, `book` renders its book, `validate` checks a run's folder. Every other command is one of infalign's own: xtask
//! builds the release binary with the backend's feature and becomes it. This crate knows nothing
//! of models and builds in seconds.

// Its output is what this program is for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod book;
mod cargo;
mod examples;
mod infalign;
mod openai;
mod python;
mod readme;
mod records;
mod test;
mod tidy;
mod vulkan;

use std::process::ExitCode;

use args::Invocation;

fn main() -> ExitCode {
    let outcome = match Invocation::parse(std::env::args_os().skip(1).collect()) {
        Ok(Invocation::Help) => {
            println!("{}", args::usage());
            Ok(ExitCode::SUCCESS)
        }
        Ok(Invocation::Test(backend)) => Ok(test::run(backend)),
        Ok(Invocation::Tidy) => tidy::check().map(|()| ExitCode::SUCCESS),
        Ok(Invocation::Book) => book::write().map(|()| ExitCode::SUCCESS),
        Ok(Invocation::Validate(run)) => records::validate(&run).map(|()| ExitCode::SUCCESS),
        Ok(Invocation::Infalign { backend, arguments }) => infalign::run(backend, &arguments),
        Err(usage_error) => {
            eprintln!("error: {usage_error:#}");
            Ok(ExitCode::from(2))
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
