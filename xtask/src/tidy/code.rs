//! Rust source with its comments and literals blanked out, so that words can be looked for in
//! code alone.

/// The same text with a space for every byte of a comment, string or character literal. Line
/// breaks stay, so every line keeps its number.
pub(super) fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        match comment_or_literal(rest) {
            Some(n) => {
                code.extend(rest[..n].iter().map(|&byte| if byte == b'\n' { '\n' } else { ' ' }));
                at += n;
            }
            None => {
                code.push(if rest[0].is_ascii() { char::from(rest[0]) } else { ' ' });
                at += 1;
            }
        }
    }
    code
}

/// Whether `line` holds `word` on its own, not as the end of a longer name.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// How many bytes the comment or literal has that `rest` begins with.
fn comment_or_literal(rest: &[u8]) -> Option<usize> {
    match rest {
        [b'/', b'/', ..] => Some(rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len())),
        [b'/', b'*', ..] => Some(block_comment(rest)),
        [b'"', ..] => Some(1 + until_quote(&rest[1..], b'"')),
        [b'r', b'"' | b'#', ..] => raw_string(rest),
        [b'\'', b'\\', _, ..] => Some(3 + until_quote(&rest[3..], b'\'')),
        [b'\'', ..] => character(rest),
        _ => None,
    }
}

/// Block comments nest.
fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    rest.len()
}

/// How many bytes until after the closing quote; a backslash hides the byte behind it.
fn until_quote(rest: &[u8], quote: u8) -> usize {
    let mut at = 0;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// `r"…"`, `r#"…"#` and so on; `r#name` is no string.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let n_hashes = rest[1..].iter().take_while(|&&byte| byte == b'#').count();
    let body = 1 + n_hashes + 1;
    if rest.get(body - 1) != Some(&b'"') {
        return None;
    }
    let end: Vec<u8> = [b'"'].into_iter().chain(vec![b'#'; n_hashes]).collect();
    let length = rest[body..].windows(end.len()).position(|window| window == end);
    Some(length.map_or(rest.len(), |length| body + length + end.len()))
}

/// `'x'`, whatever the number of bytes of x; a lifetime is no literal.
fn character(rest: &[u8]) -> Option<usize> {
    let length = (1..=4).find(|&n| rest.get(1 + n) == Some(&b'\''))?;
    let one_character =
        std::str::from_utf8(&rest[1..=length]).is_ok_and(|s| s.chars().count() == 1);
    one_character.then_some(length + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        code_only(text).split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn comments_go_and_lines_stay() {
        let text = "a // b \" c\n/* d /* e */\n f */ g\n/// h\n//! i\nj";
        assert_eq!(words(text), ["a", "g", "j"]);
        assert_eq!(code_only(text).lines().count(), text.lines().count());
    }

    #[test]
    fn strings_go_whatever_they_hold() {
        assert_eq!(words(r#"a "b \" c // d" e"#), ["a", "e"]);
        assert_eq!(words("a r\"b \\\" c"), ["a", "c"]);
        assert_eq!(words("a r##\"b \"# c\"## d br#\"e\"# f"), ["a", "d", "b", "f"]);
        assert_eq!(words("a \"never closed"), ["a"]);
    }

    #[test]
    fn characters_go_and_lifetimes_stay() {
        assert_eq!(words(r"a '\'' b '\u{1F600}' c '€' d '/' e"), ["a", "b", "c", "d", "e"]);
        assert_eq!(
            words("f<'a, 'b>(x: &'a str) 'outer: r#type"),
            ["f<'a,", "'b>(x:", "&'a", "str)", "'outer:", "r#type"]
        );
    }

    #[test]
    fn words_are_not_found_at_the_end_of_longer_ones() {
        assert!(has_word("    println!()", "println!"));
        assert!(has_word("std::println!()", "println!"));
        assert!(!has_word("eprintln!()", "println!"));
        assert!(!has_word("my_println!()", "println!"));
    }
}
