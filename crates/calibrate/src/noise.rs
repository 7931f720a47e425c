//! What a finite number of reference rewards does to a transform of the calibrated reward.
//!
//! Where no two rewards tie, K·Ĉ of a response with calibrated reward u is binomial with K trials and probability u. So the trained reward
//! Φ(Ĉ) has the mean Φ_K(u) = Σ_k Bin(k; K, u)·Φ((k + ½)/(K + 1)), smoothing included: the policy is trained for Φ_K, not for Φ.

/// Φ_K(u), the mean of the transformed reward that a table of `samples` rewards gives to responses of calibrated reward u.
///
/// - `phi`: Φ, of arguments in (0, 1); `u`: in [0, 1].
///
/// ```
/// use infalign_calibrate::noisy_transform;
/// // The identity stays one but for the smoothing: (K·u + ½)/(K + 1).
/// assert!((noisy_transform(|u| u, 4, 0.25) - 0.3).abs() < 1e-15);
/// // A convex Φ gains, here e^{tu} by about t²·u(1 − u)/2K.
/// let phi = |u: f64| (10.0 * u).exp();
/// assert!(noisy_transform(phi, 100, 0.5) > 1.1 * phi(0.5));
/// ```
pub fn noisy_transform(phi: impl Fn(f64) -> f64, samples: usize, u: f64) -> f64 {
    let k = samples as f64;
    let smoothed = |count: usize| phi((count as f64 + 0.5) / (k + 1.0));
    if u <= 0.0 {
        return smoothed(0);
    }
    if u >= 1.0 {
        return smoothed(samples);
    }
    // From the most probable count outwards, each probability from its neighbour's: nothing over- or underflows before it is negligible.
    let mode = ((k + 1.0) * u).floor().min(k) as usize;
    let odds = u / (1.0 - u);
    let up = (mode..samples).scan(1.0, |weight, count| {
        *weight *= odds * (k - count as f64) / (count as f64 + 1.0);
        Some((count + 1, *weight))
    });
    let down = (1..=mode).rev().scan(1.0, |weight, count| {
        *weight *= count as f64 / ((k - count as f64 + 1.0) * odds);
        Some((count - 1, *weight))
    });
    let (mut total, mut mean) = (1.0, smoothed(mode));
    for (count, weight) in up.take_while(counts).chain(down.take_while(counts)) {
        total += weight;
        mean += weight * smoothed(count);
    }
    mean / total
}

/// Whether a weight relative to the greatest still counts.
fn counts((_, weight): &(usize, f64)) -> bool {
    *weight > 1e-20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_binomial_sum() {
        for (k, u) in [(1_usize, 0.3), (8, 0.9), (33, 0.02), (64, 0.5)] {
            let phi = |u: f64| u.ln();
            let mut coefficient = 1.0;
            let mut sum = 0.0;
            for count in 0..=k {
                let probability = coefficient
                    * f64::powi(u, count as i32)
                    * f64::powi(1.0 - u, (k - count) as i32);
                sum += probability * phi((count as f64 + 0.5) / (k as f64 + 1.0));
                coefficient *= (k - count) as f64 / (count + 1) as f64;
            }
            assert!((noisy_transform(phi, k, u) - sum).abs() < 1e-12, "{k} {u}");
        }
    }

    #[test]
    fn is_the_transform_in_the_limit_and_increasing() {
        let phi = |u: f64| (10.0 * u).exp();
        assert!((noisy_transform(phi, 1_000_000, 0.7) / phi(0.7) - 1.0).abs() < 1e-4);
        let values: Vec<f64> =
            (0..=100).map(|i| noisy_transform(phi, 16, f64::from(i) / 100.0)).collect();
        assert!(values.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
