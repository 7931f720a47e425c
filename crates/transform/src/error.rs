//! The error type of this crate.

/// Why a procedure, a transform or one of their integrals could not be had.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TransformError {
    /// Text that is not a procedure or a transform.
    #[error("`{text}` is not a {kind}: {reason}; the nearest valid form is `{nearest}`")]
    Parse {
        /// What the text should have been: `procedure` or `transform`.
        kind: &'static str,
        /// The text as given.
        text: String,
        /// What is wrong with it.
        reason: String,
        /// The form that is nearest to it.
        nearest: &'static str,
    },
    /// A KL coefficient that is not positive and finite.
    #[error("β = {0} is not a KL coefficient; it must be positive and finite, in nats")]
    Beta(f64),
    /// A KL that no policy can have.
    #[error("a KL of {0} nats cannot be a target; it must be positive and finite")]
    Kl(f64),
    /// A KL that this transform does not reach.
    #[error(
        "no β gives `{transform}` a KL of {kl} nats; what it reaches lies strictly between \
         {infimum} and {supremum}"
    )]
    UnreachableKl {
        /// The transform.
        transform: String,
        /// The KL asked for, in nats.
        kl: f64,
        /// The KL at the greatest β that is tried, in nats.
        infimum: f64,
        /// The KL at the least β that is tried, in nats.
        supremum: f64,
    },
    /// A β whose optimum is out of the range of numbers.
    #[error(
        "the optimum of `{procedure}` at β = {beta:e} is beyond the range of numbers; take a β nearer to 1"
    )]
    NoOptimum {
        /// The procedure.
        procedure: String,
        /// The KL coefficient.
        beta: f64,
    },
    /// A temperature of soft best-of-N that is too cold to integrate, or not a number.
    #[error(
        "a temperature of {0} is not a number of 0.0001 or more, in units of the calibrated reward; \
         `best-of:N` is the limit of cold ones"
    )]
    Temperature(f64),
    /// A procedure whose optimum this crate does not solve for.
    #[error(
        "there is no solver for the optimum of `{0}`; there is one for `sample`, `best-of:N` and \
         `worst-of:N`"
    )]
    NoSolver(String),
    /// A procedure that does not act on ranks alone, so that no universal integral exists.
    #[error(
        "the win rate of `{0}` depends on the language model, not on ranks alone; \
         {RANK_PROCEDURES} have a closed integral"
    )]
    NotByRank(String),
}

/// The procedures whose win rate is a function of ranks, for messages.
const RANK_PROCEDURES: &str =
    "`sample`, `best-of:N`, `worst-of:N` and `soft-best-of:N,temperature=τ`";
