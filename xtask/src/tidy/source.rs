//! What may stand in which source file.

use super::code::{code_only, has_word};
use super::{File, Finding};

const MAX_LINES: usize = 500;

/// Words of code, the crates that may use them outside tests, and what the others do.
struct Rule {
    words: &'static [&'static str],
    allowed_in: &'static [&'static str],
    instead: &'static str,
}

const RULES: [Rule; 4] = [
    Rule {
        words: &["println!", "eprintln!", "print!", "eprint!", "process::exit"],
        allowed_in: &["cli", "xtask"],
        instead: "Only the binaries print and exit: return a value or an error.",
    },
    Rule {
        words: &["SystemTime"],
        allowed_in: &["record", "cli", "xtask"],
        instead: "Only `record` reads the clock: take the time as an argument.",
    },
    Rule {
        words: &["env::var", "env::vars"],
        allowed_in: &["record", "backend", "cli", "xtask"],
        instead: "Only `record` reads the environment, and `backend` where drivers lie: take the value as an argument.",
    },
    Rule {
        words: &["Instant"],
        allowed_in: &["record", "train", "serve", "cli", "xtask"],
        instead: "Only progress reports of `train` and `cli`, and the limits of `serve`, measure time: take it as an argument.",
    },
];

/// Unfinished or switched-off code, wherever it stands.
const NEVER: [&str; 3] = ["todo!", "unimplemented!", "#[ignore"];

/// Checks one Rust file.
pub(super) fn check(file: &File, is_test_code: bool) -> Vec<Finding> {
    let mut findings = length(file);
    let code = code_only(&file.text);
    let lines: Vec<_> = code.lines().collect();
    // A build script talks to cargo by printing and the environment: there is no other way.
    let is_free = is_test_code || file.path.ends_with("/build.rs");
    let n_lines_of_program = if is_free { 0 } else { first_test_line(&lines) };
    let package = package(&file.path);
    for (idx, line) in lines.iter().enumerate() {
        for word in NEVER.iter().filter(|word| has_word(line, word)) {
            let message = format!("`{word}` may not stay. Finish it, or test what it does now.");
            findings.push(Finding::new(&file.path, idx + 1, message));
        }
        let rules = RULES.iter().filter(|rule| !rule.allowed_in.contains(&package));
        for rule in rules.filter(|_| idx < n_lines_of_program) {
            if let Some(word) = rule.words.iter().find(|word| has_word(line, word)) {
                let message = format!("`{word}` is not for `{package}`. {}", rule.instead);
                findings.push(Finding::new(&file.path, idx + 1, message));
            }
        }
    }
    findings
}

/// Finds folders of a person's or machine's own, in any text file, comments and strings included.
pub(super) fn home_paths(file: &File) -> Vec<Finding> {
    // In two parts each, or this file would find itself.
    let homes = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Use", "rs/")];
    let lines = file.text.lines().zip(1..);
    let holding = lines.filter_map(|(text, line)| {
        homes.iter().find(|home| is_absolute(text, home)).map(|home| (line, home))
    });
    holding
        .map(|(line, home)| {
            let message =
                format!("A path below {home} exists on one machine only. Make it relative.");
            Finding::new(&file.path, line, message)
        })
        .collect()
}

/// Whether the folder stands at the beginning of a path, not within a URL or a relative one.
fn is_absolute(text: &str, folder: &str) -> bool {
    text.match_indices(folder).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        !before
            .is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '}' | '~'))
    })
}

fn length(file: &File) -> Vec<Finding> {
    let n_lines = file.text.lines().count();
    if n_lines <= MAX_LINES || !(file.path.starts_with("crates/") && file.path.contains("/src/")) {
        return Vec::new();
    }
    let message = format!("{n_lines} lines; at most {MAX_LINES}. Split it by concept.");
    vec![Finding::new(&file.path, MAX_LINES + 1, message)]
}

/// The index of the line from which on the file is a test module, or the number of lines.
fn first_test_line(lines: &[&str]) -> usize {
    let begins = |pair: &[&str]| {
        pair[0].trim() == "#[cfg(test)]"
            && has_word(pair[1], "mod ")
            && pair[1].trim_end().ends_with('{')
    };
    lines.windows(2).position(begins).unwrap_or(lines.len())
}

/// `model` for crates/model/src/x.rs, `xtask` for xtask/src/x.rs.
fn package(path: &str) -> &str {
    let inside = path.strip_prefix("crates/").unwrap_or(path);
    inside.split('/').next().unwrap_or(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<usize> {
        let file = File { path: path.to_owned(), text: text.to_owned() };
        check(&file, false).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn printing_is_for_binaries_and_tests() {
        let text = "fn f() {\n    eprintln!(\"x\");\n}\n// println!()\n#[cfg(test)]\nmod tests {\n    println!();\n}\n";
        assert_eq!(found("crates/model/src/a.rs", text), [2]);
        assert!(found("crates/cli/src/a.rs", text).is_empty());
        assert!(found("crates/model/build.rs", text).is_empty());
        let file = File { path: "crates/model/tests/a.rs".to_owned(), text: text.to_owned() };
        assert!(check(&file, true).is_empty());
    }

    #[test]
    fn what_follows_a_declared_test_module_is_still_program() {
        let text = "#[cfg(test)]\nmod tests;\nfn f() { std::process::exit(1) }\n";
        assert_eq!(found("crates/stats/src/lib.rs", text), [3]);
    }

    #[test]
    fn clock_and_environment_are_read_in_few_places() {
        let text = "use std::time::{Instant, SystemTime};\nlet v = std::env::var_os(\"A\");\nenv!(\"B\");\n";
        assert_eq!(found("crates/decode/src/a.rs", text), [1, 1, 2]);
        assert_eq!(found("crates/train/src/a.rs", text), [1, 2]);
        assert!(found("crates/record/src/a.rs", text).is_empty());
    }

    #[test]
    fn unfinished_code_is_found_in_tests_too() {
        let text =
            "#[cfg(test)]\nmod tests {\n#[test]\n#[ignore = \"slow\"]\nfn f() { todo!() }\n}\n";
        assert_eq!(found("crates/stats/src/a.rs", text), [4, 5]);
    }

    #[test]
    fn long_files_are_found() {
        assert!(found("crates/stats/src/a.rs", &"\n".repeat(500)).is_empty());
        assert_eq!(found("crates/stats/src/a.rs", &"\n".repeat(501)), [501]);
        assert!(found("crates/stats/tests/a.rs", &"\n".repeat(501)).is_empty());
    }

    #[test]
    fn folders_of_one_machine_are_found_in_comments_and_strings() {
        let home = concat!("/ho", "me/");
        let text = format!("a\n// see {home}me/notes\nhttps://x.org{home}x\n\"{home}me\"\n");
        let file = File { path: "README.md".to_owned(), text };
        let lines: Vec<_> = home_paths(&file).into_iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [2, 4]);
    }
}
