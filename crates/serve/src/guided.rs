//! Requests that prefix scorers guide: batches of their own, beside that of the engine.
//!
//! The candidates of such a request stand in one batch, and the next token of one depends on what all of them are worth, so they do not enter
//! and leave as plain samples do. Requests run beside each other for as long as their candidates fit into a batch; the others wait.

use std::sync::atomic::{AtomicUsize, Ordering};

use infalign_decode::Load;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Room for the candidates of guided requests.
pub(crate) struct Guided {
    room: Semaphore,
    most: usize,
    waiting: AtomicUsize,
}

impl Guided {
    /// Room for so many candidates at a time.
    pub(crate) fn new(batch: usize) -> Self {
        let most = batch.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self { room: Semaphore::new(most), most, waiting: AtomicUsize::new(0) }
    }

    /// The most candidates of a request that can stand together.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Waits, first come, first served, for room for some candidates, or for as much as there is; None where `gone` comes before it.
    pub(crate) async fn enter(
        &self,
        candidates: usize,
        gone: impl Future<Output = ()>,
    ) -> Option<SemaphorePermit<'_>> {
        let waiting = Waiting(&self.waiting, candidates);
        self.waiting.fetch_add(candidates, Ordering::Relaxed);
        let room = self.room.acquire_many(candidates.min(self.most) as u32);
        let permit = tokio::select! {
            permit = room => permit.ok(),
            () = gone => None,
        };
        drop(waiting);
        permit
    }

    /// How much there is to do.
    pub(crate) fn load(&self) -> Load {
        let running = self.most - self.room.available_permits();
        Load { running, waiting: self.waiting.load(Ordering::Relaxed) }
    }
}

/// Candidates that wait until it is dropped.
struct Waiting<'a>(&'a AtomicUsize, usize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[test]
    fn candidates_wait_for_room_in_their_turn() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let guided = Guided::new(4);
            let all = guided.enter(9, pending()).await.unwrap();
            assert_eq!(guided.load(), Load { running: 4, waiting: 0 });
            assert!(guided.enter(1, ready(())).await.is_none(), "there is no room");
            assert_eq!(guided.load(), Load { running: 4, waiting: 0 });
            drop(all);
            let three = guided.enter(3, pending()).await.unwrap();
            assert!(guided.enter(2, ready(())).await.is_none());
            assert_eq!(guided.load().running, 3);
            drop(three);
            assert_eq!(guided.load().running, 0);
        });
    }
}
