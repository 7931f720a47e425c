//! What training on an objective leads to, in theory, where the reference's rewards are known.

use infalign_calibrate::{Calibration, Row};
use infalign_transform::{Outcomes, Prompts, TransformError};

use crate::calibrator::{Calibrator, scale_of};
use crate::{Objective, TrainError};

/// The prompts of a table with what training on `objective` sees of their reference responses, of which every one is equally likely: the raw reward,
/// too, of which the theory of calibrated rewards says nothing. β is that of training.
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
/// [`TransformError::OutcomeCount`] for a table without prompts, [`TrainError::NotPointwise`] for a win rate.
pub fn in_theory(objective: &Objective, table: &Calibration) -> Result<Prompts, TrainError> {
    let pointwise = objective.pointwise().ok_or_else(|| TrainError::NotPointwise {
        objective: objective.to_string(),
        what: "what a table says of it",
        instead: "optimal:PROCEDURE,beta=B is the transform of its best policy",
    })?;
    let unit = Calibrator::Table(table).reward_unit();
    let prompt = |row: &Row| {
        let rewards: Vec<f64> = row.values().iter().copied().map(f64::from).collect();
        let count = rewards.len();
        let outcomes = Outcomes::new(vec![1.0 / count as f64; count], rewards)?;
        let scale = scale_of(row, unit);
        let calibrated = row.values().iter().zip(outcomes.calibrated());
        let trained = calibrated.map(|(&reward, u)| pointwise.apply(reward, u, scale)).collect();
        Ok((trained, outcomes))
    };
    let prompts = table.rows().iter().map(prompt);
    Ok(Prompts::new(prompts.collect::<Result<Vec<_>, TransformError>>()?)?)
}
