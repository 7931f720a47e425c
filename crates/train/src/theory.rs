//! What training on an objective leads to, in theory, where the reference's rewards are known.

use infalign_calibrate::{CalibrateError, Calibration, Row};
use infalign_transform::{Outcomes, Prompts, TransformError};

use crate::calibrator::{Calibrator, scale_of};
use crate::{Objective, TrainError};

/// The prompts of a table with what training on `objective` sees of their reference responses, of which every one is equally likely: the raw reward,
/// too, of which the theory of calibrated rewards says nothing. β is that of training, and so is u, [`Row::quantile`].
///
/// Win rates of K rewards are below those of the rewards' own law, since every one of the K ties with itself: under best-of-4 at half a nat by
/// 0.03 for K = 32 and 0.007 for K = 128 of normal rewards trained on as they are (the test of this file). For best-of-N with an N near K they say nothing.
///
/// ```
/// use infalign_calibrate::{Calibration, CalibrationMeta};
/// use infalign_train::{Objective, in_theory};
/// let mut table = Calibration::new(CalibrationMeta::default());
/// table.insert("a", "a prompt", vec![0.0, 1.0, 2.0, 3.0])?;
/// table.insert("b", "a prompt whose rewards are wide apart", vec![0.0, 10.0, 20.0, 30.0])?;
/// let won = |objective: &str| -> Result<f64, Box<dyn std::error::Error>> {
///     let prompts = in_theory(&objective.parse::<Objective>()?, &table)?;
///     Ok(prompts.win_rate(&"best-of:4".parse()?, &prompts.at_kl(0.5)?)?)
/// };
/// assert!(won("raw")? < won("identity")? && won("identity")? < won("exp:10")?);
/// assert!((won("standardized")? - won("identity")?).abs() < 1e-9, "evenly spread rewards are ranks");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`TransformError::OutcomeCount`] for a table without prompts, [`TrainError::NotPointwise`] for a win rate or an expected reward under a procedure,
/// [`TrainError::Calibrate`] for a table of quantiles.
pub fn in_theory(objective: &Objective, table: &Calibration) -> Result<Prompts, TrainError> {
    let pointwise = objective.pointwise().ok_or_else(|| TrainError::NotPointwise {
        objective: objective.to_string(),
        what: "what a table says of it",
        instead: "raw is the reward itself, and optimal:PROCEDURE,beta=B the transform of the best policy for a win rate",
    })?;
    let unit = Calibrator::Table(table).reward_unit();
    if table.rows().iter().any(|row| row.rewards().is_none()) {
        return Err(CalibrateError::Compressed.into());
    }
    let prompt = |row: &Row| {
        let rewards: Vec<f64> = row.values().iter().copied().map(f64::from).collect();
        let count = rewards.len();
        let outcomes = Outcomes::new(vec![1.0 / count as f64; count], rewards)?;
        let scale = scale_of(row, unit);
        let trained = |&reward: &f32| pointwise.apply(reward, row.quantile(reward), scale);
        Ok((row.values().iter().map(trained).collect(), outcomes))
    };
    let prompts = table.rows().iter().map(prompt);
    Ok(Prompts::new(prompts.collect::<Result<Vec<_>, TransformError>>()?)?)
}

#[cfg(test)]
mod tests {
    use infalign_calibrate::CalibrationMeta;
    use infalign_decode::Stream;
    use infalign_transform::Beta;

    use super::*;

    /// Under best-of-4 at half a nat, of prompts with K normal rewards each.
    fn won(objective: &str, samples: u64) -> f64 {
        let mut table = Calibration::new(CalibrationMeta::default());
        for prompt in 0..40_000 / samples {
            let mut stream = Stream::new(1, "rewards", &samples.to_string(), prompt);
            let rewards = (0..samples).map(|place| stream.normal(2 * place) as f32).collect();
            table.insert(&prompt.to_string(), &prompt.to_string(), rewards).unwrap();
        }
        let prompts = in_theory(&objective.parse().unwrap(), &table).unwrap();
        prompts.win_rate(&"best-of:4".parse().unwrap(), &prompts.at_kl(0.5).unwrap()).unwrap()
    }

    #[test]
    fn few_rewards_win_less_than_their_law_does() {
        for (objective, samples, less, within) in [
            ("raw", 32, 0.0285, 0.002),
            ("raw", 128, 0.0075, 0.002),
            ("exp:10", 128, 0.0008, 0.0005),
        ] {
            let found = won(objective, 4000) - won(objective, samples);
            assert!((found - less).abs() < within, "{objective}, {samples}: {found}");
        }
    }

    #[test]
    fn calibrated_rewards_are_those_of_training() {
        let mut table = Calibration::new(CalibrationMeta::default());
        table.insert("a", "a", vec![0.0, 1.0]).unwrap();
        let prompts = in_theory(&"identity".parse().unwrap(), &table).unwrap();
        let found = prompts.at_beta(Beta::new(1.0 / 3.0).unwrap());
        // u = (2·Ĉ + ½)/3 is ⅓ and ⅔, which differ by β.
        let [low, high] = found.policies[0][..] else { panic!("two responses: {found:?}") };
        assert!(((high / low).ln() - 1.0).abs() < 1e-12, "{found:?}");
    }
}
