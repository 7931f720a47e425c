//! Options of commands that make intervals and tests.

use clap::{Args, ValueEnum};
use infalign_evaluate::{Intervals, Statistics};

use crate::values::above_nothing;

/// How intervals are made.
#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// The bootstrap over prompts, bias-corrected and accelerated.
    Bca,
    /// Student's t, in closed form.
    T,
}

/// Intervals and tests.
#[derive(Args)]
pub(crate) struct StatisticsArgs {
    /// How intervals over prompts are made.
    #[arg(long, value_enum, default_value = "bca")]
    interval: Kind,
    /// Coverage of intervals; 1 less it is the level of tests.
    #[arg(long, default_value_t = 0.95, value_parser = share)]
    pub(crate) level: f64,
    /// Resamples of the prompts, 100 or more; with t, of win rates at the same KL alone, in report.
    #[arg(long, default_value_t = 10_000)]
    replicates: usize,
    /// Which resamples; absent: in compare and report the seed of the first run's recipe, otherwise 0.
    #[arg(long, value_name = "SEED")]
    resample_seed: Option<u64>,
    /// Greatest difference of win rates, or of one from ½, that does not matter: equivalence is tested against it.
    #[arg(long, value_parser = above_nothing)]
    margin: Option<f64>,
}

impl StatisticsArgs {
    /// The seed of resamples; `otherwise` where none is given.
    pub(crate) fn seed(&self, otherwise: u64) -> u64 {
        self.resample_seed.unwrap_or(otherwise)
    }

    /// - `otherwise`: seed of resamples, where none is given.
    pub(crate) fn statistics(&self, otherwise: u64) -> Statistics {
        let (replicates, seed) = (self.replicates, self.seed(otherwise));
        let intervals = match self.interval {
            Kind::Bca => Intervals::Bca { replicates, seed },
            Kind::T => Intervals::StudentT { replicates, seed },
        };
        Statistics { level: self.level, intervals, margin: self.margin }
    }
}

/// How many prompts and samples an effect needs.
#[derive(Args)]
pub(crate) struct PlanArgs {
    /// Say, too, how many prompts and samples it takes to see an effect of this size, going by these samples.
    #[arg(long, value_name = "EFFECT", value_parser = above_nothing)]
    pub(crate) plan: Option<f64>,
    /// The probability with which the effect is to be seen.
    #[arg(long, default_value_t = 0.8, requires = "plan", value_parser = share)]
    pub(crate) power: f64,
}

fn share(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|share: &f64| *share > 0.0 && *share < 1.0);
    number.ok_or_else(|| "give a number between 0 and 1, such as 0.95".to_owned())
}
