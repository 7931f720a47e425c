//! Methods of Python's values that templates call: those of `minijinja-contrib`, and of texts those that it lacks, or that do otherwise in
//! Python; with the filter and the test that do otherwise in Jinja.

mod text;

use std::borrow::Cow;

use minijinja::filters::capitalize;
use minijinja::value::{Kwargs, StringInput, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Calls a method that Jinja itself does not know.
pub(super) fn unknown(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    match (method, value.as_str()) {
        ("strip", Some(text)) => strip(text, arguments, [true, true]),
        ("lstrip", Some(text)) => strip(text, arguments, [true, false]),
        ("rstrip", Some(text)) => strip(text, arguments, [false, true]),
        ("split", Some(text)) => split(text, arguments, false),
        ("rsplit", Some(text)) => split(text, arguments, true),
        ("splitlines", Some(text)) => split_lines(text, arguments),
        ("title", Some(text)) => {
            let () = from_args(arguments)?;
            title(state, text)
        }
        _ => unknown_method_callback(state, value, method, arguments),
    }
}

/// The filter `trim(chars=None)`.
pub(super) fn trim(text: StringInput<'_>, chars: Option<Cow<'_, str>>) -> Value {
    let stripped = text::stripped(text.as_str(), chars.as_deref(), [true, true]);
    text.preserve_safety(stripped.to_owned())
}

/// The test `sequence`: whatever has a length and items.
pub(super) fn is_sequence(value: &Value) -> bool {
    let kinds = [ValueKind::Undefined, ValueKind::String, ValueKind::Seq, ValueKind::Map];
    kinds.contains(&value.kind())
}

/// `text.strip(chars=None)`, or at one of its ends.
fn strip(text: &str, arguments: &[Value], ends: [bool; 2]) -> Result<Value, Error> {
    let (chars,): (Option<&str>,) = from_args(arguments)?;
    Ok(Value::from(text::stripped(text, chars, ends)))
}

/// `text.split(sep=None, maxsplit=-1)`, or `rsplit`: the parts between separators, or white space, of which the first `maxsplit` split, or
/// the last.
fn split(text: &str, arguments: &[Value], from_end: bool) -> Result<Value, Error> {
    let (mut separator, mut most, named): (Option<String>, Option<i64>, Kwargs) =
        from_args(arguments)?;
    separator = separator.or(named.get("sep")?);
    most = most.or(named.get("maxsplit")?);
    named.assert_all_used()?;
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let mut parts: Vec<&str> = match (separator.as_deref(), from_end) {
        (Some(""), _) => return Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        (Some(separator), true) => text.rsplitn(most.saturating_add(1), separator).collect(),
        (Some(separator), false) => text.splitn(most.saturating_add(1), separator).collect(),
        (None, true) => text::last_words(text, most),
        (None, false) => text::first_words(text, most),
    };
    if from_end {
        parts.reverse();
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

/// `text.splitlines(keepends=False)`.
fn split_lines(text: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (mut keep, named): (Option<bool>, Kwargs) = from_args(arguments)?;
    keep = keep.or(named.get("keepends")?);
    named.assert_all_used()?;
    let shown = |line: &str| {
        Value::from(if keep == Some(true) { line } else { line.trim_end_matches(text::ends_line) })
    };
    Ok(text::lines(text).into_iter().map(shown).collect())
}

/// `text.title()`: every run of letters that have cases begins with a capital one.
fn title(state: &State<'_, '_>, text: &str) -> Result<Value, Error> {
    let mut titled = String::with_capacity(text.len());
    for run in text::runs_of_case(text) {
        let run = Value::from(run);
        let word = capitalize(StringInput::new(state, &run)?);
        titled += word.as_str().unwrap_or_default();
    }
    Ok(Value::from(titled))
}
