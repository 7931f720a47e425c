//! How a decoder responds to rank: the density g of what it returns.
//!
//! A decoder T is *calibrated* when it acts on ranks alone (InfAlign, arXiv 2412.19792):
//!
//! T(π)(y) = π(y)·g(C_{r,π}(y)), with ∫₀¹ g du = 1.
//!
//! Then g decides everything that this crate computes: the inference-time win rate of any policy, and
//! the transform that is optimal for T. It is known for some procedures ([`RankDensity::of`]), can be
//! written down for others ([`RankDensity::from_fn`]), and can be estimated for any decoder from what
//! it returns ([`RankEstimate`]).

mod estimate;
mod soft;

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::error::{MOST_RESPONSES, TransformError};
use crate::numerics::piecewise::{Piecewise, Tails};
use crate::numerics::{gauss, log_of_share};
use crate::procedure::Procedure;
pub use estimate::{EstimatedTransform, RankEstimate};
pub(crate) use soft::{COLDEST, soft_win_rate};

/// The rank density g of a calibrated decoder: what it returns, relative to the policy, by rank.
///
/// ```
/// use infalign_transform::{Beta, Procedure, RankDensity, Tilt, Transform};
/// let tilt = Tilt::new(&Transform::Identity, Beta::new(0.2)?)?;
/// // The median of three responses: g(u) = 6u(1 − u).
/// let median = RankDensity::from_fn(|u| 6.0 * u * (1.0 - u))?;
/// let (low, high) = ("worst-of:3".parse()?, "best-of:3".parse()?);
/// let won = tilt.win_rate_under(&median);
/// assert!(tilt.win_rate(&high)? < won && won < tilt.win_rate(&low)?);
/// # Ok::<(), infalign_transform::TransformError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RankDensity(Kind);

/// In closed form where there is one, else on panels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// g = N·u^{N−1}; N = 1 is sampling.
    Best(f64),
    /// g = N·(1 − u)^{N−1}.
    Worst(f64),
    /// Smooth but for isolated points.
    Smooth(Arc<Piecewise>),
    /// Constant on each panel.
    Steps(Arc<Piecewise>),
}

impl RankDensity {
    /// The rank density of a procedure that acts on ranks alone.
    ///
    /// Equation: 1 for sampling, N·u^(N−1) for best-of-N, N·(1−u)^(N−1) for worst-of-N; of rejection at φ in N draws
    /// φ^(N−1) below φ and (1 − φ^N)/(1 − φ) above it, which is 1/(1 − φ) and nothing below where N is without bound.
    ///
    /// # Errors
    /// [`TransformError::NotByRank`] for a procedure whose choice is not a function of ranks, [`TransformError::NotByOwnRanks`] for soft
    /// best-of-N, which weighs the reward itself, and [`TransformError::TooMany`] for more than a million responses.
    pub fn of(procedure: &Procedure) -> Result<Self, TransformError> {
        let kind = match *procedure {
            Procedure::Sample => Kind::Best(1.0),
            Procedure::BestOf(n) => Kind::Best(responses(n)?),
            Procedure::WorstOf(n) => Kind::Worst(responses(n)?),
            Procedure::SoftBestOf { .. } => {
                return Err(TransformError::NotByOwnRanks(procedure.to_string()));
            }
            // Of a quantile so near to 0 nothing is seen from the top.
            Procedure::Rejection { quantile, .. } if 1.0 - quantile == 1.0 => Kind::Best(1.0),
            Procedure::Rejection { quantile, draws } => {
                let n = responses(draws)?;
                let last = quantile.powf(n - 1.0);
                let taken = -(n * quantile.ln()).exp_m1() / (1.0 - quantile);
                return Self::steps(&[0.0, quantile, 1.0], &[last, taken]);
            }
            _ => return Err(TransformError::NotByRank(procedure.to_string())),
        };
        Ok(RankDensity(kind))
    }

    /// The rank density `g`, a continuous function of u in [0, 1], which is scaled to ∫g = 1.
    ///
    /// A density with jumps is [`RankDensity::steps`]; features narrower than about 0.001 may be missed.
    ///
    /// # Errors
    /// [`TransformError::RankDensity`] when a value of `g` is negative or not finite, or all are 0;
    /// [`TransformError::Unresolved`] when it jumps about too much to be integrated.
    pub fn from_fn(g: impl Fn(f64) -> f64) -> Result<Self, TransformError> {
        let refuse = |u, value| Err(TransformError::RankDensity { u, value });
        let mut most = 0.0f64;
        for u in (0..=1000).map(|k| f64::from(k) / 1000.0) {
            let value = g(u);
            if !(value >= 0.0 && value.is_finite()) {
                return refuse(u, value);
            }
            most = most.max(value);
        }
        if most == 0.0 {
            return refuse(0.5, 0.0);
        }
        let law = Piecewise::resolve(|v| g(1.0 - v) / most).ok_or(TransformError::Unresolved)?;
        Ok(RankDensity(Kind::Smooth(Arc::new(law))))
    }

    /// The rank density that is constant between `edges`, which is scaled to ∫g = 1.
    ///
    /// - `edges`: ranks u, ascending from 0 to 1 by steps that 1 − u can tell apart.
    /// - `heights`: the density between each two of them, one fewer.
    ///
    /// # Errors
    /// [`TransformError::RankDensity`] for a height that is negative or not finite, heights that are all
    /// 0, and edges that are not as described.
    ///
    /// ```
    /// use infalign_transform::{Beta, Optimum, RankDensity};
    /// // A decoder that resamples until the response is in the upper half.
    /// let upper_half = RankDensity::steps(&[0.0, 0.5, 1.0], &[0.0, 1.0])?;
    /// assert!((upper_half.at(0.7) - 2.0).abs() < 1e-12);
    /// assert!(Optimum::under(&upper_half, Beta::new(0.5)?)?.win_rate > 0.5);
    /// # Ok::<(), infalign_transform::TransformError>(())
    /// ```
    pub fn steps(edges: &[f64], heights: &[f64]) -> Result<Self, TransformError> {
        let refuse = |u, value| Err(TransformError::RankDensity { u, value });
        let from_top: Vec<f64> = edges.iter().rev().map(|u| 1.0 - u).collect();
        // From the top, edges that differ near u = 0 only are one.
        let ascends = from_top.windows(2).all(|pair| pair[0] < pair[1]);
        let whole = edges.first() == Some(&0.0) && edges.last() == Some(&1.0);
        if !ascends || !whole || edges.len() != heights.len() + 1 {
            return refuse(edges.last().copied().unwrap_or(f64::NAN), f64::NAN);
        }
        let wrong = |height: &&f64| !(**height >= 0.0 && height.is_finite());
        if let Some((at, height)) = heights.iter().enumerate().find(|(_, height)| wrong(height)) {
            return refuse(edges[at], *height);
        }
        let most = heights.iter().copied().fold(0.0, f64::max);
        if most == 0.0 {
            return refuse(0.5, 0.0);
        }
        let values = heights.iter().rev().map(|&height| [height / most; _]).collect();
        Ok(RankDensity(Kind::Steps(Arc::new(Piecewise::new(from_top, values)))))
    }

    /// g(u), for u in [0, 1]; outside of it, u counts as the nearer end.
    pub fn at(&self, u: f64) -> f64 {
        let u = u.clamp(0.0, 1.0);
        self.density(Tails { below: u, above: 1.0 - u })
    }

    /// G(u) = ∫₀ᵘ g, the probability that a rank below u is returned, for u in [0, 1].
    pub fn cdf(&self, u: f64) -> f64 {
        let u = u.clamp(0.0, 1.0);
        1.0 - self.probability_above(Tails { below: u, above: 1.0 - u })
    }

    /// KL(T(π)‖π) = ∫₀¹ g·log g du in nats, where no two rewards tie: what the decoder does to any policy.
    ///
    /// ```
    /// use infalign_transform::RankDensity;
    /// let rejection = RankDensity::of(&"rejection:quantile=0.9,draws=1000".parse()?)?;
    /// assert!((rejection.kl() - 10f64.ln()).abs() < 1e-12);
    /// assert!((rejection.win_rate() - 0.95).abs() < 1e-12);
    /// # Ok::<(), infalign_transform::TransformError>(())
    /// ```
    pub fn kl(&self) -> f64 {
        match &self.0 {
            Kind::Best(n) | Kind::Worst(n) => n.ln() - (n - 1.0) / n,
            Kind::Smooth(law) | Kind::Steps(law) => self.integral(law, |_, g| xlogx(g)),
        }
    }

    /// ∫₀¹ u·g du in [0, 1]: how often T(π) wins over π itself.
    pub fn win_rate(&self) -> f64 {
        match &self.0 {
            Kind::Best(n) => n / (n + 1.0),
            Kind::Worst(n) => 1.0 / (n + 1.0),
            Kind::Smooth(law) | Kind::Steps(law) => self.integral(law, |u, g| u * g),
        }
    }

    /// ∫₀¹ f(u, g(u)) du, panel by panel.
    fn integral(&self, law: &Piecewise, f: impl Fn(f64, f64) -> f64) -> f64 {
        let at = |v: f64| f(1.0 - v, law.density(v).max(0.0));
        let panel = |ends: &[f64]| gauss::adaptive(&at, ends[0], ends[1]);
        law.edges().windows(2).map(panel).sum()
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.0
    }

    /// g at the rank with these probabilities below and above it.
    pub(crate) fn density(&self, at: Tails) -> f64 {
        match &self.0 {
            Kind::Best(n) => n * at.below.powf(n - 1.0),
            Kind::Worst(n) => n * at.above.powf(n - 1.0),
            Kind::Smooth(law) | Kind::Steps(law) => law.density(at.above.clamp(0.0, 1.0)).max(0.0),
        }
    }

    /// 1 − G at the rank with these probabilities below and above it.
    pub(crate) fn probability_above(&self, at: Tails) -> f64 {
        match &self.0 {
            Kind::Best(n) => -(n * log_of_share(at.below, at.above)).exp_m1(),
            Kind::Worst(n) => (n * log_of_share(at.above, at.below)).exp(),
            Kind::Smooth(law) | Kind::Steps(law) => law.tails(at.above.clamp(0.0, 1.0)).above,
        }
    }
}

/// x·log x, which is 0 at 0.
fn xlogx(x: f64) -> f64 {
    if x > 0.0 { x * x.ln() } else { 0.0 }
}

/// N as a number, where its powers keep their digits.
pub(crate) fn responses(n: NonZeroUsize) -> Result<f64, TransformError> {
    let number = n.get() as f64;
    if number <= MOST_RESPONSES { Ok(number) } else { Err(TransformError::TooMany(n.get())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(procedure: &str) -> RankDensity {
        RankDensity::of(&procedure.parse().unwrap()).unwrap()
    }

    #[test]
    fn rank_densities_are_those_of_order_statistics() {
        assert_eq!(of("sample").at(0.3), 1.0);
        assert_eq!((of("best-of:4").at(0.5), of("best-of:4").cdf(0.5)), (0.5, 0.0625));
        assert_eq!((of("worst-of:4").at(0.75), of("worst-of:4").cdf(0.5)), (0.0625, 0.9375));
        assert_eq!(of("best-of:1").at(0.0), 1.0);
        let error = RankDensity::of(&"cd-token:lambda=1".parse().unwrap()).unwrap_err();
        assert!(matches!(error, TransformError::NotByRank(_)));
        let soft = RankDensity::of(&"soft-best-of:4,temperature=0.1".parse().unwrap()).unwrap_err();
        assert!(soft.to_string().contains("listed responses only"), "{soft}");
    }

    #[test]
    fn a_written_density_is_the_known_one() {
        let (written, known) = (RankDensity::from_fn(|u| u.powi(31)).unwrap(), of("best-of:32"));
        for u in [0.0, 0.3, 0.9, 0.99, 1.0] {
            assert!((written.at(u) - known.at(u)).abs() < 1e-11, "g({u})");
            assert!((written.cdf(u) - known.cdf(u)).abs() < 1e-13, "G({u})");
        }
    }

    #[test]
    fn the_scale_of_a_density_does_not_matter() {
        let known = RankDensity::from_fn(|u| u * u).unwrap();
        for scale in [1e-300, 1e-10, 1e3, 1e300] {
            let scaled = RankDensity::from_fn(move |u| scale * (u * u)).unwrap();
            assert!((scaled.cdf(0.7) - known.cdf(0.7)).abs() < 1e-14, "{scale:e}");
        }
        let noise = |u: f64| 1.0 + (1e9 * u).sin();
        assert_eq!(RankDensity::from_fn(noise).unwrap_err(), TransformError::Unresolved);
    }

    #[test]
    fn steps_keep_their_jumps() {
        let top = RankDensity::steps(&[0.0, 0.9, 1.0], &[0.0, 3.0]).unwrap();
        assert!((top.at(0.95) - 10.0).abs() < 1e-13 && top.at(0.2) == 0.0);
        assert!((top.cdf(0.95) - 0.5).abs() < 1e-14);
        for (edges, heights) in [
            (vec![0.0, 0.5, 1.0], vec![1.0]),
            (vec![0.0, 0.5, 0.4, 1.0], vec![1.0; 3]),
            (vec![0.1, 1.0], vec![1.0]),
            (vec![0.0, 1.0], vec![0.0]),
            (vec![0.0, 0.5, 1.0], vec![1.0, -1.0]),
            (vec![], vec![]),
        ] {
            assert!(RankDensity::steps(&edges, &heights).is_err(), "{edges:?} {heights:?}");
        }
    }

    #[test]
    fn rejection_is_two_steps_whose_last_draw_is_taken_as_it_is() {
        let four = of("rejection:quantile=0.8,draws=4");
        // 0.8³ below, and 1 + 0.8 + 0.64 + 0.512 above.
        assert!((four.at(0.3) - 0.512).abs() < 1e-14 && (four.at(0.9) - 2.952).abs() < 1e-13);
        assert!((four.cdf(0.8) - 0.8f64.powi(4)).abs() < 1e-14);
        assert_eq!(of("rejection:quantile=0,draws=3").at(0.1), 1.0);
        assert!((of("rejection:quantile=0.5,draws=1").cdf(0.25) - 0.25).abs() < 1e-15);
        assert_eq!(of("rejection:quantile=1e-17,draws=4").at(1.0), 1.0);
        // Two draws are 1 + φ above φ.
        let two = of("rejection:quantile=0.999999999,draws=2");
        assert!((two.at(1.0 - 4e-10) / 1.999_999_999 - 1.0).abs() < 1e-12, "{}", two.at(1.0));
        let kl = 0.8 * 0.512 * 0.512f64.ln() + 0.2 * 2.952 * 2.952f64.ln();
        assert!((four.kl() - kl).abs() < 1e-13);
        let won = 0.512 * 0.32 + 2.952 * (1.0 - 0.64) / 2.0;
        assert!((four.win_rate() - won).abs() < 1e-13);
    }

    #[test]
    fn divergences_and_win_rates_are_those_in_closed_form() {
        for (text, n) in [("sample", 1.0), ("best-of:4", 4.0), ("best-of:64", 64.0)] {
            let (known, n): (RankDensity, f64) = (of(text), n);
            let written = RankDensity::from_fn(|u| u.powf(n - 1.0)).unwrap();
            assert!((written.kl() - known.kl()).abs() < 1e-12, "{text}");
            assert!((written.win_rate() - known.win_rate()).abs() < 1e-12, "{text}");
        }
        // Without bound: KL = −log(1 − φ), W = (1 + φ)/2.
        for quantile in [0.0_f64, 0.5, 0.75, 0.9] {
            let rejection = of(&format!("rejection:quantile={quantile},draws=100000"));
            assert!((rejection.kl() + (1.0 - quantile).ln()).abs() < 1e-12, "{quantile}");
            assert!((rejection.win_rate() - (1.0 + quantile) / 2.0).abs() < 1e-12, "{quantile}");
        }
    }

    #[test]
    fn what_is_no_density_is_refused() {
        for (g, value) in
            [(-1.0, -1.0), (f64::NAN, f64::NAN), (f64::INFINITY, f64::INFINITY), (0.0, 0.0)]
        {
            let error = RankDensity::from_fn(|_| g).unwrap_err().to_string();
            assert!(error.contains(&format!("is {value}")), "{error}");
        }
    }
}
