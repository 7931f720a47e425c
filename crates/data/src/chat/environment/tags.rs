//! What Jinja's tags have and the interpreter's lack: `{% generation %}`, some escape sequences of text constants, and the operator `%` behind
//! them.

use minijinja::{Error, ErrorKind};
use regex::{Captures, Regex};

use super::super::percent;

/// Comments and raw blocks; marks of `{% generation %}`; other tags, in whose text constants all of that is text.
const PIECES: &str = r#"(?xs)
    \{\#.*?\#\}
    | \{%[-+]?\s*raw\s*[-+]?%\} .*? \{%[-+]?\s*endraw\s*[-+]?%\}
    | (?<mark> \{%[-+]?\s*(?:end)?generation\s*[-+]?%\} )
    | (?<tag>
        \{\{ (?: '(?:\\.|[^'\\])*' | "(?:\\.|[^"\\])*" | [^'"] )*? \}\}
        | \{% (?: '(?:\\.|[^'\\])*' | "(?:\\.|[^"\\])*" | [^'"] )*? %\}
    )"#;

/// An escape sequence; of a long one, its code.
const ESCAPE: &str = r"(?s)\\(?:U([0-9a-fA-F]{8})|.)";

/// The template in the interpreter's words. A `{% generation %}` block, which shows trainers what the assistant says, is always written, and
/// what is set within it is not known behind it: it becomes a `{% with %}` block.
pub(super) fn translated(template: &str) -> Result<String, Error> {
    let regex = |text: &str| {
        Regex::new(text).map_err(|cause| Error::new(ErrorKind::BadSerialization, cause.to_string()))
    };
    let (pieces, escapes) = (regex(PIECES)?, regex(ESCAPE)?);
    let written = pieces.replace_all(template, |piece: &Captures<'_>| {
        let text = piece.get_match().as_str();
        if piece.name("mark").is_some() {
            text.replace("generation", "with")
        } else if piece.name("tag").is_some() {
            percent::as_filter(&escapes.replace_all(text, escape))
        } else {
            text.to_owned()
        }
    });
    Ok(written.into_owned())
}

/// An escape sequence of Python in one that the interpreter knows.
fn escape(sequence: &Captures<'_>) -> String {
    let code = sequence.get(1).and_then(|code| u32::from_str_radix(code.as_str(), 16).ok());
    match (sequence.get_match().as_str(), code.and_then(char::from_u32)) {
        (_, Some(c)) => {
            c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
        }
        (r"\a", _) => r"\x07".to_owned(),
        (r"\v", _) => r"\x0b".to_owned(),
        (r"\/", _) => r"\\/".to_owned(),
        ("\\\n", _) => String::new(),
        (other, _) => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::translated;

    #[test]
    fn tags_are_translated() {
        for (template, written) in [
            ("{%- generation +%}a{%endgeneration-%}", "{%- with +%}a{%endwith-%}"),
            (r"{{ '\U0001F600' ~ '\U00000027' }}", r"{{ '\ud83d\ude00' ~ '\u0027' }}"),
            (r#"{% if x == "\a\v" %}"#, r#"{% if x == "\x07\x0b" %}"#),
            (r"{{ '<\/b>\\a\\\a' }}", r"{{ '<\\/b>\\a\\\x07' }}"),
            ("{{ 'a\\\nb' }}", "{{ 'ab' }}"),
            (
                r"{{ '\a%d' % n }} % {% if '%d' % n %}",
                r"{{ '\x07%d'|format(n) }} % {% if '%d'|format(n) %}",
            ),
        ] {
            assert_eq!(translated(template).unwrap(), written);
        }
    }

    #[test]
    fn all_else_stays_as_it_is() {
        for template in [
            "{{ '{% generation %}' ~ \"it's {%- endgeneration -%}\" }}",
            "{% set x = '\\'{% generation %}' %}",
            r"{%- raw -%}{% generation %}{{ '\a' }}{%- endraw %}{# {% generation %} '\a' #}",
            r"\a it's \U0001F600 {{ '\n\u00e9\x41\101\d\\U0001F600' }}",
            "{% generations %}{{ generation }}{% if generation %}",
            "{{ 'open {% generation",
            "'%d' % n {# '%d' % n #}{% raw %} endraw {{ '%d' % n }}{% endraw %} { % '",
            "{",
        ] {
            assert_eq!(translated(template).unwrap(), template);
        }
    }
}
