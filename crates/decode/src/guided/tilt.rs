//! One token of tokenwise controlled decoding.

use crate::DecodeError;
use crate::sampling::invert;

/// The tokens that are weighed, with their probabilities under the model, and what of it is left to the others.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Candidates {
    /// In the order of the vocabulary.
    pub(super) tokens: Vec<u32>,
    probabilities: Vec<f64>,
    /// Probability of the tokens that are left out.
    rest: f64,
}

/// A token drawn from the tilted distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tilted {
    pub(super) token: u32,
    /// KL of the tilted distribution to the one that is tilted, in nats.
    pub(super) kl: f64,
    /// log of the token's tilted probability to that under the model.
    pub(super) log_ratio: f64,
    /// The most that leaving tokens out can have moved of the tilted distribution, in total variation.
    pub(super) truncation: f64,
}

impl Candidates {
    /// The `most` most probable tokens of a distribution; of equals the first.
    pub(super) fn of(mut distribution: Vec<(u32, f64)>, most: Option<usize>) -> Self {
        let mut rest = 0.0;
        if let Some(most) = most.filter(|most| *most < distribution.len()) {
            let before = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
            distribution.select_nth_unstable_by(most, before);
            rest = distribution.drain(most..).map(|(_, p)| p).sum();
            distribution.sort_unstable_by_key(|(token, _)| *token);
        }
        let (tokens, probabilities) = distribution.into_iter().unzip();
        Self { tokens, probabilities, rest }
    }

    /// Draws from π(z) ∝ p(z)·e^{λV(z)} (controlled decoding, arXiv 2310.17022, Theorem 2.1) by inverting the cumulative distribution.
    ///
    /// - `values`: V of each token; `greatest`: the greatest value that a token which is left out may have.
    ///
    /// # Errors
    /// [`DecodeError::Scorer`] where λV is no finite number.
    pub(super) fn draw(
        &self,
        values: &[f64],
        lambda: f64,
        greatest: Option<f64>,
        uniform: f64,
    ) -> Result<Tilted, DecodeError> {
        let exponents: Vec<f64> = values.iter().map(|value| lambda * value).collect();
        if let Some(place) = exponents.iter().position(|exponent| !exponent.is_finite()) {
            let value = values[place];
            return Err(DecodeError::Scorer {
                reason: format!(
                    "λ = {lambda:e} times the value {value:e} is no finite number: take a smaller λ or weight"
                ),
            });
        }
        let largest = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = self
            .probabilities
            .iter()
            .zip(&exponents)
            .map(|(p, exponent)| p * (exponent - largest).exp())
            .collect();
        let total: f64 = weights.iter().sum();
        let place = invert(weights.iter().copied(), total, uniform);
        // log π/p of a token is its exponent less log Σ p·e^{λV}.
        let log_ratio = |exponent: f64| exponent - largest - total.ln();
        let terms = weights.iter().zip(&exponents).filter(|(weight, _)| **weight > 0.0);
        let kl: f64 = terms.map(|(weight, exponent)| weight / total * log_ratio(*exponent)).sum();
        let left_out = match greatest {
            _ if self.rest == 0.0 => 0.0,
            Some(greatest) => self.rest * (lambda * greatest - largest).exp(),
            None => f64::INFINITY,
        };
        let truncation = if left_out.is_finite() { left_out / (total + left_out) } else { 1.0 };
        Ok(Tilted {
            token: self.tokens[place],
            kl: kl.max(0.0),
            log_ratio: log_ratio(exponents[place]),
            truncation,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: [(u32, f64); 4] = [(0, 0.4), (1, 0.3), (3, 0.2), (7, 0.1)];
    const V: [f64; 4] = [0.0, 1.0, -1.0, 2.0];

    fn shares(candidates: &Candidates, values: &[f64], lambda: f64) -> Vec<f64> {
        let n = 20_000;
        let mut shares = vec![0.0; candidates.tokens.len()];
        for i in 0..n {
            let uniform = (f64::from(i) + 0.5) / f64::from(n);
            let drawn = candidates.draw(values, lambda, None, uniform).unwrap();
            let place = candidates.tokens.iter().position(|t| *t == drawn.token).unwrap();
            shares[place] += 1.0 / f64::from(n);
        }
        shares
    }

    #[test]
    fn draws_are_tilted_and_their_kl_is_that_of_the_tilt() {
        let candidates = Candidates::of(P.to_vec(), None);
        let weights: Vec<f64> = P.iter().zip(V).map(|((_, p), v)| p * (0.7 * v).exp()).collect();
        let total: f64 = weights.iter().sum();
        let tilted: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
        let found = shares(&candidates, &V, 0.7);
        assert!(found.iter().zip(&tilted).all(|(a, b)| (a - b).abs() < 1e-3), "{found:?}");
        let drawn = candidates.draw(&V, 0.7, None, 0.0).unwrap();
        let kl: f64 = tilted.iter().zip(P).map(|(q, (_, p))| q * (q / p).ln()).sum();
        assert!((drawn.kl - kl).abs() < 1e-12 && drawn.truncation == 0.0);
        assert!((drawn.log_ratio - (tilted[0] / P[0].1).ln()).abs() < 1e-12);
        let nothing = candidates.draw(&V, 0.0, None, 0.5).unwrap();
        assert!(nothing.kl.abs() < 1e-12 && nothing.log_ratio.abs() < 1e-12);
    }

    #[test]
    fn what_truncation_moves_is_bounded() {
        let two = Candidates::of(P.to_vec(), Some(2));
        assert_eq!(two.tokens, [0, 1]);
        let (values, lambda, greatest) = ([0.0, 1.0], 0.7, 2.0);
        let drawn = two.draw(&values, lambda, Some(greatest), 0.5).unwrap();
        let weight = |(p, v): (f64, f64)| p * f64::exp(lambda * v);
        let all: f64 = P.iter().zip(V).map(|((_, p), v)| weight((*p, v))).sum();
        let left_out: f64 = P.iter().zip(V).skip(2).map(|((_, p), v)| weight((*p, v))).sum();
        // In total variation, the two distributions differ by the tilted probability of what is left out.
        assert!(left_out / all <= drawn.truncation && drawn.truncation < 1.0, "{drawn:?}");
        let worst = 0.3 * (lambda * greatest).exp();
        let bound = worst / (worst + weight((0.4, 0.0)) + weight((0.3, 1.0)));
        assert!((drawn.truncation - bound).abs() < 1e-12);
        assert_eq!(two.draw(&values, lambda, None, 0.5).unwrap().truncation, 1.0);
        assert_eq!(Candidates::of(P.to_vec(), Some(9)), Candidates::of(P.to_vec(), None));
    }

    #[test]
    fn exponents_beyond_numbers_are_refused() {
        let candidates = Candidates::of(P.to_vec(), None);
        let error = candidates.draw(&[0.0, 1e300, 0.0, 0.0], 1e10, None, 0.5).unwrap_err();
        assert!(error.to_string().contains("smaller λ"), "{error}");
    }
}
