//! Decoding without randomness: the exact distribution over the responses of a tabular model, in f64; and [`responses`], all that a
//! language model of few tokens can give.
//!
//! With p the base policy and V*(s) = E_p[r | s] the value of a prefix s under it (controlled decoding, arXiv 2310.17022, §2):
//!
//! | procedure | distribution of responses |
//! |---|---|
//! | `sample` | p |
//! | `best-of:N`, `worst-of:N` | the best or worst of N samples by r, ties broken evenly |
//! | `soft-best-of:N,temperature=τ` | one of N samples, drawn with probability ∝ e^{r/τ} |
//! | `rejection:quantile=φ,draws=N` | the first of N samples whose mid-rank among p's responses is φ or more, or else the last |
//! | `cd-token:lambda=λ` | π(z∣s) ∝ p(z∣s)·e^{λV(sz)}, token by token |
//! | `cd-block:length=M,samples=K` | the best of K blocks of M tokens by V, block by block |
//!
//! Values V are ties for `cd-block` already if they agree to 1e-12 of the largest: they are sums, in which equal values differ in their last
//! digits.
//!
//! [`ResponseDistribution::rank_density`] and [`rank_estimate`] lead from a decoder to the transform that is optimal for it.

mod blocks;
mod distribution;
mod enumeration;
mod ranks;
mod values;

use infalign_model::TabularProblem;
use infalign_transform::Procedure;

use crate::DecodeError;

pub use distribution::ResponseDistribution;
pub use enumeration::{response_count, responses};
pub use ranks::rank_estimate;
pub use values::Values;

/// Exact decoding of one tabular model under its own reward, guided by values of its own or of other tables.
#[derive(Clone, Debug)]
pub struct ExactDecoder<'a> {
    problem: &'a TabularProblem,
    values: Values,
}

impl<'a> ExactDecoder<'a> {
    /// A decoder that the model's own values V* guide.
    pub fn new(problem: &'a TabularProblem) -> Self {
        Self { problem, values: Values::of(problem) }
    }

    /// A decoder that other values guide: of several rewards, or of another base policy (transfer).
    ///
    /// # Errors
    /// [`DecodeError::Shape`] when the values are of another vocabulary or depth.
    pub fn with_values(problem: &'a TabularProblem, values: Values) -> Result<Self, DecodeError> {
        values.check(problem.model().tree())?;
        Ok(Self { problem, values })
    }

    /// The distribution over complete responses under a procedure.
    ///
    /// # Errors
    /// [`DecodeError::Procedure`] for the procedures that the table above lacks, [`DecodeError::NoValue`] where the values do not cover the model.
    pub fn decode(&self, procedure: Procedure) -> Result<ResponseDistribution, DecodeError> {
        match procedure {
            Procedure::Sample => Ok(ResponseDistribution::of(self.problem.model())),
            Procedure::BestOf(_)
            | Procedure::WorstOf(_)
            | Procedure::SoftBestOf { .. }
            | Procedure::Rejection { .. } => ResponseDistribution::of(self.problem.model())
                .select(&procedure, self.problem.rewards()),
            Procedure::CdToken { lambda, candidates: None } => self.tokenwise(lambda),
            Procedure::CdBlock { length, samples } => {
                blocks::decode(self.problem.model(), &self.values, length, samples)
            }
            _ => Err(not_enumerated(&procedure)),
        }
    }

    /// Next token ∝ p(z|s)·e^{λV(sz)}.
    fn tokenwise(&self, lambda: f64) -> Result<ResponseDistribution, DecodeError> {
        check_lambda(lambda)?;
        let model = self.problem.model();
        let guided = self.values.tilt(model, lambda)?;
        Ok(ResponseDistribution::new(model, guided.response_probabilities()))
    }

    /// The policy of greatest E\[r\] − KL/λ: π(y) ∝ p(y)·e^{λr(y)}. Its log Z is λ times the soft value of the empty prefix.
    ///
    /// # Errors
    /// [`DecodeError::Setting`] for a λ that is negative or not finite.
    pub fn optimum(&self, lambda: f64) -> Result<ResponseDistribution, DecodeError> {
        check_lambda(lambda)?;
        let base = ResponseDistribution::of(self.problem.model());
        base.map_possible(self.problem.rewards(), |probabilities, rewards| {
            let largest = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights = probabilities.iter().zip(&rewards);
            let weights: Vec<f64> =
                weights.map(|(p, r)| p * (lambda * (r - largest)).exp()).collect();
            let total: f64 = weights.iter().sum();
            Ok(weights.into_iter().map(|weight| weight / total).collect())
        })
    }
}

/// The refusal of a procedure whose distribution is not computed.
fn not_enumerated(procedure: &Procedure) -> DecodeError {
    DecodeError::Procedure {
        procedure: procedure.to_string(),
        reason: "exact enumeration is not available for it; sample it instead, or take a selection by reward, cd-token without candidates, or cd-block",
    }
}

/// Refuses a λ that is negative or not finite.
fn check_lambda(lambda: f64) -> Result<(), DecodeError> {
    if lambda >= 0.0 && lambda.is_finite() {
        return Ok(());
    }
    Err(DecodeError::Setting {
        key: "lambda",
        value: lambda,
        valid: "a finite number of 0 or more",
    })
}
