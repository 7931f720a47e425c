//! How many responses the server has promised to make.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Places in the batch and in the queue before it.
#[derive(Clone)]
pub(crate) struct Places {
    taken: Arc<AtomicUsize>,
    pub(crate) most: usize,
}

/// Some places, free again when they are given back or it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    taken: Arc<AtomicUsize>,
    /// How many are not given back.
    responses: AtomicUsize,
}

impl Places {
    pub(crate) fn new(most: usize) -> Self {
        Self { taken: Arc::default(), most }
    }

    /// Whether none is taken.
    pub(crate) fn are_free(&self) -> bool {
        self.taken() == 0
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Places for so many responses, if they are free.
    pub(crate) fn take(&self, responses: usize) -> Option<Place> {
        let more = |taken: usize| taken.checked_add(responses).filter(|all| *all <= self.most);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Place { taken: self.taken.clone(), responses: AtomicUsize::new(responses) })
    }
}

impl Place {
    /// Whoever has no more use for them first gives them back.
    pub(crate) fn give_back(&self) {
        let responses = self.responses.swap(0, Ordering::Relaxed);
        self.taken.fetch_sub(responses, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.give_back();
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
        let two = places.take(2).unwrap();
        two.give_back();
        assert!(places.are_free());
        let three = places.take(3).unwrap();
        two.give_back();
        drop(two);
        assert_eq!(places.taken(), 3, "they are given back once");
        drop(three);
        assert!(places.are_free());
    }
}
