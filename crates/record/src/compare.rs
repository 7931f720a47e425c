//! How near one run comes to another: settings, inputs, files, and what is different around them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};

pub use crate::command_line::FLAGS;
use crate::command_line::told;
use crate::expect::{Level, Tolerance};
use crate::folder::{self, CONFIG, SETTINGS, SETTINGS_VERSION, stays_inside};
use crate::hash::head;
use crate::record::Record;
use crate::steps::{TIMING, divergence};
use crate::{RecordError, folder::refused};

/// Files that name the folder of a base, and the key by which they do.
const OF_BASE: [(&str, &str); 2] =
    [("adapter_config.json", "base_model_name_or_path"), ("scorer.json", "base")];
/// Digests of the settings that a file was made by, which are compared by themselves; files of older programs have none.
const MADE_BY: &str = "made_by";
/// What else samples tell of a prompt, but for those of older programs.
const OF_PROMPT: &str = "sha256";

/// A file of both runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileComparison {
    /// From the run's folder.
    pub path: String,
    /// How near they are; never [`Level::Equivalent`], which is for numbers with a spread.
    pub level: Level,
    /// What differs, where something does.
    pub note: String,
}

/// Why two runs were told to do different things, a sentence each; empty where they can be compared.
///
/// Compared are `config.toml`, what an evaluation's samples depend on, the seed, inputs, and, of commands without a `config.toml`, the command line.
/// Paths may differ, since machines do: what lies there is compared as input. Of evaluations whose settings are of different versions, which say
/// the same in other words, the command lines and the inputs are compared alone.
///
/// # Errors
/// As [`folder::text`], and [`RecordError::Refused`] for a `config.toml` that is no TOML or settings that are none.
pub fn obstacles(
    (original, a): (&Path, &Record),
    (replica, b): (&Path, &Record),
) -> Result<Vec<String>, RecordError> {
    let mut found = Vec::new();
    if a.command != b.command {
        found.push(format!("the commands differ: {} and {}", a.command, b.command));
    }
    let both_paths = |x: Option<&String>, y: Option<&String>| is_path(x) && is_path(y);
    found.extend(differing((&settings(original)?, &settings(replica)?), CONFIG, both_paths));
    let (ours, theirs) = (&sampled_by(original)?, &sampled_by(replica)?);
    if ours.get(SETTINGS_VERSION) == theirs.get(SETTINGS_VERSION) {
        found.extend(differing((ours, theirs), SETTINGS, |_, _| false));
    }
    if [a, b].iter().all(|record| record.config_sha256.is_none()) {
        let words = (&told(&a.argv), &told(&b.argv));
        let is_unknown = |value: Option<&String>| value.is_some_and(|v| v.contains("«redacted"));
        let unknown = |x: Option<&String>, y: Option<&String>| is_unknown(x) || is_unknown(y);
        found.extend(differing(words, "the command line", unknown));
    }
    let seed = |record: &Record| record.seed.as_ref().map(|seed| seed.master);
    if seed(a) != seed(b) {
        let show = |seed: Option<u64>| seed.map_or("none".to_owned(), |seed| seed.to_string());
        found.push(format!("the seeds differ: {} and {}", show(seed(a)), show(seed(b))));
    }
    found.extend(input_obstacles(a, b));
    Ok(found)
}

/// What differs between the settings of two runs, a sentence each.
///
/// - `place`: where they stand.
/// - `may_differ`: whether two values may be others.
fn differing(
    (ours, theirs): (&BTreeMap<String, String>, &BTreeMap<String, String>),
    place: &str,
    may_differ: impl Fn(Option<&String>, Option<&String>) -> bool,
) -> Vec<String> {
    let keys: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let mut found = Vec::new();
    for key in keys {
        let (a, b) = (ours.get(key), theirs.get(key));
        if a != b && !may_differ(a, b) {
            let show = |value: Option<&String>| value.map_or("absent", String::as_str).to_owned();
            found.push(format!("{place} differs in {key}: {} and {}", show(a), show(b)));
        }
    }
    found
}

/// What the samples of an evaluation depend on; nothing of other runs.
fn sampled_by(run: &Path) -> Result<BTreeMap<String, String>, RecordError> {
    if !run.join(SETTINGS).exists() {
        return Ok(BTreeMap::new());
    }
    folder::json(run, SETTINGS)
}

/// Inputs by what they are for, and by their names where several are for the same, wherever they lie.
fn input_obstacles(a: &Record, b: &Record) -> Vec<String> {
    let (ours, theirs) = (inputs_by_name(a), inputs_by_name(b));
    let names: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let differing = names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name));
    let short = |digests: Option<&Vec<String>>| match digests {
        None => "absent".to_owned(),
        Some(all) => all.iter().map(|digest| head(digest)).collect::<Vec<_>>().join(", "),
    };
    differing
        .map(|name| {
            let (a, b) = (short(ours.get(name)), short(theirs.get(name)));
            format!("the input {name} differs: SHA-256 {a} and {b}")
        })
        .collect()
}

/// The digests of a run's inputs, in the order in which they were read, by what they are for, and by their names where several are for the same.
#[must_use]
pub fn inputs_by_name(record: &Record) -> BTreeMap<String, Vec<String>> {
    let alone = |role: &str| record.inputs.iter().filter(|input| input.role == role).count() == 1;
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for input in &record.inputs {
        let last = input.path.rsplit('/').next().unwrap_or(&input.path);
        let role = &input.role;
        let name = if alone(role) { role.clone() } else { format!("{role}/{last}") };
        found.entry(name).or_default().push(input.sha256.clone());
    }
    found
}

/// The leaves of `config.toml` by their keys.
fn settings(run: &Path) -> Result<BTreeMap<String, String>, RecordError> {
    if !run.join(CONFIG).exists() {
        return Ok(BTreeMap::new());
    }
    let table: toml::Table = toml::from_str(&folder::text(run, CONFIG)?).map_err(|error| {
        refused(&run.join(CONFIG), &format!("it is no TOML: {}", error.message()))
    })?;
    let mut found = BTreeMap::new();
    leaves(&toml::Value::Table(table), String::new(), &mut found);
    Ok(found)
}

fn leaves(value: &toml::Value, key: String, found: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            let dot = if key.is_empty() { "" } else { "." };
            for (name, value) in table {
                leaves(value, format!("{key}{dot}{name}"), found);
            }
        }
        toml::Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                leaves(value, format!("{key}[{index}]"), found);
            }
        }
        value => drop(found.insert(key, value.to_string())),
    }
}

fn is_path(value: Option<&String>) -> bool {
    let text = value.map(|value| value.trim_matches(['"', '\'']));
    text.is_some_and(|text| {
        Path::new(text).is_absolute() || text.starts_with(['/', '$']) || begins_with_drive(text)
    })
}

/// Whether a text begins as paths of Windows do, whatever the system that it is read on.
fn begins_with_drive(text: &str) -> bool {
    matches!(text.as_bytes(), [drive, b':', b'/' | b'\\', ..] if drive.is_ascii_alphabetic())
}

/// Every output of the first run beside that of the second. Where the inputs are the same, the base of an adapter or a scorer may lie elsewhere.
///
/// - `tolerance`: within which numbers of JSON files count as [`Level::Tolerance`].
///
/// # Errors
/// When a file of the second run cannot be read.
pub fn files(
    (original, a): (&Path, &Record),
    (replica, b): (&Path, &Record),
    tolerance: &Tolerance,
) -> Result<Vec<FileComparison>, RecordError> {
    let theirs: BTreeMap<&str, &str> =
        b.outputs.iter().map(|output| (output.path.as_str(), output.sha256.as_str())).collect();
    let same_inputs = input_obstacles(a, b).is_empty();
    let mut found = Vec::new();
    for output in &a.outputs {
        let path = output.path.clone();
        if !stays_inside(&path) {
            return Err(refused(&original.join(folder::RECORD), &format!("it names {path:?}")));
        }
        let comparison = match theirs.get(path.as_str()) {
            None => FileComparison { path, level: Level::Differs, note: "not there".to_owned() },
            Some(digest) if *digest == output.sha256 => {
                FileComparison { path, level: Level::Bitwise, note: String::new() }
            }
            Some(_) => contents(&path, (original, replica), tolerance, same_inputs),
        };
        found.push(comparison);
    }
    let ours: BTreeSet<&str> = a.outputs.iter().map(|output| output.path.as_str()).collect();
    for path in theirs.keys().filter(|path| !ours.contains(*path)) {
        let note = "not in the original".to_owned();
        found.push(FileComparison { path: (*path).to_owned(), level: Level::Differs, note });
    }
    Ok(found)
}

/// Compares two files of different bytes by what they mean.
///
/// - `path`: from the folder of each run; `tolerance`: as for [`files`].
/// - `same_inputs`: whether the base of an adapter or a scorer may lie elsewhere.
#[must_use]
pub fn contents(
    path: &str,
    (original, replica): (&Path, &Path),
    tolerance: &Tolerance,
    same_inputs: bool,
) -> FileComparison {
    let name = path.rsplit('/').next();
    let names_base = |(file, _): &&(&str, &str)| same_inputs && name == Some(*file);
    let base = OF_BASE.iter().find(names_base).map(|(_, key)| *key);
    let both = || folder::output(original, path).ok().zip(folder::output(replica, path).ok());
    let other = || (Level::Differs, "other bytes".to_owned());
    let (level, note) = match path.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "jsonl" => both().map_or_else(other, |(a, b)| steps(&a, &b)),
        "json" => both().map_or_else(other, |(a, b)| documents(&a, &b, tolerance, base)),
        _ => other(),
    };
    FileComparison { path: path.to_owned(), level, note }
}

fn steps(a: &str, b: &str) -> (Level, String) {
    let found = divergence(a, b);
    if found.is_none() {
        return (Level::Bitwise, "but for times".to_owned());
    }
    (Level::Differs, found.describe())
}

/// - `base`: the key of the folder of a base, where that may be another.
fn documents(a: &str, b: &str, tolerance: &Tolerance, base: Option<&str>) -> (Level, String) {
    let parse = |text: &str| serde_json::from_str::<Value>(text).ok();
    let (Some(a), Some(b)) = (parse(a), parse(b)) else {
        return (Level::Differs, "no JSON".to_owned());
    };
    let but = if base.is_some() { "where its base lies" } else { "times or layout" };
    let mut worst = (Level::Bitwise, format!("but for {but}"));
    let differs = |place: &str, a: &Value, b: &Value| format!("{place}: {a} and {b}");
    walk((&a, &b), "", &mut |place, a, b| {
        let level = match (a.as_f64(), b.as_f64()) {
            _ if a == b => Level::Bitwise,
            _ if base == Some(place) && a.is_string() && b.is_string() => Level::Bitwise,
            (Some(a), Some(b)) if tolerance.holds(a, b) => Level::Tolerance,
            _ => Level::Differs,
        };
        if level < worst.0 {
            worst = (level, differs(place, a, b));
        }
    });
    worst
}

/// Visits what two documents have in the same places, from the top; times are passed over.
fn walk((a, b): (&Value, &Value), place: &str, visit: &mut impl FnMut(&str, &Value, &Value)) {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) if names(x, y).eq(names(y, x)) => {
            for name in names(x, y).filter(|name| !TIMING.contains(&name.as_str())) {
                walk((&x[name], &y[name]), &format!("{place}.{name}"), visit);
            }
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            for (index, (a, b)) in x.iter().zip(y).enumerate() {
                walk((a, b), &format!("{place}[{index}]"), visit);
            }
        }
        _ => visit(place.trim_start_matches('.'), a, b),
    }
}

/// The keys by which an object is compared with another.
fn names<'o>(
    object: &'o Map<String, Value>,
    other: &'o Map<String, Value>,
) -> impl Iterator<Item = &'o String> {
    let is_prompt = ["id", "text"].iter().all(|key| object.contains_key(*key));
    let lacks = move |name: &str| is_prompt && name == OF_PROMPT && !other.contains_key(name);
    object.keys().filter(move |name| *name != MADE_BY && !lacks(name))
}

/// Whether two runs had the same program on the same kind of machine, with a backend that repeats bit for bit: then their results
/// have to be the same bits. What is unknown of both is not the same.
#[must_use]
pub fn same_machine(a: &Record, b: &Record) -> bool {
    let repeats =
        |record: &Record| record.device.as_ref().is_none_or(|device| device.deterministic);
    let of = |record: &Record| {
        let cpu = &record.host.cpu;
        (
            record.executable_sha256.clone(),
            cpu.model.clone(),
            cpu.flags.clone(),
            record.device.clone(),
        )
    };
    let known = a.executable_sha256.is_some() && a.host.cpu.model.is_some();
    known && repeats(a) && repeats(b) && of(a) == of(b)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::recorder::tests::finished_run;
    use crate::surroundings::environment;

    fn two() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let (a, b) = (finished_run(root.path(), "a"), finished_run(root.path(), "b"));
        (root, a, b)
    }

    fn record(run: &Path) -> Record {
        folder::record(run).unwrap()
    }

    #[test]
    fn the_same_run_twice_is_the_same_in_everything_but_its_times() {
        let (_root, a, b) = two();
        let (ra, rb) = (record(&a), record(&b));
        assert_eq!(obstacles((&a, &ra), (&b, &rb)).unwrap(), Vec::<String>::new());
        let files = files((&a, &ra), (&b, &rb), &Tolerance::default()).unwrap();
        assert!(files.iter().all(|file| file.level == Level::Bitwise), "{files:?}");
        assert!(same_machine(&ra, &rb));
        assert_eq!(environment(&ra, &rb), []);
    }

    #[test]
    fn a_changed_seed_rate_or_input_is_named() {
        let (_root, a, b) = two();
        let (ra, mut rb) = (record(&a), record(&b));
        let text = folder::text(&b, CONFIG).unwrap();
        std::fs::write(b.join(CONFIG), text.replace("seed = 7", "seed = 8").replace("0.1", "0.2"))
            .unwrap();
        rb.inputs[0].sha256 = "0".repeat(64);
        let found = obstacles((&a, &ra), (&b, &rb)).unwrap();
        assert_eq!(found[0], "config.toml differs in seed: 7 and 8");
        assert_eq!(found[1], "config.toml differs in train.learning_rate: 0.1 and 0.2");
        assert!(found[2].starts_with("the input prompts differs"), "{found:?}");
    }

    #[test]
    fn another_seed_setting_or_word_of_the_command_line_is_named() {
        let (_root, a, b) = two();
        let (mut ra, mut rb) = (record(&a), record(&b));
        rb.seed = Some(crate::record::Seed::of(8));
        assert_eq!(obstacles((&a, &ra), (&b, &rb)).unwrap(), ["the seeds differ: 7 and 8"]);
        rb.seed = ra.seed.clone();
        for (run, samples) in [(&a, 4), (&b, 5)] {
            let settings = format!(r#"{{"--samples": "{samples}"}}"#);
            std::fs::write(run.join(SETTINGS), settings).unwrap();
        }
        let expected = "settings.json differs in --samples: 4 and 5";
        assert_eq!(obstacles((&a, &ra), (&b, &rb)).unwrap(), [expected]);
        // Another version says the same in other words.
        let newer = format!(r#"{{"--samples": "5", "{SETTINGS_VERSION}": "2"}}"#);
        std::fs::write(b.join(SETTINGS), newer).unwrap();
        assert_eq!(obstacles((&a, &ra), (&b, &rb)).unwrap(), Vec::<String>::new());
        std::fs::copy(a.join(SETTINGS), b.join(SETTINGS)).unwrap();
        for (run, record, temperature) in [(&a, &mut ra, "1"), (&b, &mut rb, "0.5")] {
            std::fs::remove_file(run.join(CONFIG)).unwrap();
            record.config_sha256 = None;
            let words = ["generate", "--temperature", temperature, "--record", "somewhere"];
            record.argv = words.map(str::to_owned).into();
        }
        let expected = "the command line differs in --temperature: 1 and 0.5";
        assert_eq!(obstacles((&a, &ra), (&b, &rb)).unwrap(), [expected]);
        rb.argv[2] = "«redacted:A_TOKEN»".to_owned();
        assert!(obstacles((&a, &ra), (&b, &rb)).unwrap().is_empty(), "nobody can tell");
    }

    #[test]
    fn inputs_of_the_same_name_do_not_hide_each_other() {
        let (_root, a, b) = two();
        let (mut ra, mut rb) = (record(&a), record(&b));
        for (record, digests) in [(&mut ra, ["1", "2"]), (&mut rb, ["3", "2"])] {
            let of_first = record.inputs[0].clone();
            record.inputs = digests
                .map(|digest| crate::record::Input {
                    sha256: digest.repeat(64),
                    ..of_first.clone()
                })
                .into();
        }
        let found = obstacles((&a, &ra), (&b, &rb)).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("111111111111, 222222222222 and 333333333333, 222"), "{found:?}");
    }

    #[test]
    fn paths_may_differ_where_the_inputs_are_the_same() {
        let (_root, a, b) = two();
        let differ = |one: &str, two: &str| {
            for (run, path) in [(&a, one), (&b, two)] {
                std::fs::write(run.join(CONFIG), format!("model = '{path}'\n")).unwrap();
            }
            !obstacles((&a, &record(&a)), (&b, &record(&b))).unwrap().is_empty()
        };
        assert!(!differ("/one/m", "/two/m"));
        assert!(!differ("/one/m", r"C:\two\m") && !differ("D:/one/m", "$INFALIGN_DATA/m"));
        assert!(differ("/one/m", "two") && differ(r"\d+", r"\w+"));
    }

    #[test]
    fn the_base_of_an_adapter_may_lie_elsewhere_where_the_inputs_are_the_same() {
        let (_root, a, b) = two();
        let (mut ra, mut rb) = (record(&a), record(&b));
        let path = "methods/a/policy/adapter_config.json";
        let write = |run: &Path, record: &mut Record, r: usize| {
            let base = run.join("inputs/model");
            let text = serde_json::json!({ "r": r, "base_model_name_or_path": base }).to_string();
            std::fs::create_dir_all(run.join("methods/a/policy")).unwrap();
            std::fs::write(run.join(path), &text).unwrap();
            record.outputs = vec![crate::record::Output {
                path: path.to_owned(),
                sha256: crate::hash::sha256_bytes(text.as_bytes()),
                bytes: text.len() as u64,
                media_type: "application/json".to_owned(),
            }];
        };
        write(&a, &mut ra, 2);
        write(&b, &mut rb, 2);
        let level = |rb: &Record| {
            files((&a, &ra), (&b, rb), &Tolerance::default()).unwrap().remove(0).level
        };
        assert_eq!(level(&rb), Level::Bitwise);
        let digest = std::mem::replace(&mut rb.inputs[0].sha256, "0".repeat(64));
        assert_eq!(level(&rb), Level::Differs);
        rb.inputs[0].sha256 = digest;
        write(&b, &mut rb, 3);
        assert_eq!(level(&rb), Level::Differs);
    }

    #[test]
    fn numbers_within_tolerance_and_beyond_are_told_apart() {
        let level = |a: &str, b: &str| documents(a, b, &Tolerance::default(), None).0;
        assert_eq!(level("{\"a\": 1.0}", "{\"a\":1.0}"), Level::Bitwise);
        assert_eq!(level("[1.0, 2.0]", "[1.0, 2.000001]"), Level::Tolerance);
        assert_eq!(level("[1.0, 2.000001, 1]", "[1.0, 2.0, 2]"), Level::Differs);
        assert_eq!(level("{\"a\": 1}", "{\"b\": 1}"), Level::Differs);
        assert_eq!(level("{\"a\": \"x\"}", "{\"a\": \"y\"}"), Level::Differs);
        assert_eq!(level("{\"seconds\": 1}", "{\"seconds\": 2}"), Level::Bitwise);
        assert_eq!(level("[{\"made_by\": {}, \"a\": 1}]", "[{\"a\": 1}]"), Level::Bitwise);
        let prompt = |more: &str| format!("{{\"id\": \"p\", \"text\": \"t\"{more}}}");
        let (older, one, other) =
            (prompt(""), prompt(", \"sha256\": \"0a\""), prompt(", \"sha256\": \"0b\""));
        assert_eq!((level(&older, &one), level(&one, &older)), (Level::Bitwise, Level::Bitwise));
        assert_eq!(level(&one, &other), Level::Differs);
        assert_eq!(level("{\"sha256\": \"0a\"}", "{}"), Level::Differs);
        assert_eq!(
            documents("[{\"k\":1}]", "[{\"k\":2}]", &Tolerance::default(), None).1,
            "[0].k: 1 and 2"
        );
    }

    #[test]
    fn another_number_of_threads_is_named_and_called_harmless() {
        let (_root, a, b) = two();
        let (ra, mut rb) = (record(&a), record(&b));
        rb.threads = ra.threads + 1;
        let found = environment(&ra, &rb);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].what, found[0].original.clone()), ("threads", ra.threads.to_string()));
        assert!(same_machine(&ra, &rb), "the promise holds for any number of threads");
        rb.device = Some(crate::record::Device {
            name: "cuda:0".into(),
            deterministic: false,
            dtype: "f32".into(),
        });
        assert!(!same_machine(&ra, &rb));
    }

    #[test]
    fn what_nobody_knows_of_two_runs_is_not_the_same() {
        let (_root, a, b) = two();
        let (mut ra, mut rb) = (record(&a), record(&b));
        rb.host.cpu.model = None;
        assert!(!same_machine(&ra, &rb));
        ra.host.cpu.model = None;
        assert!(!same_machine(&ra, &rb));
        let known = record(&a).host;
        (ra.host, rb.host) = (known.clone(), known);
        (ra.executable_sha256, rb.executable_sha256) = (None, None);
        assert!(!same_machine(&ra, &rb), "nor are two programs");
    }
}
