//! Python's `'text' % value`, which the interpreter lacks: written with the filter `format`, which it has.

/// The template with the operator `%` after text constants as `|format(…)`. What stands outside of tags, in comments or between
/// `{% raw %}` and `{% endraw %}` stays as it is.
pub(super) fn as_filter(template: &str) -> String {
    let (mut written, mut rest) = (String::new(), template);
    let opens = |text: &str| text.starts_with(['{', '%', '#']);
    while let Some((start, _)) =
        rest.match_indices('{').find(|(place, _)| opens(&rest[place + 1..]))
    {
        let (before, tag) = rest.split_at(start);
        written += before;
        let end = if tag.starts_with("{#") {
            tag.find("#}").map(|end| end + 2)
        } else if is_raw(tag) {
            tag.find("endraw").map(|end| end + "endraw".len())
        } else {
            None
        };
        rest = match end {
            Some(end) => {
                written += &tag[..end];
                &tag[end..]
            }
            None => inside(tag, &mut written),
        };
    }
    written + rest
}

fn is_raw(tag: &str) -> bool {
    let word = tag[2..].trim_start_matches(['-', '+']).trim_start();
    tag.starts_with("{%") && word.strip_prefix("raw").is_some_and(|rest| !rest.starts_with(is_word))
}

/// Writes a tag up to its end, or all of a template that ends within it; returns what follows.
fn inside<'a>(tag: &'a str, written: &mut String) -> &'a str {
    let close = if tag.starts_with("{{") { "}}" } else { "%}" };
    let mut rest = tag;
    loop {
        let Some(first) = rest.chars().next() else { return rest };
        if let Some(after) = rest.strip_prefix(close) {
            *written += close;
            return after;
        }
        let length = constant(rest).unwrap_or(first.len_utf8());
        let (piece, after) = rest.split_at(length);
        *written += piece;
        rest = after;
        let Some(operand) = (length > 1).then(|| operator(after)).flatten() else { continue };
        let Some((length, bare)) = operand_length(operand) else { continue };
        let (value, after) = operand.split_at(length);
        *written += &match (bare, value.chars().next()) {
            (true, Some('(')) => format!("|format{value}"),
            (true, Some('{')) => format!("|format(**{value})"),
            _ => format!("|format({value})"),
        };
        rest = after;
    }
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
        for (template, written) in [
            ("{{ '%d' % n }}", "{{ '%d'|format(n) }}"),
            ("{{ \"%s %s\" % (a, b) ~ c }}", "{{ \"%s %s\"|format(a, b) ~ c }}"),
            ("{{ '%s'%m['a)'].b|upper | trim }}", "{{ '%s'|format(m['a)'].b|upper | trim) }}"),
            ("{% set x = '%.1f' % -f(1, '}}') %}", "{% set x = '%.1f'|format(-f(1, '}}')) %}"),
            ("{{ '%(k)s' % {'k': 1} }}", "{{ '%(k)s'|format(**{'k': 1}) }}"),
            ("{{ '\\'%d' % (n) }}", "{{ '\\'%d'|format(n) }}"),
        ] {
            assert_eq!(as_filter(template), written);
        }
    }

    #[test]
    fn all_else_stays_as_it_is() {
        for template in [
            "'%d' % n {{ 7 % n }} {% if a %}{# '%d' % n #}",
            "{% raw %}{{ '%d' % n }}{% endraw %}",
            "{% set x = 'a' %}{%- set x = 'a'-%}{% set x = 'a'%}",
            "{{ m['a'] % 2 }} { % '",
            "{{ '%d' % ",
            "{{ '%d' % (n }}",
            "{{ 'open % n }}",
            "{",
            "{{ )",
        ] {
            assert_eq!(as_filter(template), template);
        }
    }
}
