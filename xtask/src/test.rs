//! `cargo xtask test`: everything that has to hold, step by step, up to the first failure.

use std::process::{ExitCode, Stdio};
use std::time::Instant;

use anyhow::Result;

use crate::args::Backend;
use crate::cargo::{cargo, root, succeed};
use crate::{book, examples, openai, readme, records, tidy, vulkan};

/// What a step left out, and why; nothing where it did everything.
pub(crate) type Skipped = Option<String>;

struct Step {
    name: String,
    work: Box<dyn Fn() -> Result<Skipped>>,
}

/// Runs all steps. The exit code is 0 when all pass and 1 otherwise.
pub(crate) fn run(backend: Backend) -> ExitCode {
    let mut n_passed = 0;
    let mut failure = None;
    let mut skipped: Vec<String> = real_data().into_iter().collect();
    for step in steps(backend) {
        println!("\n== {}", step.name);
        let start = Instant::now();
        let outcome = (step.work)();
        let seconds = start.elapsed().as_secs_f64();
        match outcome {
            Ok(left_out) => skipped.extend(left_out),
            Err(error) => {
                println!("== failed after {seconds:.1} s: {}", step.name);
                failure = Some((step.name, error));
                break;
            }
        }
        println!("== passed in {seconds:.1} s: {}", step.name);
        n_passed += 1;
    }
    println!();
    // At the end, where it is seen.
    skipped.iter().for_each(|what| println!("WARNING: {what}"));
    println!("{n_passed} passed, {} failed", u8::from(failure.is_some()));
    let Some((name, error)) = failure else { return ExitCode::SUCCESS };
    eprintln!("error: `{name}` failed: {error:#}");
    ExitCode::FAILURE
}

/// On the CPU everything; of another backend what may be otherwise there, on every device that this machine has.
fn steps(backend: Backend) -> Vec<Step> {
    let deny = "-D warnings";
    if let Some(name) = backend.feature() {
        // Beside the CPU, which it is compared with, not instead of it.
        let features = format!("--workspace --locked --features infalign-cli/{name}");
        let lavapipe = step("a Vulkan driver", vulkan::provide);
        let steps = [
            cargo_step(&format!("clippy --all-targets {features} -- {deny}")),
            cargo_step(&format!("test {features} --test devices")),
        ];
        return (backend == Backend::Wgpu).then_some(lavapipe).into_iter().chain(steps).collect();
    }
    vec![
        cargo_step("fmt --all --check"),
        step("tidy", tidy::check),
        cargo_step(&format!("clippy --workspace --all-targets --locked -- {deny}")),
        tests_step(test_command()),
        cargo_step("test --doc --workspace --locked"),
        // The program by itself, since the crate `infalign` is documented in the same folder.
        doc_step("doc --package infalign-cli --bin infalign --no-deps --locked", deny),
        doc_step("doc --workspace --no-deps --locked", deny),
        // Beside the CPU, as binaries are built.
        cargo_step(&format!("clippy --locked -p infalign-backend --features wgpu -- {deny}")),
        step("the examples", examples::run),
        Step { name: "the book".to_owned(), work: Box::new(book::check) },
        step("the commands of the documents", readme::run),
        Step {
            name: "records before an independent validator".to_owned(),
            work: Box::new(records::check),
        },
    ]
}

/// One that does everything or fails.
fn step(name: &str, work: impl Fn() -> Result<()> + 'static) -> Step {
    Step { name: name.to_owned(), work: Box::new(move || work().map(|()| None)) }
}

fn cargo_step(line: &str) -> Step {
    let words = line.to_owned();
    step(&format!("cargo {line}"), move || {
        succeed(cargo().args(words.split(' ')).current_dir(root()))
    })
}

/// With the official client of the protocol that `infalign serve` speaks, where it can be had.
fn tests_step(line: &str) -> Step {
    let words = line.to_owned();
    let work = move || {
        let mut tests = cargo();
        let python = openai::python();
        if let Some(python) = &python {
            tests.env(openai::PYTHON, python);
        }
        succeed(tests.args(words.split(' ')).current_dir(root()))?;
        let without = "there is no Python with `openai`: the test of its client was SKIPPED.";
        Ok(python.is_none().then(|| without.to_owned()))
    };
    Step { name: format!("cargo {line}"), work: Box::new(work) }
}

fn doc_step(line: &'static str, flags: &'static str) -> Step {
    step(&format!("RUSTDOCFLAGS=\"{flags}\" cargo {line}"), move || {
        let mut doc = cargo();
        succeed(doc.args(line.split(' ')).env("RUSTDOCFLAGS", flags).current_dir(root()))
    })
}

/// Unit, integration and end-to-end tests. Neither form runs doc tests, which have their own step.
fn test_command() -> &'static str {
    let mut nextest = cargo();
    nextest.args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    match nextest.status() {
        Ok(status) if status.success() => "nextest run --workspace --locked",
        _ => "test --workspace --locked --all-targets",
    }
}

/// Whether there are no real data to test on.
fn real_data() -> Skipped {
    let without = std::env::var_os("INFALIGN_DATA").is_none_or(|folder| folder.is_empty());
    without.then(|| "INFALIGN_DATA is not set: the tests on real data were SKIPPED.".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_backend_is_compared_with_the_cpu() {
        let names = |backend| steps(backend).into_iter().map(|step| step.name).collect::<Vec<_>>();
        let [cpu, wgpu, cuda] = [Backend::Cpu, Backend::Wgpu, Backend::Cuda].map(names);
        assert_eq!(cpu[2], "cargo clippy --workspace --all-targets --locked -- -D warnings");
        let devices =
            "cargo test --workspace --locked --features infalign-cli/cuda-nvrtc --test devices";
        assert_eq!(cuda.last().map(String::as_str), Some(devices));
        assert_eq!((wgpu[0].as_str(), wgpu.len()), ("a Vulkan driver", cuda.len() + 1));
    }
}
