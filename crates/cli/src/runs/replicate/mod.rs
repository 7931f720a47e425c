//! `infalign replicate`: run a run again and compare, result by result.
//!
//! The folder is verified; the inputs are looked for; what it would reach beyond its folder is refused (`reach.rs`); a program made from the
//! same source is found, or built from the run's commit; it runs into a new folder; and both runs are compared (`report.rs`). Whatever stands
//! in the way before the run ends it: runs that were told to do different things are not comparable.

mod cargo;
mod inputs;
mod program;
mod reach;
mod report;
mod spot;
mod statistics;

use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use infalign_record::env::{self, BASED_ON};
use infalign_record::folder::{CONFIG, is_of_finder};
use infalign_record::{Record, RunDir};

use self::program::Program;
use super::{no_reproduction, trusted};
use crate::destination;
use crate::failure::{Failure, OrFailure};
use crate::interrupt;
use crate::output;

/// Replications are made here unless `--out` says otherwise.
const ROOT: &str = "runs";

/// Arguments of `infalign replicate`.
#[derive(Args)]
pub(crate) struct ReplicateArgs {
    /// The run's folder. It is only read.
    run: PathBuf,
    /// New folder for the replica and the report; absent: one under runs/.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Compare with this run, which was run again by other means such as a job of a cluster, and run nothing.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["spot", "sets", "source", "apply_diff", "any_program", "allow_remote"])]
    replica: Option<PathBuf>,
    /// Do only K stages again, from the run's own files before them: which ones follows from the record and --nonce.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..))]
    spot: Option<u64>,
    /// With --spot: what the run's author could not know beforehand.
    #[arg(long, default_value = "", requires = "spot")]
    nonce: String,
    /// With --spot: of a training, do its first N steps.
    #[arg(long, value_name = "N", default_value_t = 10, requires = "spot", value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Give a key of the recipe another value, such as where an input lies on this machine: prompts.train=/data/train.jsonl. What is another
    /// setting makes the runs not comparable.
    #[arg(long = "set", value_name = "KEY=VALUE", conflicts_with = "spot")]
    sets: Vec<String>,
    /// Clone of the repository from which the run's program is built, where this program is another.
    #[arg(long, value_name = "DIR", default_value = ".")]
    source: PathBuf,
    /// Build the run's program with the changes of its diff.patch. They are code of whoever made the run: read them before.
    #[arg(long, conflicts_with = "any_program")]
    apply_diff: bool,
    /// Use this program whatever it was built from; the report says so.
    #[arg(long)]
    any_program: bool,
    /// Let the run reach the servers that its settings or its command line name. They are sent its prompts and responses, and the keys in the
    /// variables of this machine's environment that it names: look at both before.
    #[arg(long)]
    allow_remote: bool,
    /// Print the in-toto statement instead of the table.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Check`] when a required level was not reached or a claim does not hold, [`Failure::Input`] when the runs are not
/// comparable, [`Failure::Run`] when the replica failed.
pub(crate) fn replicate(args: &ReplicateArgs) -> Result<(), Failure> {
    let original = trusted(&args.run)?.record;
    no_reproduction(&args.run, &original)?;
    if let Some(replica) = &args.replica {
        return compare_with(args, &original, replica);
    }
    inputs::check(&original, &args.sets).or_input()?;
    reach::check(args, &original).or_input()?;
    let folder = new_folder(args.out.as_deref()).or_input()?;
    let program = Program::find(args, &original, &folder).or_input()?;
    let mut report = match args.spot {
        Some(k) => spot::run(args, k as usize, &original, &program, &folder)?,
        None => {
            let replica = folder.join("run");
            run_again(args, &original, &program, &replica).or_run()?;
            let record = trusted(&replica)?.record;
            report::whole((&args.run, &original), (&replica, &record)).or_input()?
        }
    };
    report.program = program.what.clone();
    report::finish(&report, &original, &folder, args.json)
}

/// Compares with a run that is there.
fn compare_with(args: &ReplicateArgs, original: &Record, replica: &Path) -> Result<(), Failure> {
    let record = trusted(replica)?.record;
    if record.uuid == original.uuid {
        return Err(Failure::Input(anyhow!(
            "{} is the run itself, or a copy of it: a replica is another run of the same command",
            replica.display()
        )));
    }
    let mut report = report::whole((&args.run, original), (replica, &record)).or_input()?;
    report.program = "whatever ran the replica".to_owned();
    let folder = new_folder(args.out.as_deref()).or_input()?;
    report::finish(&report, original, &folder, args.json)
}

fn new_folder(out: Option<&Path>) -> Result<PathBuf> {
    let Some(out) = out else {
        return Ok(RunDir::create(Path::new(ROOT), "replicate")?.path().to_path_buf());
    };
    let out = &no_option(out);
    let mut entries = std::fs::read_dir(out).into_iter().flatten();
    if entries.any(|entry| !entry.is_ok_and(|entry| is_of_finder(&entry.file_name()))) {
        bail!("{} is not empty: give a new folder by --out", out.display());
    }
    destination::folder(out)?;
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    Ok(out.clone())
}

/// A path as a word that is no option, though its name may begin with a dash.
fn no_option(path: &Path) -> PathBuf {
    let begins = path.to_string_lossy().starts_with('-');
    if begins { Path::new(".").join(path) } else { path.to_path_buf() }
}

/// Runs the original's command again into the folder `replica`.
fn run_again(
    args: &ReplicateArgs,
    original: &Record,
    program: &Program,
    replica: &Path,
) -> Result<()> {
    let command = again(args, original, program, replica)?;
    interrupt::watch();
    let mut child = start(command, program, original)?;
    let status = interrupt::wait(&mut child, || false)
        .with_context(|| format!("the replica in {}", replica.display()))?;
    if !status.success() {
        bail!("the replica in {} failed: {status}", replica.display());
    }
    Ok(())
}

/// Starts a replica.
fn start(mut command: Command, program: &Program, original: &Record) -> Result<Child> {
    command
        .env(BASED_ON, &original.uuid)
        // Results of the replica are in its folder; stdout is for the comparison.
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", program.path.display()))
}

fn again(
    args: &ReplicateArgs,
    original: &Record,
    program: &Program,
    replica: &Path,
) -> Result<Command> {
    let mut command = Command::new(&program.path);
    if is_by_settings(original) {
        let config = no_option(&args.run.join(CONFIG));
        command.arg(&original.command).arg(config).arg("--out").arg(replica);
        command.args(args.sets.iter().flat_map(|set| ["--set", set]));
        if let Some(device) = value_of(&original.argv, "--device") {
            command.args(["--device", device]);
        }
        return Ok(command);
    }
    ensure!(args.sets.is_empty(), "--set is for runs of train and scorer");
    command.args(moved_words(original, replica)?);
    Ok(command)
}

/// The words of the original's command line, with the replica's folder in place of its own.
fn moved_words(original: &Record, replica: &Path) -> Result<Vec<String>> {
    if original.argv.iter().any(|word| word.contains("«redacted")) {
        bail!(
            "its command line held a secret, which was not recorded: run it by hand, and compare with --replica"
        );
    }
    let old = own_folder(original)?;
    // What the command writes lies in its folder. The folder alone is meant by its options only: a command or a procedure may be called like it.
    let moved = |option: &str, place: &str| match inside(place, &old) {
        Some(rest) if !rest.as_os_str().is_empty() => replica.join(rest).display().to_string(),
        Some(_) if ["--out", "--record"].contains(&option) => replica.display().to_string(),
        _ => place.to_owned(),
    };
    let word = |(at, word): (usize, &String)| {
        let word = env::with_home(word);
        match word.split_once('=') {
            Some((option, place)) if option.starts_with("--") => {
                format!("{option}={}", moved(option, place))
            }
            _ => {
                moved(at.checked_sub(1).map_or("", |before| original.argv[before].as_str()), &word)
            }
        }
    };
    // What was taken up is made from the beginning, and the changes of a program are no result.
    let is_left_out =
        |word: &String| word.as_str() == "--resume" || word.starts_with("--include-diff");
    let words = original.argv.iter().enumerate().filter(|(_, word)| !is_left_out(word));
    Ok(words.map(word).collect())
}

/// Whether a run is run again by its `config.toml`, and not by its command line.
fn is_by_settings(original: &Record) -> bool {
    matches!(original.command.as_str(), "train" | "scorer")
}

/// The folder of a run, as its command line names it.
fn own_folder(original: &Record) -> Result<String> {
    let option = if original.command == "evaluate" { "--out" } else { "--record" };
    let folder = value_of(&original.argv, option)
        .with_context(|| format!("its command line has no {option}"))?;
    Ok(env::with_home(folder))
}

/// Where in a folder a word of a command line lies, if it does.
fn inside(word: &str, folder: &str) -> Option<PathBuf> {
    let plain = |path: &str| -> PathBuf {
        let parts = Path::new(path).components();
        parts.filter(|part| !matches!(part, Component::CurDir)).collect()
    };
    let (place, folder) = (plain(word), plain(folder));
    // Of the folder that a program runs in, any word could be a file.
    if folder.as_os_str().is_empty() && !word.starts_with('.') {
        return None;
    }
    let rest = place.strip_prefix(folder).ok()?;
    let stays = rest.components().all(|part| matches!(part, Component::Normal(_)));
    stays.then(|| rest.to_path_buf())
}

/// The value of an option on a command line.
fn value_of<'a>(argv: &'a [String], option: &str) -> Option<&'a str> {
    values_of(argv, option).first().copied()
}

/// All values of an option on a command line.
fn values_of<'a>(argv: &'a [String], option: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    for (at, word) in argv.iter().enumerate() {
        match word.strip_prefix(option) {
            Some("") => found.extend(argv.get(at + 1).map(String::as_str)),
            Some(rest) => found.extend(rest.strip_prefix('=')),
            None => {}
        }
    }
    found
}

/// Not comparable: what stands in the way, a sentence each.
fn not_comparable(obstacles: &[String]) -> anyhow::Error {
    anyhow!("not comparable: {}", obstacles.join("; "))
}

/// Prints the report of a replication.
fn print(text: &str) -> Result<(), Failure> {
    output::print(text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_folder_is_found_however_it_is_written() {
        let found = |word, folder| inside(word, folder).map(|rest| rest.display().to_string());
        for (word, folder) in [("X/page", "X/"), ("X/page", "./X"), ("./X//page", "X")] {
            assert_eq!(found(word, folder).as_deref(), Some("page"), "{word} in {folder}");
        }
        assert_eq!(found("X", "X/").as_deref(), Some(""));
        assert_eq!(found("./page", ".").as_deref(), Some("page"));
        assert_eq!((found("Xy/page", "X"), found("best-of:4", ".")), (None, None));
        assert_eq!((found("X/../page", "X"), found("./../page", ".")), (None, None));
    }

    #[test]
    fn words_that_are_called_like_the_folder_stay_as_they_are() {
        let moved = |words: &[&str]| {
            let root = tempfile::tempdir().unwrap();
            let opening = infalign_record::Opening {
                command: words[0].to_owned(),
                argv: words.iter().map(|word| (*word).to_owned()).collect(),
                ..infalign_record::Opening::default()
            };
            let record = infalign_record::Recorder::begin(root.path(), opening).unwrap();
            moved_words(&record.completed().unwrap(), Path::new("again")).unwrap().join(" ")
        };
        for (words, expected) in [
            ("compare a b --record compare", "compare a b --record again"),
            (
                "generate --procedure sample --record=sample",
                "generate --procedure sample --record=again",
            ),
            ("evaluate --name mine --out mine --resume", "evaluate --name mine --out again"),
            ("report a --record r --out r/page", "report a --record again --out again/page"),
            ("report a --out=./r --record r", "report a --out=again --record again"),
        ] {
            assert_eq!(moved(&words.split(' ').collect::<Vec<_>>()), expected);
        }
    }

    #[test]
    fn a_folder_whose_name_begins_with_a_dash_is_no_option() {
        assert_eq!(no_option(Path::new("-x/config.toml")), Path::new("./-x/config.toml"));
        assert_eq!(no_option(Path::new("a/-x")), Path::new("a/-x"));
    }

    #[test]
    fn options_are_found_in_both_forms() {
        let argv: Vec<String> = ["a", "--device", "cpu", "--record=x/y"].map(str::to_owned).into();
        assert_eq!(value_of(&argv, "--device"), Some("cpu"));
        assert_eq!(value_of(&argv, "--record"), Some("x/y"));
        assert_eq!(value_of(&argv, "--out"), None);
        let argv: Vec<String> = ["--out", "a", "--out=b", "--outer=c"].map(str::to_owned).into();
        assert_eq!(values_of(&argv, "--out"), ["a", "b"]);
    }
}
