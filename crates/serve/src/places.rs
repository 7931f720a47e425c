//! How many responses the server has promised to make.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Places in the batch and in the queue before it.
#[derive(Clone)]
pub(crate) struct Places {
    taken: Arc<AtomicUsize>,
    pub(crate) most: usize,
}

/// Some places, free again when it is dropped.
pub(crate) struct Place {
    taken: Arc<AtomicUsize>,
    responses: usize,
}

impl Places {
    pub(crate) fn new(most: usize) -> Self {
        Self { taken: Arc::default(), most }
    }

    /// Whether none is taken.
    pub(crate) fn are_free(&self) -> bool {
        self.taken.load(Ordering::Relaxed) == 0
    }

    /// Places for so many responses, if they are free.
    pub(crate) fn take(&self, responses: usize) -> Option<Place> {
        let more = |taken: usize| taken.checked_add(responses).filter(|all| *all <= self.most);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Place { taken: self.taken.clone(), responses })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.responses, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_once_and_come_back() {
        let places = Places::new(3);
        let two = places.take(2).unwrap();
        assert!(places.take(2).is_none());
        let one = places.take(1).unwrap();
        assert!(places.take(1).is_none());
        drop(two);
        assert!(places.take(2).is_some());
        drop(one);
        assert!(places.take(3).is_some() && places.take(4).is_none());
        assert!(places.take(usize::MAX).is_none());
    }
}
