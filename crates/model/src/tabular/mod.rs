//! A language model that is a table of next-token probabilities, small enough that every response can be enumerated.
//!
//! It is the oracle against which decoders, estimators and trainers are proved. The table gives p(z | prefix) for every prefix of
//! letters; the last token of the vocabulary is EOS, which comes at the latest as token number D. A prompt is the single token EOS: the
//! token that opens a text ends the one before it.

mod problem;
mod read;
mod rows;
mod session;
mod tree;
mod vocabulary;

pub use problem::TabularProblem;
pub use tree::PrefixTree;

/// A table of next-token probabilities, in f64.
///
/// A prefix that has probability 0 may be without probabilities of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct TabularLm {
    tree: PrefixTree,
    /// Row-major `[prefixes, vocabulary]`; rows of NaN where the table says nothing.
    rows: Vec<f64>,
}

impl TabularLm {
    /// The prefixes, which are also the responses.
    pub fn tree(&self) -> PrefixTree {
        self.tree
    }

    /// p(z | prefix) of every token z, `[vocabulary]`, EOS last; `None` where the table says nothing, which is only at prefixes of
    /// probability 0.
    pub fn next_probabilities(&self, prefix: usize) -> Option<&[f64]> {
        let vocabulary = self.tree.letters() + 1;
        let row = self.rows.get(prefix * vocabulary..(prefix + 1) * vocabulary)?;
        (!row[0].is_nan()).then_some(row)
    }

    /// The probability that a response begins with each prefix, `[size]`.
    pub fn reach(&self) -> Vec<f64> {
        let mut reach = vec![0.0; self.tree.size()];
        reach[0] = 1.0;
        for prefix in 0..reach.len() {
            let row = self.next_probabilities(prefix).unwrap_or_default();
            for (child, p) in self.tree.children(prefix).zip(row) {
                reach[child] = reach[prefix] * p;
            }
        }
        reach
    }

    /// The probability of each complete response, by the number of its prefix, `[size]`.
    pub fn response_probabilities(&self) -> Vec<f64> {
        let eos = self.tree.letters();
        let ends = |(prefix, reach): (usize, f64)| {
            self.next_probabilities(prefix).map_or(0.0, |row| reach * row[eos])
        };
        self.reach().into_iter().enumerate().map(ends).collect()
    }

    /// Every complete response that has a positive probability: its tokens, EOS included, and its probability.
    pub fn responses(&self) -> impl Iterator<Item = (Vec<u32>, f64)> {
        let tree = self.tree;
        let possible = self.response_probabilities().into_iter().enumerate();
        possible.filter(|(_, p)| *p > 0.0).map(move |(response, p)| {
            let mut tokens = tree.tokens(response);
            tokens.push(tree.eos());
            (tokens, p)
        })
    }

    /// The table π(z|s) ∝ p(z|s)·e^{w(s, z)}, at every prefix s that can be reached. `log_weight` gives w, in nats, for a prefix and a
    /// token of positive probability.
    ///
    /// # Errors
    /// The first error of `log_weight`.
    pub fn tilted<E>(
        &self,
        mut log_weight: impl FnMut(usize, u32) -> Result<f64, E>,
    ) -> Result<Self, E> {
        let mut rows = vec![f64::NAN; self.rows.len()];
        let vocabulary = self.tree.letters() + 1;
        for (prefix, reach) in self.reach().into_iter().enumerate() {
            let Some(row) = self.next_probabilities(prefix).filter(|_| reach > 0.0) else {
                continue;
            };
            let weight = |(token, p): (usize, &f64)| {
                if *p > 0.0 { log_weight(prefix, token as u32) } else { Ok(f64::NEG_INFINITY) }
            };
            let weights = row.iter().enumerate().map(weight).collect::<Result<Vec<_>, E>>()?;
            let largest = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let tilted = &mut rows[prefix * vocabulary..(prefix + 1) * vocabulary];
            for ((new, p), weight) in tilted.iter_mut().zip(row).zip(weights) {
                *new = p * (weight - largest).exp();
            }
            normalise(tilted);
        }
        Ok(Self { tree: self.tree, rows })
    }
}

/// Divides a row by its sum.
fn normalise(row: &mut [f64]) {
    let total: f64 = row.iter().sum();
    row.iter_mut().for_each(|p| *p /= total);
}

#[cfg(test)]
mod tests;
