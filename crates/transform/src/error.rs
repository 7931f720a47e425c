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
    /// An exponent of `exp:t` that gives no shape, or one beyond the range of numbers.
    #[error("t = {0} is not an exponent; it must be a number other than 0 between -500 and 500")]
    Exponent(f64),
    /// Points or a function that are no transform.
    #[error("{place}: {reason}")]
    Table {
        /// The row, or file and line.
        place: String,
        /// What is wrong there.
        reason: String,
    },
    /// A KL coefficient that is not positive and finite.
    #[error(
        "β = {0} is not a KL coefficient; it must be positive and finite, in units of Φ per nat"
    )]
    Beta(f64),
    /// A KL that no policy can have.
    #[error("a KL of {0:e} nats cannot be a target; it must be positive and finite")]
    Kl(f64),
    /// A KL that this transform does not reach.
    #[error(
        "no β was found at which `{transform}` has a KL of {kl:e} nats; what can be computed lies \
         between {infimum:.3e} and {supremum:.3e}"
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
        "no optimum at β = {beta:e} was found within the range of numbers; take a β nearer to 1, and \
         give a rank density that jumps as steps"
    )]
    NoOptimum {
        /// The KL coefficient.
        beta: f64,
    },
    /// A temperature of soft best-of-N that is too cold to integrate, or not a number.
    #[error(
        "a temperature of {0} is not a number of 0.0001 or more, in units of the decoder's reward; \
         `best-of:N` is the limit of cold ones"
    )]
    Temperature(f64),
    /// A policy that `f64` cannot hold.
    #[error(
        "the policy of `{transform}` at β = {beta:e} is beyond the range of numbers; take a β nearer to \
         the range of Φ"
    )]
    Extreme {
        /// The transform.
        transform: String,
        /// The KL coefficient, on the raw scale of the transform.
        beta: f64,
    },
    /// Too many responses for probabilities to be told from 1.
    #[error(
        "N = {0} responses are more than can be computed with; take at most {MOST_RESPONSES:e}"
    )]
    TooMany(usize),
    /// A rank density that is negative, not finite, or nowhere positive.
    #[error(
        "the rank density at u = {u} is {value}; it must be finite and 0 or more everywhere and \
         somewhere positive, and steps ascend from u = 0 to u = 1 with one height each"
    )]
    RankDensity {
        /// The rank.
        u: f64,
        /// The density there.
        value: f64,
    },
    /// A function that changes too often to be integrated as a rank density.
    #[error(
        "the rank density changes too often between u = 0 and 1 to be integrated; give it as steps, or \
         without its noise"
    )]
    Unresolved,
    /// Ranks that no rank density can be estimated from.
    #[error("a rank density cannot be estimated from this: {0}")]
    Ranks(String),
    /// A procedure that does not act on ranks alone, so that no universal integral exists.
    #[error(
        "the win rate of `{0}` depends on the language model, not on ranks alone; \
         {RANK_PROCEDURES} act on ranks, and `transform curve` and `transform discrete` take \
         `soft-best-of:N,temperature=τ` as well"
    )]
    NotByRank(String),
    /// Soft best-of-N where only a decoder by the policy's own ranks would do.
    #[error(
        "`{0}` weighs the reward itself, not a policy's own ranks: its optimum is known for listed responses only \
         (`transform discrete`), and of a given transform its win rate (`transform curve`)"
    )]
    NotByOwnRanks(String),
    /// Lists of probabilities and rewards that do not describe the same outcomes, or none.
    #[error(
        "{probabilities} probabilities for {rewards} rewards do not describe outcomes; give one of each \
         for every outcome, and at least one outcome"
    )]
    OutcomeCount {
        /// Length of the list of probabilities.
        probabilities: usize,
        /// Length of the list of rewards.
        rewards: usize,
    },
    /// A number that is not a probability.
    #[error("probability {index} is {value}; it must be a finite number of 0 or more")]
    Probability {
        /// Its place in the list, from 0.
        index: usize,
        /// The number.
        value: f64,
    },
    /// A reward that cannot be ordered.
    #[error("reward {index} is {value}; it must be finite")]
    Reward {
        /// Its place in the list, from 0.
        index: usize,
        /// The number.
        value: f64,
    },
    /// Probabilities of something other than one distribution.
    #[error("the probabilities sum to {0}; they must sum to 1 within 1e-9")]
    ProbabilitySum(f64),
    /// The index of an outcome that there is not.
    #[error("there is no outcome {index} among {count}; they are counted from 0")]
    NoOutcome {
        /// The index.
        index: usize,
        /// How many outcomes there are.
        count: usize,
    },
    /// An optimum that the solver did not reach.
    #[error(
        "no policy was found that is stationary for `{procedure}` at β = {beta:e}: one step of the \
         coupled equations still moves a probability by {residual:e}; take a greater β"
    )]
    NotConverged {
        /// The procedure.
        procedure: String,
        /// The KL coefficient.
        beta: f64,
        /// The least residual that was reached.
        residual: f64,
    },
}

/// Refuses a target that is no KL of a policy but π_ref itself.
pub(crate) fn check_kl(kl: f64) -> Result<(), TransformError> {
    if kl > 0.0 && kl.is_finite() { Ok(()) } else { Err(TransformError::Kl(kl)) }
}

/// Greatest N whose N-th powers keep ten digits.
pub(crate) const MOST_RESPONSES: f64 = 1e6;

/// The procedures whose win rate is a function of ranks, for messages.
const RANK_PROCEDURES: &str =
    "`sample`, `best-of:N`, `worst-of:N` and `rejection:quantile=φ,draws=N`";
