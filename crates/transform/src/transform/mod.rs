//! Transforms Φ of the calibrated reward: what CTRL maximises instead of the reward itself.
//!
//! | form | raw Φ(u) | good for |
//! |---|---|---|
//! | `identity` | u | the standard win rate (optimal) |
//! | `log` | log u | distilling best-of-N |
//! | `exp:t` | sign(t)·e^{tu} | t > 0: best-of-N; t < 0: worst-of-N |
//! | `optimal:PROCEDURE,beta=B` | Φ* of [`optimal`](crate::optimal) | PROCEDURE at β = B (optimal) |
//! | `table:FILE` | linear between the points of a CSV file `u,phi` | what you make of it |
//!
//! Programs may also use any increasing function ([`Function`]).
//!
//! # Two scales, one β each
//! The papers write Φ raw, where e^{tu} spans many orders of magnitude. Training wants rewards of order
//! one. [`Transform::apply`] therefore maps all but `log` onto [0, 1], and
//!
//! raw(u) = offset + scale·apply(u), so that β_raw = scale·β_scaled
//!
//! gives the same policy: it is proportional to exp(raw/β_raw), and the offset drops out. Every β that
//! this crate takes or returns ([`Tilt`](crate::Tilt), [`beta_for_kl`]) belongs to
//! the raw scale; a trainer that feeds on [`Transform::apply`] uses β / [`Transform::scale`].

mod function;
mod table;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::beta::Beta;
use crate::continuous::beta_for_kl;
use crate::error::TransformError;
use crate::optimal::Optimum;
use crate::parse::{Form, Parts, serde_as_text};
use crate::procedure::Procedure;
pub use function::Function;
pub use table::Table;

/// An increasing map of the calibrated reward u in [0, 1].
///
/// Parsed from and written as the text forms of [this module](self); the two round-trip, and serde
/// uses them. A [`Function`], and a [`Table`] that comes from no file, are shown as `function` and
/// `table`, which cannot be read back: serde refuses to write them.
///
/// ```
/// use infalign_transform::Transform;
/// let transform: Transform = "exp:10".parse()?;
/// assert_eq!((transform.apply(0.0), transform.apply(1.0)), (0.0, 1.0));
/// assert_eq!(transform.raw(1.0), 10f64.exp());
/// # Ok::<(), infalign_transform::TransformError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Transform {
    /// Φ(u) = u.
    Identity,
    /// Φ(u) = log u.
    Log,
    /// Φ(u) = sign(t)·e^{tu}.
    Exp(Exponent),
    /// Φ* of one procedure and one β, which [`Transform::optimal`] makes.
    #[non_exhaustive]
    Optimal {
        /// The procedure that it is optimal for.
        procedure: Procedure,
        /// The solution, which knows its β.
        optimum: Arc<Optimum>,
    },
    /// Linear between points.
    Table(Arc<Table>),
    /// Any increasing function.
    Function(Function),
}

/// Exponent t of `exp:t`: not 0, and |t| ≤ 500, so that e^t and every β that goes with it stay within
/// `f64`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exponent(f64);

impl Exponent {
    /// Wraps `t`.
    ///
    /// # Errors
    /// [`TransformError::Exponent`] for 0, NaN, and |t| above 500.
    pub fn new(t: f64) -> Result<Self, TransformError> {
        if t != 0.0 && t.abs() <= GREATEST_EXPONENT {
            Ok(Exponent(t))
        } else {
            Err(TransformError::Exponent(t))
        }
    }

    /// The exponent as a plain number.
    pub fn get(self) -> f64 {
        self.0
    }
}

const FORMS: [Form; 5] = [
    Form { name: "identity", usage: "identity" },
    Form { name: "log", usage: "log" },
    Form { name: "exp", usage: "exp:t" },
    Form { name: "optimal", usage: "optimal:PROCEDURE,beta=B" },
    Form { name: "table", usage: "table:FILE" },
];

/// What separates the procedure from β in the text of an optimal transform.
const BETA: &str = ",beta=";

/// Greatest |t| of `exp:t`.
const GREATEST_EXPONENT: f64 = 500.0;

impl Transform {
    /// The optimal transform for `procedure` at `beta`.
    ///
    /// # Errors
    /// Those of [`Optimum::new`].
    pub fn optimal(procedure: &Procedure, beta: Beta) -> Result<Self, TransformError> {
        let optimum = Arc::new(Optimum::new(procedure, beta)?);
        Ok(Transform::Optimal { procedure: *procedure, optimum })
    }

    /// The optimal transform for `procedure` whose policy has a KL of `kl` nats, and its β.
    ///
    /// # Errors
    /// Those of [`Optimum::for_kl`].
    pub(crate) fn optimal_at_kl(
        procedure: &Procedure,
        kl: f64,
    ) -> Result<(Self, Beta), TransformError> {
        let optimum = Arc::new(Optimum::for_kl(procedure, kl)?);
        let beta = optimum.beta;
        Ok((Transform::Optimal { procedure: *procedure, optimum }, beta))
    }

    /// Reads `text`, in which `optimal:PROCEDURE` takes its β from the run.
    ///
    /// # Errors
    /// As for parsing, and those of [`Optimum::new`].
    ///
    /// ```
    /// use infalign_transform::{Beta, Transform};
    /// let transform = Transform::at_beta("optimal:best-of:4", Beta::new(0.1)?)?;
    /// assert_eq!(transform.to_string(), "optimal:best-of:4,beta=0.1");
    /// # Ok::<(), infalign_transform::TransformError>(())
    /// ```
    pub fn at_beta(text: &str, beta: Beta) -> Result<Self, TransformError> {
        match text.strip_prefix("optimal:") {
            Some(procedure) if !text.contains(BETA) => Self::optimal(&procedure.parse()?, beta),
            _ => text.parse(),
        }
    }

    /// Reads `text`, and finds the β at which its policy has a KL of `kl` nats; `optimal:PROCEDURE` is
    /// solved for at that KL.
    ///
    /// # Errors
    /// As for parsing, and those of [`beta_for_kl`] and [`Optimum::for_kl`].
    ///
    /// ```
    /// use infalign_transform::{Tilt, Transform};
    /// let (transform, beta) = Transform::at_kl("optimal:worst-of:4", 0.5)?;
    /// assert!((Tilt::new(&transform, beta)?.kl() - 0.5).abs() < 1e-9);
    /// # Ok::<(), infalign_transform::TransformError>(())
    /// ```
    pub fn at_kl(text: &str, kl: f64) -> Result<(Self, Beta), TransformError> {
        if let Some(procedure) = text.strip_prefix("optimal:").filter(|_| !text.contains(BETA)) {
            return Self::optimal_at_kl(&procedure.parse()?, kl);
        }
        let transform: Self = text.parse()?;
        let beta = beta_for_kl(&transform, kl)?;
        Ok((transform, beta))
    }

    /// The transform as a trainer uses it: [0, 1] onto [0, 1], or (−∞, 0] for `log`.
    ///
    /// Equation: u, log u, (e^{tu} − 1)/(e^t − 1), which increases for either sign of t, and
    /// 1 − (Φ(1) − Φ(u))/(Φ(1) − Φ(0)) for the others.
    ///
    /// - `u`: calibrated reward in [0, 1]; outside of it, or NaN, the formula is applied as it stands.
    ///   `log` of 0 is −∞, which is why calibrated rewards are smoothed away from 0.
    pub fn apply(&self, u: f64) -> f64 {
        match *self {
            Transform::Identity => u,
            Transform::Log => u.ln(),
            // Divided through by e^t, so that nothing overflows.
            Transform::Exp(Exponent(t)) if t > 0.0 => {
                (t * (u - 1.0)).exp() * ((-t * u).exp_m1() / (-t).exp_m1())
            }
            Transform::Exp(Exponent(t)) => (t * u).exp_m1() / t.exp_m1(),
            _ => 1.0 - self.shortfall(1.0 - u) / self.scale(),
        }
    }

    /// The transform as the papers write it: u, log u, sign(t)·e^{tu}, Φ*(u).
    ///
    /// - `u`: as for [`Transform::apply`].
    pub fn raw(&self, u: f64) -> f64 {
        match *self {
            Transform::Identity => u,
            Transform::Log => u.ln(),
            Transform::Exp(Exponent(t)) => (t * u).exp() * t.signum(),
            Transform::Optimal { ref optimum, .. } => optimum.phi(u),
            Transform::Table(ref table) => table.top() - table.shortfall(1.0 - u),
            Transform::Function(ref function) => function.at(u),
        }
    }

    /// How much one unit of [`Transform::apply`] is in raw units: β_raw = scale·β_scaled.
    ///
    /// Equation: 1 for `log`, Φ(1) − Φ(0) for all others, which is |e^t − 1| for `exp:t`.
    pub fn scale(&self) -> f64 {
        match *self {
            Transform::Identity | Transform::Log => 1.0,
            Transform::Exp(Exponent(t)) => t.exp_m1().abs(),
            Transform::Optimal { ref optimum, .. } => -optimum.phi(0.0),
            Transform::Table(ref table) => table.range(),
            Transform::Function(ref function) => function.at(1.0) - function.at(0.0),
        }
    }

    /// Φ(1) − Φ(1 − v) on the raw scale: how far the response at distance v from the top falls short.
    ///
    /// Equation: v, −log(1 − v), and sign(t)·e^t·(1 − e^{−tv}), without cancellation at small v.
    pub(crate) fn shortfall(&self, v: f64) -> f64 {
        match *self {
            Transform::Identity => v,
            Transform::Log => -(-v).ln_1p(),
            Transform::Exp(Exponent(t)) => -t.signum() * t.exp() * (-t * v).exp_m1(),
            Transform::Optimal { ref optimum, .. } => optimum.shortfall(v),
            Transform::Table(ref table) => table.shortfall(v),
            Transform::Function(ref function) => function.at(1.0) - function.at(1.0 - v),
        }
    }

    /// Φ(1 − v) − Φ(u) on the raw scale, to all digits wherever v is; `width` is 1 − v − u with the digits of its own.
    pub(crate) fn fall(&self, v: f64, width: f64, u: f64) -> f64 {
        match *self {
            Transform::Identity => width,
            Transform::Log => (width / u).ln_1p(),
            Transform::Exp(Exponent(t)) => {
                -t.signum() * (t * (1.0 - v)).exp() * (-t * width).exp_m1()
            }
            _ => self.shortfall(v + width) - self.shortfall(v),
        }
    }

    /// Distances v from the top, ascending from 0 to 1, between which the shape of Φ changes little.
    pub(crate) fn knots(&self) -> Vec<f64> {
        let count = match *self {
            Transform::Identity | Transform::Log => 1.0,
            Transform::Exp(Exponent(t)) => (0.5 * t.abs()).ceil().max(1.0),
            Transform::Optimal { ref optimum, .. } => return optimum.edges(),
            Transform::Table(ref table) => return table.knots().to_vec(),
            Transform::Function(ref function) => return function.knots(),
        };
        (0..=count as usize).map(|k| k as f64 / count).collect()
    }

    /// Refuses what has no text that is read, before it is stored.
    fn check(&self) -> Result<(), TransformError> {
        let has_text = match self {
            Transform::Table(table) => table.file().is_some(),
            Transform::Function(_) => false,
            _ => true,
        };
        has_text.then_some(()).ok_or_else(|| TransformError::Parse {
            kind: "transform",
            text: self.to_string(),
            reason: "it was made by a program and has no text to be read from".to_owned(),
            nearest: "table:FILE",
        })
    }
}

impl FromStr for Transform {
    type Err = TransformError;

    fn from_str(text: &str) -> Result<Self, TransformError> {
        let optimal = text.strip_prefix("optimal:").and_then(|rest| rest.rsplit_once(BETA));
        if let Some((procedure, beta)) = optimal {
            let value = beta.parse().map_err(|_| TransformError::Parse {
                kind: "transform",
                text: text.to_owned(),
                reason: format!("beta is `{beta}`, which is not a number"),
                nearest: "optimal:PROCEDURE,beta=B",
            })?;
            return Self::optimal(&procedure.parse()?, Beta::new(value)?);
        }
        let (name, mut parts) = Parts::split("transform", text, &FORMS)?;
        let transform = match name {
            "identity" => Transform::Identity,
            "log" => Transform::Log,
            "exp" => Transform::Exp(exponent(&mut parts)?),
            "table" => {
                return table(text).ok_or_else(|| parts.error("its FILE is missing".to_owned()))?;
            }
            _ => return Err(parts.error("its β is missing".to_owned())),
        };
        parts.finish()?;
        Ok(transform)
    }
}

fn exponent(parts: &mut Parts) -> Result<Exponent, TransformError> {
    let text = parts.value("the exponent t")?;
    let valid = |t: f64| Exponent::new(t).is_ok();
    parts.number("t", text, "a number other than 0 between -500 and 500", valid).map(Exponent)
}

/// Reads `table:FILE`, whose file may have any name; `None` without one.
fn table(text: &str) -> Option<Result<Transform, TransformError>> {
    let file = text.strip_prefix("table:").filter(|file| !file.is_empty())?;
    Some(Table::read(file).map(|table| Transform::Table(Arc::new(table))))
}

impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Transform::Identity => write!(f, "identity"),
            Transform::Log => write!(f, "log"),
            Transform::Exp(Exponent(t)) => write!(f, "exp:{t}"),
            Transform::Optimal { procedure, optimum } => {
                write!(f, "optimal:{procedure}{BETA}{}", optimum.beta.get())
            }
            Transform::Table(table) => match table.file() {
                Some(file) => write!(f, "table:{file}"),
                None => write!(f, "table"),
            },
            Transform::Function(_) => write!(f, "function"),
        }
    }
}

serde_as_text!(Transform);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exp(t: f64) -> Transform {
        Transform::Exp(Exponent::new(t).unwrap())
    }

    fn any_transform() -> impl Strategy<Value = Transform> {
        let exponent = (1e-12..=GREATEST_EXPONENT, any::<bool>());
        prop_oneof![
            Just(Transform::Identity),
            Just(Transform::Log),
            exponent.prop_map(|(t, up)| exp(if up { t } else { -t })),
            (1usize..100, -8.0..8.0f64, any::<bool>()).prop_map(|(n, log_beta, best)| {
                let name = if best { "best-of" } else { "worst-of" };
                format!("optimal:{name}:{n},beta={}", log_beta.exp()).parse().unwrap()
            }),
        ]
    }

    proptest! {
        #[test]
        fn text_and_serde_round_trip(transform in any_transform()) {
            prop_assert_eq!(&transform.to_string().parse::<Transform>().unwrap(), &transform);
            let json = serde_json::to_string(&transform).unwrap();
            prop_assert_eq!(serde_json::from_str::<Transform>(&json).unwrap(), transform);
        }

        #[test]
        fn increases_and_stays_on_its_scale(transform in any_transform(), u in 0.0..1.0, w in 0.0..1.0) {
            let (low, high) = if u < w { (u, w) } else { (w, u) };
            prop_assert!(transform.apply(low) <= transform.apply(high));
            if transform != Transform::Log {
                prop_assert!((0.0..=1.0).contains(&transform.apply(u)));
            }
        }

        #[test]
        fn raw_is_an_affine_map_of_apply(t in -200.0..200.0, u in 0.0..1.0) {
            prop_assume!(t != 0.0);
            let transform = exp(t);
            let (raw, affine) = (transform.raw(u), t.signum() + transform.scale() * transform.apply(u));
            prop_assert!((raw - affine).abs() <= 1e-12 * transform.scale().max(1.0));
        }

        #[test]
        fn shortfall_is_the_distance_from_the_top(transform in any_transform(), v in 0.0..0.999) {
            let direct = transform.scale() * (transform.apply(1.0) - transform.apply(1.0 - v));
            let size = transform.scale() * transform.apply(1.0 - v).abs().max(1.0);
            prop_assert!((transform.shortfall(v) - direct).abs() <= 1e-12 * size);
        }
    }

    #[test]
    fn falls_have_their_digits_far_from_the_top() {
        // exp:200 at u = 0.25: e^50 − e^25, beside a top of e^200.
        let expected = 50f64.exp() - 25f64.exp();
        assert!((exp(200.0).fall(0.75, 0.125, 0.125) / expected - 1.0).abs() < 1e-13);
        let expected = (-25f64).exp() - (-50f64).exp();
        assert!((exp(-200.0).fall(0.75, 0.125, 0.125) / expected - 1.0).abs() < 1e-13);
        for text in ["identity", "log", "exp:3", "exp:-3", "optimal:best-of:4,beta=0.2"] {
            let transform: Transform = text.parse().unwrap();
            let direct = transform.shortfall(0.6) - transform.shortfall(0.5);
            assert!((transform.fall(0.5, 0.1, 0.4) / direct - 1.0).abs() < 1e-12, "{text}");
        }
        // From ½ to a u that 1 − v knows nothing of.
        let expected = 0.5f64.ln() - 1e-30f64.ln();
        assert!((Transform::Log.fall(0.5, 0.5, 1e-30) / expected - 1.0).abs() < 1e-15);
    }

    #[test]
    fn known_values() {
        assert_eq!(exp(2.0).raw(0.5), 1f64.exp());
        assert_eq!(exp(-2.0).raw(0.5), -(-1f64).exp());
        assert_eq!(exp(-3.0).apply(1.0), 1.0);
        assert!((exp(1e-9).apply(0.25) - 0.25).abs() < 1e-9);
        assert!((exp(200.0).apply(0.5) / (-100f64).exp() - 1.0).abs() < 1e-12);
        assert_eq!(Transform::Log.apply(0.0), f64::NEG_INFINITY);
    }

    #[test]
    fn what_has_no_text_is_not_stored() {
        let table = Transform::Table(Table::new(&[0.0, 1.0], &[0.0, 1.0]).unwrap().into());
        let function = Transform::Function(Function::new(|u| u * u).unwrap());
        for (transform, shown) in [(table, "`table`"), (function, "`function`")] {
            let error = serde_json::to_string(&transform).unwrap_err().to_string();
            assert!(error.starts_with(shown) && error.contains("`table:FILE`"), "{error}");
        }
    }

    #[test]
    fn refuses_exponents_without_a_shape() {
        for text in ["exp:0", "exp:NaN", "exp:inf", "exp:501", "exp:", "exp"] {
            assert!(text.parse::<Transform>().is_err(), "{text}");
        }
        assert_eq!(
            "expp:3".parse::<Transform>().unwrap_err().to_string(),
            "`expp:3` is not a transform: `expp` is not a known name; the nearest valid form is `exp:t`"
        );
    }
}
