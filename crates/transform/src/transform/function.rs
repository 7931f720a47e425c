//! A transform given by any function of the calibrated reward.

use std::fmt;
use std::sync::Arc;

use crate::error::TransformError;

/// Points at which a function is looked at before it is accepted.
const CHECKS: u32 = 1024;

/// An increasing function of the calibrated reward, for programs: it has no text form.
///
/// Near u = 1 it has the digits of u only: its policies are exact to 1e-10 up to a KL of about 10 nats.
///
/// ```
/// use infalign_transform::{Function, Tilt, Transform, beta_for_kl};
/// let square = Transform::Function(Function::new(|u| u * u)?);
/// let tilt = Tilt::new(&square, beta_for_kl(&square, 0.5)?)?;
/// assert!((tilt.kl() - 0.5).abs() < 1e-10);
/// # Ok::<(), infalign_transform::TransformError>(())
/// ```
#[derive(Clone)]
pub struct Function(Arc<dyn Fn(f64) -> f64 + Send + Sync>);

impl Function {
    /// Φ as a function of u in [0, 1]: finite, never falling, Φ(0) < Φ(1).
    ///
    /// # Errors
    /// [`TransformError::Table`] names a point at which this fails, of 1025 that are tried.
    pub fn new(phi: impl Fn(f64) -> f64 + Send + Sync + 'static) -> Result<Self, TransformError> {
        let refuse = |u: f64, reason: String| {
            Err(TransformError::Table { place: format!("the function at u = {u}"), reason })
        };
        let mut before = f64::NEG_INFINITY;
        for u in (0..=CHECKS).map(|k| f64::from(k) / f64::from(CHECKS)) {
            let value = phi(u);
            if !value.is_finite() {
                return refuse(u, format!("Φ is {value}; it has to be finite"));
            }
            if value < before {
                return refuse(u, format!("Φ falls from {before} to {value}; it may never fall"));
            }
            before = value;
        }
        if before <= phi(0.0) {
            return refuse(1.0, format!("Φ is {before} everywhere, so that it prefers nothing"));
        }
        Ok(Function(Arc::new(phi)))
    }

    pub(super) fn at(&self, u: f64) -> f64 {
        (self.0)(u)
    }

    /// Distances from the top, even and then ever finer, between which Φ is taken to be smooth.
    pub(super) fn knots(&self) -> Vec<f64> {
        let fine = (5..50).rev().map(|k| 0.5f64.powi(k));
        std::iter::once(0.0).chain(fine).chain((1..=16).map(|k| f64::from(k) / 16.0)).collect()
    }
}

/// Two are equal when they are the same function of the program.
impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Function")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Beta, Tilt, Transform};

    #[test]
    fn a_function_is_the_transform_that_it_writes_down() {
        let function = Transform::Function(Function::new(|u| (3.0 * u).exp()).unwrap());
        let known: Transform = "exp:3".parse().unwrap();
        for beta in [0.2, 1.0, 30.0] {
            let beta = Beta::new(beta).unwrap();
            let (a, b) = (Tilt::new(&function, beta).unwrap(), Tilt::new(&known, beta).unwrap());
            assert!((a.kl() / b.kl() - 1.0).abs() < 1e-10, "{} {}", a.kl(), b.kl());
            let procedure = "worst-of:10000".parse().unwrap();
            let wins = [a, b].map(|tilt| tilt.win_rate(&procedure).unwrap());
            assert!((wins[0] - wins[1]).abs() < 1e-12);
        }
        assert!((function.apply(0.4) - known.apply(0.4)).abs() < 1e-15);
    }

    #[test]
    fn what_does_not_increase_is_refused() {
        for (phi, reason) in [
            (Box::new(|u: f64| -u) as Box<dyn Fn(f64) -> f64 + Send + Sync>, "falls from"),
            (Box::new(|u: f64| u.ln()), "is -inf; it has to be finite"),
            (Box::new(|_| 2.0), "2 everywhere"),
        ] {
            let error = Function::new(phi).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
