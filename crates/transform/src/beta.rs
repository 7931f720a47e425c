//! The coefficient of the KL penalty.

use crate::error::TransformError;

/// KL coefficient β of `E[Φ] − β·KL(π‖π_ref)`: positive, finite, in units of Φ per nat.
///
/// β belongs to one scale of Φ. Everywhere in this crate that scale is the raw one of the papers
/// ([`Transform::raw`](crate::Transform::raw)); a trainer that uses
/// [`Transform::apply`](crate::Transform::apply) divides β by
/// [`Transform::scale`](crate::Transform::scale).
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Beta(f64);

impl Beta {
    /// Wraps `value`, positive and finite.
    ///
    /// # Errors
    /// [`TransformError::Beta`] for zero, a negative number, an infinity or NaN.
    pub fn new(value: f64) -> Result<Self, TransformError> {
        if value > 0.0 && value.is_finite() {
            Ok(Self(value))
        } else {
            Err(TransformError::Beta(value))
        }
    }

    /// e^`log_beta`, for logarithms whose exponential is positive and finite.
    pub(crate) fn of_log(log_beta: f64) -> Self {
        Self(log_beta.exp())
    }

    /// The coefficient as a plain number.
    pub fn get(self) -> f64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_positive_finite_numbers_pass() {
        for value in [0.0, -1.0, f64::INFINITY, f64::NAN] {
            assert!(Beta::new(value).is_err(), "{value}");
        }
        assert_eq!(Beta::new(1e-300).unwrap().get(), 1e-300);
    }
}
