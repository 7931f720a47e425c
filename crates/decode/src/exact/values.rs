//! Values of prefixes: what the rest of the response is worth, on average or softly.

use infalign_model::{PrefixTree, TabularLm, TabularProblem};

use super::check_lambda;
use crate::DecodeError;

/// A value for every prefix and every complete response of a tabular model; NaN where the table that it comes from says nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    tree: PrefixTree,
    prefixes: Vec<f64>,
    responses: Vec<f64>,
}

impl Values {
    /// V*: the expected reward of what the base policy makes of a prefix; r for complete responses.
    ///
    /// Equation: V*(s) = Σ_z p(z|s)·V*(sz), V*(y) = r(y) (controlled decoding, arXiv 2310.17022, §2).
    pub fn of(problem: &TabularProblem) -> Self {
        Self::backwards(problem, |next| next.iter().map(|(p, value)| p * value).sum())
    }

    /// The soft value, whose tokenwise policy is the optimum of E\[r\] − KL/λ over whole responses.
    ///
    /// Equation: V(s) = (1/λ)·log E_p[e^{λr} | s]; V* for λ = 0, its limit.
    ///
    /// # Errors
    /// [`DecodeError::Setting`] for a λ that is negative or not finite.
    pub fn soft(problem: &TabularProblem, lambda: f64) -> Result<Self, DecodeError> {
        check_lambda(lambda)?;
        if lambda == 0.0 {
            return Ok(Self::of(problem));
        }
        Ok(Self::backwards(problem, |next| soft_mean(next, lambda)))
    }

    /// Values of all prefixes from those one token longer: `mean` is given the (probability, value) of the possible next tokens.
    fn backwards(problem: &TabularProblem, mean: impl Fn(&[(f64, f64)]) -> f64) -> Self {
        let (model, rewards) = (problem.model(), problem.rewards());
        let tree = model.tree();
        let mut prefixes = vec![f64::NAN; tree.size()];
        // Children have greater numbers than their parents.
        for prefix in (0..tree.size()).rev() {
            let Some(row) = model.next_probabilities(prefix) else { continue };
            let after = tree.children(prefix).map(|child| prefixes[child]);
            let eos = (row[tree.letters()], rewards[prefix]);
            let next = row.iter().copied().zip(after).chain([eos]);
            let next: Vec<(f64, f64)> = next.filter(|(p, _)| *p > 0.0).collect();
            prefixes[prefix] = mean(&next);
        }
        Self { tree, prefixes, responses: rewards.to_vec() }
    }

    /// The prefixes that have values.
    pub fn tree(&self) -> PrefixTree {
        self.tree
    }

    /// The greatest value of a response.
    pub fn greatest(&self) -> f64 {
        self.responses.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// The value of a prefix; NaN where it is unknown.
    pub fn prefix(&self, prefix: usize) -> f64 {
        self.prefixes[prefix]
    }

    /// The value of a complete response; NaN where it is unknown.
    pub fn response(&self, response: usize) -> f64 {
        self.responses[response]
    }

    /// The values times a weight. Values are linear in the reward.
    #[must_use]
    pub fn scaled(mut self, weight: f64) -> Self {
        self.prefixes.iter_mut().chain(&mut self.responses).for_each(|value| *value *= weight);
        self
    }

    /// The sum of two values, as for Σ wᵢ·Vᵢ of several rewards.
    ///
    /// # Errors
    /// [`DecodeError::Shape`] when they are of different vocabularies or depths.
    pub fn plus(mut self, other: &Self) -> Result<Self, DecodeError> {
        other.check(self.tree)?;
        let added = other.prefixes.iter().chain(&other.responses);
        let values = self.prefixes.iter_mut().chain(&mut self.responses);
        values.zip(added).for_each(|(value, more)| *value += more);
        Ok(self)
    }

    /// The policy π(z|s) ∝ p(z|s)·e^{λV(sz)} (controlled decoding, arXiv 2310.17022, Theorem 2.1), as a table.
    ///
    /// # Errors
    /// [`DecodeError::Shape`] when the model is of another vocabulary or depth, [`DecodeError::NoValue`] where the values do not cover it,
    /// [`DecodeError::Overflow`] where λV is beyond the range of numbers.
    pub fn tilt(&self, model: &TabularLm, lambda: f64) -> Result<TabularLm, DecodeError> {
        self.check(model.tree())?;
        model.tilted(|prefix, token| {
            let value = self.after(prefix, token)?;
            let exponent = lambda * value;
            let overflow =
                || DecodeError::Overflow { prefix: self.tree.text(prefix), lambda, value };
            if exponent.is_finite() { Ok(exponent) } else { Err(overflow()) }
        })
    }

    /// The value of a prefix and one more token, EOS included.
    ///
    /// # Errors
    /// [`DecodeError::NoValue`] where it is unknown.
    pub fn after(&self, prefix: usize, token: u32) -> Result<f64, DecodeError> {
        match self.tree.children(prefix).nth(token as usize) {
            Some(child) if token != self.tree.eos() => self.known_prefix(child),
            _ => self.known_response(prefix),
        }
    }

    /// The value of a prefix that the model reaches.
    pub(super) fn known_prefix(&self, prefix: usize) -> Result<f64, DecodeError> {
        let value = self.prefixes[prefix];
        let missing = || DecodeError::NoValue { prefix: self.tree.text(prefix) };
        if value.is_nan() { Err(missing()) } else { Ok(value) }
    }

    /// The value of a response that the model reaches.
    pub(super) fn known_response(&self, response: usize) -> Result<f64, DecodeError> {
        let value = self.responses[response];
        let missing = || DecodeError::NoValue { prefix: self.tree.response_text(response) };
        if value.is_nan() { Err(missing()) } else { Ok(value) }
    }

    /// Refuses a model of another vocabulary or depth.
    pub(super) fn check(&self, model: PrefixTree) -> Result<(), DecodeError> {
        if self.tree == model {
            return Ok(());
        }
        Err(DecodeError::Shape {
            letters: self.tree.letters(),
            depth: self.tree.depth(),
            model_letters: model.letters(),
            model_depth: model.depth(),
        })
    }
}

/// (1/λ)·log Σ p·e^{λV}, with the largest value taken out; by `log1p` where the mean is near it, so that small λ keep their digits.
fn soft_mean(next: &[(f64, f64)], lambda: f64) -> f64 {
    let largest = next.iter().map(|(_, value)| *value).fold(f64::NEG_INFINITY, f64::max);
    let excess: f64 = next.iter().map(|(p, value)| p * (lambda * (value - largest)).exp_m1()).sum();
    let log = if excess > -0.5 {
        excess.ln_1p()
    } else {
        next.iter().map(|(p, value)| p * (lambda * (value - largest)).exp()).sum::<f64>().ln()
    };
    largest + log / lambda
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_means_keep_their_digits() {
        let next = [(0.25, 1.0), (0.75, -1.0)];
        // Mean plus λ/2 times the variance.
        assert!((soft_mean(&next, 1e-9) - (-0.5 + 0.5e-9 * 0.75)).abs() < 1e-15);
        let rare = [(1e-30, 1.0), (1.0, -1.0)];
        assert!((soft_mean(&rare, 1e3) - (1.0 + 1e-30_f64.ln() / 1e3)).abs() < 1e-14);
        assert_eq!(soft_mean(&[(1.0, 0.3)], 0.1), 0.3);
    }
}
