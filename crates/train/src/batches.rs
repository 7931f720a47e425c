//! Which examples belong to which step.

use infalign_decode::Stream;

/// Examples drawn epoch by epoch, each epoch a permutation of its own.
pub(crate) struct Batches {
    seed: u64,
    n: usize,
    per_step: usize,
}

impl Batches {
    pub(crate) fn new(seed: u64, n: usize, per_step: usize) -> Self {
        Self { seed, n, per_step }
    }

    /// The examples of a step; an epoch's last batch runs on into the next epoch.
    pub(crate) fn indices(&self, step: usize) -> Vec<usize> {
        let range = step * self.per_step..(step + 1) * self.per_step;
        let mut order: (Option<usize>, Vec<usize>) = (None, Vec::new());
        range
            .map(|index| {
                let epoch = index / self.n;
                if order.0 != Some(epoch) {
                    order = (
                        Some(epoch),
                        Stream::new(self.seed, "epoch", "", epoch as u64).permutation(self.n),
                    );
                }
                order.1[index % self.n]
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Batches;

    #[test]
    fn every_epoch_sees_every_example_once() {
        let batches = Batches::new(1, 5, 3);
        let mut seen: Vec<usize> = (0..5).flat_map(|step| batches.indices(step)).collect();
        let second = seen.split_off(5);
        assert_ne!(seen, second[..5]);
        for mut epoch in [seen, second[..5].to_vec()] {
            epoch.sort_unstable();
            assert_eq!(epoch, [0, 1, 2, 3, 4]);
        }
    }
}
