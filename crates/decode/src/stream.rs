//! Counter-based random streams: every draw is a pure function of what it is for.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// The random numbers of one response (or of one shuffle, or one initialisation), addressed by position.
///
/// The key is SHA-256 of (run seed, stage, prompt id, sample index) and the position is the ChaCha8 counter: no draw depends on the order
/// in which others are made.
#[derive(Clone, Debug)]
pub struct Stream {
    rng: ChaCha8Rng,
    /// Where the generator stands: moving it there computes its block anew. None behind the last position.
    next: Option<u64>,
}

impl Stream {
    /// The stream of one purpose.
    pub fn new(seed: u64, stage: &str, prompt: &str, sample: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        for text in [stage, prompt] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
        hash.update(sample.to_le_bytes());
        Self { rng: ChaCha8Rng::from_seed(hash.finalize().into()), next: Some(0) }
    }

    /// The draw at a position: uniform on [0, 1), a multiple of 2⁻⁵³.
    pub fn uniform(&mut self, position: u64) -> f64 {
        if self.next != Some(position) {
            self.rng.set_word_pos(u128::from(position) * 2);
        }
        self.next = position.checked_add(1);
        (self.rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// The draw at a position: standard normal, by Box and Muller from the uniforms at 2·position and 2·position + 1.
    pub fn normal(&mut self, position: u64) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform(2 * position)).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform(2 * position + 1)).cos()
    }

    /// The uniform draws of `first`, `first` + 1, …: the next one at every call.
    ///
    /// ```
    /// use infalign_decode::Stream;
    ///
    /// let stream = Stream::new(7, "coins", "", 0);
    /// let mut uniform = stream.clone().uniforms(1);
    /// assert_eq!([uniform(), uniform()], [1, 2].map(|position| stream.clone().uniform(position)));
    /// ```
    pub fn uniforms(mut self, first: u64) -> impl FnMut() -> f64 {
        let mut position = first;
        move || {
            position += 1;
            self.uniform(position - 1)
        }
    }

    /// The standard normal draws of `first`, `first` + 1, …, in single precision, as new weights need them.
    pub fn normals(mut self, first: u64) -> impl FnMut() -> f32 {
        let mut position = first;
        move || {
            position += 1;
            self.normal(position - 1) as f32
        }
    }

    /// A permutation of 0..n, by Fisher and Yates.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            let j = (self.uniform(i as u64) * (i + 1) as f64) as usize;
            order.swap(i, j);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_addressed_not_consumed() {
        let mut a = Stream::new(1, "rollout", "p", 0);
        let forwards: Vec<f64> = (0..9).map(|i| a.uniform(i)).collect();
        let backwards: Vec<f64> = (0..9).rev().map(|i| a.uniform(i)).collect();
        assert!(forwards.iter().eq(backwards.iter().rev()));
        a.uniform(u64::MAX);
        assert_eq!(a.uniform(0), forwards[0]);
    }

    #[test]
    fn every_part_of_the_key_matters() {
        let base = Stream::new(1, "a", "bc", 0).uniform(0);
        for mut other in [
            Stream::new(2, "a", "bc", 0),
            Stream::new(1, "ab", "c", 0),
            Stream::new(1, "a", "bd", 0),
            Stream::new(1, "a", "bc", 1),
        ] {
            assert_ne!(base, other.uniform(0));
        }
    }

    #[test]
    fn uniforms_and_normals_have_their_moments() {
        let mut stream = Stream::new(7, "moments", "", 0);
        let n = 20_000;
        let mean = (0..n).map(|i| stream.uniform(i)).sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        let normals: Vec<f64> = (0..n).map(|i| stream.normal(i)).collect();
        let mean = normals.iter().sum::<f64>() / n as f64;
        let variance = normals.iter().map(|z| z * z).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.04, "{mean} {variance}");
    }

    #[test]
    fn draws_in_sequence_are_those_of_their_positions() {
        let mut stream = Stream::new(1, "weights", "p", 3);
        for first in [0, 1, 40] {
            let (mut uniform, mut normal) =
                (stream.clone().uniforms(first), stream.clone().normals(first));
            for position in first..first + 9 {
                assert_eq!(uniform(), stream.uniform(position));
                assert_eq!(normal(), stream.normal(position) as f32);
            }
        }
    }

    #[test]
    fn a_permutation_holds_every_index_once() {
        let mut order = Stream::new(3, "shuffle", "", 0).permutation(50);
        assert_ne!(order, (0..50).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..50).collect::<Vec<_>>());
    }
}
