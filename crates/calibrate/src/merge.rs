//! Tables that were made apart, such as the shards of a job array, as one.

use crate::error::CalibrateError;
use crate::{Calibration, Row};

impl Calibration {
    /// Adds the prompts of another table. A prompt that both hold is kept once, if both hold the same of it.
    ///
    /// # Errors
    /// [`CalibrateError::Mismatch`] for tables that were made from different things; [`CalibrateError::Conflict`] with the number of prompts
    /// that differ and the first of them. The table is then unchanged.
    pub fn merge(&mut self, other: &Self) -> Result<(), CalibrateError> {
        other.check(self.meta())?;
        let same = |row: &Row, ours: &Row| {
            (row.samples(), row.values()) == (ours.samples(), ours.values())
        };
        let differs = |row: &&Row| self.get_by_key(row.key()).is_some_and(|ours| !same(row, ours));
        let mut conflicts: Vec<&str> = other.rows().iter().filter(differs).map(Row::id).collect();
        if !conflicts.is_empty() {
            let count = conflicts.len();
            conflicts.truncate(3);
            return Err(CalibrateError::Conflict { count, first: conflicts.join("`, `") });
        }
        for row in other.rows() {
            if self.get_by_key(row.key()).is_none() {
                self.push(row.clone())?;
            }
        }
        Ok(())
    }
}
