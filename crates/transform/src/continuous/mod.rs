//! KL and inference-time win rates of the policy that a transform leads to, in continuous language.
//!
//! When no two responses tie, the calibrated reward of a response of π_ref is uniform on [0, 1] for
//! every prompt, and everything below depends on Φ, β and the procedure alone (InfAlign, arXiv
//! 2412.19792, calibrated procedures). KL-regularised RL on Φ(u) ends at the policy of density
//!
//! f(u) = e^{Φ(u)/β} / Z, Z = ∫₀¹ e^{Φ/β} du,
//!
//! relative to π_ref, with distribution function F. From it, in nats and in shares,
//!
//! - KL(π‖π_ref) = ∫₀¹ f log f du;
//! - win rate of a single sample = 1 − ∫₀¹ F du;
//! - win rate under best-of-N = 1 − N∫₀¹ F^N u^{N−1} du;
//! - win rate under worst-of-N = N∫₀¹ (1−F)^N (1−u)^{N−1} du.
//!
//! Soft best-of-N weighs u, the rank among π_ref's responses, on both sides; `rank/soft.rs` has its win rate.
//!
//! Internally every function is one of v = 1 − u, the distance from the top, where policies
//! concentrate: there u has no digits left, and v has all of them.

mod closed;
mod panels;
pub(crate) mod win;

use crate::beta::Beta;
use crate::error::{TransformError, check_kl};
use crate::numerics::piecewise::Tails;
use crate::numerics::root;
use crate::procedure::Procedure;
use crate::rank::{RankDensity, responses, soft_win_rate};
use crate::transform::Transform;
use closed::{Exponential, Power};
use panels::Panels;

/// The policy of density f(u) = e^{Φ(u)/β}/Z relative to π_ref, u the calibrated reward in [0, 1].
///
/// Relative error of [`kl`](Tilt::kl) and [`win_rate`](Tilt::win_rate) about 1e-12, for KL from 1e-20
/// to hundreds of nats, |t| ≤ 200 and N ≤ 10,000.
///
/// ```
/// use infalign_transform::{Beta, Procedure, Tilt, Transform};
/// // The logarithm with β = 1/(N−1) is the distribution of best-of-N itself.
/// let tilt = Tilt::new(&Transform::Log, Beta::new(1.0 / 3.0)?)?;
/// assert!((tilt.kl() - (4f64.ln() - 0.75)).abs() < 1e-14);
/// assert!((tilt.win_rate(&Procedure::Sample)? - 0.8).abs() < 1e-13);
/// # Ok::<(), infalign_transform::TransformError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tilt(Law);

/// The ways to evaluate a density: in closed form where there is one, else on panels.
#[derive(Clone, Debug)]
enum Law {
    Exponential(Exponential),
    Power(Power),
    Panels(Panels),
}

impl Tilt {
    /// The policy for `transform` at `beta`, which belongs to the raw scale of the transform.
    ///
    /// # Errors
    /// [`TransformError::Extreme`] for a policy so near to the top, or to the uniform one, that its
    /// integrals are beyond `f64`.
    pub fn new(transform: &Transform, beta: Beta) -> Result<Self, TransformError> {
        let rate = 1.0 / beta.get();
        let law = match transform {
            Transform::Identity => Some(Law::Exponential(Exponential(rate))),
            Transform::Log => Some(Law::Power(Power(rate))),
            _ => Panels::new(transform, beta).map(Law::Panels),
        };
        let extreme =
            || TransformError::Extreme { transform: transform.to_string(), beta: beta.get() };
        let tilt = law.filter(|_| rate.is_finite()).map(Tilt).ok_or_else(extreme)?;
        if tilt.kl().is_finite() { Ok(tilt) } else { Err(extreme()) }
    }

    /// KL(π‖π_ref) in nats, 0 or more.
    ///
    /// Equation: ∫₀¹ f log f du = ∫₀¹ f·Φ du/β − log Z.
    pub fn kl(&self) -> f64 {
        match &self.0 {
            Law::Exponential(law) => law.kl(),
            Law::Power(law) => law.kl(),
            Law::Panels(law) => law.kl(),
        }
    }

    /// Inference-time win rate over π_ref with `procedure` on both sides, in [0, 1].
    ///
    /// Equation: 1 − ∫₀¹ G(F(u))·g(u) du, G = ∫g the rank distribution of the procedure; see
    /// [this module](self) for best-of-N and worst-of-N. Of soft best-of-N, ∫₀¹ f·h·G du: f·h is the density of what it returns of
    /// N responses of π by the weights e^{u/τ}, G the distribution function of what it returns of π_ref by the same weights.
    ///
    /// # Errors
    /// Those of [`RankDensity::of`], but that soft best-of-N is refused only where it is colder than 0.0001
    /// ([`TransformError::Temperature`]).
    ///
    /// ```
    /// use infalign_transform::{Tilt, Transform, beta_for_kl};
    /// let transform: Transform = "exp:10".parse()?;
    /// let tilt = Tilt::new(&transform, beta_for_kl(&transform, 0.5)?)?;
    /// let won = tilt.win_rate(&"soft-best-of:4,temperature=0.1".parse()?)?;
    /// assert!((won - 0.826597).abs() < 1e-6);
    /// # Ok::<(), infalign_transform::TransformError>(())
    /// ```
    pub fn win_rate(&self, procedure: &Procedure) -> Result<f64, TransformError> {
        let Procedure::SoftBestOf { n, temperature } = *procedure else {
            return Ok(self.win_rate_under(&RankDensity::of(procedure)?));
        };
        responses(n)?;
        let won = soft_win_rate(n.get(), temperature, self.on_panels()?.law());
        won.ok_or(TransformError::Temperature(temperature))
    }

    /// The same for a decoder that is given by its rank density.
    pub fn win_rate_under(&self, rank: &RankDensity) -> f64 {
        win::win_rate(rank, |v| self.tails(v))
    }

    /// Distribution function F(u) of the calibrated reward under the policy; 0 below 0, 1 above 1.
    pub fn cdf(&self, u: f64) -> f64 {
        self.tails((1.0 - u).clamp(0.0, 1.0)).below
    }

    /// The density on panels, also where it has a closed form.
    fn on_panels(&self) -> Result<Panels, TransformError> {
        let (transform, rate) = match &self.0 {
            Law::Exponential(law) => (Transform::Identity, law.0),
            Law::Power(law) => (Transform::Log, law.0),
            Law::Panels(law) => return Ok(law.clone()),
        };
        let beta = Beta::new(1.0 / rate)?;
        Panels::new(&transform, beta).ok_or_else(|| TransformError::Extreme {
            transform: transform.to_string(),
            beta: beta.get(),
        })
    }

    /// F and 1 − F at distance v from the top.
    pub(crate) fn tails(&self, v: f64) -> Tails {
        match &self.0 {
            Law::Exponential(law) => law.tails(v),
            Law::Power(law) => law.tails(v),
            Law::Panels(law) => law.tails(v),
        }
    }
}

/// The β, on the raw scale of `transform`, at which the policy has a KL of `kl` nats.
///
/// KL falls strictly as β grows, from infinity to 0, so there is one such β; it is searched for by its
/// logarithm, to about 1e-14 relative, over every β whose policy `f64` can hold.
///
/// # Errors
/// [`TransformError::Kl`] when `kl` is not positive and finite, [`TransformError::UnreachableKl`] with
/// the least and the greatest KL in reach when it is too small or too great, and [`TransformError::Beta`] where only a β beyond `f64` has it.
///
/// ```
/// use infalign_transform::{Tilt, Transform, beta_for_kl};
/// let transform = "exp:10".parse::<Transform>()?;
/// let beta = beta_for_kl(&transform, 0.5)?;
/// assert!((Tilt::new(&transform, beta)?.kl() - 0.5).abs() < 1e-12);
/// # Ok::<(), infalign_transform::TransformError>(())
/// ```
pub fn beta_for_kl(transform: &Transform, kl: f64) -> Result<Beta, TransformError> {
    check_kl(kl)?;
    let kl_at = |log_beta: f64| {
        Tilt::new(transform, Beta::of_log(log_beta)).map_or(f64::NAN, |tilt| tilt.kl())
    };
    let (low, high) = log_beta_range(transform);
    let low = least_known(kl_at, low, high);
    let target = kl.ln();
    let root = root::bracketed(|log_beta| kl_at(log_beta).ln() - target, low, high);
    let log_beta = root.ok_or_else(|| TransformError::UnreachableKl {
        transform: transform.to_string(),
        kl,
        infimum: kl_at(high),
        supremum: kl_at(low),
    })?;
    Beta::new(log_beta.exp())
}

/// The least x in [low, high], to 0.1, from which on `f` is a number.
pub(crate) fn least_known(f: impl Fn(f64) -> f64, low: f64, high: f64) -> f64 {
    if !f(low).is_nan() {
        return low;
    }
    let (mut unknown, mut known) = (low, high);
    while known - unknown > 0.1 {
        let middle = 0.5 * (unknown + known);
        *(if f(middle).is_nan() { &mut unknown } else { &mut known }) = middle;
    }
    known
}

/// The logarithms of β between which KL is computed: from all weight within 1e-280 of the top, or the
/// least β, to a density within 1e-12 of uniform.
fn log_beta_range(transform: &Transform) -> (f64, f64) {
    let tip = 1e-10;
    let slope_at_top = transform.shortfall(tip) / tip;
    let low = (slope_at_top.ln() - 280.0 * std::f64::consts::LN_10).max(-690.0);
    (low, transform.scale().ln() + 28.0)
}
