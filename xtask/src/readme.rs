//! The commands of README.md and of documents, run as a reader would.
//!
//! In a fenced `console` block, a line that begins with `$ ` is a command (a `\` at its end
//! continues it) and other lines are what it prints. Blocks with the comment `<!-- tested -->` on
//! the line before are run; the others need what a test may not have, a GPU or a download.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::{root, succeed};

/// In the order in which a reader would come to them: each may use what the ones before have made.
const DOCUMENTS: [&str; 2] = ["README.md", "docs/replicate.md"];
const MARK: &str = "<!-- tested -->";
const FENCE: &str = "```";

/// A command and the line it begins on, counted from 1.
#[derive(Debug, PartialEq)]
struct ReadmeCommand {
    line: usize,
    text: String,
}

/// Runs the marked commands in order, from the repository root; stops at the first that fails.
pub(crate) fn run() -> Result<()> {
    DOCUMENTS.iter().try_for_each(|document| run_those_of(document))
}

fn run_those_of(document: &str) -> Result<()> {
    let text = std::fs::read_to_string(root().join(document));
    let text = text.with_context(|| format!("Cannot read {document}"))?;
    let commands = tested_commands(&text).with_context(|| document.to_owned())?;
    for ReadmeCommand { line, text } in &commands {
        println!("{document}:{line}: $ {text}");
        // Being run by whoever is running this.
        if text.contains("xtask test") {
            continue;
        }
        succeed(Command::new("sh").args(["-e", "-c", text]).current_dir(root()))
            .with_context(|| format!("{document}:{line}: the command `{text}` fails"))?;
    }
    println!("{document}: {} commands", commands.len());
    Ok(())
}

fn tested_commands(readme: &str) -> Result<Vec<ReadmeCommand>> {
    let mut lines = readme.lines().zip(1..);
    let mut commands = Vec::new();
    while let Some((line, number)) = lines.next() {
        if line.trim() != MARK {
            continue;
        }
        if lines.next().is_none_or(|(fence, _)| fence.trim() != "```console") {
            bail!("line {number}: no ```console block follows on {MARK}.");
        }
        let Some(block) = block(&mut lines) else {
            bail!("line {number}: the block after {MARK} is not closed.");
        };
        commands.extend(commands_of(&block));
    }
    Ok(commands)
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

fn commands_of(block: &[(&str, usize)]) -> Vec<ReadmeCommand> {
    let mut commands: Vec<ReadmeCommand> = Vec::new();
    let mut continues = false;
    for &(line, number) in block {
        if continues && let Some(command) = commands.last_mut() {
            command.text = format!("{}\n{line}", command.text);
        } else if let Some(text) = line.strip_prefix("$ ") {
            commands.push(ReadmeCommand { line: number, text: text.to_owned() });
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

    fn commands(readme: &str) -> Vec<(usize, String)> {
        let commands = tested_commands(readme).unwrap();
        commands.into_iter().map(|command| (command.line, command.text)).collect()
    }

    #[test]
    fn only_marked_blocks_are_run_and_only_their_commands() {
        let readme =
            "# t\n```console\n$ rm x\n```\n<!-- tested -->\n```console\n$ ls\na b\n$ pwd\n```\n";
        assert_eq!(commands(readme), [(7, "ls".to_owned()), (9, "pwd".to_owned())]);
    }

    #[test]
    fn a_backslash_continues_a_command() {
        let readme = "<!-- tested -->\n```console\n$ a \\\n    b \\\n  c\nshown\n$ d\n```";
        assert_eq!(commands(readme), [(3, "a \\\n    b \\\n  c".to_owned()), (7, "d".to_owned())]);
    }

    #[test]
    fn a_mark_without_a_whole_block_is_an_error() {
        let error = |readme: &str| tested_commands(readme).unwrap_err().to_string();
        assert!(error("a\n<!-- tested -->\n\n```console\n$ ls\n```").starts_with("line 2: no "));
        assert!(error("<!-- tested -->").starts_with("line 1: no "));
        assert!(error("<!-- tested -->\n```console\n$ ls\n").contains("is not closed"));
    }
}
