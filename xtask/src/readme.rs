//! The commands of README.md and of the book, run as a reader would.
//!
//! In a fenced `console` block, a line that begins with `$ ` is a command (a `\` at its end
//! continues it) and other lines are what it prints. Blocks with the comment `<!-- tested -->` on
//! the line before are run; the others need what a test may not have, a GPU or a download. Behind
//! `<!-- tested with:` come words for every training of the block, by which what takes a reader
//! minutes takes a test seconds.
//!
//! The commands of a block share a shell, so that one may be left in the background, and `infalign`
//! is the program in the development profile.

use std::ffi::OsString;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::book;
use crate::cargo::{cargo, root, succeed, target};

const MARK: &str = "<!-- tested";
const TRAININGS: [&str; 2] = ["infalign train", "infalign scorer"];
const FENCE: &str = "```";

/// The commands of a block, each with the line that it begins on, counted from 1.
#[derive(Debug, Default, PartialEq)]
struct Block {
    commands: Vec<(usize, String)>,
}

/// Runs the marked blocks in order, from the repository root; stops at the first command that fails.
///
/// README.md first, then the book's chapters: each may use what the ones before have made.
pub(crate) fn run() -> Result<()> {
    // The same program as that of `cargo run`, and built before its time is anybody's patience.
    succeed(cargo().args(["build", "--quiet", "--locked"]).current_dir(root()))?;
    let path = path_with_program()?;
    std::iter::once("README.md".to_owned())
        .chain(book::pages()?)
        .try_for_each(|document| run_those_of(&document, &path))
}

fn run_those_of(document: &str, path: &OsString) -> Result<()> {
    let text = std::fs::read_to_string(root().join(document));
    let text = text.with_context(|| format!("Cannot read {document}"))?;
    let blocks = tested_blocks(&text).with_context(|| document.to_owned())?;
    let start = Instant::now();
    for block in &blocks {
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", &block.script(document)]).env("PATH", path).current_dir(root());
        succeed(&mut shell)
            .with_context(|| format!("{document}: the last command that is shown above fails"))?;
    }
    let n_commands: usize = blocks.iter().map(|block| block.commands.len()).sum();
    if n_commands > 0 {
        println!("{document}: {n_commands} commands in {:.0} s", start.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Where programs are looked for, `infalign` of the development profile first.
fn path_with_program() -> Result<OsString> {
    let first = target().join("debug");
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(first).chain(std::env::split_paths(&rest));
    std::env::join_paths(all)
        .context("The folder of this repository has a name that PATH cannot hold.")
}

impl Block {
    /// A script that shows each command before it runs it.
    fn script(&self, document: &str) -> String {
        // What is being run by whoever is running this is left out.
        let others = self.commands.iter().filter(|(_, text)| !text.contains("xtask test"));
        let shown = others.map(|(line, text)| {
            let title = format!("{document}:{line}: $ {text}").replace('\'', "'\\''");
            format!("printf '%s\\n' '{title}'\n{text}\n")
        });
        shown.collect()
    }
}

fn tested_blocks(document: &str) -> Result<Vec<Block>> {
    let mut lines = document.lines().zip(1..);
    let mut blocks = Vec::new();
    while let Some((line, number)) = lines.next() {
        let Some(mark) = line.trim().strip_prefix(MARK) else { continue };
        let words = match mark.strip_suffix("-->").map(str::trim) {
            Some("") => None,
            Some(more) => more.strip_prefix("with:").map(str::trim),
            None => None,
        };
        if words.is_none() && mark.trim() != "-->" {
            bail!("line {number}: write {MARK} --> or {MARK} with: WORDS -->.");
        }
        if lines.next().is_none_or(|(fence, _)| fence.trim() != "```console") {
            bail!("line {number}: no ```console block follows on {line}.");
        }
        let Some(block) = block(&mut lines) else {
            bail!("line {number}: the block after {line} is not closed.");
        };
        let mut commands = commands_of(&block);
        let is_training = |text: &str| TRAININGS.iter().any(|training| text.starts_with(training));
        for (_, training) in commands.iter_mut().filter(|(_, text)| is_training(text)) {
            *training = format!("{training} {}", words.unwrap_or_default()).trim_end().to_owned();
        }
        blocks.push(Block { commands });
    }
    Ok(blocks)
}

/// The lines up to the closing fence; `None` if there is none.
fn block<'a>(lines: &mut impl Iterator<Item = (&'a str, usize)>) -> Option<Vec<(&'a str, usize)>> {
    let mut block = Vec::new();
    loop {
        match lines.next()? {
            (line, _) if line.trim() == FENCE => return Some(block),
            line => block.push(line),
        }
    }
}

fn commands_of(block: &[(&str, usize)]) -> Vec<(usize, String)> {
    let mut commands: Vec<(usize, String)> = Vec::new();
    let mut continues = false;
    for &(line, number) in block {
        if continues && let Some((_, command)) = commands.last_mut() {
            *command = format!("{command}\n{line}");
        } else if let Some(text) = line.strip_prefix("$ ") {
            commands.push((number, text.to_owned()));
        } else {
            continue;
        }
        continues = line.ends_with('\\');
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(document: &str) -> Vec<Vec<(usize, String)>> {
        let blocks = tested_blocks(document).unwrap();
        blocks.into_iter().map(|block| block.commands).collect()
    }

    #[test]
    fn only_marked_blocks_are_run_and_only_their_commands() {
        let document =
            "# t\n```console\n$ rm x\n```\n<!-- tested -->\n```console\n$ ls\na b\n$ pwd\n```\n";
        assert_eq!(blocks(document), [[(7, "ls".to_owned()), (9, "pwd".to_owned())]]);
    }

    #[test]
    fn a_backslash_continues_a_command() {
        let document = "<!-- tested -->\n```console\n$ a \\\n    b \\\n  c\nshown\n$ d\n```";
        assert_eq!(
            blocks(document),
            [[(3, "a \\\n    b \\\n  c".to_owned()), (7, "d".to_owned())]]
        );
    }

    #[test]
    fn a_test_may_give_trainings_further_words() {
        let document = "<!-- tested with: --set a=1 -->\n```console\n$ rm x\n$ infalign train \\\n  r.toml\n```\n\
                        <!-- tested -->\n```console\n$ infalign train\n```";
        let trained = "infalign train \\\n  r.toml --set a=1";
        let first = vec![(3, "rm x".to_owned()), (4, trained.to_owned())];
        assert_eq!(blocks(document), [first, vec![(9, "infalign train".to_owned())]]);
    }

    #[test]
    fn a_script_shows_what_it_runs_and_leaves_out_the_test_itself() {
        let commands = vec![(2, "echo 'a'".to_owned()), (3, "cargo xtask test".to_owned())];
        let script = Block { commands }.script("B.md");
        assert_eq!(script, "printf '%s\\n' 'B.md:2: $ echo '\\''a'\\'''\necho 'a'\n");
    }

    #[test]
    fn a_mark_without_a_whole_block_is_an_error() {
        let error = |document: &str| tested_blocks(document).unwrap_err().to_string();
        assert!(error("a\n<!-- tested -->\n\n```console\n$ ls\n```").starts_with("line 2: no "));
        assert!(error("<!-- tested -->").starts_with("line 1: no "));
        assert!(error("<!-- tested -->\n```console\n$ ls\n").contains("is not closed"));
        assert!(error("<!-- tested by me -->\n```console\n$ ls\n```").contains("with: WORDS"));
    }
}
