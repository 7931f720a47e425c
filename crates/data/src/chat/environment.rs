//! The Jinja that chat templates are written in: its settings and additions are those of transformers.

mod tags;

use std::error::Error as _;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};
use time::OffsetDateTime;
use time::format_description::parse_strftime_owned;

use super::json::to_json;
use super::{limits, methods};

/// The name of the only template of an environment.
pub(super) const NAME: &str = "chat";

/// The work that one text may take: instructions of the template, and one more for every 64 bytes that it makes. Loops within loops, or a text
/// that doubles, would take any time and memory.
const WORK: u64 = 1_000_000;

/// Most bytes of a template; common ones have less than a tenth of that. Reading takes half a kilobyte of the stack for each level, of which a
/// byte can open one, such as a minus sign.
const LONGEST: usize = 1 << 18;

/// The function that tells the time.
const STRFTIME_NOW: &str = "strftime_now";

/// What is wrong with a template that [`lacks_time`].
pub(super) const NO_TIME: &str = "it asks for the time (strftime_now), which would let results depend on the day; write a fixed date into it";

/// An environment that holds the template. As it is read by recursion, this needs the stack of a [`Watch`](super::watch::Watch).
pub(super) fn environment(
    template: String,
    now: Option<OffsetDateTime>,
) -> Result<Environment<'static>, Error> {
    if template.len() > LONGEST {
        let problem = format!("it has {} bytes; at most {LONGEST} are read", template.len());
        return Err(Error::new(ErrorKind::InvalidOperation, problem));
    }
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(methods::unknown);
    environment.set_fuel(Some(WORK));
    environment.set_formatter(limits::print);
    environment.add_function("raise_exception", raise_exception);
    if let Some(now) = now {
        environment.add_function(STRFTIME_NOW, move |format: &str| strftime(now, format));
    }
    environment.add_filter("string", limits::string);
    environment.add_filter("tojson", to_json);
    environment.add_filter("trim", methods::trim);
    environment.add_test("sequence", methods::is_sequence);
    environment.add_template_owned(NAME, tags::translated(&template)?)?;
    Ok(environment)
}

/// The words of `raise_exception`, if that is why rendering failed.
pub(super) fn raised(error: &Error) -> Option<String> {
    let mut causes =
        std::iter::successors(error.source(), |&cause| std::error::Error::source(cause));
    causes.find_map(|cause| cause.downcast_ref::<Raised>()).map(|Raised(reason)| reason.clone())
}

/// What a template raised.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(reason: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, reason.clone()).with_source(Raised(reason)))
}

/// Whether rendering failed since the template calls `strftime_now` where there is no time. Within a macro, what is unknown is undefined.
pub(super) fn lacks_time(environment: &Environment<'_>, error: &Error) -> bool {
    if environment.globals().any(|(name, _)| name == STRFTIME_NOW) {
        return false;
    }
    match error.detail() {
        Some("strftime_now is unknown") => true,
        Some("value of type undefined is not callable") => {
            let Ok(template) = environment.get_template(NAME) else { return false };
            let line = error.line().and_then(|line| template.source().lines().nth(line - 1));
            line.is_some_and(|line| line.contains(STRFTIME_NOW))
        }
        _ => false,
    }
}

/// `now` in the form that C's `strftime` knows.
fn strftime(now: OffsetDateTime, format: &str) -> Result<String, Error> {
    let fail = |cause: String| {
        Error::new(ErrorKind::InvalidOperation, format!("{STRFTIME_NOW}({format:?}): {cause}"))
    };
    let items = parse_strftime_owned(format).map_err(|cause| fail(cause.to_string()))?;
    now.format(&items).map_err(|cause| fail(cause.to_string()))
}
