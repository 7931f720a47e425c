//! Length-controlled win rates: what the win rate would be if both sides wrote at the same length.
//!
//! As AlpacaEval 2 does (Dubois and others 2024, arXiv 2404.04475), who wins is modelled as
//! logit P = θ + φ·tanh(Δ/s), Δ the first response's length less the second's and s the standard deviation of Δ, and the win rate is read off
//! at Δ = 0. It departs from it in what there is to model: all pairs of stored responses of a prompt stand for one annotation of it, each
//! with the probability that both procedures keep it; and there is no term for the prompt's difficulty, which those pairs average over.

use rayon::prelude::*;

use crate::Interval;
use crate::cluster::{check_level, t_quantile};
use crate::error::{StatsError, check};

/// One side's stored responses to one prompt.
#[derive(Clone, Copy, Debug)]
pub struct Lengths<'a> {
    /// What decides who wins.
    pub scores: &'a [f64],
    /// Length of each response, in any unit.
    pub lengths: &'a [f64],
    /// How likely each is to be kept, as [`crate::selection_weights`] gives it.
    pub weights: &'a [f64],
}

/// The win rate at equal lengths, with an interval over prompts that takes each prompt's pairs as dependent.
///
/// - `prompts`: ours and theirs for each prompt; 2 or more.
/// - `level`: nominal coverage, strictly between 0 and 1.
///
/// The interval is that of θ, whose variance is the sandwich A⁻¹·(n/(n−1))·Σ gᵢgᵢᵀ·A⁻¹ of the prompts' scores gᵢ, put through the logistic
/// function. Costs O(M²) a prompt, M the responses of a side that may be kept.
///
/// # Errors
/// [`StatsError::Unpaired`] for lists of different lengths, [`StatsError::TooFew`], [`StatsError::NotFinite`], [`StatsError::Level`], and
/// [`StatsError::Separated`] where every pair, or every pair beyond some difference of length, is decided the same way, and where one side is
/// always longer by about as much, which does not tell what length does. Where all lengths are equal, it is the plain win rate.
pub fn length_controlled(
    prompts: &[(Lengths<'_>, Lengths<'_>)],
    level: f64,
) -> Result<Interval, StatsError> {
    check_level(level)?;
    if prompts.len() < 2 {
        return Err(StatsError::TooFew { what: "prompts", needed: 2, found: prompts.len() });
    }
    for side in prompts.iter().flat_map(|(ours, theirs)| [ours, theirs]) {
        for list in [side.lengths, side.weights] {
            if list.len() != side.scores.len() {
                return Err(StatsError::Unpaired { first: side.scores.len(), second: list.len() });
            }
        }
        check("scores", side.scores, 1)?;
        check("lengths", side.lengths, 1)?;
        check("weights", side.weights, 1)?;
    }
    let scale = spread(prompts);
    let (theta, variance) = fit(prompts, scale)?;
    let half_width = t_quantile(level, prompts.len() - 1) * variance.sqrt();
    let [low, estimate, high] = [theta - half_width, theta, theta + half_width].map(logistic);
    Ok(Interval { estimate, low, high, level })
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Calls `pair(weight, outcome, Δ)` for every pair of a prompt of which both may be kept.
fn pairs((ours, theirs): &(Lengths<'_>, Lengths<'_>), mut pair: impl FnMut(f64, f64, f64)) {
    for i in kept(ours) {
        for j in kept(theirs) {
            let (y, z) = (ours.scores[i], theirs.scores[j]);
            let won = f64::from(y > z) + 0.5 * f64::from(y == z);
            let weight = ours.weights[i] * theirs.weights[j];
            pair(weight, won, ours.lengths[i] - theirs.lengths[j]);
        }
    }
}

/// The places of what is kept at all.
fn kept(side: &Lengths<'_>) -> impl Iterator<Item = usize> {
    (0..side.scores.len()).filter(|&place| side.weights[place] != 0.0)
}

/// Standard deviation of the difference of lengths over all kept pairs.
fn spread(prompts: &[(Lengths<'_>, Lengths<'_>)]) -> f64 {
    let (mut sum, mut squares) = (0.0, 0.0);
    for prompt in prompts {
        pairs(prompt, |weight, _, delta| {
            (sum, squares) = (sum + weight * delta, squares + weight * delta * delta);
        });
    }
    let n = prompts.len() as f64;
    (squares / n - (sum / n).powi(2)).max(0.0).sqrt()
}

/// Score g = Σ w(won − p)(1, x) of a prompt, and its information Σ w·p(1 − p)·(1, x, x²).
type Part = ([f64; 2], [f64; 3]);

fn part(prompt: &(Lengths<'_>, Lengths<'_>), scale: f64, [theta, phi]: [f64; 2]) -> Part {
    let (mut score, mut information) = ([0.0; 2], [0.0; 3]);
    pairs(prompt, |weight, won, delta| {
        // Without a spread, what differs at all is as far as can be.
        let x = if delta == 0.0 { 0.0 } else { (delta / scale).tanh() };
        let p = logistic(theta + phi * x);
        let (miss, curve) = (weight * (won - p), weight * p * (1.0 - p));
        score = [score[0] + miss, score[1] + miss * x];
        let [a, b, c] = information;
        information = [a + curve, b + curve * x, c + curve * x * x];
    });
    (score, information)
}

/// θ and its variance, by Newton's method.
fn fit(prompts: &[(Lengths<'_>, Lengths<'_>)], scale: f64) -> Result<(f64, f64), StatsError> {
    let mut at = [0.0; 2];
    // A few steps are enough where there is an optimum; without one θ or φ grows by about 1 a step.
    for _ in 0..60 {
        let parts: Vec<Part> = prompts.par_iter().map(|prompt| part(prompt, scale, at)).collect();
        let (score, information) = parts.iter().fold(([0.0; 2], [0.0; 3]), |(g, h), (s, i)| {
            ([g[0] + s[0], g[1] + s[1]], [h[0] + i[0], h[1] + i[1], h[2] + i[2]])
        });
        let inverse = inverse(information).ok_or(StatsError::Separated)?;
        let step = times(inverse, score);
        at = [at[0] + step[0], at[1] + step[1]];
        if at.iter().any(|value| value.is_nan() || value.abs() > 30.0) {
            return Err(StatsError::Separated);
        }
        if step.iter().all(|step| step.abs() < 1e-10) {
            let n = prompts.len() as f64;
            let spread = parts.iter().map(|(score, _)| times(inverse, *score)[0].powi(2));
            return Ok((at[0], spread.sum::<f64>() * n / (n - 1.0)));
        }
    }
    Err(StatsError::Separated)
}

/// Inverse of [[a, b], [b, c]]; where no lengths differ, of a alone, and none where they differ but always by as much.
fn inverse([a, b, c]: [f64; 3]) -> Option<[f64; 3]> {
    if c == 0.0 {
        return Some([1.0 / a, 0.0, 0.0]);
    }
    let determinant = a * c - b * b;
    let inverse = [c / determinant, -b / determinant, a / determinant];
    (determinant > 1e-12 * a * a).then_some(inverse)
}

fn times([a, b, c]: [f64; 3], [x, y]: [f64; 2]) -> [f64; 2] {
    [a * x + b * y, b * x + c * y]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::SplitMix;
    use crate::{Selection, mean_interval, selection_weights};

    /// Scores that are worth plus `taste` times length, for two sides of which the first writes `longer`.
    struct Sides {
        ours: Vec<[Vec<f64>; 2]>,
        theirs: Vec<[Vec<f64>; 2]>,
        weights: Vec<f64>,
    }

    fn sides(random: &mut SplitMix, prompts: usize, better: f64, longer: f64) -> Sides {
        let mut side = |worth: f64, more: f64| -> Vec<[Vec<f64>; 2]> {
            (0..prompts)
                .map(|_| {
                    let lengths: Vec<f64> =
                        (0..8).map(|_| 20.0 + more + 5.0 * random.normal()).collect();
                    let score = |length: &f64| worth + 0.1 * length + random.normal();
                    let scores = lengths.iter().map(score).collect();
                    [scores, lengths]
                })
                .collect()
        };
        let (ours, theirs) = (side(better, longer), side(0.0, 0.0));
        let weights = selection_weights(&ours[0][0], Selection::Sample).unwrap();
        Sides { ours, theirs, weights }
    }

    impl Sides {
        fn of<'a>(&'a self, [scores, lengths]: &'a [Vec<f64>; 2]) -> Lengths<'a> {
            Lengths { scores, lengths, weights: &self.weights }
        }

        fn prompts(&self) -> Vec<(Lengths<'_>, Lengths<'_>)> {
            self.ours.iter().zip(&self.theirs).map(|(a, b)| (self.of(a), self.of(b))).collect()
        }
    }

    #[test]
    fn longer_responses_of_the_same_worth_win_half_at_equal_length() {
        let mut random = SplitMix(51);
        let sides = sides(&mut random, 400, 0.0, 6.0);
        let prompts = sides.prompts();
        let plain: Vec<f64> = prompts
            .iter()
            .map(|(ours, theirs)| {
                crate::win_rate(ours.scores, theirs.scores, Selection::Sample).unwrap()
            })
            .collect();
        assert!(mean_interval(&plain, 0.95).unwrap().low > 0.6);
        let controlled = length_controlled(&prompts, 0.95).unwrap();
        assert!((controlled.estimate - 0.5).abs() < 0.02, "{controlled:?}");
    }

    #[test]
    fn without_differences_of_length_it_is_the_plain_win_rate() {
        let mut random = SplitMix(52);
        let mut sides = sides(&mut random, 60, 0.5, 0.0);
        for [_, lengths] in sides.ours.iter_mut().chain(&mut sides.theirs) {
            lengths.fill(7.0);
        }
        let prompts = sides.prompts();
        let plain: Vec<f64> = prompts
            .iter()
            .map(|(ours, theirs)| {
                crate::win_rate(ours.scores, theirs.scores, Selection::Sample).unwrap()
            })
            .collect();
        let (plain, controlled) =
            (mean_interval(&plain, 0.95).unwrap(), length_controlled(&prompts, 0.95).unwrap());
        assert!((plain.estimate - controlled.estimate).abs() < 1e-9);
        assert!((plain.low - controlled.low).abs() < 2e-3, "{plain:?} {controlled:?}");
    }

    #[test]
    fn a_side_that_is_always_longer_by_as_much_does_not_tell() {
        let mut random = SplitMix(55);
        let mut sides = sides(&mut random, 40, 0.5, 0.0);
        for [_, lengths] in &mut sides.theirs {
            lengths.fill(7.0);
        }
        for length in [7.1, 10.0, 1e6] {
            for [_, lengths] in &mut sides.ours {
                lengths.fill(length);
            }
            let error = length_controlled(&sides.prompts(), 0.95);
            assert_eq!(error, Err(StatsError::Separated), "{length}");
        }
    }

    #[test]
    fn pairs_are_of_responses_that_may_be_kept() {
        let ours = Lengths { scores: &[5.0, 2.0], lengths: &[9.0, 4.0], weights: &[0.0, 1.0] };
        let theirs = Lengths {
            scores: &[1.0, 7.0, 2.0],
            lengths: &[3.0, 8.0, 6.0],
            weights: &[0.25, 0.0, 0.75],
        };
        let mut found = Vec::new();
        pairs(&(ours, theirs), |weight, won, delta| found.push((weight, won, delta)));
        assert_eq!(found, [(0.25, 1.0, 1.0), (0.75, 0.5, -2.0)]);
    }

    #[test]
    fn responses_that_are_never_kept_change_no_bit() {
        let mut random = SplitMix(56);
        let mut sides = sides(&mut random, 40, 0.5, 2.0);
        let without = length_controlled(&sides.prompts(), 0.95).unwrap();
        for [scores, lengths] in sides.ours.iter_mut().chain(&mut sides.theirs) {
            scores.push(1e6);
            lengths.push(1e6);
        }
        sides.weights.push(0.0);
        assert_eq!(length_controlled(&sides.prompts(), 0.95).unwrap(), without);
    }

    #[test]
    fn covers_the_win_rate_at_equal_length() {
        let mut random = SplitMix(53);
        let covered = (0..300).filter(|_| {
            let sides = sides(&mut random, 50, 0.0, 3.0);
            let interval = length_controlled(&sides.prompts(), 0.95).unwrap();
            interval.low <= 0.5 && 0.5 <= interval.high
        });
        let share = covered.count() as f64 / 300.0;
        assert!((0.915..=0.985).contains(&share), "{share}");
    }

    #[test]
    fn what_has_no_fit_is_refused() {
        let mut random = SplitMix(54);
        let all_won = sides(&mut random, 10, 100.0, 0.0);
        let error = length_controlled(&all_won.prompts(), 0.95);
        assert_eq!(error, Err(StatsError::Separated));
        assert!(length_controlled(&all_won.prompts()[..1], 0.95).is_err());
        let mut prompts = all_won.prompts();
        let nothing = vec![f64::NAN; prompts[0].0.scores.len()];
        prompts[0].0.weights = &nothing;
        let error = length_controlled(&prompts, 0.95);
        assert!(matches!(error, Err(StatsError::NotFinite { what: "weights", .. })), "{error:?}");
    }
}
