//! `record.json`: everything that is recorded of a run, in one versioned schema.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::build_record::BuildRecord;
use crate::capture::{Gpu, Host, Scheduler};
use crate::weights::Weights;

/// The schema that this version writes, and the only one that it reads.
pub const SCHEMA: &str = "record/1";

/// A run. What is unknown is absent, never guessed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: String,
    /// Of this run, unlike any other.
    pub uuid: String,
    /// How it ended; `running` stays where a run was killed.
    pub status: Status,
    /// The command, such as `train`.
    pub command: String,
    /// The command line, without the program, secrets, and the home folder.
    pub argv: Vec<String>,
    /// The folder that relative paths of the command line start at, from the root of the git repository that it lies in; absent outside of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// UTC, RFC 3339.
    pub start: String,
    /// UTC, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// The exit code of the process, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<u8>,
    /// From start to end, of the process that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// SHA-256 of `config.toml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_sha256: Option<String>,
    /// SHA-256 of `expect.toml`: what was expected when the run began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_sha256: Option<String>,
    /// Where random draws come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Seed>,
    /// What computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// Threads on the CPU.
    pub threads: usize,
    /// The variables of [`crate::env::RECORDED`] that were set.
    pub environment: BTreeMap<String, String>,
    /// The machine.
    pub host: Host,
    /// Its GPUs, where one computed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpu>,
    /// The scheduler's job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// What the program was built from.
    pub build: BuildRecord,
    /// Of the program itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable_sha256: Option<String>,
    /// Files that the run read, in its folder or elsewhere.
    #[serde(default)]
    pub inputs: Vec<Input>,
    /// The models among the inputs, by their weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<Weights>,
    /// Files that the run wrote, those of the record itself aside.
    #[serde(default)]
    pub outputs: Vec<Output>,
    /// The numbers of `results.json` by their places in it.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// Steps of all trainings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// The most memory that the process has held at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// Seconds that recording took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overhead_seconds: Option<f64>,
    /// Processes that worked on the run before and did not finish it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Attempt>,
    /// The run that this one repeats, by its `uuid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub based_on: Option<String>,
    /// Who ran it, where they wanted that recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
    /// Address of the licence of the folder, where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
}

impl Record {
    /// What time and memory are of, where several processes worked on the run: `the last of 3 processes`.
    pub(crate) fn last_process(&self) -> Option<String> {
        let earlier = self.earlier.len();
        (earlier > 0).then(|| format!("the last of {} processes", earlier + 1))
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is going on, or was killed.
    Running,
    /// All is there.
    Completed,
    /// An error ended it.
    Failed,
}

impl Status {
    /// The word in the record.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

/// Where random draws come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// The run's seed.
    pub master: u64,
    /// How each draw follows from it.
    pub rule: String,
}

impl Seed {
    /// The one way of this project.
    #[must_use]
    pub fn of(master: u64) -> Self {
        let rule = "ChaCha8 keyed by SHA-256(seed, stage, prompt id, sample index), at the draw's position";
        Self { master, rule: rule.to_owned() }
    }
}

/// What computed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// As `--device` has it.
    pub name: String,
    /// Whether its backend repeats bit for bit.
    pub deterministic: bool,
    /// Type of the numbers that are computed with.
    pub dtype: String,
}

/// A file that a run read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// What it was for: a key of the recipe or an option.
    pub role: String,
    /// As it was named; `$RUN/…` for one in the run's own folder, `$INFALIGN_DATA/…` for one of the data folder, else on the machine it was
    /// run on, `~` for the home folder.
    pub path: String,
    /// Of its bytes.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

impl Input {
    /// Whether it is a file of a model on the hub at a revision, `ORG/NAME@REVISION/…`: the revision, of 40 hexadecimal digits, says which bytes
    /// it has, on any machine. A path may hold an `@`, too.
    #[must_use]
    pub fn is_on_hub(&self) -> bool {
        let Some((model, rest)) = self.path.split_once('@') else { return false };
        let revision = rest.split('/').next().unwrap_or_default();
        let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_name = |part: &str| part.bytes().all(of_name) && !part.trim_matches('.').is_empty();
        let named = model.split('/').count() <= 2 && model.split('/').all(is_name);
        let is_digits = revision.bytes().all(|byte| byte.is_ascii_hexdigit());
        named && revision.len() == 40 && is_digits
    }
}

/// A file that a run wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// From the run's folder, with `/` on every system.
    pub path: String,
    /// Of its bytes.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// IANA's name of its format.
    pub media_type: String,
}

/// A process that worked on a run and did not finish it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// UTC, RFC 3339.
    pub start: String,
    /// UTC, RFC 3339; absent where it was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// How it ended.
    pub status: Status,
    /// Its threads.
    pub threads: usize,
    /// The machine's [`Host::id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The build's [`BuildRecord::build_id`].
    pub build_id: String,
}

/// Who ran it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Name.
    pub name: String,
    /// Address of an ORCID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orcid: Option<String>,
}

/// IANA's name of a file's format, by its ending.
pub(crate) fn media_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "json" => "application/json",
        "jsonl" => "application/jsonl",
        "toml" => "application/toml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "html" => "text/html",
        "md" => "text/markdown",
        "csv" => "text/csv",
        "txt" | "jinja" => "text/plain",
        "parquet" => "application/vnd.apache.parquet",
        _ => "application/octet-stream",
    }
}

/// Most numbers of a document: a record is read as a whole, and samples are data.
const MOST_NUMBERS: usize = 10_000;
/// Longest text that names what an array holds, in bytes: prompts and responses are longer.
const LONGEST_TEXT: usize = 80;

/// The first 10,000 numbers of a JSON document by their places, such as `rows[ctrl exp:10 best-of:4].win_rate.estimate`: what an array holds is
/// named by its texts of at most 80 bytes, or counted where it has none.
#[must_use]
pub fn numbers(document: &serde_json::Value) -> BTreeMap<String, f64> {
    within(document, (MOST_NUMBERS, LONGEST_TEXT))
}

/// All numbers, named by all texts, as records had them that were written before there was a limit.
pub(crate) fn all_numbers(document: &serde_json::Value) -> BTreeMap<String, f64> {
    within(document, (usize::MAX, usize::MAX))
}

fn within(document: &serde_json::Value, limits: (usize, usize)) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    collect(document, String::new(), limits, &mut found);
    found
}

fn collect(
    value: &serde_json::Value,
    place: String,
    (most, longest): (usize, usize),
    found: &mut BTreeMap<String, f64>,
) {
    use serde_json::Value;
    if found.len() >= most {
        return;
    }
    match value {
        Value::Number(number) => {
            if let Some(number) = number.as_f64() {
                found.insert(place, number);
            }
        }
        Value::Object(fields) => {
            let dot = if place.is_empty() { "" } else { "." };
            for (name, value) in fields {
                collect(value, format!("{place}{dot}{name}"), (most, longest), found);
            }
        }
        Value::Array(values) => {
            for (value, label) in values.iter().zip(labels(values, longest)) {
                collect(value, format!("{place}[{label}]"), (most, longest), found);
            }
        }
        _ => {}
    }
}

/// What each element of an array is called: by its texts, with its number where others have the same.
fn labels(values: &[serde_json::Value], longest: usize) -> Vec<String> {
    let labels: Vec<Option<String>> = values.iter().map(|value| label(value, longest)).collect();
    let mut alike: HashMap<&Option<String>, usize> = HashMap::new();
    for label in &labels {
        *alike.entry(label).or_default() += 1;
    }
    let named = labels.iter().enumerate().map(|(index, label)| match label {
        Some(text) if alike[label] > 1 => format!("{text} {index}"),
        Some(text) => text.clone(),
        None => index.to_string(),
    });
    named.collect()
}

/// The texts of an object, but for long ones.
fn label(value: &serde_json::Value, longest: usize) -> Option<String> {
    let texts = value.as_object()?.values().filter_map(|value| value.as_str());
    let texts: Vec<&str> = texts.filter(|text| text.len() <= longest).collect();
    (!texts.is_empty()).then(|| texts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_named_by_what_stands_beside_them() {
        let document = json!({"seed": 1, "rows": [{"method": "a", "kl": {"estimate": 0.5}}, {"x": 2}], "all": [{"m": "a", "x": 3}, {"m": "a", "x": 4}]});
        let expected = [
            ("all[a 0].x", 3.0),
            ("all[a 1].x", 4.0),
            ("rows[1].x", 2.0),
            ("rows[a].kl.estimate", 0.5),
            ("seed", 1.0),
        ];
        let found = numbers(&document);
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_document_of_samples_gives_a_record_that_can_be_read() {
        let sample = |i: usize| json!({"response": "x".repeat(500), "log_probs": vec![i; 64]});
        let samples: Vec<_> = (0..700).map(sample).collect();
        let found = numbers(&json!({ "responses": samples }));
        assert_eq!(found.len(), MOST_NUMBERS);
        assert!(found.keys().all(|name| name.len() < 120));
        assert_eq!(all_numbers(&json!({ "responses": [sample(1)] })).len(), 64);
    }

    #[test]
    fn a_path_with_an_at_sign_is_not_on_the_hub() {
        let is_on_hub = |path: &str| {
            let (role, sha256) = ("model".to_owned(), String::new());
            Input { role, path: path.to_owned(), sha256, bytes: 0 }.is_on_hub()
        };
        let revision = "0123456789abcdef0123456789abcdef01234567";
        assert!(is_on_hub(&format!("org/name@{revision}/model.safetensors")));
        assert!(is_on_hub(&format!("gpt2@{revision}/model.safetensors")));
        for path in ["org/name@main/x", "me@work/x", "/data/me@work/x", "org/name/x"] {
            assert!(!is_on_hub(path), "{path}");
        }
        for model in ["/org/name", "a/b/c", "../x", "~/x", ""] {
            assert!(!is_on_hub(&format!("{model}@{revision}/x")), "{model}");
        }
    }

    #[test]
    fn formats_are_known_by_their_endings() {
        let types = ["a/b.json", "x.parquet", "policy", "m.safetensors"].map(media_type);
        let binary = "application/octet-stream";
        assert_eq!(types, ["application/json", "application/vnd.apache.parquet", binary, binary]);
    }
}
