//! What a command line tells a command to do, wherever files lie and whatever computes.

use std::collections::BTreeMap;

/// Options that say where or on what a command runs, and nothing of what comes out.
const OF_PLACE: [&str; 12] = [
    "--api-key-env",
    "--array",
    "--batch",
    "--device",
    "--include-diff",
    "--memory",
    "--out",
    "--record",
    "--resume",
    "--slurm",
    "--source",
    "--timeout",
];
/// Options whose values are places of what is read; what lies there is compared as input.
const READ: [&str; 13] = [
    "--calibration",
    "--calibrator",
    "--input",
    "--judge",
    "--model",
    "--pairwise",
    "--policy",
    "--problem",
    "--prompts",
    "--reference",
    "--responses",
    "--reward",
    "--table",
];
/// Options without a value, of the commands whose command lines are compared.
pub const FLAGS: [&str; 7] = [
    "--decoders",
    "--exact",
    "--include-diff",
    "--json",
    "--length-controlled",
    "--resume",
    "--skip-missing",
];
/// Commands whose words that belong to no option are places, but for those that name a command.
const OF_FILES: [&str; 3] = ["calibrate", "compare", "report"];
/// These, and their commands.
const COMMANDS: [&str; 9] =
    ["apply", "calibrate", "compare", "compress", "inspect", "learn", "merge", "predict", "report"];
/// The command of `calibrate` where it names none.
const DEFAULT: &str = "make";
/// What stands for a place.
const PLACE: &str = "a file";
/// The name of words that belong to no option.
const WORDS: &str = "its words";

/// What is told by a command line, without the program: the values of every option, and its other words. Places are left out, and so is what says
/// where it runs.
pub(crate) fn told(argv: &[String]) -> BTreeMap<String, String> {
    let given = given(argv);
    // The command is the first word that belongs to no option.
    let command = given.iter().find(|(option, _)| *option == WORDS).and_then(|(_, word)| *word);
    let reads_files = command.is_some_and(|command| OF_FILES.contains(&command));
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (option, value) in given {
        let told = match value {
            Some(DEFAULT) if reads_files && option == WORDS => continue,
            _ if OF_PLACE.contains(&option) => continue,
            Some(word) if option == WORDS => {
                let is_place = reads_files && !COMMANDS.contains(&word);
                (if is_place { PLACE } else { word }).to_owned()
            }
            Some(value) => without_places(option, value),
            None => "given".to_owned(),
        };
        found.entry(option.to_owned()).or_default().push(told);
    }
    found.into_iter().map(|(option, values)| (option, values.join(" "))).collect()
}

/// The options with their values, where they have any, and every word that belongs to none, as the value of [`WORDS`].
fn given(argv: &[String]) -> Vec<(&str, Option<&str>)> {
    let mut words = argv.iter().map(String::as_str).peekable();
    let mut found = Vec::new();
    while let Some(word) = words.next() {
        if word == "--" {
            found.extend(words.by_ref().map(|word| (WORDS, Some(word))));
            break;
        }
        found.push(match word.split_once('=') {
            _ if !is_option(word) => (WORDS, Some(word)),
            Some((option, value)) => (option, Some(value)),
            None if FLAGS.contains(&word) => (word, None),
            None => (word, words.next_if(|next| !is_option(next))),
        });
    }
    found
}

fn is_option(word: &str) -> bool {
    word.starts_with("--")
}

/// A value of an option but for the place in it, where it has one.
fn without_places(option: &str, value: &str) -> String {
    if READ.contains(&option) {
        return PLACE.to_owned();
    }
    match (option, value.split_once(':')) {
        ("--transform", Some(("table", _))) => format!("table:{PLACE}"),
        // The folder of a scorer, then which of its rewards, and its weight.
        ("--scorer", _) => value.rsplit(['/', '\\']).next().unwrap_or(value).to_owned(),
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &str, b: &str) -> bool {
        let told = |line: &str| told(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        told(a) == told(b)
    }

    #[test]
    fn places_and_the_order_of_options_make_no_difference() {
        for (a, b) in [
            ("generate --record a --model m", "--record=b generate --model=/x/m --device cuda"),
            ("compare a b --json", "compare --json x/a y/b"),
            ("compare --decoders a b", "compare --decoders x/a y/b"),
            ("--record r compare a b", "compare x/a y/b --record r"),
            ("compare -- -a -b", "compare x/a y/b"),
            ("calibrate --samples 2 --out a/t", "calibrate make --out=t --samples=2"),
            ("generate --scorer /a/s#r:0.5", "generate --scorer b/s#r:0.5"),
            ("transform curve --transform table:/a", "transform curve --transform table:b"),
            ("evaluate --out a --resume", "evaluate --include-diff --out b"),
        ] {
            assert!(same(a, b), "{a} and {b}");
        }
    }

    #[test]
    fn what_changes_results_is_told() {
        for (a, b) in [
            ("generate --temperature 1", "generate --temperature 0.5"),
            ("generate --seed 1", "generate"),
            ("generate --json", "generate"),
            ("generate --stop a --stop b", "generate --stop b --stop a"),
            ("generate --scorer s#r:0.5", "generate --scorer s#r:0.6"),
            ("transform plot x --procedure a b", "transform plot x --procedure a c"),
            ("compare a b", "compare a"),
            ("compare --decoders a b", "compare a b"),
            (
                "transform plot x --out report --procedure a b",
                "transform plot x --out report --procedure a c",
            ),
            ("generate --server http://a", "generate --server http://b"),
            ("calibrate merge a b", "calibrate make a b"),
            ("calibrate --shard 1/2", "calibrate --shard 2/2"),
        ] {
            assert!(!same(a, b), "{a} and {b}");
        }
    }
}
