//! Methods of Python's values that templates call: those of `minijinja-contrib`, and `rsplit`, which it lacks.

use minijinja::value::{Kwargs, from_args};
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
        ("rsplit", Some(text)) => rsplit(text, arguments),
        _ => unknown_method_callback(state, value, method, arguments),
    }
}

/// `text.rsplit(sep=None, maxsplit=-1)`: the parts between separators, or white space, of which the last `maxsplit` split.
fn rsplit(text: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (mut separator, mut most, named): (Option<String>, Option<i64>, Kwargs) =
        from_args(arguments)?;
    separator = separator.or(named.get("sep")?);
    most = most.or(named.get("maxsplit")?);
    named.assert_all_used()?;
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let mut parts: Vec<&str> = match separator.as_deref() {
        Some("") => return Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        Some(separator) => text.rsplitn(most.saturating_add(1), separator).collect(),
        None => last_words(text, most),
    };
    parts.reverse();
    Ok(parts.into_iter().map(Value::from).collect())
}

/// The last words, the last one first, and what stands before them.
fn last_words(text: &str, most: usize) -> Vec<&str> {
    let (mut words, mut rest) = (Vec::new(), text.trim_end());
    while !rest.is_empty() && words.len() < most {
        let word = rest.rsplit(char::is_whitespace).next().unwrap_or(rest);
        words.push(word);
        rest = rest[..rest.len() - word.len()].trim_end();
    }
    words.extend(Some(rest).filter(|rest| !rest.is_empty()));
    words
}
