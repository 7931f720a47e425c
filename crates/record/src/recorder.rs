//! Opening and closing the record of a run.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::atomic::write_atomic;
use crate::build_record::BuildRecord;
use crate::capture::{Gpu, Host, Scheduler, executable_sha256, peak_memory_bytes, threads};
use crate::expect::Expect;
use crate::folder::{
    self, CONFIG, CRATE, DIFF, EXPECT, OF_RECORD, PREVIEW, RECORD, RESULTS, STEPS,
};
use crate::hash::{sha256_bytes, sha256_file};
use crate::manifest::{self, Manifest};
use crate::record::{
    Agent, Attempt, Device, Input, Output, Record, SCHEMA, Seed, Status, media_type, numbers,
};
use crate::{RecordError, Secrets, clock, env, preview, ro_crate};

/// What a command says of its run when it begins.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The command, such as `train`.
    pub command: String,
    /// The command line, without the program.
    pub argv: Vec<String>,
    /// What the program was built from.
    pub build: BuildRecord,
    /// What computes.
    pub device: Option<Device>,
    /// Seed of every random draw.
    pub seed: Option<u64>,
    /// Files that are read: what each is for, how it was named, and where it lies.
    pub inputs: Vec<(String, String, PathBuf)>,
    /// What a replication has to reach.
    pub expect: Option<Expect>,
    /// The changes that the program was built from, where they are to be kept.
    pub diff: Option<Vec<u8>>,
}

/// An open record.
#[derive(Debug)]
pub struct Recorder {
    folder: PathBuf,
    record: Record,
    secrets: Secrets,
    started: Instant,
    overhead: Duration,
}

impl Recorder {
    /// Writes all that is known before the work begins, brought to the disk: a run that is killed leaves it.
    ///
    /// A record that is there already, of a process that did not finish the run, becomes one of [`Record::earlier`].
    ///
    /// # Errors
    /// When an input cannot be read, or a file cannot be written; [`RecordError::Secret`] where `config.toml` or the diff holds one, of which
    /// nothing is written then.
    pub fn begin(run: &Path, opening: Opening) -> Result<Self, RecordError> {
        let started = Instant::now();
        let secrets = Secrets::here();
        let config_sha256 = digest_of_config(run, &secrets)?;
        keep_papers(run, &opening, &secrets)?;
        let argv = opening.argv.iter().map(|word| env::without_home(&secrets.scrub(word)));
        let environment = env::recorded().into_iter();
        let environment = environment.map(|(name, value)| (name, secrets.scrub(&value))).collect();
        let on_gpu = opening.device.as_ref().is_some_and(|device| !device.name.starts_with("cpu"));
        let mut inputs = Vec::new();
        for (role, name, path) in &opening.inputs {
            inputs.push(input(run, role, &secrets.scrub(name), path)?);
        }
        let start = clock::utc_now();
        let (agent, orcid) = env::agent();
        let record = Record {
            schema: SCHEMA.to_owned(),
            uuid: uuid(run),
            status: Status::Running,
            command: opening.command,
            argv: argv.collect(),
            start,
            end: None,
            seconds: None,
            error: None,
            config_sha256,
            seed: opening.seed.map(Seed::of),
            device: opening.device,
            threads: threads(),
            scheduler: Scheduler::of(&environment),
            environment,
            host: Host::here(),
            gpus: if on_gpu { Gpu::all() } else { Vec::new() },
            build: opening.build,
            executable_sha256: executable_sha256(),
            inputs,
            outputs: Vec::new(),
            metrics: Default::default(),
            steps: None,
            peak_memory_bytes: None,
            overhead_seconds: None,
            earlier: earlier(run),
            based_on: env::based_on(),
            agent: agent.map(|name| Agent { name, orcid }),
            license: env::license(),
        };
        let folder = run.to_path_buf();
        let recorder = Self { folder, record, secrets, started, overhead: started.elapsed() };
        recorder.write()?;
        Ok(recorder)
    }

    /// Completes the record: what the run wrote, with digests, and how it ended.
    ///
    /// - `failure`: what ended it, if something did.
    ///
    /// # Errors
    /// [`RecordError::Secret`] where a file of the run holds a secret; the record then says so and that the run failed. As
    /// [`folder::files`], and when a file cannot be read or written.
    pub fn end(mut self, failure: Option<&str>) -> Result<Record, RecordError> {
        let begun = Instant::now();
        let outputs = self.outputs()?;
        let leak = self.leak(&outputs)?;
        let error = failure.map(|text| env::without_home(&self.secrets.scrub(text)));
        let error = error.or_else(|| leak.as_ref().map(ToString::to_string));
        let results = std::fs::read(self.folder.join(RESULTS)).unwrap_or_default();
        let results: Value = serde_json::from_slice(&results).unwrap_or_default();
        self.overhead += begun.elapsed();
        let record = &mut self.record;
        record.status = if error.is_some() { Status::Failed } else { Status::Completed };
        record.error = error.map(|text| env::without_home(&text));
        record.end = Some(clock::utc_now());
        record.seconds = Some(self.started.elapsed().as_secs_f64());
        record.steps = steps(&self.folder, &outputs);
        record.metrics = numbers(&results);
        record.outputs = outputs;
        record.peak_memory_bytes = peak_memory_bytes();
        record.overhead_seconds = Some(self.overhead.as_secs_f64());
        self.write()?;
        seal(&self.folder, &self.record)?;
        leak.map_or(Ok(self.record), Err)
    }

    fn write(&self) -> Result<(), RecordError> {
        let path = self.folder.join(RECORD);
        write_atomic(&path, |file| Ok(serde_json::to_writer_pretty(file, &self.record)?))
    }

    /// Every file of the run that is neither an input nor of the record.
    fn outputs(&self) -> Result<Vec<Output>, RecordError> {
        let inputs: Vec<&str> = self
            .record
            .inputs
            .iter()
            .filter_map(|input| input.path.strip_prefix("$RUN/"))
            .collect();
        let ours =
            |path: &String| !OF_RECORD.contains(&path.as_str()) && !inputs.contains(&path.as_str());
        let output = |path: String| {
            let file = self.folder.join(&path);
            let bytes = size(&file)?;
            Ok(Output {
                sha256: sha256_file(&file)?,
                bytes,
                media_type: media_type(&path).to_owned(),
                path,
            })
        };
        folder::files(&self.folder)?.into_iter().filter(ours).map(output).collect()
    }

    fn leak(&self, outputs: &[Output]) -> Result<Option<RecordError>, RecordError> {
        let own = [CONFIG, EXPECT, DIFF].into_iter().filter(|name| self.folder.join(name).exists());
        for path in outputs.iter().map(|output| output.path.as_str()).chain(own) {
            let path = self.folder.join(path);
            if let Some(what) = self.secrets.find_in_file(&path)? {
                return Ok(Some(RecordError::Secret { path, what }));
            }
        }
        Ok(None)
    }
}

/// Writes what is made of a record and its files: the page, the RO-Crate, the manifest.
fn seal(run: &Path, record: &Record) -> Result<(), RecordError> {
    let digests = record.outputs.iter().map(|output| (output.path.clone(), output.sha256.clone()));
    let known: Manifest = digests.collect();
    let page = preview::html(record);
    write_atomic(&run.join(PREVIEW), |file| file.write_all(page.as_bytes()))?;
    let document = ro_crate::metadata(run, record)?;
    write_atomic(&run.join(CRATE), |file| Ok(serde_json::to_writer_pretty(file, &document)?))?;
    manifest::write(run, &known)
}

/// Refuses a file that holds a secret.
fn refuse_secrets(secrets: &Secrets, path: &Path) -> Result<(), RecordError> {
    match secrets.find_in_file(path)? {
        Some(what) => Err(RecordError::Secret { path: path.to_path_buf(), what }),
        None => Ok(()),
    }
}

/// The digest of the run's settings, where it has a file of them.
fn digest_of_config(run: &Path, secrets: &Secrets) -> Result<Option<String>, RecordError> {
    let config = run.join(CONFIG);
    if !config.exists() {
        return Ok(None);
    }
    refuse_secrets(secrets, &config)?;
    sha256_file(&config).map(Some)
}

/// Writes what is expected of a replica, unless the run has it, and what the program's source differs in from its commit.
fn keep_papers(run: &Path, opening: &Opening, secrets: &Secrets) -> Result<(), RecordError> {
    if let Some(expect) = opening.expect.as_ref().filter(|_| !run.join(EXPECT).exists()) {
        let text = expect.to_toml();
        write_atomic(&run.join(EXPECT), |file| file.write_all(text.as_bytes()))?;
    }
    let path = run.join(DIFF);
    let Some(diff) = &opening.diff else {
        // That of an earlier attempt, by another program.
        let _ = std::fs::remove_file(path);
        return Ok(());
    };
    if let Some(what) = secrets.find(diff) {
        return Err(RecordError::Secret { path, what });
    }
    write_atomic(&path, |file| file.write_all(diff))
}

/// A file that is read.
fn input(run: &Path, role: &str, name: &str, path: &Path) -> Result<Input, RecordError> {
    let name = match path.strip_prefix(run) {
        Ok(inside) => format!("$RUN/{}", inside.to_string_lossy().replace('\\', "/")),
        Err(_) => env::without_home(name),
    };
    Ok(Input { role: role.to_owned(), path: name, sha256: sha256_file(path)?, bytes: size(path)? })
}

fn size(path: &Path) -> Result<u64, RecordError> {
    Ok(std::fs::metadata(path).map_err(RecordError::io("read", path))?.len())
}

/// Lines of all files of steps; none where there are none.
fn steps(run: &Path, outputs: &[Output]) -> Option<usize> {
    let of_steps = outputs.iter().filter(|output| output.path.ends_with(STEPS));
    let lines = of_steps.filter_map(|output| {
        Some(std::fs::read_to_string(run.join(&output.path)).ok()?.lines().count())
    });
    let lines: Vec<usize> = lines.collect();
    (!lines.is_empty()).then(|| lines.iter().sum())
}

/// The processes that worked on a run before, from the record that the last of them left. One that cannot be read is passed over: it
/// describes the past, and the work goes on.
fn earlier(run: &Path) -> Vec<Attempt> {
    let Ok(last) = folder::record(run) else { return Vec::new() };
    let mut earlier = last.earlier;
    earlier.push(Attempt {
        start: last.start,
        end: last.end,
        status: last.status,
        threads: last.threads,
        host: last.host.id,
        build_id: last.build.build_id,
    });
    earlier
}

/// A UUID of version 8: the digest of what no two runs share.
fn uuid(run: &Path) -> String {
    let what = format!(
        "{} {} {} {:?}",
        clock::now().unix_timestamp_nanos(),
        std::process::id(),
        run.display(),
        crate::capture::line_of("/proc/sys/kernel/random/uuid")
    );
    let digits = sha256_bytes(what.as_bytes());
    let [a, b, c, d, e] =
        [&digits[..8], &digits[8..12], &digits[13..16], &digits[17..20], &digits[20..32]];
    format!("{a}-{b}-8{c}-8{d}-{e}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::RunDir;
    use crate::verify::verify;

    /// What a small command says of itself.
    pub(crate) fn opening(inputs: &[(&str, &Path)]) -> Opening {
        let named = |(role, path): &(&str, &Path)| {
            ((*role).to_owned(), path.display().to_string(), path.to_path_buf())
        };
        Opening {
            command: "train".to_owned(),
            argv: vec!["train".to_owned(), "r.toml".to_owned()],
            build: BuildRecord { version: "0.1.0".into(), ..BuildRecord::default() },
            device: None,
            seed: Some(7),
            inputs: inputs.iter().map(named).collect(),
            expect: Some(Expect::default()),
            diff: None,
        }
    }

    /// A finished run with one input, a configuration, results and steps.
    pub(crate) fn finished_run(root: &Path, name: &str) -> PathBuf {
        let (run, data) = (root.join(name), root.join("data.jsonl"));
        RunDir::at(&run).unwrap();
        std::fs::write(&data, "{}\n").unwrap();
        std::fs::write(run.join(CONFIG), "seed = 7\n[train]\nsteps = 2\nlearning_rate = 0.1\n")
            .unwrap();
        let recorder = Recorder::begin(&run, opening(&[("prompts", &data)])).unwrap();
        std::fs::create_dir_all(run.join("methods/a")).unwrap();
        let steps = "{\"step\":1,\"kl\":0.1,\"tokens_per_second\":3.5}\n{\"step\":2,\"kl\":0.2}\n";
        std::fs::write(run.join("methods/a").join(STEPS), steps).unwrap();
        std::fs::write(run.join(RESULTS), r#"{"rows": [{"method": "a", "kl": 0.2}]}"#).unwrap();
        recorder.end(None).unwrap();
        run
    }

    #[test]
    fn a_run_is_on_record_from_its_beginning_and_killed_ones_stay_so() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), "train").unwrap();
        drop(Recorder::begin(run.path(), opening(&[])).unwrap());
        let record = folder::record(run.path()).unwrap();
        assert_eq!((record.status, record.end), (Status::Running, None));
        let resumed = Recorder::begin(run.path(), opening(&[])).unwrap().end(None).unwrap();
        assert_eq!(resumed.earlier.len(), 1);
        assert_eq!(resumed.earlier[0].status, Status::Running);
        assert_ne!(resumed.uuid, record.uuid);
    }

    #[test]
    fn a_finished_run_tells_inputs_outputs_numbers_and_steps() {
        let root = tempfile::tempdir().unwrap();
        let run = finished_run(root.path(), "run");
        let record = folder::record(&run).unwrap();
        assert_eq!(record.status, Status::Completed);
        assert_eq!(record.inputs[0].bytes, 3);
        let outputs: Vec<_> = record.outputs.iter().map(|output| output.path.as_str()).collect();
        assert_eq!(outputs, ["methods/a/metrics.jsonl", "results.json"]);
        assert_eq!(record.metrics["rows[a].kl"], 0.2);
        assert_eq!(record.steps, Some(2));
        assert_eq!(verify(&run).unwrap().findings, []);
        for name in OF_RECORD.into_iter().filter(|name| *name != DIFF) {
            assert!(run.join(name).is_file(), "{name}");
        }
    }

    #[test]
    fn an_input_in_the_runs_own_folder_is_no_output() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), "train").unwrap();
        let model = run.path().join("inputs");
        std::fs::create_dir(&model).unwrap();
        std::fs::write(model.join("weights"), "abc").unwrap();
        let weights = model.join("weights");
        let recorder = Recorder::begin(run.path(), opening(&[("model", &weights)])).unwrap();
        let record = recorder.end(None).unwrap();
        assert_eq!(record.inputs[0].path, "$RUN/inputs/weights");
        assert_eq!(record.outputs, []);
        assert_eq!(verify(run.path()).unwrap().findings, []);
    }

    #[test]
    fn a_failure_is_told_without_the_home_folder() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), "train").unwrap();
        let home = std::env::home_dir().unwrap().join("x.json");
        let failure = format!("cannot read {}", home.display());
        let recorder = Recorder::begin(run.path(), opening(&[])).unwrap();
        let record = recorder.end(Some(&failure)).unwrap();
        assert_eq!(record.status, Status::Failed);
        assert_eq!(record.error.as_deref(), Some("cannot read ~/x.json"));
    }

    #[test]
    fn changes_are_kept_with_the_record_unless_they_hold_a_key() {
        let root = tempfile::tempdir().unwrap();
        let begin = |name: &str, diff: &str| {
            let run = RunDir::at(&root.path().join(name)).unwrap();
            let diff = diff.as_bytes();
            let mut opening = Opening { diff: Some(diff.to_vec()), ..opening(&[]) };
            opening.build.source.diff_sha256 = Some(sha256_bytes(diff));
            (run.path().to_path_buf(), Recorder::begin(run.path(), opening))
        };
        let (run, recorder) = begin("kept", "--- a\n+++ b\n");
        let record = recorder.unwrap().end(None).unwrap();
        assert_eq!(record.outputs, [], "it is no result");
        assert_eq!(verify(&run).unwrap().findings, []);
        // Another diff than that of the build is found, whatever the manifest says.
        std::fs::write(run.join(DIFF), "+++ c\n").unwrap();
        manifest::write(&run, &Manifest::new()).unwrap();
        let findings = verify(&run).unwrap().findings;
        assert!(findings.iter().any(|finding| finding.path == DIFF), "{findings:?}");

        let key = concat!("hf", "_abcdefghijklmnopqrstuv");
        let (run, recorder) = begin("refused", key);
        let error = recorder.unwrap_err().to_string();
        assert!(error.contains(DIFF) && !error.contains(key), "{error}");
        assert!(!run.join(DIFF).exists());
    }

    #[test]
    fn a_run_whose_files_look_like_they_hold_a_key_fails() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), "train").unwrap();
        let recorder = Recorder::begin(run.path(), opening(&[])).unwrap();
        let key = concat!("hf", "_abcdefghijklmnopqrstuv");
        std::fs::write(run.path().join("responses.jsonl"), key).unwrap();
        let error = recorder.end(None).unwrap_err().to_string();
        assert!(error.contains("responses.jsonl") && !error.contains(key), "{error}");
        let record = folder::record(run.path()).unwrap();
        assert_eq!(record.status, Status::Failed);
        assert!(!serde_json::to_string(&record).unwrap().contains(key));
    }
}
