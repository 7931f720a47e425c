//! Python's `'text' % value`, which the interpreter lacks: written with the filter `format`, which it has.

/// A tag with the operator `%` after text constants as `|format(…)`.
pub(super) fn as_filter(tag: &str) -> String {
    let (mut written, mut rest) = (String::new(), tag);
    while let Some(first) = rest.chars().next() {
        let text = constant(rest);
        let (piece, after) = rest.split_at(text.unwrap_or(first.len_utf8()));
        written += piece;
        rest = after;
        let Some(operand) = text.and_then(|_| operator(after)) else { continue };
        let Some((length, bare)) = operand_length(operand) else { continue };
        let (value, after) = operand.split_at(length);
        written += &match (bare, value.chars().next()) {
            (true, Some('(')) => format!("|format{value}"),
            (true, Some('{')) => format!("|format(**{value})"),
            _ => format!("|format({value})"),
        };
        rest = after;
    }
    written
}

/// What follows a `%` that is an operator, not the end of a tag.
fn operator(rest: &str) -> Option<&str> {
    let operand = rest.trim_start().strip_prefix('%')?;
    (!operand.starts_with('}')).then(|| operand.trim_start())
}

/// Length of a value with its attributes, calls and filters, and whether it is a group in brackets without any.
fn operand_length(text: &str) -> Option<(usize, bool)> {
    let sign = text.len() - text.trim_start_matches('-').len();
    let start = &text[sign..];
    let bracketed = start.starts_with(['(', '[', '{']);
    let own = if bracketed { group(start) } else { constant(start).or_else(|| word(start)) };
    let mut length = sign + own?;
    let mut bare = bracketed && sign == 0;
    loop {
        let rest = &text[length..];
        let spaces = rest.len() - rest.trim_start().len();
        let more = match rest.chars().next() {
            Some('.') => word(&rest[1..]).map(|word| 1 + word),
            Some('(' | '[') => group(rest),
            _ => rest.trim_start().strip_prefix('|').and_then(|filter| {
                let blank = filter.len() - filter.trim_start().len();
                word(filter.trim_start()).map(|word| spaces + 1 + blank + word)
            }),
        };
        let Some(more) = more else { return Some((length, bare)) };
        length += more;
        bare = false;
    }
}

/// Length of the text constant at the beginning, quotes included.
fn constant(text: &str) -> Option<usize> {
    let quote = text.chars().next().filter(|first| matches!(first, '\'' | '"'))?;
    let mut escaped = false;
    let end = text[1..].find(|c| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.map(|end| end + 2)
}

/// Length of the brackets at the beginning and all between them.
fn group(text: &str) -> Option<usize> {
    let (mut open, mut place) = (Vec::new(), 0);
    while let Some(first) = text[place..].chars().next() {
        match first {
            '(' => open.push(')'),
            '[' => open.push(']'),
            '{' => open.push('}'),
            ')' | ']' | '}' => drop(open.pop().filter(|closing| *closing == first)?),
            _ => {}
        }
        place += constant(&text[place..]).unwrap_or(first.len_utf8());
        if open.is_empty() {
            return Some(place);
        }
    }
    None
}

/// Length of the name or number at the beginning.
fn word(text: &str) -> Option<usize> {
    let length = text.find(|c| !is_word(c)).unwrap_or(text.len());
    (length > 0).then_some(length)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::as_filter;

    #[test]
    fn the_operator_becomes_the_filter() {
        for (tag, written) in [
            ("{{ '%d' % n }}", "{{ '%d'|format(n) }}"),
            ("{{ \"%s %s\" % (a, b) ~ c }}", "{{ \"%s %s\"|format(a, b) ~ c }}"),
            ("{{ '%s'%m['a)'].b|upper | trim }}", "{{ '%s'|format(m['a)'].b|upper | trim) }}"),
            ("{% set x = '%.1f' % -f(1, '}}') %}", "{% set x = '%.1f'|format(-f(1, '}}')) %}"),
            ("{{ '%(k)s' % {'k': 1} }}", "{{ '%(k)s'|format(**{'k': 1}) }}"),
            ("{{ '\\'%d' % (n) }}", "{{ '\\'%d'|format(n) }}"),
        ] {
            assert_eq!(as_filter(tag), written);
        }
    }

    #[test]
    fn all_else_stays_as_it_is() {
        for tag in [
            "{{ 7 % n }}",
            "{{ é % n }}",
            "{% set x = 'a' %}",
            "{%- set x = 'a'-%}",
            "{% set x = 'a'%}",
            "{{ m['a'] % 2 }}",
            "{{ '%d' % ",
            "{{ '%d' % (n }}",
            "{{ 'open % n }}",
            "{{ )",
        ] {
            assert_eq!(as_filter(tag), tag);
        }
    }
}
