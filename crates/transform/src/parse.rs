//! The one-line language of procedures and transforms: `name`, `name:value`, `name:value,key=value`.

use std::num::NonZeroUsize;

use crate::error::TransformError;

/// One valid form: its name and how it is written.
pub(crate) struct Form {
    pub(crate) name: &'static str,
    pub(crate) usage: &'static str,
}

/// Text taken apart, each part still to be claimed.
pub(crate) struct Parts<'a> {
    kind: &'static str,
    text: &'a str,
    usage: &'static str,
    value: Option<&'a str>,
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Parts<'a> {
    /// Splits `text` and finds its name among `forms`; returns the name and the rest.
    pub(crate) fn split(
        kind: &'static str,
        text: &'a str,
        forms: &[Form],
    ) -> Result<(&'static str, Self), TransformError> {
        let (name, rest) = match text.split_once(':') {
            Some((name, rest)) => (name, Some(rest)),
            None => (text, None),
        };
        let nearest = nearest(name, forms);
        let mut parts = Parts { kind, text, usage: nearest.usage, value: None, pairs: Vec::new() };
        if nearest.name != name {
            return Err(parts.error(format!("`{name}` is not a known name")));
        }
        for item in rest.into_iter().flat_map(|rest| rest.split(',')) {
            parts.add(item)?;
        }
        Ok((nearest.name, parts))
    }

    fn add(&mut self, item: &'a str) -> Result<(), TransformError> {
        if let Some((key, value)) = item.split_once('=') {
            if self.pairs.iter().any(|(known, _)| *known == key) {
                return Err(self.error(format!("`{key}` is given twice")));
            }
            self.pairs.push((key, value));
        } else if self.value.replace(item).is_some() {
            return Err(self.error(format!("`{item}` is one value too many")));
        }
        Ok(())
    }

    /// The value without a key, as text; `what` names it in the error.
    pub(crate) fn value(&mut self, what: &str) -> Result<&'a str, TransformError> {
        self.value.take().ok_or_else(|| self.error(format!("{what} is missing")))
    }

    /// The value of `key`, as text.
    pub(crate) fn pair(&mut self, key: &str) -> Result<&'a str, TransformError> {
        match self.pairs.iter().position(|(known, _)| *known == key) {
            Some(place) => Ok(self.pairs.swap_remove(place).1),
            None => Err(self.error(format!("`{key}` is missing"))),
        }
    }

    /// Whether `key` is given.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.pairs.iter().any(|(known, _)| *known == key)
    }

    /// Reads `text` as a count of 1 or more.
    pub(crate) fn count(&self, what: &str, text: &str) -> Result<NonZeroUsize, TransformError> {
        text.parse().map_err(|_| {
            self.error(format!("{what} is `{text}`, which is not a whole number of 1 or more"))
        })
    }

    /// Reads `text` as a finite number that `valid` accepts; `range` says in words which those are.
    pub(crate) fn number(
        &self,
        what: &str,
        text: &str,
        range: &str,
        valid: impl Fn(f64) -> bool,
    ) -> Result<f64, TransformError> {
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() && valid(number) => Ok(number),
            _ => Err(self.error(format!("{what} is `{text}`, which is not {range}"))),
        }
    }

    /// Refuses whatever has not been claimed.
    pub(crate) fn finish(self) -> Result<(), TransformError> {
        if let Some(value) = self.value {
            return Err(self.error(format!("`{value}` has no meaning here")));
        }
        match self.pairs.first() {
            Some((key, _)) => Err(self.error(format!("`{key}` is not a key of this form"))),
            None => Ok(()),
        }
    }

    /// The error that the whole text deserves for `reason`.
    pub(crate) fn error(&self, reason: String) -> TransformError {
        let (kind, nearest) = (self.kind, self.usage);
        TransformError::Parse { kind, text: self.text.to_owned(), reason, nearest }
    }
}

/// The form whose name is fewest edits away from `name`; the first one on a tie.
fn nearest<'f>(name: &str, forms: &'f [Form]) -> &'f Form {
    let mut best = &forms[0];
    for form in &forms[1..] {
        let distance = |form: &Form| strsim::damerau_levenshtein(name, form.name);
        if distance(form) < distance(best) {
            best = form;
        }
    }
    best
}

/// Serialises a type as its `Display` text, where its `check` says that this is read as the same value, and reads it back through `FromStr`.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.check().map_err(serde::ser::Error::custom)?;
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(source)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;
