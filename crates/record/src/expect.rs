//! `expect.toml`: how near a replication has to come, declared before the run.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::RecordError;
use crate::folder::{self, EXPECT, refused};

/// How near one result is to another, the nearest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It is another result.
    Differs,
    /// Statistically equivalent, within the margins of [`Equivalence`].
    Equivalent,
    /// Every number within [`Tolerance`].
    Tolerance,
    /// The same bytes.
    Bitwise,
}

impl Level {
    /// The word in files and reports.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Differs => "differs",
            Self::Equivalent => "equivalent",
            Self::Tolerance => "tolerance",
            Self::Bitwise => "bitwise",
        }
    }
}

/// What a replication has to reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Where the same program runs on the same kind of machine and its backend repeats bit for bit.
    #[serde(default = "bitwise")]
    pub same_machine: Level,
    /// Elsewhere.
    #[serde(default = "equivalent")]
    pub elsewhere: Level,
    /// How far numbers may be apart to count as within tolerance.
    #[serde(default)]
    pub tolerance: Tolerance,
    /// How far apart counts as equivalent.
    #[serde(default)]
    pub equivalence: Equivalence,
    /// What has to hold in the replication by itself.
    #[serde(default, rename = "claim", skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Claim>,
}

fn bitwise() -> Level {
    Level::Bitwise
}

fn equivalent() -> Level {
    Level::Equivalent
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            same_machine: bitwise(),
            elsewhere: equivalent(),
            tolerance: Tolerance::default(),
            equivalence: Equivalence::default(),
            claims: Vec::new(),
        }
    }
}

/// |a − b| ≤ absolute + relative·|a|.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// In units of |a|; at least 0.
    pub relative: f64,
    /// In units of the number; at least 0.
    pub absolute: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { relative: 1e-5, absolute: 1e-8 }
    }
}

impl Tolerance {
    /// Whether two numbers are within it.
    #[must_use]
    pub fn holds(&self, a: f64, b: f64) -> bool {
        a == b || (a - b).abs() <= self.absolute + self.relative * a.abs()
    }
}

/// The margins within which runs are equivalent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Equivalence {
    /// Of win rates, which are shares; above 0.
    pub win_rate: f64,
    /// Of KLs, in nats per response; above 0.
    pub kl: f64,
}

impl Default for Equivalence {
    fn default() -> Self {
        Self { win_rate: 0.02, kl: 0.05 }
    }
}

/// That one method wins more than another under a procedure: the 95 % interval of the difference on the same prompts lies above 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The method that wins more.
    pub better: String,
    /// The method that wins less, another than `better`.
    pub worse: String,
    /// The procedure on both sides, such as `best-of:4`.
    pub procedure: String,
}

impl Expect {
    /// Refuses tolerances and margins out of range, and claims that one method wins more than itself.
    ///
    /// # Errors
    /// [`RecordError::Expect`] names the key, its value and the range.
    pub fn check(&self) -> Result<(), RecordError> {
        let Self { tolerance, equivalence, claims, .. } = self;
        let refuse = |key, value, range| Err(RecordError::Expect { key, value, range });
        for (key, value) in
            [("tolerance.relative", tolerance.relative), ("tolerance.absolute", tolerance.absolute)]
        {
            if !(value.is_finite() && value >= 0.0) {
                return refuse(key, value.to_string(), "a finite number of at least 0");
            }
        }
        for (key, value) in
            [("equivalence.win_rate", equivalence.win_rate), ("equivalence.kl", equivalence.kl)]
        {
            if !(value.is_finite() && value > 0.0) {
                return refuse(key, value.to_string(), "a finite number above 0");
            }
        }
        match claims.iter().find(|claim| claim.better == claim.worse) {
            Some(Claim { worse, .. }) => {
                refuse("claim.worse", format!("{worse:?}"), "another method than claim.better")
            }
            None => Ok(()),
        }
    }

    /// As a file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        // Levels, numbers and texts can always be written.
        let text = toml::to_string_pretty(self).unwrap_or_default();
        format!("# What a replication of this run has to reach; written before the run.\n{text}")
    }

    /// What a run's folder declares; the defaults where it declares nothing.
    ///
    /// # Errors
    /// As [`folder::text`], and [`RecordError::Refused`] for what is no such file, or is refused by [`Expect::check`].
    pub fn read(run: &Path) -> Result<Self, RecordError> {
        let path = run.join(EXPECT);
        if !path.exists() {
            return Ok(Self::default());
        }
        let expect: Self = toml::from_str(&folder::text(run, EXPECT)?).map_err(|error| {
            refused(&path, &format!("it is not what is expected there: {}", error.message()))
        })?;
        expect.check().map_err(|error| refused(&path, &error.to_string()))?;
        Ok(expect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_declared_reads_back_and_unknown_keys_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Expect::read(folder.path()).unwrap(), Expect::default());
        let claim = Claim { better: "a".into(), worse: "b".into(), procedure: "sample".into() };
        let expect =
            Expect { claims: vec![claim], elsewhere: Level::Tolerance, ..Expect::default() };
        std::fs::write(folder.path().join(EXPECT), expect.to_toml()).unwrap();
        assert_eq!(Expect::read(folder.path()).unwrap(), expect);
        std::fs::write(folder.path().join(EXPECT), "same = 'bitwise'").unwrap();
        assert!(Expect::read(folder.path()).unwrap_err().to_string().contains("same"));
    }

    #[test]
    fn what_no_replication_can_be_held_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (text, told) in [
            ("tolerance = { relative = -1, absolute = 0 }", "tolerance.relative is -1: "),
            ("tolerance = { relative = 0, absolute = nan }", "tolerance.absolute is NaN: "),
            ("equivalence = { win_rate = -0.5, kl = 1 }", "equivalence.win_rate is -0.5: "),
            ("equivalence = { win_rate = 0.1, kl = 0 }", "equivalence.kl is 0: "),
            ("equivalence = { win_rate = 0.1, kl = inf }", "a finite number above 0"),
            (
                "claim = [{ better = 'a', worse = 'a', procedure = 'sample' }]",
                "claim.worse is \"a\": it has to be another method",
            ),
        ] {
            std::fs::write(folder.path().join(EXPECT), text).unwrap();
            let error = Expect::read(folder.path()).unwrap_err().to_string();
            assert!(error.contains("expect.toml is refused: ") && error.contains(told), "{error}");
        }
        let exact = Tolerance { relative: 0.0, absolute: 0.0 };
        assert!(Expect { tolerance: exact, ..Expect::default() }.check().is_ok());
    }

    #[test]
    fn tolerance_is_absolute_near_zero_and_relative_elsewhere() {
        let tolerance = Tolerance { relative: 0.1, absolute: 0.01 };
        assert!(tolerance.holds(0.0, 0.01) && !tolerance.holds(0.0, 0.011));
        assert!(tolerance.holds(10.0, 11.0) && !tolerance.holds(10.0, 11.02));
        assert!(tolerance.holds(f64::INFINITY, f64::INFINITY) && !tolerance.holds(f64::NAN, 0.0));
        assert!(Level::Differs < Level::Equivalent && Level::Tolerance < Level::Bitwise);
    }
}
