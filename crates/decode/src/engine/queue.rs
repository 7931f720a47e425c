//! Jobs whose responses wait for a place in a batch.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::job::{Caller, Job};
use crate::gather::locked;

/// What workers take responses from, first come, first served.
pub(super) struct Queue<C> {
    state: Mutex<State<C>>,
    changed: Condvar,
    workers: usize,
}

struct State<C> {
    waiting: VecDeque<Waiting<C>>,
    /// Responses that were taken and have not ended.
    running: usize,
    open: bool,
}

struct Waiting<C> {
    job: Arc<Job<C>>,
    /// Number of the next response, prompt by prompt.
    next: usize,
}

impl<C: Caller> Queue<C> {
    pub(super) fn new(workers: usize) -> Self {
        let state = State { waiting: VecDeque::new(), running: 0, open: true };
        Self { state: Mutex::new(state), changed: Condvar::new(), workers }
    }

    /// Adds a job, unless the queue is closed; says whether it did.
    pub(super) fn add(&self, job: Arc<Job<C>>) -> bool {
        let mut state = locked(&self.state);
        if state.open && job.total() > 0 {
            state.waiting.push_back(Waiting { job, next: 0 });
            self.changed.notify_all();
        }
        state.open
    }

    /// Takes no more jobs; workers end once none is waiting.
    pub(super) fn close(&self) {
        locked(&self.state).open = false;
        self.changed.notify_all();
    }

    /// Closes the queue and drops what waits in it.
    pub(super) fn abandon(&self) {
        let mut state = locked(&self.state);
        state.open = false;
        state.waiting.drain(..).for_each(|waiting| waiting.job.stop());
        self.changed.notify_all();
    }

    pub(super) fn is_open(&self) -> bool {
        locked(&self.state).open
    }

    /// Responses in batches, and responses that wait.
    pub(super) fn load(&self) -> (usize, usize) {
        let state = locked(&self.state);
        (state.running, state.waiting())
    }

    /// Waits for a job; false where none will come.
    pub(super) fn wait(&self) -> bool {
        let state = locked(&self.state);
        let idle = |state: &mut State<C>| state.open && state.waiting.is_empty();
        let state = self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
        !state.waiting.is_empty()
    }

    /// The next responses of one job for a worker that has `active` rows and room for `share`; None where there is none for it.
    ///
    /// A worker takes no more than makes its batch as large as the others': two that are half full are faster than one that is full.
    pub(super) fn take(&self, active: usize, share: usize) -> Option<(Arc<Job<C>>, Range<usize>)> {
        let mut state = locked(&self.state);
        state.waiting.retain(|waiting| !waiting.job.stopped());
        let fair = (state.running + state.waiting()).div_ceil(self.workers);
        let most = fair.min(share).saturating_sub(active);
        let Waiting { job, next } = state.waiting.front_mut().filter(|_| most > 0)?;
        let responses = *next..job.total().min(*next + most);
        *next = responses.end;
        let job = job.clone();
        if responses.end == job.total() {
            state.waiting.pop_front();
        }
        state.running += responses.len();
        Some((job, responses))
    }

    /// Counts responses that have left a batch.
    pub(super) fn left(&self, responses: usize) {
        locked(&self.state).running -= responses;
    }
}

impl<C: Caller> State<C> {
    fn waiting(&self) -> usize {
        self.waiting.iter().map(|waiting| waiting.job.total() - waiting.next).sum()
    }
}
