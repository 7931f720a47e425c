//! Procedures on top of one another.

use std::fmt;
use std::str::FromStr;

use crate::error::TransformError;
use crate::parse::serde_as_text;
use crate::procedure::Procedure;

/// What stands between the two in text.
const OVER: &str = " over ";

/// A selection among responses of another procedure, as `best-of:4 over cd-block:length=16,samples=4`; or one procedure alone.
///
/// ```
/// use infalign_transform::{Composed, Procedure};
/// let composed: Composed = "best-of:4 over cd-token:lambda=2".parse()?;
/// assert_eq!(composed.selection.samples(), 4);
/// assert_eq!(composed.to_string(), "best-of:4 over cd-token:lambda=2");
/// assert_eq!("cd-token:lambda=2".parse::<Composed>()?.selection, Procedure::Sample);
/// assert!("cd-token:lambda=2 over sample".parse::<Composed>().is_err());
/// # Ok::<(), infalign_transform::TransformError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Composed {
    /// Selects among independent responses of `inner`; `sample` takes the one there is.
    pub selection: Procedure,
    /// What each of them is drawn by; `sample`, or a procedure that needs a prefix scorer.
    pub inner: Procedure,
}

impl Composed {
    /// The procedure, where it acts on responses of the policy itself, as all theory of ranks has it; none over a guided one.
    pub fn of_ranks(&self) -> Option<Procedure> {
        (self.inner == Procedure::Sample).then_some(self.selection)
    }

    /// Whether a prefix scorer guides it.
    pub fn is_guided(&self) -> bool {
        self.inner.is_guided()
    }

    /// Whether it goes by the reward of complete responses.
    pub fn needs_reward(&self) -> bool {
        self.selection.needs_reward() || self.inner.needs_reward()
    }

    /// Whether it goes by calibrated rewards, and needs a calibration table of its prompts.
    pub fn needs_ranks(&self) -> bool {
        self.selection.needs_ranks()
    }
}

impl From<Procedure> for Composed {
    fn from(procedure: Procedure) -> Self {
        if procedure.is_guided() {
            Self { selection: Procedure::Sample, inner: procedure }
        } else {
            Self { selection: procedure, inner: Procedure::Sample }
        }
    }
}

impl FromStr for Composed {
    type Err = TransformError;

    fn from_str(text: &str) -> Result<Self, TransformError> {
        let Some((outer, inner)) = text.split_once(OVER) else {
            return Ok(text.parse::<Procedure>()?.into());
        };
        let (selection, inner) = (outer.parse::<Procedure>()?, inner.parse::<Procedure>()?);
        // Ranks are among responses of the policy itself.
        if selection.is_guided() || selection.needs_ranks() || !inner.is_guided() {
            return Err(TransformError::Parse {
                kind: "procedure",
                text: text.to_owned(),
                reason: format!("`{outer}` cannot stand over `{inner}`"),
                nearest: "best-of:N over cd-block:length=M,samples=K",
            });
        }
        Ok(Self { selection, inner })
    }
}

impl fmt::Display for Composed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.selection, self.inner) {
            (selection, Procedure::Sample) => write!(f, "{selection}"),
            (Procedure::Sample, inner) => write!(f, "{inner}"),
            (selection, inner) => write!(f, "{selection}{OVER}{inner}"),
        }
    }
}

serde_as_text!(Composed);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_senseless_stacks_are_refused() {
        for text in [
            "sample",
            "best-of:4",
            "beam:width=2,branch=3,length=8",
            "soft-best-of:2,temperature=0.5 over cd-token:lambda=2,candidates=20",
            "majority:5 over cd-block:length=16,samples=4",
        ] {
            let composed: Composed = text.parse().unwrap();
            assert_eq!(composed.to_string(), text);
            let json = serde_json::to_string(&composed).unwrap();
            assert_eq!(serde_json::from_str::<Composed>(&json).unwrap(), composed);
        }
        for (text, told) in [
            ("best-of:4 over best-of:2", "cannot stand over"),
            ("cd-token:lambda=1 over cd-token:lambda=1", "cannot stand over"),
            ("best-of:4 over cd-blok:length=1,samples=2", "cd-block:length=M,samples=K"),
            ("rejection:quantile=0.5,draws=2 over cd-token:lambda=1", "cannot stand over"),
            ("best-of:4 over ", "not a procedure"),
        ] {
            let message = text.parse::<Composed>().unwrap_err().to_string();
            assert!(message.contains(told), "{text}: {message}");
        }
    }

    #[test]
    fn a_stack_needs_what_either_needs() {
        let of = |text: &str| text.parse::<Composed>().unwrap();
        assert!(of("majority:5 over pruned-best-of:4,length=2,keep=0.5").needs_reward());
        assert!(of("best-of:2 over cd-token:lambda=1").needs_reward());
        assert!(!of("majority:5 over cd-token:lambda=1").needs_reward());
        assert!(of("rejection:quantile=0.5,draws=2").needs_ranks());
        assert!(!of("best-of:2 over cd-token:lambda=1").needs_ranks());
    }
}
