//! The command line of xtask itself.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// What xtask was asked to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Invocation {
    Help,
    Test(Backend),
    Tidy,
    /// The book, with the reference written anew.
    Book,
    /// A run's folder, by the independent validator.
    Validate(PathBuf),
    /// `arguments` begins with infalign's command.
    Infalign {
        backend: Backend,
        arguments: Vec<OsString>,
    },
}

/// Which backend the binary is built with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Backend {
    Cpu,
    Wgpu,
    Cuda,
}

const OWN_COMMANDS: [(&str, &str); 4] = [
    ("test", "everything that has to hold before a change is merged"),
    ("tidy", "the rules of this repository that no other tool checks"),
    ("book", "writes the reference and the figures of the book, and renders it"),
    ("validate", "a run's folder, by an independent validator of RO-Crates"),
];

const INFALIGN_COMMANDS: [(&str, &str); 17] = [
    ("train", "train a policy from a recipe; without one: the quickstart"),
    ("calibrate", "tables of reference rewards, by which rewards are calibrated"),
    ("scorer", "a prefix scorer for controlled decoding, from a recipe"),
    ("generate", "responses under a procedure"),
    ("score", "log-probabilities and rewards of given responses"),
    ("serve", "answer requests in OpenAI's protocol, procedures included"),
    ("evaluate", "the inference-time win rate of a policy over a reference"),
    ("compare", "differences between evaluated methods, or between decoders, on the same prompts"),
    ("report", "one page from runs and evaluations"),
    ("transform", "exact KL, win rates and optimal transforms, as numbers and as plots"),
    ("reproduce", "one figure or table of a paper, from its plan"),
    ("verify", "whether a run's folder is what was recorded"),
    ("replay", "a run's table and plots again, from its stored samples"),
    ("replicate", "a run again, and how near it comes, result by result"),
    ("checklist", "what conferences ask, answered from a run's record"),
    ("badges", "what a run and its replications are evidence of"),
    ("doctor", "what this machine and this build can do, and why not more"),
];

impl Invocation {
    /// Reads the words after `cargo xtask`. `--backend` may stand anywhere among them.
    pub(crate) fn parse(mut words: Vec<OsString>) -> Result<Self> {
        let backend = take_backend(&mut words)?;
        let command = words.first().with_context(|| format!("Name a command.\n\n{}", usage()))?;
        let command = command.to_string_lossy().into_owned();
        match command.as_str() {
            "--help" | "-h" | "help" => Ok(Self::Help),
            "test" => no_more(&words[1..]).map(|()| Self::Test(backend.unwrap_or(Backend::Cpu))),
            "tidy" | "book" if backend.is_some() => {
                bail!("`{command}` needs no backend: leave out --backend.")
            }
            "tidy" => no_more(&words[1..]).map(|()| Self::Tidy),
            "book" => no_more(&words[1..]).map(|()| Self::Book),
            "validate" => {
                let run = words.get(1).context("Name the folder of a run.")?.into();
                no_more(&words[2..]).map(|()| Self::Validate(run))
            }
            name if INFALIGN_COMMANDS.iter().any(|(known, _)| *known == name) => {
                Ok(Self::Infalign { backend: backend.unwrap_or(Backend::Cpu), arguments: words })
            }
            unknown => bail!("{}\n\n{}", unknown_command(unknown), usage()),
        }
    }
}

impl Backend {
    fn parse(name: &OsStr) -> Result<Self> {
        match name.to_str() {
            Some("cpu") => Ok(Self::Cpu),
            Some("wgpu") => Ok(Self::Wgpu),
            Some("cuda") => Ok(Self::Cuda),
            _ => bail!("--backend is cpu, wgpu or cuda, not `{}`.", name.display()),
        }
    }

    /// The cargo feature that adds this backend; `None` for the CPU, which is there by default.
    pub(crate) fn feature(self) -> Option<&'static str> {
        match self {
            Self::Cpu => None,
            Self::Wgpu => Some("wgpu"),
            // With the compiler of kernels that all measurements on GPUs were made with.
            Self::Cuda => Some("cuda-nvrtc"),
        }
    }
}

/// Removes `--backend NAME` or `--backend=NAME` from the words before a `--`.
fn take_backend(words: &mut Vec<OsString>) -> Result<Option<Backend>> {
    let mut backend = None;
    let mut at = 0;
    while at < words.len() && words[at] != "--" {
        let word = words[at].to_string_lossy();
        let name = match word.split_once('=') {
            Some(("--backend", name)) => OsString::from(name),
            None if word == "--backend" => {
                words.remove(at);
                words.get(at).context("--backend needs a value: cpu, wgpu or cuda.")?.clone()
            }
            _ => {
                at += 1;
                continue;
            }
        };
        words.remove(at);
        if backend.replace(Backend::parse(&name)?).is_some() {
            bail!("--backend is given twice. Give it once.");
        }
    }
    Ok(backend)
}

fn no_more(words: &[OsString]) -> Result<()> {
    match words.first() {
        None => Ok(()),
        Some(word) => bail!("`{}` is not understood here; see cargo xtask --help.", word.display()),
    }
}

/// How to call xtask.
pub(crate) fn usage() -> String {
    let rows = |commands: &[(&str, &str)]| {
        commands.iter().map(|(name, does)| format!("  {name:<10} {does}\n")).collect::<String>()
    };
    format!(
        "Usage: cargo xtask COMMAND [--backend cpu|wgpu|cuda] [ARGUMENT]…\n\n\
         For this repository:\n{}\n\
         Of infalign, whose release binary is built first (COMMAND --help tells its arguments):\n{}",
        rows(&OWN_COMMANDS),
        rows(&INFALIGN_COMMANDS)
    )
}

fn unknown_command(unknown: &str) -> String {
    let names = OWN_COMMANDS.iter().chain(&INFALIGN_COMMANDS).map(|(name, _)| *name);
    match names.map(|name| (strsim::levenshtein(unknown, name), name)).min() {
        Some((edits, nearest)) if edits <= 3 => {
            format!("There is no command `{unknown}`. Did you mean `{nearest}`?")
        }
        _ => format!("There is no command `{unknown}`."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Invocation> {
        Invocation::parse(line.split_whitespace().map(OsString::from).collect())
    }

    fn error(line: &str) -> String {
        parse(line).unwrap_err().to_string()
    }

    fn infalign(backend: Backend, line: &str) -> Invocation {
        let arguments = line.split_whitespace().map(OsString::from).collect();
        Invocation::Infalign { backend, arguments }
    }

    #[test]
    fn the_backend_is_taken_out_wherever_it_stands() {
        let expected = infalign(Backend::Cuda, "train recipe.toml --set a=b");
        for line in [
            "--backend cuda train recipe.toml --set a=b",
            "train --backend=cuda recipe.toml --set a=b",
            "train recipe.toml --set a=b --backend cuda",
        ] {
            assert_eq!(parse(line).unwrap(), expected);
        }
        assert_eq!(parse("generate").unwrap(), infalign(Backend::Cpu, "generate"));
    }

    #[test]
    fn other_arguments_are_passed_on_untouched() {
        let line = "generate --help --backends x -- --backend";
        assert_eq!(parse(line).unwrap(), infalign(Backend::Cpu, line));
    }

    #[test]
    fn own_commands_take_no_arguments() {
        assert_eq!(parse("test --backend wgpu").unwrap(), Invocation::Test(Backend::Wgpu));
        assert_eq!(parse("scorer r.toml").unwrap(), infalign(Backend::Cpu, "scorer r.toml"));
        assert_eq!(parse("tidy").unwrap(), Invocation::Tidy);
        assert_eq!(parse("book").unwrap(), Invocation::Book);
        assert_eq!(parse("--help").unwrap(), Invocation::Help);
        assert_eq!(parse("validate a/b").unwrap(), Invocation::Validate("a/b".into()));
        assert!(error("validate").contains("folder of a run"));
        assert!(error("test fast").contains("`fast`"));
        assert!(error("tidy --backend cpu").contains("leave out --backend"));
    }

    #[test]
    fn usage_errors_say_what_to_do() {
        assert!(error("").contains("Usage: cargo xtask COMMAND"));
        assert!(error("trian").contains("Did you mean `train`?"));
        assert!(error("trian").contains("  generate "));
        assert!(error("bananas").starts_with("There is no command `bananas`.\n"));
        assert!(error("train --backend").contains("needs a value"));
        assert!(error("train --backend gpu").contains("not `gpu`"));
        assert!(error("train --backend cpu --backend cuda").contains("twice"));
    }
}
