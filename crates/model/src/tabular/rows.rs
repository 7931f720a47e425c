//! A table from its numbers, checked.

use super::{PrefixTree, TabularLm, normalise};
use crate::ModelError;

/// How far the probabilities of a row may be from a sum of 1; they are divided by it.
const TOLERANCE: f64 = 1e-9;

impl TabularLm {
    /// A table of these probabilities.
    ///
    /// - `rows`: p(z | prefix) of every token z, EOS last, prefix by prefix in the order of their numbers, `[size, vocabulary]`. A row of NaN
    ///   stands for none: prefixes of D − 1 letters, which only EOS follows, need none, nor do those of probability 0.
    ///
    /// # Errors
    /// [`ModelError::Table`] for another number of probabilities, a row that is no distribution, or one that is missing.
    pub fn new(tree: PrefixTree, rows: Vec<f64>) -> Result<Self, ModelError> {
        let refuse = |reason| ModelError::Table { name: "of these rows".to_owned(), reason };
        Self::checked(tree, rows).map_err(refuse)
    }

    /// The same with the bare reason as its error.
    pub(super) fn checked(tree: PrefixTree, mut rows: Vec<f64>) -> Result<Self, String> {
        let (found, size, vocabulary) = (rows.len(), tree.size(), tree.letters() + 1);
        if found != size * vocabulary {
            return Err(format!(
                "there are {found} probabilities, but {size} prefixes with {vocabulary} tokens each: give {}",
                size * vocabulary
            ));
        }
        for (prefix, row) in rows.chunks_exact_mut(vocabulary).enumerate() {
            complete(tree, prefix, row)?;
        }
        let model = Self { tree, rows };
        let reach = model.reach();
        let is_missing =
            |prefix: &usize| reach[*prefix] > 0.0 && model.next_probabilities(*prefix).is_none();
        match (0..size).find(is_missing) {
            None => Ok(model),
            Some(prefix) => Err(format!(
                "`p` has no row for the prefix `{}`, which can be reached: add its {vocabulary} probabilities",
                tree.text(prefix)
            )),
        }
    }
}

/// Divides the row of a prefix by its sum, and fills in that of one that only EOS follows.
fn complete(tree: PrefixTree, prefix: usize, row: &mut [f64]) -> Result<(), String> {
    let (ends, eos) = (tree.children(prefix).is_empty(), tree.letters());
    if row.iter().all(|p| p.is_nan()) {
        if ends {
            row.fill(0.0);
            row[eos] = 1.0;
        }
        return Ok(());
    }
    if let Some(p) = row.iter().find(|p| !(p.is_finite() && **p >= 0.0)) {
        return Err(not_a_probability(&tree.text(prefix), &p.to_string()));
    }
    let of = || format!("the row of `p` for the prefix `{}`", tree.text(prefix));
    let total: f64 = row.iter().sum();
    if (total - 1.0).abs() > TOLERANCE {
        return Err(format!("{} sums to {total}: its probabilities must sum to 1", of()));
    }
    if ends && row[..eos].iter().any(|p| *p != 0.0) {
        return Err(format!(
            "{} is {row:?}, but only EOS can be token number D = {}: its probability there must be 1",
            of(),
            tree.depth()
        ));
    }
    normalise(row);
    Ok(())
}

/// That the row of a prefix holds something else.
pub(super) fn not_a_probability(prefix: &str, entry: &str) -> String {
    format!(
        "the row of `p` for the prefix `{prefix}` holds {entry}, which is not a probability: give a number of 0 or more"
    )
}
