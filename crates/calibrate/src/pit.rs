//! Whether fresh reference responses are uniform under a table, as calibrated rewards have to be.
//!
//! Of a fresh reward among K reference rewards of the same law, every rank from 0 to K is equally probable, ties broken at random. With V
//! uniform, (rank + V)/(K + 1) is therefore exactly uniform on [0, 1], atoms or not: the probability integral transform (PIT). Fresh
//! responses to one prompt share its K rewards, so they are not independent, and the usual tables for Kolmogorov's distance do not hold.
//! But their joint law is that of uniform rewards, whatever the reward is: here it is simulated, which makes the p-value exact. No reward is
//! drawn for it: over all K rewards that a table may have, ranks come one after another as from Pólya's urn of K + 1 colours.

use serde::Serialize;

use crate::{CalibrateError, Row};

/// Bins of the histogram.
const BINS: usize = 20;

/// The transformed fresh rewards of one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// K, the reference rewards of the prompt.
    samples: usize,
    /// In [0, 1].
    values: Vec<f64>,
}

/// How far fresh responses are from uniform.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Uniformity {
    /// Fresh responses.
    pub responses: usize,
    /// Kolmogorov's distance from the uniform distribution, in [0, 1].
    pub distance: f64,
    /// Probability of such a distance or a greater one, were the table made of the same law.
    pub p_value: f64,
    /// The histogram, from u = 0 to 1.
    pub bins: Vec<Bin>,
}

/// A bin of the histogram, as a share of what a uniform distribution puts there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bin {
    /// Observed.
    pub density: f64,
    /// Where 95 of 100 exact tables lie: lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Group {
    /// Transforms the fresh rewards of one prompt.
    ///
    /// - `uniform`: independent draws from [0, 1), which break ties.
    ///
    /// # Errors
    /// [`CalibrateError::NotFinite`] for a reward without a rank, [`CalibrateError::Compressed`] for a row of quantiles.
    pub fn new(
        row: &Row,
        fresh: &[f32],
        uniform: &mut impl FnMut() -> f64,
    ) -> Result<Self, CalibrateError> {
        crate::table::check_rewards(row.id(), fresh, 0)?;
        let rewards = row.rewards().ok_or(CalibrateError::Compressed)?;
        // One key a reference reward, for all fresh ones: as if rewards differed in digits that are not seen.
        let mut keyed = |reward: f32| (unsigned_zero(reward), uniform());
        let mut reference: Vec<(f32, f64)> = rewards.iter().map(|&r| keyed(r)).collect();
        let order = |a: &(f32, f64), b: &(f32, f64)| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1));
        reference.sort_by(order);
        let places = row.samples() as f64 + 1.0;
        let value = |&reward: &f32| {
            let fresh = (unsigned_zero(reward), uniform());
            let rank = reference.partition_point(|one| order(one, &fresh).is_lt());
            (rank as f64 + uniform()) / places
        };
        Ok(Self { samples: row.samples(), values: fresh.iter().map(value).collect() })
    }

    /// The ranks, in the order of the fresh rewards: uniform on [0, 1] where these are of the row's law.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// What a table of the same law could have given in its place.
    fn simulated(&self, uniform: &mut impl FnMut() -> f64) -> Vec<f64> {
        let places = self.samples + 1;
        let mut ranks: Vec<usize> = Vec::with_capacity(self.values.len());
        for drawn in 0..self.values.len() {
            // The urn holds one ball of every rank, and one more of each rank that was drawn.
            let ball = (uniform() * (places + drawn) as f64) as usize;
            let again = ball.checked_sub(places).and_then(|earlier| ranks.get(earlier).copied());
            ranks.push(again.unwrap_or(ball));
        }
        ranks.into_iter().map(|rank| (rank as f64 + uniform()) / places as f64).collect()
    }
}

/// Zeros of either sign are the same reward.
fn unsigned_zero(reward: f32) -> f32 {
    if reward == 0.0 { 0.0 } else { reward }
}

/// Compares fresh responses to all prompts with what exact tables would give, `replicates` times.
///
/// - `replicates`: 1 or more. The p-value is a multiple of 1/(replicates + 1), and not below it; the bands of bins want some hundreds, such as 999.
/// - `uniform`: independent draws from [0, 1).
///
/// # Errors
/// [`CalibrateError::Nothing`] where there are no fresh responses, or no replicates.
pub fn uniformity(
    groups: &[Group],
    replicates: usize,
    uniform: &mut impl FnMut() -> f64,
) -> Result<Uniformity, CalibrateError> {
    let observed: Vec<f64> = groups.iter().flat_map(|group| group.values.iter().copied()).collect();
    if observed.is_empty() {
        return Err(CalibrateError::Nothing("fresh responses"));
    }
    if replicates == 0 {
        return Err(CalibrateError::Nothing("replicates"));
    }
    let shares = densities(&observed);
    let distance = kolmogorov(observed.clone());
    let mut farther = 0;
    let mut simulated: Vec<Vec<f64>> = vec![Vec::new(); BINS];
    for _ in 0..replicates {
        let values: Vec<f64> = groups.iter().flat_map(|group| group.simulated(uniform)).collect();
        densities(&values).into_iter().zip(&mut simulated).for_each(|(share, bin)| bin.push(share));
        farther += usize::from(kolmogorov(values) >= distance);
    }
    let bins = shares.into_iter().zip(simulated).map(|(density, mut simulated)| {
        simulated.sort_by(f64::total_cmp);
        let at = |level: f64| simulated[(level * simulated.len() as f64) as usize];
        Bin { density, low: at(0.025), high: at(0.975) }
    });
    let p_value = (farther + 1) as f64 / (replicates + 1) as f64;
    Ok(Uniformity { responses: observed.len(), distance, p_value, bins: bins.collect() })
}

/// The density of each bin relative to the uniform one.
fn densities(values: &[f64]) -> Vec<f64> {
    let mut bins = vec![0.0; BINS];
    for value in values {
        bins[((value * BINS as f64) as usize).min(BINS - 1)] += BINS as f64 / values.len() as f64;
    }
    bins
}

/// sup |F − u| of the empirical distribution function F.
fn kolmogorov(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let count = values.len() as f64;
    let gap = |(i, u): (usize, &f64)| (u - i as f64 / count).max((i + 1) as f64 / count - u);
    values.iter().enumerate().map(gap).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Calibration, CalibrationMeta};

    /// Numbers in [0, 1) from a splitmix generator.
    fn uniform(state: &mut u64) -> f64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// p-value of a table of 30 prompts with 100 rewards, against 20 fresh ones of each.
    fn p_value(
        state: &mut u64,
        reference: impl Fn(f64) -> f32,
        fresh: impl Fn(f64) -> f32,
        replicates: usize,
    ) -> f64 {
        let groups: Vec<Group> = (0..30)
            .map(|_| {
                let mut table = Calibration::new(CalibrationMeta::default());
                let rewards = (0..100).map(|_| reference(uniform(state))).collect();
                table.insert("x", "x", rewards).unwrap();
                let fresh: Vec<f32> = (0..20).map(|_| fresh(uniform(state))).collect();
                Group::new(table.row("x").unwrap(), &fresh, &mut || uniform(state)).unwrap()
            })
            .collect();
        uniformity(&groups, replicates, &mut || uniform(state)).unwrap().p_value
    }

    #[test]
    fn exact_tables_pass_at_their_level_with_ties_and_without() {
        let mut state = 1;
        let atoms = |u: f64| (u * u * 5.0).floor() as f32;
        for law in [&(|u: f64| (3.0 * u).exp() as f32) as &dyn Fn(f64) -> f32, &atoms] {
            let refused = (0..400).filter(|_| p_value(&mut state, law, law, 39) <= 0.05).count();
            // Binomial with 400 trials and probability 1/20: 20 ± 4.4.
            assert!((7..=35).contains(&refused), "{refused} of 400 at the 5 % level");
        }
    }

    #[test]
    fn a_table_of_another_law_is_found_out() {
        let mut state = 2;
        let p = p_value(&mut state, |u| u as f32, |u| u.powf(0.7) as f32, 199);
        assert!(p < 0.02, "{p}");
    }

    /// The digits of a number, each below its base.
    fn digits(mut code: usize, bases: impl Iterator<Item = usize>) -> Vec<usize> {
        let digit = |base: usize| {
            let digit = code % base;
            code /= base;
            digit
        };
        bases.map(digit).collect()
    }

    /// How often there is each of these.
    fn counted(all: impl Iterator<Item = Vec<usize>>) -> BTreeMap<Vec<usize>, usize> {
        let mut counts = BTreeMap::new();
        all.for_each(|one| *counts.entry(one).or_insert(0) += 1);
        counts
    }

    /// The ranks of the fresh among `samples` others in every order of all, each coming anywhere between those before it.
    fn ranks_in_every_order(samples: usize, fresh: usize) -> BTreeMap<Vec<usize>, usize> {
        let all = samples + fresh;
        counted((0..(1..=all).product::<usize>()).map(|code| {
            let mut order = Vec::new();
            for (one, place) in digits(code, 1..=all).into_iter().enumerate() {
                order.insert(place, one);
            }
            let before = |one: usize| order.iter().take_while(move |&&other| other != one);
            let rank = |one| before(one).filter(|&&other| other < samples).count();
            (samples..all).map(rank).collect()
        }))
    }

    /// The ranks that are simulated from every draw of balls.
    fn ranks_of_every_draw(samples: usize, fresh: usize) -> BTreeMap<Vec<usize>, usize> {
        let group = Group { samples, values: vec![0.0; fresh] };
        let balls = samples + 1..=samples + fresh;
        counted((0..balls.clone().product::<usize>()).map(|code| {
            let drawn = digits(code, balls.clone()).into_iter().zip(balls.clone());
            let mut draws = drawn.map(|(ball, of)| (ball as f64 + 0.5) / of as f64);
            let values = group.simulated(&mut || draws.next().unwrap_or(0.5));
            values.into_iter().map(|value| (value * (samples + 1) as f64) as usize).collect()
        }))
    }

    #[test]
    fn simulated_ranks_have_the_law_of_ranks_among_the_same_rewards() {
        for (samples, fresh) in [(1, 4), (2, 3), (3, 3), (4, 2)] {
            // Of each rank of the fresh, the others have as many orders.
            let orders: usize = (1..=samples).product();
            let mut drawn = ranks_of_every_draw(samples, fresh);
            drawn.values_mut().for_each(|count| *count *= orders);
            assert_eq!(drawn, ranks_in_every_order(samples, fresh), "{fresh} among {samples}");
        }
    }

    #[test]
    fn simulated_ranks_cost_the_same_whatever_k_is() {
        let group = Group { samples: 1_000_000, values: vec![0.0; 3] };
        let mut draws = 0;
        let mut uniform = || {
            draws += 1;
            0.5
        };
        assert_eq!(group.simulated(&mut uniform).len(), 3);
        assert_eq!(draws, 6);
    }

    #[test]
    fn a_p_value_counts_the_table_itself() {
        // No simulated table is as far from uniform as rewards of 0 alone.
        let group = Group { samples: 2, values: vec![0.0; 3] };
        let mut state = 3;
        let found = uniformity(&[group], 9, &mut || uniform(&mut state)).unwrap();
        assert_eq!((found.distance, found.p_value), (1.0, 0.1));
    }

    #[test]
    fn bands_hold_95_of_100_counts_of_a_bin() {
        // Among so many rewards 400 fresh ones are independent: a bin has 20 of them, and 11 to 12 and 28 to 30 at the ends of the band.
        let group = Group { samples: 1_000_000, values: vec![0.0; 400] };
        let mut state = 4;
        let found = uniformity(&[group], 999, &mut || uniform(&mut state)).unwrap();
        for bin in found.bins {
            assert!((0.5..=0.7).contains(&bin.low), "{bin:?}");
            assert!((1.35..=1.55).contains(&bin.high), "{bin:?}");
        }
    }

    #[test]
    fn the_distance_is_kolmogorovs() {
        assert_eq!(kolmogorov(vec![0.5]), 0.5);
        assert_eq!(kolmogorov(vec![0.9, 0.1, 0.2]), 2.0 / 3.0 - 0.2);
        assert!(uniformity(&[], 9, &mut || 0.5).is_err());
        let group = Group { samples: 2, values: vec![0.5] };
        let refused = uniformity(&[group], 0, &mut || 0.5).unwrap_err().to_string();
        assert!(refused.contains("no replicates"), "{refused}");
    }
}
