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
/// Parsed from and written as this text; the two round-trip, and serde uses them, but refuses to write what [`Composed::check`] refuses.
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

    /// Refuses a stack that there is not and numbers out of range, both of which one has that was made in code: its text must be read as
    /// the same.
    ///
    /// # Errors
    /// [`TransformError::Parse`].
    ///
    /// ```
    /// use infalign_transform::{Composed, Procedure};
    /// let composed: Composed = "best-of:4 over cd-token:lambda=2".parse()?;
    /// assert!(composed.check().is_ok());
    /// assert!(Composed { inner: Procedure::BestOf(4_usize.try_into()?), ..composed }.check().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn check(&self) -> Result<(), TransformError> {
        if self.to_string().parse::<Self>()? == *self {
            return Ok(());
        }
        let [selection, inner] = [self.selection, self.inner].map(|one| one.to_string());
        Err(no_stack(format!("{selection}{OVER}{inner}"), &selection, &inner))
    }
}

/// What cannot stand over what.
fn no_stack(text: String, outer: &str, inner: &str) -> TransformError {
    TransformError::Parse {
        kind: "procedure",
        text,
        reason: format!("`{outer}` cannot stand over `{inner}`"),
        nearest: "best-of:N over cd-block:length=M,samples=K",
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
            return Err(no_stack(text.to_owned(), outer, &inner.to_string()));
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
    fn what_would_be_read_as_another_is_not_stored() {
        let of = |selection: &str, inner: &str| {
            let [selection, inner] = [selection, inner].map(|one| one.parse().unwrap());
            Composed { selection, inner }
        };
        let cold = Procedure::SoftBestOf { n: 2_usize.try_into().unwrap(), temperature: 0.0 };
        for (composed, told) in [
            (of("sample", "best-of:4"), "`sample` cannot stand over `best-of:4`"),
            (of("cd-token:lambda=1", "sample"), "`cd-token:lambda=1` cannot stand over `sample`"),
            (of("best-of:4", "best-of:2"), "`best-of:4` cannot stand over `best-of:2`"),
            (
                Composed { selection: cold, ..of("sample", "cd-token:lambda=1") },
                "temperature is `0`",
            ),
        ] {
            let error = serde_json::to_string(&composed).unwrap_err().to_string();
            assert!(error.contains(told), "{composed:?}: {error}");
        }
        assert!(serde_json::to_string(&cold).is_err() && cold.check().is_err());
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
