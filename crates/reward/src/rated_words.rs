//! A reward that is learned from ratings of texts: the weights of words, by ridge regression.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use infalign_data::{Rating, ratings};

use crate::rules::{Lexicon, words};
use crate::{Reward, RewardError};

/// Iterations after which the weights are as they are: with as many as there are words they would be exact but for rounding.
const MOST_ITERATIONS: usize = 1000;
/// The part of the first residual at which they end before.
const TOLERANCE: f64 = 1e-10;

/// The rating that people would give a response, as a constant and the weights of its words, each as often as it occurs:
/// minimises Σ (rating − constant − Σ weights)² + ridge·Σ weight² over the rated texts. Words that none of them holds weigh nothing.
///
/// Its terms are known as soon as a word is written, unlike the score of a whole text that a reward model reads.
#[derive(Clone, Debug)]
pub struct RatedWords {
    constant: f32,
    lexicon: Lexicon,
}

impl RatedWords {
    /// Learns from the ratings of tab-separated files: id, rating, text.
    ///
    /// - `ridge`: above 0; the larger, the less words that are seldom weigh.
    ///
    /// # Errors
    /// [`RewardError::Data`] for a file that cannot be read; as [`RatedWords::fit`].
    pub fn read(files: &[PathBuf], ridge: f64) -> Result<Self, RewardError> {
        let mut texts = Vec::new();
        for file in files {
            texts.extend(ratings::read_tsv(file)?);
        }
        Self::fit(&texts, ridge)
    }

    /// Learns from ratings.
    ///
    /// # Errors
    /// [`RewardError::Setting`] for a `ridge` that is not above 0, [`RewardError::Empty`] where no text has a word.
    pub fn fit(texts: &[Rating], ridge: f64) -> Result<Self, RewardError> {
        if !(ridge > 0.0 && ridge.is_finite()) {
            return Err(RewardError::Setting { key: "ridge", value: ridge, valid: "above 0" });
        }
        // Words in alphabetical order, so that the sums of a fit are always taken in the same one.
        let mut index: BTreeMap<String, usize> =
            texts.iter().flat_map(|text| words(&text.text)).map(|word| (word, 0)).collect();
        if index.is_empty() {
            return Err(RewardError::Empty { kind: "rated-words", key: "ratings" });
        }
        index.values_mut().enumerate().for_each(|(place, at)| *at = place);
        let rows = texts.iter().map(|text| words(&text.text).map(|word| index[&word]).collect());
        let problem = Problem { rows: rows.collect(), width: index.len() + 1, ridge };
        let ratings: Vec<f64> = texts.iter().map(|text| f64::from(text.rating)).collect();
        let weights = problem.solve(&problem.transposed(&ratings));
        let weight = |(word, place): (String, usize)| (word, weights[place] as f32);
        let lexicon: HashMap<_, _> = index.into_iter().map(weight).collect();
        let constant = weights[problem.width - 1] as f32;
        Ok(Self { constant, lexicon: Lexicon::of(lexicon) })
    }
}

impl Reward for RatedWords {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        let scores = self.lexicon.score(pairs)?;
        Ok(scores.into_iter().map(|score| self.constant + score).collect())
    }
}

/// Ridge regression on counts of words, and on a constant, the last column, whose size costs nothing.
struct Problem {
    /// The words of each text, by their place; a word that occurs twice is there twice.
    rows: Vec<Vec<usize>>,
    /// Number of words, and one for the constant.
    width: usize,
    ridge: f64,
}

impl Problem {
    /// X·w, `[texts]`.
    fn product(&self, w: &[f64]) -> Vec<f64> {
        let row = |row: &Vec<usize>| row.iter().map(|&word| w[word]).sum::<f64>();
        self.rows.iter().map(|words| w[self.width - 1] + row(words)).collect()
    }

    /// Xᵀ·y, `[width]`.
    fn transposed(&self, y: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; self.width];
        for (row, y) in self.rows.iter().zip(y) {
            row.iter().for_each(|&word| sums[word] += y);
            sums[self.width - 1] += y;
        }
        sums
    }

    /// (XᵀX + ridge)·w, where the constant has no ridge.
    fn normal(&self, w: &[f64]) -> Vec<f64> {
        let mut product = self.transposed(&self.product(w));
        let words = product.iter_mut().zip(w).take(self.width - 1);
        words.for_each(|(product, w)| *product += self.ridge * w);
        product
    }

    /// The diagonal of that matrix: squares of counts.
    fn diagonal(&self) -> Vec<f64> {
        let mut squares = vec![self.ridge; self.width];
        squares[self.width - 1] = self.rows.len() as f64;
        for row in &self.rows {
            let mut counts: BTreeMap<usize, f64> = BTreeMap::new();
            row.iter().for_each(|&word| *counts.entry(word).or_default() += 1.0);
            counts.into_iter().for_each(|(word, count)| squares[word] += count * count);
        }
        squares
    }

    /// The weights whose [`Problem::normal`] is `right`, by conjugate gradients, scaled by the diagonal.
    fn solve(&self, right: &[f64]) -> Vec<f64> {
        let diagonal = self.diagonal();
        let scaled =
            |r: &[f64]| -> Vec<f64> { r.iter().zip(&diagonal).map(|(r, d)| r / d).collect() };
        let mut weights = vec![0.0; self.width];
        let mut residual = right.to_vec();
        let mut step = scaled(&residual);
        let mut error = dot(&residual, &step);
        let enough = error * TOLERANCE.powi(2);
        for _ in 0..MOST_ITERATIONS {
            if error <= enough {
                break;
            }
            let product = self.normal(&step);
            let length = error / dot(&step, &product);
            add(&mut weights, length, &step);
            add(&mut residual, -length, &product);
            let next = scaled(&residual);
            let before = std::mem::replace(&mut error, dot(&residual, &next));
            let kept = error / before;
            step.iter_mut().zip(next).for_each(|(step, next)| *step = next + kept * *step);
        }
        weights
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// a += factor·b
fn add(a: &mut [f64], factor: f64, b: &[f64]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += factor * b);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rating(rating: f32, text: &str) -> Rating {
        Rating { text: text.to_owned(), rating }
    }

    #[test]
    fn weights_are_those_worked_by_hand() {
        // One word x, once or not at all, ridge 1: by symmetry the constant is 2 − w/2, and w·(1 + 2·¼·2) = 2 → w = 1.
        let texts = [rating(3.0, "x"), rating(1.0, "-"), rating(3.0, "X"), rating(1.0, "")];
        let reward = RatedWords::fit(&texts, 1.0).unwrap();
        let scores = reward.score(&[("x", "other"), ("", "x"), ("", "x, x")]).unwrap();
        for (score, expected) in scores.iter().zip([1.5, 2.5, 3.5]) {
            assert!((score - expected).abs() < 1e-6, "{scores:?}");
        }
    }

    #[test]
    fn the_normal_equations_hold() {
        let texts = ["a b b", "b c", "c c a d", "d", "a a a", "e b"];
        let texts: Vec<_> =
            texts.iter().enumerate().map(|(i, text)| rating((i * i) as f32 - 7.0, text)).collect();
        let index = |word: String| "abcde".find(&word).unwrap();
        let rows = texts.iter().map(|text| words(&text.text).map(index).collect()).collect();
        let problem = Problem { rows, width: 6, ridge: 0.3 };
        let ratings: Vec<f64> = texts.iter().map(|text| f64::from(text.rating)).collect();
        let right = problem.transposed(&ratings);
        let weights = problem.solve(&right);
        for (left, right) in problem.normal(&weights).iter().zip(&right) {
            assert!((left - right).abs() < 1e-8, "{left} {right}");
        }
    }

    #[test]
    fn what_cannot_be_learned_from_is_refused() {
        let message =
            |texts: &[Rating], ridge| RatedWords::fit(texts, ridge).unwrap_err().to_string();
        assert!(message(&[rating(1.0, "-")], 1.0).contains("ratings"));
        assert!(message(&[rating(1.0, "a")], 0.0).contains("`ridge` is 0"));
        assert!(message(&[rating(1.0, "a")], f64::NAN).contains("`ridge`"));
    }

    #[test]
    fn of_the_real_ratings_those_held_out_are_foretold() {
        let Some(folder) = infalign_record::env::data_dir() else {
            eprintln!("SKIPPED: set INFALIGN_DATA to learn from the ratings of reviews");
            return;
        };
        let file = folder.join("sentiment-vader/movieReviewSnippets_GroundTruth.txt");
        let texts = ratings::read_tsv(&file).unwrap();
        let (held_out, used): (Vec<_>, Vec<_>) =
            texts.into_iter().enumerate().partition(|(index, _)| index % 10 == 0);
        let used: Vec<_> = used.into_iter().map(|(_, text)| text).collect();
        let reward = RatedWords::fit(&used, 5.0).unwrap();
        let pairs: Vec<_> = held_out.iter().map(|(_, text)| ("", text.text.as_str())).collect();
        let scores = reward.score(&pairs).unwrap().into_iter().map(f64::from);
        let rated: Vec<_> =
            scores.zip(held_out.iter().map(|(_, text)| f64::from(text.rating))).collect();
        let correlation = infalign_stats::correlation(&rated).unwrap();
        assert!(correlation > 0.45, "{correlation}");
    }
}
