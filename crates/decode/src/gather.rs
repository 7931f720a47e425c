//! Responses come in any order, and are handed on prompt by prompt.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Collects the responses of each prompt until all are there.
pub(crate) struct Gather<T> {
    /// Responses to each prompt.
    samples: usize,
    /// Those that have come, by their place among the prompt's.
    responses: Vec<Mutex<Vec<(usize, T)>>>,
    stopped: AtomicBool,
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Gather<T> {
    pub(crate) fn new(prompts: usize, samples: usize) -> Self {
        let responses = (0..prompts).map(|_| Mutex::default()).collect();
        Self { samples, responses, stopped: AtomicBool::new(false) }
    }

    /// Takes a response, and hands on those of its prompt if it was the last. What it returns is the receiver's.
    pub(crate) fn add(
        &self,
        prompt: usize,
        sample: usize,
        response: T,
        finished: impl FnOnce(Vec<T>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut held = locked(&self.responses[prompt]);
        held.push((sample, response));
        if held.len() < self.samples || self.stopped() {
            return ControlFlow::Continue(());
        }
        let mut all = std::mem::take(&mut *held);
        drop(held);
        all.sort_by_key(|(sample, _)| *sample);
        finished(all.into_iter().map(|(_, response)| response).collect())
    }

    /// Asks everybody who makes responses to make no more.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}
