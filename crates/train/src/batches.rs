//! Which examples belong to which step.

use std::cell::RefCell;

use infalign_decode::Stream;

use crate::TrainError;

/// Examples drawn epoch by epoch, each epoch a permutation of its own cut into whole batches: no batch holds an example twice, unless it
/// is larger than all of them.
pub(crate) struct Batches {
    seed: u64,
    n: usize,
    per_step: usize,
    /// The epoch that was asked for last, and its order: drawing one takes longer than a small step where there are many examples.
    last: RefCell<Option<(usize, Vec<usize>)>>,
}

impl Batches {
    pub(crate) fn new(seed: u64, n: usize, per_step: usize) -> Self {
        Self { seed, n, per_step, last: RefCell::new(None) }
    }

    /// The epoch of a step, from 0.
    pub(crate) fn epoch(&self, step: usize) -> usize {
        step / self.steps_per_epoch()
    }

    fn steps_per_epoch(&self) -> usize {
        (self.n / self.per_step).max(1)
    }

    /// The examples of a step.
    pub(crate) fn indices(&self, step: usize) -> Vec<usize> {
        let (epoch, first) = (self.epoch(step), step % self.steps_per_epoch() * self.per_step);
        let mut last = self.last.borrow_mut();
        let (_, order) = match last.take() {
            Some(drawn) if drawn.0 == epoch => last.insert(drawn),
            _ => last.insert((
                epoch,
                Stream::new(self.seed, "epoch", "", epoch as u64).permutation(self.n),
            )),
        };
        (first..first + self.per_step).map(|index| order[index % self.n]).collect()
    }
}

/// Refuses counts that no memory could hold: what a step looks at stands in it at once.
pub(crate) fn check_most(counts: &[(&'static str, usize)]) -> Result<(), TrainError> {
    const MOST: usize = 1_000_000;
    match counts.iter().find(|(_, count)| *count > MOST) {
        Some(&(key, count)) => {
            Err(TrainError::setting(key, count.to_string(), "at most 1 million"))
        }
        None => Ok(()),
    }
}

/// Refuses steps of more prompts than there are: of one that stands twice in a step, the responses would be the same.
pub(crate) fn check_prompts(n: usize, per_step: usize) -> Result<(), TrainError> {
    if n >= per_step && n > 0 {
        return Ok(());
    }
    let what =
        format!("prompts_per_step is {per_step}, but there are only {n} prompts to train on");
    Err(TrainError::Data(what))
}

#[cfg(test)]
mod tests {
    use super::{Batches, check_most};

    fn sorted(mut indices: Vec<usize>) -> Vec<usize> {
        indices.sort_unstable();
        indices
    }

    #[test]
    fn an_epoch_sees_every_example_once() {
        let batches = Batches::new(1, 6, 2);
        let epoch = |e: usize| {
            (3 * e..3 * e + 3).flat_map(|step| batches.indices(step)).collect::<Vec<_>>()
        };
        assert_ne!(epoch(0), epoch(1));
        assert_eq!((sorted(epoch(0)), sorted(epoch(1))), ((0..6).collect(), (0..6).collect()));
    }

    #[test]
    fn what_is_left_of_an_epoch_comes_another_time() {
        let batches = Batches::new(1, 5, 3);
        let all: Vec<Vec<usize>> = (0..40).map(|step| sorted(batches.indices(step))).collect();
        assert!(all.iter().all(|batch| batch.windows(2).all(|w| w[0] < w[1])), "no example twice");
        assert!((0..5).all(|example| all.iter().any(|batch| batch.contains(&example))));
    }

    #[test]
    fn what_no_memory_could_hold_is_refused_by_its_key() {
        check_most(&[("texts_per_step", 1_000_000)]).unwrap();
        let counts = [("texts_per_step", 4), ("examples_per_step", usize::MAX)];
        let message = check_most(&counts).unwrap_err().to_string();
        assert!(message.starts_with("examples_per_step is 18446744073709551615,"), "{message}");
        assert!(message.ends_with("at most 1 million"), "{message}");
    }

    #[test]
    fn a_batch_larger_than_all_examples_repeats_them() {
        assert_eq!(sorted(Batches::new(1, 2, 5).indices(7)).len(), 5);
    }
}
