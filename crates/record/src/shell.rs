//! Command lines as texts that a shell reads back.

/// What a path in a word begins after, where it does not begin the word.
const BEFORE_PATHS: [char; 4] = ['=', ':', '\'', '"'];

/// A command line, so that a shell reads it the same again. Where a path begins with `~`, which records have in place of the home folder, the
/// shell puts its own user's there.
///
/// - `words`: without the program.
///
/// ```
/// let words = ["score", "--model", "~/my model", "--reward=~/r.toml", "it's"];
/// let line = infalign_record::command_line(words);
/// assert_eq!(line, r#"infalign score --model ~/'my model' --reward="$HOME"/r.toml 'it'\''s'"#);
/// ```
pub fn command_line<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> String {
    let mut line = "infalign".to_owned();
    for word in words {
        line.push(' ');
        line += &recorded(word.as_ref());
    }
    line
}

/// A word as a shell reads it back: as it is, or in quotes. Control characters are escapes in it, so that it stays on its line; such words, in
/// `$'…'`, are for bash and zsh, and not for every `sh`.
#[must_use]
pub fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    if !word.contains(|c: char| c.is_ascii_control()) {
        return format!("'{}'", word.replace('\'', "'\\''"));
    }
    let escaped = |c: char| match c {
        '\'' | '\\' => format!("\\{c}"),
        c if c.is_ascii_control() => format!("\\{:03o}", u32::from(c)),
        c => c.to_string(),
    };
    format!("$'{}'", word.chars().map(escaped).collect::<String>())
}

/// A word of a record, each `~` that a path begins with left to the shell.
fn recorded(word: &str) -> String {
    let part = |text: &str| if text.is_empty() { String::new() } else { shell_word(text) };
    let (mut line, mut done) = (String::new(), 0);
    for (at, _) in word.match_indices('~') {
        let (before, after) = (&word[..at], &word[at + 1..]);
        let begins = before.is_empty() || before.ends_with(BEFORE_PATHS);
        let slash = if after.starts_with('/') { "/" } else { "" };
        if begins && (after.is_empty() || !slash.is_empty()) {
            line += &part(&word[done..at]);
            // Shells read `~` at the beginning of a word alone.
            line += if before.is_empty() { "~" } else { "\"$HOME\"" };
            line += slash;
            done = at + 1 + slash.len();
        }
    }
    if done == 0 { shell_word(word) } else { line + &part(&word[done..]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_shell_reads_the_same_words_back_with_its_own_home_folder() {
        let plain = ["a", "it's $HOME \"x\"", "a b", "", "*", "a;b", r"a\b", "x~", "~x", "a='~'"];
        let home = ["~/m x", "~", "--out=~/x", "table:~/a b.csv", "a=[{b='~/c'},{b='~/d'}]"];
        let line = command_line(plain.iter().chain(&home));
        let printed = std::process::Command::new("sh")
            .env("HOME", "/people/al")
            .args(["-c", &format!("infalign() {{ printf '%s\\n' \"$@\"; }}; {line}")])
            .output()
            .unwrap();
        let printed = String::from_utf8(printed.stdout).unwrap();
        let (found, of_home): (Vec<&str>, Vec<&str>) = (
            printed.lines().take(plain.len()).collect(),
            printed.lines().skip(plain.len()).collect(),
        );
        assert_eq!(found, plain, "{line}");
        assert_eq!(of_home, home.map(|word| word.replace('~', "/people/al")), "{line}");
    }

    #[test]
    fn a_word_with_a_new_line_stays_on_its_line() {
        assert_eq!(shell_word("it's\n\\\u{1b}[1m"), r"$'it\'s\012\\\033[1m'");
        assert_eq!(shell_word("plain-1.0/a:b=c,d+e@f%g_h"), "plain-1.0/a:b=c,d+e@f%g_h");
        assert_eq!(shell_word("~/a"), "'~/a'", "a word that was typed so");
    }
}
