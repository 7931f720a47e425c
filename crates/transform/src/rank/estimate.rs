//! The response of any decoder to rank, estimated from what it returns, and the transform for it.

use infalign_stats::{Interval, mean_interval};

use super::RankDensity;
use crate::beta::Beta;
use crate::error::TransformError;
use crate::optimal::Optimum;
use crate::transform::{Table, Transform};

/// Batches, at most, whose spread gives the errors.
const BATCHES: usize = 20;

/// Shares of a decoder's returned ranks in equal bins, batch by batch.
///
/// A rank is the calibrated reward u = C_{r,π}(x, y) of the response that the decoder made of π's
/// samples; ties are to be broken at random, so that the ranks of π itself are uniform. The estimate
/// takes the decoder to be calibrated (see [this module](super)): one that also looks at other things
/// than ranks is described on average over them. Bins blur Φ*: take so many that g²/β changes the
/// density f by less than a nat within one (about 2·16/β for best-of-4).
///
/// ```
/// use infalign_transform::{Beta, RankEstimate};
/// // Some decoder of four responses: the best one, or the second best where that is nearly as good.
/// let decode = |ranks: &[f64]| {
///     let mut ranks = ranks.to_vec();
///     ranks.sort_by(|a, b| b.total_cmp(a));
///     if ranks[0] - ranks[1] < 0.01 { ranks[1] } else { ranks[0] }
/// };
/// let mut state = 1u64;
/// let uniform = || {
///     state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
///     (state >> 11) as f64 / (1u64 << 53) as f64
/// };
/// let estimate = RankEstimate::of_decoder(50, 4, 20_000, uniform, decode)?;
/// let found = estimate.optimum(Beta::new(0.1)?)?;
/// assert!((found.optimum.win_rate - 0.93).abs() < 0.01);
/// // What a trainer is told is Φ as a table.
/// println!("{}", found.table()?.to_csv());
/// # Ok::<(), infalign_transform::TransformError>(())
/// ```
#[derive(Clone, Debug)]
pub struct RankEstimate {
    /// `[batch][bin]`: ranks seen, bins ascending in u; of 2 batches or more.
    counts: Vec<Vec<f64>>,
}

/// The transform that is optimal for an estimated rank density.
#[derive(Clone, Debug)]
pub struct EstimatedTransform {
    /// The optimum for the estimate.
    pub optimum: Optimum,
    /// Calibrated rewards at the ends of the bins, ascending from 0 to 1.
    pub u: Vec<f64>,
    /// Φ*(u) on the raw scale, 0 at u = 1.
    pub phi: Vec<f64>,
    /// Standard error of each value of `phi`, which the finite number of ranks leaves.
    pub standard_error: Vec<f64>,
}

impl RankEstimate {
    /// Sorts the ranks that a decoder returned into `bins` equal bins.
    ///
    /// - `ranks`: one for each time the decoder ran, in [0, 1], independent of each other.
    ///
    /// # Errors
    /// [`TransformError::Ranks`] for a rank out of [0, 1], for no bin, and for fewer than 40 ranks, or than
    /// four a bin.
    pub fn new(bins: usize, ranks: &[f64]) -> Result<Self, TransformError> {
        Self::of_clusters(bins, &ranks.chunks(1).collect::<Vec<_>>())
    }

    /// The same of ranks that belong together, as those of one prompt do, which one table calibrates: the errors are those of other clusters,
    /// and worth little where there are few.
    ///
    /// # Errors
    /// As for [`RankEstimate::new`], and for fewer than two clusters that have ranks.
    pub fn of_clusters(bins: usize, clusters: &[&[f64]]) -> Result<Self, TransformError> {
        let refuse = |what: String| Err(TransformError::Ranks(what));
        let clusters: Vec<&[f64]> = clusters.iter().copied().filter(|of| !of.is_empty()).collect();
        let got = clusters.iter().map(|ranks| ranks.len()).sum::<usize>();
        let least = bins.saturating_mul(4).max(2 * BATCHES);
        if bins == 0 || got < least {
            let needs = format!("it takes a bin, and at least {least} ranks for that many");
            return refuse(format!("{got} ranks in {bins} bins; {needs}"));
        }
        if clusters.len() < 2 {
            return refuse("all ranks are of one prompt; errors take two or more".to_owned());
        }
        let batches = BATCHES.min(clusters.len());
        let mut counts = vec![vec![0.0; bins]; batches];
        let ranks = clusters.iter().enumerate().flat_map(|(k, of)| of.iter().map(move |r| (k, *r)));
        for (index, (cluster, rank)) in ranks.enumerate() {
            if !(0.0..=1.0).contains(&rank) {
                return refuse(format!("rank {rank} at index {index}; ranks are in [0, 1]"));
            }
            let bin = ((rank * bins as f64) as usize).min(bins - 1);
            counts[cluster % batches][bin] += 1.0;
        }
        Ok(RankEstimate { counts })
    }

    /// Runs a black box `draws` times on the ranks of `n` responses, and sorts what it returns.
    ///
    /// - `uniform`: independent draws from [0, 1).
    /// - `decode`: the rank that the decoder makes of n ranks; it may draw by itself.
    ///
    /// # Errors
    /// As for [`RankEstimate::new`].
    pub fn of_decoder(
        bins: usize,
        n: usize,
        draws: usize,
        mut uniform: impl FnMut() -> f64,
        mut decode: impl FnMut(&[f64]) -> f64,
    ) -> Result<Self, TransformError> {
        let mut pool = vec![0.0; n];
        let mut returned = || {
            pool.iter_mut().for_each(|rank| *rank = uniform());
            decode(&pool)
        };
        let ranks: Vec<f64> = (0..draws).map(|_| returned()).collect();
        Self::new(bins, &ranks)
    }

    /// The mean of g over each bin, bins ascending in u, with intervals of the given level.
    ///
    /// # Errors
    /// [`TransformError::Ranks`] for a level that is not strictly between 0 and 1.
    pub fn densities(&self, level: f64) -> Result<Vec<Interval>, TransformError> {
        let bins = self.counts[0].len();
        let interval = |bin: usize| {
            let share = |batch: &Vec<f64>| batch[bin] * bins as f64 / batch.iter().sum::<f64>();
            let shares: Vec<f64> = self.counts.iter().map(share).collect();
            mean_interval(&shares, level).map_err(|error| TransformError::Ranks(error.to_string()))
        };
        (0..bins).map(interval).collect()
    }

    /// g as steps, one a bin.
    ///
    /// # Errors
    /// None that a valid estimate meets.
    pub fn rank_density(&self) -> Result<RankDensity, TransformError> {
        self.without(None)
    }

    /// The optimal transform for the estimate, with standard errors by the jackknife over batches.
    ///
    /// # Errors
    /// Those of [`Optimum::under`].
    pub fn optimum(&self, beta: Beta) -> Result<EstimatedTransform, TransformError> {
        let u = self.edges();
        let optimum = Optimum::under(&self.rank_density()?, beta)?;
        let phi = optimum.curve(&u).phi;
        let batches = self.counts.len() as f64;
        let left_out = (0..self.counts.len())
            .map(|batch| Optimum::phi_under(&self.without(Some(batch))?, beta, &u))
            .collect::<Result<Vec<_>, TransformError>>()?;
        let standard_error = (0..u.len()).map(|k| {
            let values = || left_out.iter().map(|phi| phi[k]);
            let mean = values().sum::<f64>() / batches;
            let squares: f64 = values().map(|value| (value - mean).powi(2)).sum();
            (squares * (batches - 1.0) / batches).sqrt()
        });
        Ok(EstimatedTransform { optimum, standard_error: standard_error.collect(), u, phi })
    }

    /// g as steps from all batches but one.
    fn without(&self, left_out: Option<usize>) -> Result<RankDensity, TransformError> {
        let bins = self.counts[0].len();
        let kept = || self.counts.iter().enumerate().filter(|(batch, _)| Some(*batch) != left_out);
        let height = |bin: usize| kept().map(|(_, counts)| counts[bin]).sum::<f64>();
        let heights: Vec<f64> = (0..bins).map(height).collect();
        RankDensity::steps(&self.edges(), &heights)
    }

    /// Ends of the bins, ascending in u from 0 to 1.
    fn edges(&self) -> Vec<f64> {
        let bins = self.counts[0].len();
        (0..=bins).map(|k| k as f64 / bins as f64).collect()
    }
}

impl EstimatedTransform {
    /// Φ* at the ends of the bins, to be trained with as `table:FILE`.
    ///
    /// # Errors
    /// [`TransformError::Table`] where the decoder returned so little that Φ* is flat.
    pub fn table(&self) -> Result<Table, TransformError> {
        Table::new(&self.u, &self.phi)
    }

    /// The same as a transform.
    ///
    /// # Errors
    /// As for [`EstimatedTransform::table`].
    pub fn transform(&self) -> Result<Transform, TransformError> {
        Ok(Transform::Table(self.table()?.into()))
    }
}
