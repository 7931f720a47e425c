//! The documents at the root: their links lead somewhere, and the change log is open.

use super::repository::Repository;
use super::{File, Finding};

/// Checks CHANGELOG.md and the links of every document at the root.
pub(super) fn check(repository: &Repository) -> Vec<Finding> {
    let at_root = |file: &&File| file.path.ends_with(".md") && !file.path.contains('/');
    let root = crate::cargo::root();
    let exists = |target: &str| root.join(target).exists();
    let documents = repository.files().iter().filter(at_root);
    let mut findings: Vec<_> = documents.flat_map(|file| dead_links(file, exists)).collect();
    findings.extend(unreleased(repository.get("CHANGELOG.md")));
    findings
}

fn unreleased(changelog: Option<&File>) -> Option<Finding> {
    let text = changelog.map_or("", |file| file.text.as_str());
    let open = text.lines().any(|line| line.trim_end() == "## [Unreleased]");
    let what = "The change log needs a section `## [Unreleased]`. Put changes there.";
    (!open).then(|| Finding::new("CHANGELOG.md", 1, what))
}

/// Links to files that are not there. Code blocks and links with a scheme are passed over.
fn dead_links(document: &File, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_code = false;
    for (text, line) in document.text.lines().zip(1..) {
        in_code ^= text.trim_start().starts_with("```");
        for target in targets(text).filter(|_| !in_code) {
            let file = target.split('#').next().unwrap_or(target);
            if !file.is_empty() && !file.contains(':') && !exists(file) {
                let message =
                    format!("The link leads to `{file}`, which does not exist. Correct it.");
                findings.push(Finding::new(&document.path, line, message));
            }
        }
    }
    findings
}

/// What stands between `](` and `)`.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn only_links_to_missing_files_are_found() {
        let text = "[a](docs/a.md#part) [b](gone.md \"title\")\n[c](https://x.org/y) [d](#here)\n\
                    ```\n[e](also-gone.md)\n```\n[f](gone/too.md#x)";
        let findings = dead_links(&file("README.md", text), |target| target == "docs/a.md");
        let found: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("README.md:1: The link leads to `gone.md`"), "{}", found[0]);
        assert!(found[1].starts_with("README.md:6: The link leads to `gone/too.md`"));
    }

    #[test]
    fn the_change_log_has_to_be_open() {
        assert!(
            unreleased(Some(&file("CHANGELOG.md", "# Changes\n\n## [Unreleased]\n"))).is_none()
        );
        assert!(unreleased(Some(&file("CHANGELOG.md", "## [0.1.0]\n"))).is_some());
        assert!(unreleased(None).is_some());
    }
}
