//! The mid-rank of one value in a sorted sample: the empirical calibrated reward of one response.

/// Share of `sorted` below `value`, ties counted half.
///
/// Equation: Ĉ = (#{s < value} + ½·#{s = value}) / K, the empirical form of the calibrated reward
/// C_{r,π_ref} of InfAlign (arXiv 2412.19792, calibrated reward).
///
/// - `sorted`: K samples (`f32` or `f64`) in ascending order, without NaN; the order is the caller's to
///   keep.
/// - `value`: any number on the same scale.
///
/// Returns a number in [0, 1]; NaN when `sorted` is empty or `value` is NaN. Costs O(log K).
///
/// # Panics
/// With debug assertions, for samples that do not ascend or are NaN; without them such samples give a rank without meaning.
///
/// ```
/// use infalign_stats::mid_rank;
/// assert_eq!(mid_rank(&[1.0, 2.0, 2.0, 3.0], 2.0), 0.5);
/// assert_eq!(mid_rank(&[1.0, 2.0, 2.0, 3.0], 2.5), 0.75);
/// ```
pub fn mid_rank<T: PartialOrd + Copy>(sorted: &[T], value: T) -> f64 {
    debug_assert!(sorted.is_sorted(), "mid_rank needs ascending samples");
    let is_nan = value.partial_cmp(&value).is_none();
    if is_nan {
        return f64::NAN;
    }
    let below = sorted.partition_point(|&sample| sample < value);
    let ties = sorted[below..].partition_point(|&sample| sample == value);
    (below as f64 + 0.5 * ties as f64) / sorted.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::SplitMix;

    #[test]
    fn equals_the_definition_on_tied_samples() {
        let mut random = SplitMix(3);
        for _ in 0..200 {
            let mut sample: Vec<f64> = (0..9).map(|_| (random.uniform() * 5.0).floor()).collect();
            sample.sort_by(f64::total_cmp);
            let value = (random.uniform() * 7.0).floor() - 1.0;
            let below = sample.iter().filter(|&&s| s < value).count() as f64;
            let ties = sample.iter().filter(|&&s| s == value).count() as f64;
            assert_eq!(mid_rank(&sample, value), (below + 0.5 * ties) / 9.0);
        }
    }

    #[test]
    fn signed_zeros_are_ties() {
        assert_eq!(mid_rank(&[-0.0, 0.0], 0.0), 0.5);
        assert_eq!(mid_rank(&[-0.0, 0.0], -0.0), 0.5);
    }

    #[test]
    fn says_nothing_without_a_sample_or_a_value() {
        assert!(mid_rank(&[], 1.0f64).is_nan());
        assert!(mid_rank(&[1.0], f64::NAN).is_nan());
    }
}
