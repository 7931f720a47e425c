//! How far two judges agree about the same pairs of responses, beyond chance.

use serde::{Deserialize, Serialize};

use crate::Interval;
use crate::cluster::{check_level, jackknife_deviations};
use crate::error::StatsError;

/// What a judge says of a pair: the first response loses, they are equal, or it wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The first response is worse.
    Loss,
    /// Neither is better.
    Tie,
    /// The first response is better.
    Win,
}

impl Outcome {
    /// Of two scores.
    pub fn of(first: f64, second: f64) -> Self {
        if first > second {
            Self::Win
        } else if first < second {
            Self::Loss
        } else {
            Self::Tie
        }
    }
}

/// How two judges agree.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Share of pairs about which they say the same.
    pub share: Interval,
    /// Cohen's κ: 0 is what independent judges with their habits reach, 1 is full agreement. Absent where both always say one thing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kappa: Option<Interval>,
    /// How many pairs.
    pub n_pairs: usize,
}

/// Agreement of two judges on the pairs of each prompt, with jackknife intervals over prompts.
///
/// Equation: κ = (p_o − p_e)/(1 − p_e), p_o the share of equal outcomes, p_e = Σ_k p₁(k)·p₂(k) (Cohen 1960); the interval is κ ± t₍n−1₎·s,
/// s² = (n − 1)/n·Σ(κ₍ᵢ₎ − κ̄)², κ₍ᵢ₎ without prompt i.
///
/// - `prompts`: for each prompt its pairs, each as the two judges' outcomes; 2 prompts or more, and a pair in each.
/// - `level`: nominal coverage of both intervals, strictly between 0 and 1.
///
/// # Errors
/// [`StatsError::Level`], and [`StatsError::TooFew`] for fewer prompts, or a prompt without pairs.
pub fn agreement(prompts: &[Vec<(Outcome, Outcome)>], level: f64) -> Result<Agreement, StatsError> {
    check_level(level)?;
    if prompts.len() < 2 {
        return Err(StatsError::TooFew { what: "prompts", needed: 2, found: prompts.len() });
    }
    if prompts.iter().any(Vec::is_empty) {
        return Err(StatsError::TooFew { what: "pairs of a prompt", needed: 1, found: 0 });
    }
    let tables: Vec<Table> = prompts.iter().map(|pairs| Table::of(pairs)).collect();
    let total = tables.iter().fold(Table::default(), |sum, one| sum.plus(one, 1.0));
    let interval = |statistic: fn(&Table) -> f64| {
        let estimate = statistic(&total);
        let left: Vec<f64> = tables.iter().map(|one| statistic(&total.plus(one, -1.0))).collect();
        Interval::of_jackknife(estimate, &jackknife_deviations(&left), level)
    };
    // Where chance alone makes the judges agree, be it without one of the prompts, there is none.
    let defined = |kappa: &Interval| kappa.low.is_finite() && kappa.high.is_finite();
    let kappa = Some(interval(Table::kappa)).filter(defined);
    let n_pairs = prompts.iter().map(Vec::len).sum();
    Ok(Agreement { share: interval(Table::equal), kappa, n_pairs })
}

/// How often each pair of outcomes occurred.
#[derive(Clone, Copy, Default)]
struct Table([[f64; 3]; 3]);

impl Table {
    fn of(pairs: &[(Outcome, Outcome)]) -> Self {
        let mut table = Self::default();
        pairs.iter().for_each(|&(first, second)| table.0[first as usize][second as usize] += 1.0);
        table
    }

    fn plus(mut self, other: &Self, times: f64) -> Self {
        for (row, other) in self.0.iter_mut().zip(other.0) {
            row.iter_mut().zip(other).for_each(|(count, other)| *count += times * other);
        }
        self
    }

    fn all(&self) -> f64 {
        self.0.iter().flatten().sum()
    }

    fn equal(&self) -> f64 {
        (0..3).map(|k| self.0[k][k]).sum::<f64>() / self.all()
    }

    fn kappa(&self) -> f64 {
        let all = self.all();
        let first = |k: usize| self.0[k].iter().sum::<f64>() / all;
        let second = |k: usize| self.0.iter().map(|row| row[k]).sum::<f64>() / all;
        let by_chance: f64 = (0..3).map(|k| first(k) * second(k)).sum();
        (self.equal() - by_chance) / (1.0 - by_chance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::SplitMix;

    #[test]
    fn the_textbook_table_has_its_kappa() {
        // Two readers of 50 proposals: both yes 20, both no 15, 5 and 10 apart: κ = 0.4.
        use Outcome::{Loss, Win};
        let pairs = [(Win, Win, 20), (Win, Loss, 5), (Loss, Win, 10), (Loss, Loss, 15)];
        let prompts: Vec<Vec<(Outcome, Outcome)>> = pairs
            .iter()
            .flat_map(|&(first, second, times)| (0..times).map(move |_| vec![(first, second)]))
            .collect();
        let found = agreement(&prompts, 0.95).unwrap();
        assert!((found.share.estimate - 0.7).abs() < 1e-12 && found.n_pairs == 50);
        let kappa = found.kappa.unwrap();
        assert!((kappa.estimate - 0.4).abs() < 1e-12);
        // The large-sample standard error of this table is 0.127.
        assert!(((kappa.high - kappa.low) / 2.0 / 2.01 - 0.127).abs() < 0.01, "{kappa:?}");
    }

    #[test]
    fn intervals_are_of_prompts_that_are_left_out() {
        let say = |first: f64, second: f64| (Outcome::of(first, 0.0), Outcome::of(second, 0.0));
        // 3 of 4 are equal; without each prompt 2 of 2, 2 of 3 and 2 of 3, whose jackknife deviation is 2/9.
        let prompts =
            [vec![say(1.0, 2.0), say(1.0, -1.0)], vec![say(-1.0, -2.0)], vec![say(1.0, 1.0)]];
        let found = agreement(&prompts, 0.95).unwrap();
        let half_width = 4.302_652_729_911_275 * 2.0 / 9.0;
        assert_eq!(found.share.estimate, 0.75);
        assert!((found.share.high - 0.75 - half_width).abs() < 1e-9, "{:?}", found.share);
        assert!((0.75 - half_width - found.share.low).abs() < 1e-9, "{:?}", found.share);
        assert_eq!(agreement(&prompts[1..], 0.95).unwrap().share.estimate, 1.0);
        assert_eq!(
            [say(1.0, -1.0), say(0.0, 0.0)].map(|(first, _)| first),
            [Outcome::Win, Outcome::Tie]
        );
        assert_eq!(say(1.0, -1.0).1, Outcome::Loss);
    }

    #[test]
    fn covers_kappa_of_judges_who_share_a_prompts_difficulty() {
        let mut random = SplitMix(43);
        // Each repeats the truth with probability 0.8, else tosses a coin: κ = 0.8².
        let covered = (0..800).filter(|_| {
            let prompts: Vec<_> = (0..60)
                .map(|_| {
                    let side = random.uniform() < 0.5;
                    let mut say = || {
                        let right = random.uniform() < 0.8;
                        let coin = random.uniform() < 0.5;
                        if if right { side } else { coin } { Outcome::Win } else { Outcome::Loss }
                    };
                    (0..4).map(|_| (say(), say())).collect()
                })
                .collect();
            let kappa = agreement(&prompts, 0.95).unwrap().kappa.unwrap();
            kappa.low <= 0.64 && 0.64 <= kappa.high
        });
        let share = covered.count() as f64 / 800.0;
        assert!((0.92..=0.97).contains(&share), "{share}");
    }

    #[test]
    fn without_two_outcomes_there_is_no_kappa() {
        let ties = vec![vec![(Outcome::Tie, Outcome::Tie)]; 3];
        let found = agreement(&ties, 0.95).unwrap();
        assert_eq!((found.share.estimate, found.kappa), (1.0, None));
        assert!(agreement(&ties[..1], 0.95).is_err());
        assert!(agreement(&[vec![], vec![]], 0.95).is_err());
        assert_eq!(Outcome::of(1.0, 1.0), Outcome::Tie);
    }
}
