//! Texts as Python sees them: where they have white space, lines and letters with cases.

/// Python's white space: Unicode's, and four separators that are no white space there.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

/// A text without white space, or these characters, at its beginning, its end or both.
pub(super) fn stripped<'a>(
    text: &'a str,
    chars: Option<&str>,
    [beginning, end]: [bool; 2],
) -> &'a str {
    let goes = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if beginning { text.trim_start_matches(goes) } else { text };
    if end { text.trim_end_matches(goes) } else { text }
}

/// The first words, and what stands behind them.
pub(super) fn first_words(text: &str, most: usize) -> Vec<&str> {
    let (mut words, mut rest) = (Vec::new(), text.trim_start_matches(is_space));
    while !rest.is_empty() && words.len() < most {
        let (word, behind) = rest.split_at(rest.find(is_space).unwrap_or(rest.len()));
        words.push(word);
        rest = behind.trim_start_matches(is_space);
    }
    words.extend(Some(rest).filter(|rest| !rest.is_empty()));
    words
}

/// The last words, the last one first, and what stands before them.
pub(super) fn last_words(text: &str, most: usize) -> Vec<&str> {
    let (mut words, mut rest) = (Vec::new(), text.trim_end_matches(is_space));
    while !rest.is_empty() && words.len() < most {
        let word = rest.rsplit(is_space).next().unwrap_or(rest);
        words.push(word);
        rest = rest[..rest.len() - word.len()].trim_end_matches(is_space);
    }
    words.extend(Some(rest).filter(|rest| !rest.is_empty()));
    words
}

/// Whether a character ends a line.
pub(super) fn ends_line(c: char) -> bool {
    matches!(c, '\n'..='\r' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// The lines of a text, each with what ends it.
pub(super) fn lines(text: &str) -> Vec<&str> {
    let (mut lines, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let end = rest.find(ends_line).unwrap_or(rest.len());
        let ending = &rest[end..];
        let length = match ending.chars().next() {
            Some('\r') if ending.starts_with("\r\n") => 2,
            first => first.map_or(0, char::len_utf8),
        };
        let (line, behind) = rest.split_at(end + length);
        lines.push(line);
        rest = behind;
    }
    lines
}

/// A text in pieces, of which every other one has letters with cases alone and the rest none.
pub(super) fn runs_of_case(text: &str) -> Vec<&str> {
    let (mut runs, mut rest) = (Vec::new(), text);
    while let Some(first) = rest.chars().next() {
        let differs = |c: char| has_case(c) != has_case(first);
        let (run, behind) = rest.split_at(rest.find(differs).unwrap_or(rest.len()));
        runs.push(run);
        rest = behind;
    }
    runs
}

/// Whether a letter is a small one, a capital or one for titles.
fn has_case(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase() || c.to_lowercase().ne([c])
}
