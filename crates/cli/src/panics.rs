//! A device that runs out of memory, as a failure that says what to do. The libraries below end with a panic then.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;
use infalign_model::Tokenizer;

use crate::failure::Failure;

/// Runs a command.
///
/// # Errors
/// Those of the command, and [`Failure::Run`] when a device's memory is full.
pub(crate) fn guarded(run: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let full = Arc::new(Mutex::new(None));
    let (usual, heard) = (take_hook(), full.clone());
    set_hook(Box::new(move |info| {
        let message = info.payload_as_str().unwrap_or_default();
        match out_of_memory(message) {
            Some(told) => {
                // Of a server's threads nobody asks how they ended.
                if std::thread::current().name().is_some_and(|name| name.starts_with("engine-")) {
                    tell!("error: the device's memory is full: {told}");
                }
                *heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
            }
            // It becomes an error.
            None if Tokenizer::catches_panics() => {}
            None => {
                // It is this panic then that ends the program, and no longer one that was survived.
                *heard.lock().unwrap_or_else(PoisonError::into_inner) = None;
                usual(info);
            }
        }
    }));
    let panic = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => return result,
        Err(panic) => panic,
    };
    let full = full.lock().unwrap_or_else(PoisonError::into_inner).take();
    match full {
        Some(told) => Err(Failure::Run(anyhow!(
            "the device's memory is full ({told}): lower the batch (`batch` of the recipe, --batch or --memory), \
             train.prompts_per_step, train.samples_per_prompt or generation.max_tokens in a new run; checkpoints are kept, and --resume \
             goes on from the last with the same settings, as on a larger device"
        ))),
        None => resume_unwind(panic),
    }
}

/// The line of a message that tells of an allocation which failed.
fn out_of_memory(message: &str) -> Option<String> {
    let tells = |line: &&str| {
        ["out of device memory", "can't allocate buffer", "OUT_OF_MEMORY", "Out of memory"]
            .iter()
            .any(|sign| line.contains(sign))
    };
    message.lines().find(tells).map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "panics are what is tested")]

    use super::*;

    #[test]
    fn a_full_device_says_what_to_lower() {
        let failure = guarded(|| {
            panic!("reading failed: out of device memory allocating 12 bytes\n  0: main")
        });
        let Err(Failure::Run(error)) = failure else { panic!("{failure:?}") };
        let message = error.to_string();
        assert!(
            message.contains("allocating 12 bytes): lower") && message.contains("--resume"),
            "{message}"
        );
        assert!(!message.contains("main"), "{message}");
    }

    #[test]
    fn other_panics_stay_panics() {
        assert!(catch_unwind(|| guarded(|| panic!("an index is out of bounds"))).is_err());
        assert!(guarded(|| Ok(())).is_ok());
    }
}
