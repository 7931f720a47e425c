//! The documents: their links lead somewhere, the book is whole, the change log is open, and the version to cite is the workspace's.

use super::repository::Repository;
use super::{File, Finding};
use crate::book::{SOURCE, pages_of};

/// Folders whose files the book names by their paths.
const FOLDERS: [&str; 8] =
    ["crates/", "recipes/", "tests/", "benches/", "examples/", "xtask/", "fuzz/", "docs/"];

/// Checks CHANGELOG.md, CITATION.cff, the links of every document, and the book.
pub(super) fn check(repository: &Repository) -> Vec<Finding> {
    let root = crate::cargo::root();
    let exists = |path: &str| root.join(path).exists();
    let documents = repository.files().iter().filter(|file| file.path.ends_with(".md"));
    let mut findings: Vec<_> =
        documents.flat_map(|file| dead_links(file, repository, exists)).collect();
    findings.extend(book(repository, exists));
    findings.extend(unreleased(repository.get("CHANGELOG.md")));
    findings.extend(other_version(repository));
    findings
}

fn unreleased(changelog: Option<&File>) -> Option<Finding> {
    let text = changelog.map_or("", |file| file.text.as_str());
    let open = text.lines().any(|line| line.trim_end() == "## [Unreleased]");
    let what = "The change log needs a section `## [Unreleased]`. Put changes there.";
    (!open).then(|| Finding::new("CHANGELOG.md", 1, what))
}

/// The version to cite, where it is not that of the workspace.
fn other_version(repository: &Repository) -> Option<Finding> {
    let value = |path: &str, key: &str| {
        let text = repository.get(path).map_or("", |file| file.text.as_str());
        let mut lines = text.lines().zip(1..);
        let found = lines.find_map(|(text, line)| Some((line, text.strip_prefix(key)?)));
        found.map_or((1, ""), |(line, value)| (line, value.trim().trim_matches('"')))
    };
    let (_, version) = value("Cargo.toml", "version = ");
    let (line, cited) = value("CITATION.cff", "version: ");
    let message =
        format!("The version is `{cited}`, and `{version}` in Cargo.toml. Make them the same.");
    (cited != version).then(|| Finding::new("CITATION.cff", line, message))
}

/// Pages that the summary lacks, links that leave the book, which a reader of its HTML could not follow, and paths of files that are not there.
fn book(repository: &Repository, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let summary = repository.get(&format!("{SOURCE}/SUMMARY.md"));
    let listed = summary.map(|file| pages_of(&file.text)).unwrap_or_default();
    let mut findings = Vec::new();
    let in_book = |file: &&File| file.path.starts_with(SOURCE) && file.path.ends_with(".md");
    for file in repository.files().iter().filter(in_book) {
        let is_summary = file.path.ends_with("/SUMMARY.md");
        if !is_summary && !listed.contains(&file.path) {
            let message = "The page is not in SUMMARY.md. Put it there.";
            findings.push(Finding::new(&file.path, 1, message));
        }
        for (line, target) in links(&file.text) {
            let path = resolve(&file.path, target.split('#').next().unwrap_or(target));
            if !target.contains(':') && !path.starts_with(SOURCE) {
                let message = format!(
                    "The link `{target}` leaves the book. Name the file as `{path}` in place of it."
                );
                findings.push(Finding::new(&file.path, line, message));
            }
        }
        for (line, path) in named_paths(&file.text).filter(|(_, path)| !exists(path)) {
            let message = format!("There is no `{path}`. Correct the path.");
            findings.push(Finding::new(&file.path, line, message));
        }
    }
    findings
}

/// Links to files and headings that are not there. Code blocks and links with a scheme are passed over.
fn dead_links(
    document: &File,
    repository: &Repository,
    exists: impl Fn(&str) -> bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, target) in links(&document.text).filter(|(_, target)| !target.contains(':')) {
        let (file, heading) = target.split_once('#').unwrap_or((target, ""));
        let path = resolve(&document.path, file);
        if !exists(&path) {
            let message = format!("The link leads to `{path}`, which does not exist. Correct it.");
            findings.push(Finding::new(&document.path, line, message));
        } else if let Some(other) = repository.get(&path).filter(|_| !heading.is_empty())
            && !headings(&other.text).any(|name| name == heading)
        {
            let message = format!("`{path}` has no heading `#{heading}`. Correct the link.");
            findings.push(Finding::new(&document.path, line, message));
        }
    }
    findings
}

/// Where a link of a document leads, from the repository's root; to the document itself where it names no file.
fn resolve(document: &str, target: &str) -> String {
    if target.is_empty() {
        return document.to_owned();
    }
    let mut parts: Vec<&str> = document.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.pop().is_none() => parts.push(".."),
            ".." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// What stands between `](` and `)` outside of code blocks, with the line.
fn links(text: &str) -> impl Iterator<Item = (usize, &str)> {
    prose(text).flat_map(|(line, text)| {
        let rest = text.split("](").skip(1);
        rest.filter_map(|rest| rest.split([')', ' ']).next()).map(move |target| (line, target))
    })
}

/// Inline code that is the path of a file or folder of the repository, with the line.
fn named_paths(text: &str) -> impl Iterator<Item = (usize, &str)> {
    prose(text).flat_map(|(line, text)| {
        let code = text.split('`').skip(1).step_by(2);
        let is_path = |code: &&str| {
            FOLDERS.iter().any(|folder| code.starts_with(folder)) && !code.contains([' ', '*', '{'])
        };
        code.filter(is_path).map(move |path| (line, path))
    })
}

/// The ids of the headings, as GitHub and mdBook make them: later ones of the same name are numbered.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let mut seen: Vec<String> = Vec::new();
    let lines = prose(text).filter(|(_, text)| text.starts_with('#'));
    lines.map(move |(_, text)| {
        let kept = text.trim_start_matches('#').trim().chars().filter_map(|c| match c {
            ' ' => Some('-'),
            '-' | '_' => Some(c),
            c => c.is_alphanumeric().then_some(c),
        });
        let id: String = kept.flat_map(char::to_lowercase).collect();
        let before = seen.iter().filter(|other| **other == id).count();
        seen.push(id.clone());
        if before == 0 { id } else { format!("{id}-{before}") }
    })
}

/// The lines that stand in no code block, counted from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().zip(1..).filter_map(move |(text, line)| {
        let fence = text.trim_start().starts_with("```");
        in_code ^= fence;
        (!in_code && !fence).then_some((line, text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    fn shown(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_links_to_missing_files_and_headings_are_found() {
        let text = "[a](docs/a.md#part) [b](gone.md \"title\")\n[c](https://x.org/y) [d](#here)\n\
                    ```\n[e](also-gone.md)\n```\n[f](gone/too.md#x) [g](docs/a.md#no)\n# Here\n";
        let repository = Repository::new(vec![
            file("README.md", text),
            file("docs/a.md", "# A\n\n## The *part*\n## Part\n[back](../README.md#here)\n"),
        ]);
        let exists = |path: &str| ["README.md", "docs/a.md"].contains(&path);
        let found =
            |path: &str| shown(&dead_links(repository.get(path).unwrap(), &repository, exists));
        let readme = found("README.md");
        assert_eq!(readme.len(), 3);
        assert!(readme[0].starts_with("README.md:1: The link leads to `gone.md`"), "{}", readme[0]);
        assert!(readme[1].starts_with("README.md:6: The link leads to `gone/too.md`"));
        assert!(readme[2].starts_with("README.md:6: `docs/a.md` has no heading `#no`"));
        assert!(found("docs/a.md").is_empty());
    }

    #[test]
    fn headings_have_the_ids_of_their_pages() {
        let text = "# task = \"align\"\n## [train.solver] (optional)\n### A `b` — c\n## [train.solver] (optional)\n";
        let ids: Vec<_> = headings(text).collect();
        let solver = "trainsolver-optional";
        assert_eq!(ids, ["task--align", solver, "a-b--c", "trainsolver-optional-1"]);
    }

    #[test]
    fn the_book_is_whole_and_names_files_that_are_there() {
        let repository = Repository::new(vec![
            file("docs/src/SUMMARY.md", "[A](a.md)\n"),
            file(
                "docs/src/a.md",
                "[x](../../README.md) `crates/a.rs` `crates/b.rs` [b](b.md#x) `tests/*`\n",
            ),
            file("docs/src/b.md", "# B\n"),
        ]);
        let found = shown(&book(&repository, |path| path == "crates/a.rs"));
        assert_eq!(found.len(), 3);
        assert!(
            found[0].starts_with("docs/src/a.md:1: The link `../../README.md` leaves the book")
        );
        assert!(found[1].starts_with("docs/src/a.md:1: There is no `crates/b.rs`"));
        assert!(found[2].starts_with("docs/src/b.md:1: The page is not in SUMMARY.md"));
    }

    #[test]
    fn the_change_log_has_to_be_open() {
        assert!(
            unreleased(Some(&file("CHANGELOG.md", "# Changes\n\n## [Unreleased]\n"))).is_none()
        );
        assert!(unreleased(Some(&file("CHANGELOG.md", "## [0.1.0]\n"))).is_some());
        assert!(unreleased(None).is_some());
    }

    #[test]
    fn the_version_to_cite_is_that_of_the_workspace() {
        let found = |citation: &str| {
            let manifest = "[workspace.package]\nversion = \"0.2.0\"\n";
            let files = [file("Cargo.toml", manifest), file("CITATION.cff", citation)];
            other_version(&Repository::new(files.into())).map(|finding| finding.to_string())
        };
        for same in ["cff-version: 1.2.0\nversion: 0.2.0\n", "version: \"0.2.0\"\n"] {
            assert_eq!(found(same), None);
        }
        let other = found("cff-version: 1.2.0\nversion: 0.1.0\n").unwrap();
        assert!(other.starts_with("CITATION.cff:2: The version is `0.1.0`"), "{other}");
        assert!(found("cff-version: 0.2.0\n").is_some());
    }
}
