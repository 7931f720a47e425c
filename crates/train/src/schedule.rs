//! The learning rate over a run.

/// Linear warm-up over `warmup` steps, then linear decay that would arrive at `floor` times the peak one step after the last of `steps`: at the
/// last the factor is floor + (1 − floor)/(steps − warmup).
///
/// - step: from 0.
/// - Returns the factor of the peak learning rate, in (0, 1].
pub(crate) fn linear(step: usize, steps: usize, warmup: usize, floor: f64) -> f64 {
    if step < warmup {
        return (step + 1) as f64 / (warmup + 1) as f64;
    }
    let left = (steps - step) as f64 / (steps - warmup).max(1) as f64;
    floor + (1.0 - floor) * left
}

#[cfg(test)]
mod tests {
    use super::linear;

    #[test]
    fn it_rises_to_the_peak_and_falls_to_the_floor() {
        let factors: Vec<f64> = (0..10).map(|step| linear(step, 10, 4, 0.2)).collect();
        assert_eq!(factors[..5], [0.2, 0.4, 0.6, 0.8, 1.0]);
        assert!(factors[4..].windows(2).all(|w| w[0] > w[1]));
        assert!((factors[9] - (0.2 + 0.8 / 6.0)).abs() < 1e-12, "{}", factors[9]);
        assert_eq!(linear(0, 1, 0, 0.0), 1.0);
    }
}
