//! Whether a run's folder is what was recorded: every file listed and every listed file there, every digest and size right, the
//! parts of the record in agreement, and no secret anywhere.
//!
//! A folder may come from a stranger. What could lead out of it or make a reader choke is refused ([`RecordError::Refused`]); what
//! is merely wrong is found.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;

use crate::address::decoded;
use crate::folder::{self, CONFIG, CRATE, DIFF, EXPECT, MANIFEST, RECORD, RESULTS, STEPS};
use crate::manifest::{self, Manifest};
use crate::record::{Status, all_numbers, numbers};
use crate::recorder::steps;
use crate::{Record, RecordError, Secrets};

/// Something that is not as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, from the run's folder.
    pub path: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What may be wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// Its bytes are not those that were recorded.
    Changed,
    /// It is listed and not there.
    Missing,
    /// It is there and not listed.
    Unlisted,
    /// Its record contradicts another part of the record.
    Contradicted(String),
    /// It holds a secret.
    Secret(String),
    /// The run was killed, or goes on.
    Unfinished,
    /// The run failed.
    Failed,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match &self.problem {
            Problem::Changed => write!(f, "{path} has changed since the run ended"),
            Problem::Missing => write!(f, "{path} is missing"),
            Problem::Unlisted => write!(f, "{path} was not there when the run ended"),
            Problem::Contradicted(what) => write!(f, "{path} contradicts the record: {what}"),
            Problem::Secret(what) => write!(f, "{path} holds {what}"),
            Problem::Unfinished => {
                write!(f, "{path} says that the run is going on; it was killed, or it is")
            }
            Problem::Failed => write!(f, "{path} says that the run failed"),
        }
    }
}

/// What was looked at, and what was found.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The record.
    pub record: Record,
    /// Files that were looked at.
    pub files: usize,
    /// What is wrong; empty where all is right.
    pub findings: Vec<Finding>,
}

/// Checks a run's folder. Nothing is written.
///
/// # Errors
/// [`RecordError::Refused`] for a folder that is not to be trusted or is no finished run's; [`RecordError::Io`].
pub fn verify(run: &Path) -> Result<Verified, RecordError> {
    let present = folder::files(run)?;
    let record = folder::record(run)?;
    let mut findings = Vec::new();
    match record.status {
        Status::Completed => {}
        Status::Failed => add(&mut findings, folder::RECORD, Problem::Failed),
        Status::Running => add(&mut findings, folder::RECORD, Problem::Unfinished),
    }
    // What the rest is compared with is written when a run ends.
    if record.status != Status::Running {
        let listed = manifest::read(run)?;
        let actual = compare_files(run, &present, &listed, &mut findings)?;
        compare_record(&record, &listed, &mut findings);
        compare_facts(run, &record, &actual, &mut findings);
        compare_crate(run, &actual, &mut findings)?;
    }
    find_secrets(run, &present, &mut findings)?;
    Ok(Verified { record, files: present.len(), findings })
}

/// Looks for secrets in files and in their names, and takes them out of what is said of those.
fn find_secrets(
    run: &Path,
    present: &[String],
    findings: &mut Vec<Finding>,
) -> Result<(), RecordError> {
    let secrets = Secrets::here();
    for path in present {
        if let Some(what) = secrets.find(path.as_bytes()) {
            add(findings, path, Problem::Secret(format!("in its name {what}")));
        }
        match secrets.find_in_file(&run.join(path)) {
            // Taken away since, by a run that goes on.
            Err(RecordError::Io { cause, .. }) if cause.kind() == ErrorKind::NotFound => {}
            found => {
                if let Some(what) = found? {
                    add(findings, path, Problem::Secret(what));
                }
            }
        }
    }
    for finding in findings {
        finding.path = secrets.scrub(&finding.path);
        if let Problem::Contradicted(what) = &mut finding.problem {
            *what = secrets.scrub(what);
        }
    }
    Ok(())
}

fn add(findings: &mut Vec<Finding>, path: &str, problem: Problem) {
    findings.push(Finding { path: path.to_owned(), problem });
}

/// Compares what is there with the manifest, and returns what is there.
fn compare_files(
    run: &Path,
    present: &[String],
    listed: &Manifest,
    findings: &mut Vec<Finding>,
) -> Result<Manifest, RecordError> {
    let paths: Vec<String> = present.iter().filter(|path| *path != MANIFEST).cloned().collect();
    let digests = manifest::digests(run, &paths, &Manifest::new())?;
    let actual: Manifest = paths.into_iter().zip(digests).collect();
    for (path, digest) in &actual {
        match listed.get(path) {
            None => add(findings, path, Problem::Unlisted),
            Some(expected) if expected != digest => add(findings, path, Problem::Changed),
            Some(_) => {}
        }
    }
    for path in listed.keys().filter(|path| !actual.contains_key(*path)) {
        add(findings, path, Problem::Missing);
    }
    Ok(actual)
}

/// Compares the record's own digests with the manifest's, so that neither can be exchanged alone.
fn compare_record(record: &Record, listed: &Manifest, findings: &mut Vec<Finding>) {
    let in_run = record.inputs.iter().filter_map(|input| {
        Some((input.path.strip_prefix("$RUN/")?.to_owned(), input.sha256.clone()))
    });
    let outputs = record.outputs.iter().map(|output| (output.path.clone(), output.sha256.clone()));
    let config = record.config_sha256.iter().map(|digest| (CONFIG.to_owned(), digest.clone()));
    let expect = record.expect_sha256.iter().map(|digest| (EXPECT.to_owned(), digest.clone()));
    let diff =
        record.build.source.diff_sha256.iter().map(|digest| (DIFF.to_owned(), digest.clone()));
    // It may be left out, but it may not be another.
    let diff = diff.filter(|(path, _)| listed.contains_key(path));
    let recorded: BTreeMap<String, String> =
        in_run.chain(outputs).chain(config).chain(expect).chain(diff).collect();
    for (path, digest) in &recorded {
        if listed.get(path) != Some(digest) {
            let what = "record.json has another digest than manifest-sha256.txt";
            add(findings, path, Problem::Contradicted(what.to_owned()));
        }
    }
    let known =
        |path: &&String| recorded.contains_key(*path) || folder::OF_RECORD.contains(&path.as_str());
    for path in listed.keys().filter(|path| !known(path)) {
        let what = "record.json does not have it";
        add(findings, path, Problem::Contradicted(what.to_owned()));
    }
}

/// Compares what the record says of files with what they hold: sizes, numbers, steps and the seed. Files that have changed are passed over:
/// that is found already.
fn compare_facts(run: &Path, record: &Record, actual: &Manifest, findings: &mut Vec<Finding>) {
    let is_whole = |path: &str, sha256: &str| actual.get(path).is_some_and(|here| here == sha256);
    let size = |path: &str| std::fs::metadata(run.join(path)).map_or(0, |data| data.len());
    let outputs = record.outputs.iter().map(|file| (file.path.as_str(), &file.sha256, file.bytes));
    let inputs = record
        .inputs
        .iter()
        .filter_map(|file| Some((file.path.strip_prefix("$RUN/")?, &file.sha256, file.bytes)));
    for (path, sha256, bytes) in outputs.chain(inputs) {
        if is_whole(path, sha256) && size(path) != bytes {
            let what = format!("it has {} bytes, and {RECORD} says {bytes}", size(path));
            add(findings, path, Problem::Contradicted(what));
        }
    }
    let untouched = |is_it: fn(&str) -> bool| {
        let mut of_kind = record.outputs.iter().filter(|output| is_it(&output.path));
        of_kind.all(|output| is_whole(&output.path, &output.sha256))
    };
    if record.status == Status::Completed && untouched(|path| path == RESULTS) {
        findings.extend(other_number(run, record));
    }
    if untouched(|path| path.ends_with(STEPS)) && steps(run, &record.outputs) != record.steps {
        let told = |steps: Option<usize>| steps.map_or("none".to_owned(), |n| n.to_string());
        let counted = told(steps(run, &record.outputs));
        let what =
            format!("its steps are {}, and files of steps have {counted}", told(record.steps));
        add(findings, RECORD, Problem::Contradicted(what));
    }
    if record.config_sha256.as_ref().is_some_and(|sha256| is_whole(CONFIG, sha256)) {
        findings.extend(other_seed(run, record));
    }
}

/// The first number that the record and `results.json` tell differently; none where that file is too large to be read.
fn other_number(run: &Path, record: &Record) -> Option<Finding> {
    let mut results = BTreeMap::new();
    if run.join(RESULTS).exists() {
        let text = folder::text(run, RESULTS).ok()?;
        let document = serde_json::from_str(&text).unwrap_or_default();
        if record.metrics == all_numbers(&document) {
            return None;
        }
        results = numbers(&document);
    }
    let names: BTreeSet<&String> = results.keys().chain(record.metrics.keys()).collect();
    let name = names.into_iter().find(|name| results.get(*name) != record.metrics.get(*name))?;
    let told = |number: Option<&f64>| number.map_or("absent".to_owned(), f64::to_string);
    let (here, recorded) = (told(results.get(name)), told(record.metrics.get(name)));
    let what = format!("{name} is {here}, and {recorded} in {RECORD}");
    Some(Finding { path: RESULTS.to_owned(), problem: Problem::Contradicted(what) })
}

/// A seed of the settings that is not the record's.
fn other_seed(run: &Path, record: &Record) -> Option<Finding> {
    let settings: toml::Table = toml::from_str(&folder::text(run, CONFIG).ok()?).ok()?;
    let (set, recorded) = (settings.get("seed")?.as_integer()?, record.seed.as_ref()?.master);
    let what = format!("its seed is {set}, and {recorded} in {RECORD}");
    let is_other = u64::try_from(set) != Ok(recorded);
    is_other.then(|| Finding { path: CONFIG.to_owned(), problem: Problem::Contradicted(what) })
}

/// Compares the RO-Crate's files with those that are there, and refuses parts that lie elsewhere in the file system.
fn compare_crate(
    run: &Path,
    actual: &Manifest,
    findings: &mut Vec<Finding>,
) -> Result<(), RecordError> {
    let document: Value = folder::json(run, CRATE)?;
    if let Some(id) = ids(&document).into_iter().find(|id| leads_out(id)) {
        let what = format!("it names {id:?}, which leads out of the run");
        return Err(folder::refused(&run.join(CRATE), &what));
    }
    let graph = document["@graph"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut described = BTreeSet::new();
    for entity in graph.iter().filter(|entity| is_file(entity)) {
        let id = entity["@id"].as_str().unwrap_or_default();
        if is_address(id) {
            continue;
        }
        let path = decoded(id);
        let contradiction = match actual.get(&path) {
            None => Some("which is not there".to_owned()),
            Some(digest) if entity["sha256"] != **digest => Some("with another digest".to_owned()),
            Some(_) => {
                let size = std::fs::metadata(run.join(&path)).map_or(0, |data| data.len());
                (entity["contentSize"].as_str() != Some(&size.to_string()))
                    .then(|| "with another size".to_owned())
            }
        };
        if let Some(what) = contradiction {
            add(findings, CRATE, Problem::Contradicted(format!("it has {path}, {what}")));
        }
        described.insert(path);
    }
    let beside = [CRATE, folder::PREVIEW];
    for path in actual.keys().filter(|path| !beside.contains(&path.as_str())) {
        if !described.contains(path) {
            add(findings, CRATE, Problem::Contradicted(format!("it lacks {path}")));
        }
    }
    Ok(())
}

/// Every identifier in a document.
fn ids(document: &Value) -> Vec<&str> {
    let (mut found, mut waiting) = (Vec::new(), vec![document]);
    while let Some(value) = waiting.pop() {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("@id").and_then(Value::as_str));
                waiting.extend(fields.values());
            }
            Value::Array(values) => waiting.extend(values),
            _ => {}
        }
    }
    found
}

/// Whether an identifier is that of something on the web, or of nothing with a place.
fn is_address(id: &str) -> bool {
    ["urn:", "https://", "http://", "#"].iter().any(|scheme| id.starts_with(scheme))
}

fn leads_out(id: &str) -> bool {
    !is_address(id) && id != "./" && !folder::stays_inside(&decoded(id))
}

/// Whether an entity of a crate is a file, be it something else besides.
fn is_file(entity: &Value) -> bool {
    let types = &entity["@type"];
    types == "File" || types.as_array().is_some_and(|types| types.iter().any(|of| of == "File"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::recorder::tests::finished_run;

    fn run() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let run = finished_run(root.path(), "run");
        (root, run)
    }

    fn problems(run: &Path) -> Vec<String> {
        verify(run).unwrap().findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_flipped_bit_is_found_in_any_file() {
        let (_root, run) = run();
        for path in folder::files(&run).unwrap() {
            let file = run.join(&path);
            let whole = std::fs::read(&file).unwrap();
            let mut bytes = whole.clone();
            let last = bytes.len() - 2;
            bytes[last] ^= 1;
            std::fs::write(&file, bytes).unwrap();
            let found = verify(&run).map_or_else(
                |refused| refused.to_string(),
                |verified| verified.findings.iter().map(|finding| format!("{finding};")).collect(),
            );
            assert!(
                found.contains(&path) || path == MANIFEST && !found.is_empty(),
                "{path}: {found}"
            );
            std::fs::write(&file, whole).unwrap();
        }
        assert_eq!(problems(&run), Vec::<String>::new());
    }

    #[test]
    fn added_and_deleted_files_are_found() {
        let (_root, run) = run();
        std::fs::write(run.join("methods/extra"), "").unwrap();
        let found = problems(&run);
        assert_eq!(found[0], "methods/extra was not there when the run ended");
        std::fs::remove_file(run.join("methods/extra")).unwrap();
        std::fs::remove_file(run.join("results.json")).unwrap();
        assert!(problems(&run).contains(&"results.json is missing".to_owned()));
    }

    #[test]
    fn a_manifest_that_was_made_anew_does_not_hide_a_change() {
        let (_root, run) = run();
        std::fs::write(run.join("results.json"), "{}").unwrap();
        manifest::write(&run, &Manifest::new()).unwrap();
        let found = problems(&run);
        assert!(found.iter().any(|f| f.starts_with("results.json contradicts")), "{found:?}");
        assert!(
            found.iter().any(|f| f.contains("ro-crate-metadata.json contradicts")),
            "{found:?}"
        );
        std::fs::write(run.join("new.json"), "{}").unwrap();
        manifest::write(&run, &Manifest::new()).unwrap();
        assert!(problems(&run).iter().any(|f| f.starts_with("new.json contradicts")));
    }

    /// Closes a run anew after a change of its record, as somebody would who made the record up.
    fn forge(run: &Path, change: impl Fn(&mut Record)) {
        let mut record = folder::record(run).unwrap();
        change(&mut record);
        std::fs::write(run.join(RECORD), serde_json::to_vec(&record).unwrap()).unwrap();
        let document = crate::ro_crate::metadata(run, &record).unwrap();
        std::fs::write(run.join(CRATE), serde_json::to_vec(&document).unwrap()).unwrap();
        manifest::write(run, &Manifest::new()).unwrap();
    }

    #[test]
    fn what_the_record_says_of_its_files_is_compared_with_them() {
        let (_root, run) = run();
        forge(&run, |_| ());
        assert_eq!(problems(&run), Vec::<String>::new());
        let found = |change: &dyn Fn(&mut Record)| {
            let (_root, run) = self::run();
            forge(&run, change);
            problems(&run).join("; ")
        };
        let contradicts = "contradicts the record: ";
        let with = |name: &'static str, value: f64| {
            move |record: &mut Record| {
                record.metrics.insert(name.to_owned(), value);
            }
        };
        let number = found(&with("rows[a].kl", 0.1));
        let expected = "rows[a].kl is 0.2, and 0.1 in record.json";
        assert_eq!(number, format!("results.json {contradicts}{expected}"));
        let number = found(&with("more", 1.0));
        assert!(number.contains("more is absent, and 1 in record.json"), "{number}");
        let steps = found(&|record| record.steps = Some(3));
        let expected = "its steps are 3, and files of steps have 2";
        assert_eq!(steps, format!("record.json {contradicts}{expected}"));
        let seed = found(&|record| record.seed = Some(crate::record::Seed::of(8)));
        assert_eq!(seed, format!("config.toml {contradicts}its seed is 7, and 8 in record.json"));
        let size = found(&|record| record.outputs[1].bytes += 1);
        assert!(size.contains("results.json contradicts the record: it has"), "{size}");
    }

    #[cfg(unix)]
    #[test]
    fn a_colon_in_the_name_of_a_file_is_no_way_out() {
        let root = tempfile::tempdir().unwrap();
        let run = crate::RunDir::create(root.path(), "train").unwrap();
        let opening = crate::recorder::tests::opening(&[]);
        let recorder = crate::Recorder::begin(run.path(), opening).unwrap();
        std::fs::write(run.path().join("best-of:4 50%.json"), "{}").unwrap();
        recorder.completed().unwrap();
        assert_eq!(problems(run.path()), Vec::<String>::new());
    }

    #[test]
    fn a_crate_that_leads_out_of_its_folder_is_refused() {
        let (_root, run) = run();
        let text = folder::text(&run, CRATE).unwrap();
        for bad in ["../data.jsonl", "/etc/passwd", "a/../../x", "%2e%2e/x"] {
            std::fs::write(run.join(CRATE), text.replace("\"results.json\"", &format!("{bad:?}")))
                .unwrap();
            let error = verify(&run).unwrap_err().to_string();
            assert!(error.contains("leads out of the run") && error.contains(bad), "{error}");
        }
    }

    #[test]
    fn secrets_are_found_in_runs_of_others() {
        let (_root, run) = run();
        std::fs::write(run.join("log.txt"), concat!("hf", "_abcdefghijklmnopqrstuv")).unwrap();
        let found = problems(&run);
        assert!(found.iter().any(|f| f.contains("log.txt holds what looks like a Hugging Face")));
    }

    #[test]
    fn a_killed_run_is_unfinished() {
        let (_root, run) = run();
        let mut record = folder::record(&run).unwrap();
        record.status = Status::Running;
        std::fs::write(run.join(folder::RECORD), serde_json::to_string(&record).unwrap()).unwrap();
        assert_eq!(verify(&run).unwrap().findings[0].problem, Problem::Unfinished);
        std::fs::write(run.join("log.txt"), concat!("hf", "_abcdefghijklmnopqrstuv")).unwrap();
        let found = problems(&run);
        assert!(found[1].starts_with("log.txt holds what looks like a Hugging Face"), "{found:?}");
        assert_eq!(found.len(), 2, "nothing else is looked for");
        // It may be going on, and take its files away meanwhile.
        find_secrets(&run, &["gone".to_owned()], &mut Vec::new()).unwrap();
    }
}
