//! Tests of differences between two methods on the same prompts: of a difference, of equivalence, and of many at once.

use crate::cluster::{mean_and_standard_error, t_cdf};
use crate::error::StatsError;

/// What rounding leaves of the difference of equal rates: less is no difference, and no spread.
pub(crate) const ROUNDING: f64 = 1e-12;

/// Two-sided p-value of Student's test that the mean over prompts is `expected`.
///
/// - `per_cluster`: one number a prompt, n ≥ 2, such as paired differences.
///
/// Where the numbers do not vary by more than 1e-12, nothing is known of their spread. It is 1 then if they are what is expected, and if not that
/// of the sign test, 2·2⁻ⁿ: all n of them are on one side.
///
/// # Errors
/// As for [`mean_and_standard_error`].
///
/// ```
/// let differences = [0.1, 0.3, 0.2, 0.25, 0.15];
/// assert!(infalign_stats::t_test(&differences, 0.0)? < 0.01);
/// assert!(infalign_stats::t_test(&differences, 0.2)? > 0.99);
/// # Ok::<(), infalign_stats::StatsError>(())
/// ```
pub fn t_test(per_cluster: &[f64], expected: f64) -> Result<f64, StatsError> {
    let (above, below) = tails(per_cluster, expected)?;
    Ok((2.0 * above.min(below)).min(1.0))
}

/// p-value of the two one-sided tests (TOST; Schuirmann 1987) that the mean over prompts lies within ±`margin`: small where it does.
///
/// It is below α if and only if the interval of level 1 − 2α lies within the margin; but where the numbers do not vary by more than 1e-12, it
/// is 2⁻ⁿ if they lie within, as all n are on one side of either edge, and 1 if not.
///
/// - `margin`: the greatest difference that does not matter, above 0, declared before looking.
///
/// # Errors
/// [`StatsError::Margin`], and as for [`mean_and_standard_error`].
pub fn equivalence_test(per_cluster: &[f64], margin: f64) -> Result<f64, StatsError> {
    if !(margin > 0.0 && margin.is_finite()) {
        return Err(StatsError::Margin(margin));
    }
    let above_low = tails(per_cluster, -margin)?.0;
    let below_high = tails(per_cluster, margin)?.1;
    Ok(above_low.max(below_high))
}

/// p-values of the two one-sided alternatives: that the mean is above `expected`, and that it is below.
fn tails(per_cluster: &[f64], expected: f64) -> Result<(f64, f64), StatsError> {
    let (mean, standard_error) = mean_and_standard_error(per_cluster)?;
    let distance = if (mean - expected).abs() <= ROUNDING { 0.0 } else { mean - expected };
    if standard_error <= ROUNDING {
        let same_side = 0.5_f64.powi(per_cluster.len().min(1100) as i32);
        let tail = |extreme: bool| if extreme { same_side } else { 1.0 };
        return Ok((tail(distance > 0.0), tail(distance < 0.0)));
    }
    let (t, freedom) = (distance / standard_error, per_cluster.len() - 1);
    // Each tail from its own side, so that small ones keep their digits.
    Ok((t_cdf(-t, freedom), t_cdf(t, freedom)))
}

/// Adjusts p-values for how many there are (Holm 1979), in their order: of those below α, the chance that any is of no difference is at
/// most α, whatever they have to do with one another. One that is NaN counts, and stays NaN.
///
/// Equation: p̃₍ᵢ₎ = max over j ≤ i of min(1, (m − j + 1)·p₍ⱼ₎), p₍₁₎ ≤ … ≤ p₍m₎.
///
/// ```
/// assert_eq!(infalign_stats::holm(&[0.01, 0.04, 0.03]), [0.03, 0.06, 0.06]);
/// ```
#[must_use]
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut greatest = 0.0_f64;
    for (rank, index) in order.into_iter().enumerate() {
        let p = p_values[index];
        greatest = greatest.max((p_values.len() - rank) as f64 * p).min(1.0);
        adjusted[index] = if p.is_nan() { p } else { greatest };
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mean_interval;
    use crate::testing::SplitMix;

    fn normals(random: &mut SplitMix, n: usize, mean: f64) -> Vec<f64> {
        (0..n).map(|_| mean + random.normal()).collect()
    }

    #[test]
    fn p_values_are_those_of_the_closed_forms() {
        // Two degrees of freedom: P(T > t) = ½ − t/(2√(2 + t²)); here t = 2/(1/√3).
        let t = 2.0 * 3f64.sqrt();
        let tail = 0.5 - t / (2.0 * (2.0 + t * t).sqrt());
        assert!((t_test(&[1.0, 2.0, 3.0], 0.0).unwrap() - 2.0 * tail).abs() < 1e-10);
        // All on one side, by as much: what the signs alone say.
        assert_eq!((t_test(&[2.0; 4], 2.0), t_test(&[2.0; 4], 1.0)), (Ok(1.0), Ok(0.125)));
        assert_eq!(equivalence_test(&[0.0; 4], 0.1), Ok(0.0625));
        assert_eq!(t_test(&[-1e-16; 4], 0.0), Ok(1.0), "rounding is no difference");
        assert_eq!(t_test(&[1e-16, 0.0, 1e-16, 0.0], 0.0), Ok(1.0));
        // Four degrees: P(|T| > t) = 1 − ½·s·(3 − s²) with s = t/√(t² + 4).
        let x = [1.0, 2.0, 3.0, 5.0, 8.0];
        let (mean, error) = mean_and_standard_error(&x).unwrap();
        let t = (mean - 1.0) / error;
        let s = t / (t * t + 4.0).sqrt();
        let p = 1.0 - 0.5 * s * (3.0 - s * s);
        assert!((t_test(&x, 1.0).unwrap() - p).abs() < 1e-10);
    }

    #[test]
    fn a_p_value_that_is_no_number_stays_none() {
        let adjusted = holm(&[0.01, f64::NAN]);
        assert_eq!(adjusted[0], 0.02);
        assert!(adjusted[1].is_nan());
    }

    #[test]
    fn a_test_is_its_interval() {
        let mut random = SplitMix(19);
        for _ in 0..200 {
            let x = normals(&mut random, 12, 0.4);
            let interval = mean_interval(&x, 0.95).unwrap();
            let outside = interval.low > 0.0 || interval.high < 0.0;
            assert_eq!(outside, t_test(&x, 0.0).unwrap() < 0.05);
            let narrow = mean_interval(&x, 0.9).unwrap();
            let within = narrow.low > -0.8 && narrow.high < 0.8;
            assert_eq!(within, equivalence_test(&x, 0.8).unwrap() < 0.05);
        }
    }

    #[test]
    fn errors_are_as_rare_as_promised() {
        let mut random = SplitMix(20);
        let share = |mut wrong: Box<dyn FnMut() -> bool + '_>| {
            (0..2_000).filter(|_| wrong()).count() as f64 / 2_000.0
        };
        // At the edge of the margin, and of ten methods without a difference.
        let edge = share(Box::new(|| {
            equivalence_test(&normals(&mut random, 40, 0.5), 0.5).unwrap() < 0.05
        }));
        assert!((0.03..0.07).contains(&edge), "{edge}");
        let mut random = SplitMix(21);
        let any = share(Box::new(|| {
            let test = |_| t_test(&normals(&mut random, 30, 0.0), 0.0).unwrap();
            let p: Vec<f64> = (0..10).map(test).collect();
            holm(&p).iter().any(|p| *p < 0.05)
        }));
        assert!((0.03..0.065).contains(&any), "{any}");
    }

    #[test]
    fn holm_keeps_the_order_and_ends_at_one() {
        assert_eq!(holm(&[0.5, 0.9, 0.001]), [1.0, 1.0, 0.003]);
        assert!(holm(&[]).is_empty());
        assert_eq!(holm(&[0.2]), [0.2]);
    }

    #[test]
    fn equal_p_values_are_adjusted_alike() {
        // Of two eighths the first counts three times, and the second no less.
        assert_eq!(holm(&[0.5, 0.125, 0.125]), [0.5, 0.375, 0.375]);
        // Once would be less than what came before it.
        assert_eq!(holm(&[0.25, 0.125, 0.125]), [0.375; 3]);
        assert_eq!(holm(&[0.0, 0.0, 1.0]), [0.0, 0.0, 1.0]);
    }

    #[test]
    fn at_the_edge_of_the_margin_nothing_is_equivalent() {
        // Without a spread: at the edge or beyond it 1, whatever their number.
        for all in [0.5, -0.5, 0.75] {
            assert_eq!(equivalence_test(&[all; 8], 0.5), Ok(1.0), "{all}");
        }
        assert_eq!(equivalence_test(&[0.25; 8], 0.5), Ok(1.0 / 256.0));
        // With one: half of what varies about an edge lies beyond it.
        let p_value = equivalence_test(&[0.25, 0.5, 0.75], 0.5).unwrap();
        assert!((p_value - 0.5).abs() < 1e-10, "{p_value}");
    }

    #[test]
    fn a_margin_is_above_nothing() {
        for margin in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(equivalence_test(&[1.0, 2.0], margin), Err(StatsError::Margin(_))));
        }
    }
}
