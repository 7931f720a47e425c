//! Which settings are numbers to a device, which computes in 32 bits.

/// What [`is_positive`] takes, in words.
pub const POSITIVE: &str = "finite and above 0, as a number of 32 bits: 1.2e-38 to 3.4e38";
/// What [`is_not_negative`] takes, in words.
pub const NOT_NEGATIVE: &str =
    "finite and at least 0, as a number of 32 bits: 0, or 1.2e-38 to 3.4e38";

/// What [`is_limit`] takes, in words.
pub const LIMIT: &str = "finite and at least 1.2e-38, the least number of 32 bits";

/// Whether a number is finite and above 0 in f32. Of those that are too small, some devices take all for 0, and the rest lose their digits.
pub fn is_positive(value: f64) -> bool {
    value > 0.0 && (value as f32).is_normal()
}

/// The same of what is only compared with such numbers: it may be greater than all of them.
pub fn is_limit(value: f64) -> bool {
    value.is_finite() && is_positive(value.min(1.0))
}

/// As [`is_positive`], or 0.
pub fn is_not_negative(value: f64) -> bool {
    value == 0.0 || is_positive(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_32_bits_have_not_are_none() {
        for fine in [1.2e-38, 1e-30, 1.0, 3.4e38] {
            assert!(is_positive(fine) && is_not_negative(fine), "{fine:e}");
        }
        for bad in [-1.0, 1e-300, 1e-50, 1e-40, 3.5e38, 1e300, f64::INFINITY, f64::NAN] {
            assert!(!is_positive(bad) && !is_not_negative(bad), "{bad:e}");
        }
        assert!(!is_positive(0.0) && is_not_negative(0.0));
        assert!([1e-30, 1.0, 1e300].into_iter().all(is_limit));
        assert!(![0.0, -1.0, 1e-40, f64::INFINITY, f64::NAN].into_iter().any(is_limit));
    }
}
