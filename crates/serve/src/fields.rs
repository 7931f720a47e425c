//! The fields of a request, taken one by one; what is left in the end is unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value};

use crate::failure::Failure;

/// A type of a field.
pub(crate) trait Readable: DeserializeOwned {
    /// What the field has to be, for clients, which do not know the names of Rust's types.
    const WHAT: &'static str;
}

macro_rules! readable {
    ($($kind:ty => $what:literal,)*) => {
        $(impl Readable for $kind {
            const WHAT: &'static str = $what;
        })*
    };
}

readable! {
    Value => "a value",
    Vec<Value> => "a list",
    String => "text",
    bool => "true or false",
    usize => "a whole number of 0 or more",
    NonZeroUsize => "a whole number of 1 or more",
    i64 => "a whole number",
    f64 => "a number",
    Number => "a whole number of 64 bits",
    BTreeSet<u32> => "a list of token ids, whole numbers of 0 or more",
    BTreeMap<String, f64> => "an object with a number for each name",
}

/// Fields of a JSON object that have not been taken.
#[derive(Debug)]
pub(crate) struct Fields {
    fields: Map<String, Value>,
    /// Where the object stands, as `messages[0].`; empty for the body.
    place: String,
}

impl Fields {
    /// The fields of a body.
    pub(crate) fn of_body(body: &[u8]) -> Result<Self, Failure> {
        let value = serde_json::from_slice(body)
            .map_err(|error| Failure::request(format!("the body is not valid JSON: {error}")))?;
        match value {
            Value::Object(fields) => Ok(Self { fields, place: String::new() }),
            other => {
                let found = shown(&other);
                Err(Failure::request(format!("the body has to be a JSON object, but is {found}")))
            }
        }
    }

    /// The fields of an object within a body.
    pub(crate) fn of(value: Value, place: &str) -> Result<Self, Failure> {
        match value {
            Value::Object(fields) => Ok(Self { fields, place: format!("{place}.") }),
            other => {
                let message =
                    format!("`{place}` has to be a JSON object, but is {}", shown(&other));
                Err(Failure::field(place, message))
            }
        }
    }

    /// The value of a field; None where it is missing or null.
    pub(crate) fn take<T: Readable>(&mut self, key: &str) -> Result<Option<T>, Failure> {
        let Some(value) = self.fields.remove(key).filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        let text = shown(&value);
        let refuse = |_| self.refuse(key, format!("is {text}, but has to be {}", T::WHAT));
        serde_json::from_value(value).map(Some).map_err(refuse)
    }

    /// A field that is known to other servers: it may only say what is so without it, by one of these values.
    pub(crate) fn neutral(&mut self, key: &str, neutral: &[Value]) -> Result<(), Failure> {
        match self.take::<Value>(key)? {
            None => Ok(()),
            Some(value) if neutral.iter().any(|one| same(&value, one)) => Ok(()),
            Some(value) => {
                let (value, known) = (shown(&value), neutral.iter().map(Value::to_string));
                let known = known.collect::<Vec<_>>().join(" or ");
                Err(self.refuse(key, format_args!("is {value}, but this server has only {known}")))
            }
        }
    }

    /// Refuses what has not been taken; what is null is not there, as clients send all that they have no value for.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.fields.retain(|_, value| !value.is_null());
        let names: Vec<String> =
            self.fields.keys().map(|key| format!("`{}{key}`", self.place)).collect();
        let Some(first) = self.fields.keys().next() else { return Ok(()) };
        let (noun, verb) = if names.len() == 1 { ("field", "is") } else { ("fields", "are") };
        let message = format!("the {noun} {} {verb} unknown to this server", names.join(", "));
        let first = format!("{}{first}", self.place);
        Err(Failure::field(&first, message).with_code("unknown_field"))
    }

    /// The error that a field is at fault.
    pub(crate) fn refuse(&self, key: &str, what: impl std::fmt::Display) -> Failure {
        let name = format!("{}{key}", self.place);
        Failure::field(&name, format!("`{name}` {what}"))
    }
}

/// Equal, whether numbers are written as 0 or as 0.0.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// The beginning of a value, for messages.
pub(crate) fn shown(value: &Value) -> String {
    const SHOWN: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(failure: Failure) -> String {
        failure.json()["error"]["message"].as_str().unwrap().to_owned()
    }

    #[test]
    fn fields_are_taken_by_type_and_the_rest_is_named() {
        let body = br#"{"n": 2, "x": null, "temperature": "hot", "b": 1, "a": [2], "c": null}"#;
        let mut fields = Fields::of_body(body).unwrap();
        assert_eq!(fields.take::<usize>("n").unwrap(), Some(2));
        assert_eq!(fields.take::<usize>("x").unwrap(), None);
        let failure = fields.take::<f64>("temperature").unwrap_err();
        assert_eq!(failure.json()["error"]["param"], "temperature");
        assert_eq!(message(failure), "`temperature` is \"hot\", but has to be a number");
        assert_eq!(
            message(fields.finish().unwrap_err()),
            "the fields `a`, `b` are unknown to this server"
        );
    }

    #[test]
    fn what_a_field_has_to_be_is_said_in_words() {
        let body = br#"{"a": 0, "b": -1, "c": 1.5, "d": 1, "e": {"x": "y"}, "f": [-1]}"#;
        let mut fields = Fields::of_body(body).unwrap();
        for (failure, told) in [
            (fields.take::<NonZeroUsize>("a").unwrap_err(), "`a` is 0, but has to be a whole"),
            (fields.take::<usize>("b").unwrap_err(), "has to be a whole number of 0 or more"),
            (fields.take::<i64>("c").unwrap_err(), "`c` is 1.5, but has to be a whole number"),
            (fields.take::<bool>("d").unwrap_err(), "has to be true or false"),
            (fields.take::<BTreeMap<String, f64>>("e").unwrap_err(), "a number for each name"),
            (fields.take::<BTreeSet<u32>>("f").unwrap_err(), "a list of token ids"),
        ] {
            assert!(message(failure).contains(told), "{told}");
        }
    }

    #[test]
    fn a_body_is_an_object() {
        for (body, told) in [
            (&b"{\"a\": "[..], "not valid JSON: EOF"),
            (b"[1]", "but is [1]"),
            (b"", "not valid JSON"),
            (b"\xff", "not valid JSON"),
        ] {
            assert!(message(Fields::of_body(body).unwrap_err()).contains(told), "{body:?}");
        }
        let deep = "[".repeat(100_000);
        assert!(message(Fields::of_body(deep.as_bytes()).unwrap_err()).contains("recursion limit"));
    }

    #[test]
    fn what_others_know_may_change_nothing() {
        let body = br#"{"a": 0.0, "b": 0, "c": 0.5, "e": "y", "f": "z"}"#;
        let mut fields = Fields::of_body(body).unwrap();
        let zero = &[json!(0)];
        assert!(fields.neutral("a", zero).is_ok() && fields.neutral("b", zero).is_ok());
        let failure = fields.neutral("c", zero).unwrap_err();
        assert_eq!(message(failure), "`c` is 0.5, but this server has only 0");
        assert!(fields.neutral("d", zero).is_ok());
        let either = &[json!("x"), json!("y")];
        assert!(fields.neutral("e", either).is_ok());
        let failure = fields.neutral("f", either).unwrap_err();
        assert_eq!(message(failure), "`f` is \"z\", but this server has only \"x\" or \"y\"");
    }

    #[test]
    fn places_within_the_body_are_named() {
        let mut fields =
            Fields::of(json!({"role": 1, "name": "x", "audio": null}), "messages[3]").unwrap();
        assert!(
            message(fields.take::<String>("role").unwrap_err()).contains("`messages[3].role` is 1")
        );
        assert!(message(fields.finish().unwrap_err()).contains("the field `messages[3].name` is"));
    }
}
