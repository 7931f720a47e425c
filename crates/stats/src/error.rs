//! The error type of this crate.

/// Why a statistic could not be computed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StatsError {
    /// A selection of zero samples.
    #[error("a selection of 0 samples has no best or worst; give 1 or more")]
    EmptySelection,
    /// Fewer samples than the statistic needs.
    #[error("{what} holds {found} values, but this statistic needs at least {needed}")]
    TooFew {
        /// Which argument is short.
        what: &'static str,
        /// How many values it must hold.
        needed: usize,
        /// How many it holds.
        found: usize,
    },
    /// A value that is NaN or infinite.
    #[error("value {index} of {what} is {value}; every value must be finite")]
    NotFinite {
        /// Which argument holds the value.
        what: &'static str,
        /// Position of the value, from 0.
        index: usize,
        /// The value.
        value: f64,
    },
    /// A temperature that is none, or too low for the rewards.
    #[error(
        "the temperature {0} has to be above 0, and no less than a 10,000th of what rewards differ by: so cold it is best-of:N"
    )]
    Temperature(f64),
    /// A confidence level outside the open unit interval.
    #[error("the level {0} is not a probability strictly between 0 and 1, such as 0.95")]
    Level(f64),
    /// More successes than trials, or fewer than none.
    #[error("{successes} of {trials} trials cannot be successes; give 0 to {trials}")]
    Successes {
        /// How many are said to have succeeded.
        successes: f64,
        /// Out of how many.
        trials: usize,
    },
    /// A forecast that no bin holds.
    #[error("forecast {index} is {value}, but the bins go from {low} to {high}")]
    Forecast {
        /// Position of the forecast, from 0.
        index: usize,
        /// The forecast.
        value: f64,
        /// Where the first bin begins.
        low: f64,
        /// Where the last bin ends.
        high: f64,
    },
    /// An effect or a margin that is no size.
    #[error("{0} is no size of a difference; give a finite number above 0, such as 0.02")]
    Margin(f64),
    /// A function of means that is not a number.
    #[error(
        "the statistic is a number for {defined} of {of} samples of the prompts, which is too few for an \
         interval; it may lie outside of what was measured"
    )]
    Undefined {
        /// Resamples, or samples without one prompt, for which it is a number.
        defined: usize,
        /// All of them.
        of: usize,
    },
    /// The place of a series that there is not.
    #[error("there is no series {index} among {count}; they are counted from 0")]
    NoSeries {
        /// The place.
        index: usize,
        /// How many series there are.
        count: usize,
    },
    /// A logistic regression without an optimum.
    #[error(
        "the win rate at equal lengths has no estimate: pairs are decided by one side, or by their length, alone, or one side \
         is always longer by about as much"
    )]
    Separated,
    /// Paired samples that are not of one length.
    #[error(
        "paired samples must hold one value a prompt each, but the first holds {first} and the \
         second {second}"
    )]
    Unpaired {
        /// Length of the first sample.
        first: usize,
        /// Length of the second sample.
        second: usize,
    },
}

/// Refuses `values` that hold fewer than `needed` numbers or a number that is not finite.
pub(crate) fn check(what: &'static str, values: &[f64], needed: usize) -> Result<(), StatsError> {
    if values.len() < needed {
        return Err(StatsError::TooFew { what, needed, found: values.len() });
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(StatsError::NotFinite { what, index, value: values[index] }),
        None => Ok(()),
    }
}
