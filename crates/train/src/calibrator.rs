//! Where a rollout's calibrated rewards come from.

use infalign_calibrate::{Calibration, Row, group_quantiles};
use infalign_decode::EncodedPrompt;

use crate::TrainError;
use crate::objective::RewardScale;

/// Turns the rewards of a rollout into calibrated ones.
#[derive(Clone, Copy, Debug)]
pub enum Calibrator<'a> {
    /// By the rewards of π_ref's responses to the same prompt, as CTRL has it.
    Table(&'a Calibration),
    /// By the other responses of the same rollout to the same prompt, which costs no reference responses and has the bias that
    /// [`group_quantiles`] states: u is then uniform under the policy itself, wherever it has moved. Since the others' u depend on a response,
    /// too, leaving it out of its baseline makes the gradient of the mean Φ G/(G − 1) times as great, G responses being in the group.
    Group,
}

impl<'a> Calibrator<'a> {
    /// What the table holds of a prompt, if there is one.
    pub(crate) fn row(self, prompt: &EncodedPrompt) -> Option<&'a Row> {
        match self {
            Self::Table(table) => table.get(&prompt.text),
            Self::Group => None,
        }
    }

    /// u of each response to one prompt, in (0, 1).
    pub(crate) fn quantiles(
        self,
        prompt: &EncodedPrompt,
        rewards: &[f32],
    ) -> Result<Vec<f64>, TrainError> {
        match self {
            Self::Table(table) => {
                let quantile = |&reward: &f32| Ok(table.quantile(&prompt.text, reward)?);
                rewards.iter().map(quantile).collect()
            }
            Self::Group => Ok(group_quantiles(rewards)),
        }
    }

    /// Standard deviation of the reference policy's rewards within a prompt, pooled over the prompts; 1 where all rewards are equal, and
    /// without a table.
    pub(crate) fn reward_unit(self) -> f64 {
        let Self::Table(table) = self else { return 1.0 };
        let (mut squares, mut count) = (0.0, 0.0);
        for row in table.rows() {
            squares += row.moments().1;
            count += row.values().len() as f64 - 1.0;
        }
        if squares > 0.0 { (squares / count).sqrt() } else { 1.0 }
    }

    /// What rewards of one prompt are measured by; `unit` is that of [`Calibrator::reward_unit`], which is all that is known without a
    /// table.
    pub(crate) fn scale(
        self,
        prompt: &EncodedPrompt,
        unit: f64,
    ) -> Result<RewardScale, TrainError> {
        let Self::Table(table) = self else {
            return Ok(RewardScale { unit, mean: 0.0, deviation: unit });
        };
        Ok(scale_of(table.row(&prompt.text)?, unit))
    }
}

/// What rewards of a row's prompt are measured by.
pub(crate) fn scale_of(row: &Row, unit: f64) -> RewardScale {
    let (mean, squares) = row.moments();
    let deviation = (squares / (row.values().len() as f64 - 1.0)).sqrt();
    let deviation = if deviation > 0.0 { deviation } else { 1.0 };
    RewardScale { unit, mean, deviation }
}

#[cfg(test)]
mod tests {
    use infalign_calibrate::CalibrationMeta;

    use super::*;

    #[test]
    fn the_unit_is_the_spread_within_prompts() {
        let mut table = Calibration::new(CalibrationMeta::default());
        table.insert("a", "a", vec![0.0, 2.0]).unwrap();
        table.insert("b", "b", vec![100.0, 104.0]).unwrap();
        let unit = Calibrator::Table(&table).reward_unit();
        assert!((unit - 5.0_f64.sqrt()).abs() < 1e-12, "pooled variance (2 + 8) / 2");
        assert_eq!(Calibrator::Group.reward_unit(), 1.0);
    }

    #[test]
    fn a_prompt_counts_in_the_unit_by_its_responses_less_one() {
        let mut table = Calibration::new(CalibrationMeta::default());
        table.insert("a", "a", vec![0.0, 2.0]).unwrap();
        table.insert("b", "b", vec![100.0, 102.0, 104.0]).unwrap();
        let unit = Calibrator::Table(&table).reward_unit();
        assert!((unit - 1.825_741_858).abs() < 1e-9, "√((2 + 8) / (1 + 2)): {unit}");
    }

    #[test]
    fn a_prompt_has_a_mean_and_a_spread_of_its_own() {
        let mut table = Calibration::new(CalibrationMeta::default());
        table.insert("a", "a", vec![1.0, 3.0, 2.0]).unwrap();
        table.insert("b", "b", vec![4.0, 4.0]).unwrap();
        let scale = |text: &str| {
            let prompt = EncodedPrompt { id: "x".into(), text: text.into(), tokens: vec![1] };
            Calibrator::Table(&table).scale(&prompt, 7.0)
        };
        let expected = RewardScale { unit: 7.0, mean: 2.0, deviation: 1.0 };
        assert_eq!(scale("a").unwrap(), expected);
        let equal = RewardScale { unit: 7.0, mean: 4.0, deviation: 1.0 };
        assert_eq!(scale("b").unwrap(), equal, "where all are equal, the mean alone is taken off");
        assert!(scale("c").is_err());
    }

    #[test]
    fn a_group_needs_no_table() {
        let prompt = EncodedPrompt { id: "a".into(), text: "a".into(), tokens: vec![1] };
        let u = Calibrator::Group.quantiles(&prompt, &[3.0, 1.0]).unwrap();
        assert_eq!(u, [0.75, 0.25]);
        let table = Calibration::new(CalibrationMeta::default());
        assert!(Calibrator::Table(&table).quantiles(&prompt, &[3.0]).is_err());
    }
}
