//! What a record tells of runs that end, fail, are killed, or would keep a secret.

use super::*;
use crate::RunDir;
use crate::verify::verify;

/// What a small command says of itself.
pub(crate) fn opening(inputs: &[(&str, &Path)]) -> Opening {
    let named = |(role, path): &(&str, &Path)| InputFile {
        role: (*role).to_owned(),
        name: path.display().to_string(),
        path: path.to_path_buf(),
    };
    Opening {
        command: "train".to_owned(),
        argv: vec!["train".to_owned(), "r.toml".to_owned()],
        build: BuildRecord { version: "0.1.0".into(), ..BuildRecord::default() },
        seed: Some(7),
        inputs: inputs.iter().map(named).collect(),
        expect: Some(Expect::default()),
        ..Opening::default()
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
    recorder.completed().unwrap();
    run
}

#[test]
fn a_run_is_on_record_from_its_beginning_and_killed_ones_stay_so() {
    let root = tempfile::tempdir().unwrap();
    let run = RunDir::create(root.path(), "train").unwrap();
    drop(Recorder::begin(run.path(), opening(&[])).unwrap());
    let record = folder::record(run.path()).unwrap();
    assert_eq!((record.status, record.end), (Status::Running, None));
    let resumed = Recorder::begin(run.path(), opening(&[])).unwrap().completed().unwrap();
    assert_eq!(resumed.earlier.len(), 1);
    assert_eq!(resumed.earlier[0].status, Status::Running);
    assert_ne!(resumed.uuid, record.uuid);
}

#[test]
fn only_a_record_that_is_not_there_is_none() {
    let root = tempfile::tempdir().unwrap();
    let run = finished_run(root.path(), "run");
    let path = run.join(RECORD);
    let half = std::fs::read_to_string(&path).unwrap()[..300].to_owned();
    std::fs::write(&path, &half).unwrap();
    let begun = || Recorder::begin(&run, opening(&[]));
    let told = [changed_input(&run, &[]).unwrap_err(), begun().unwrap_err()];
    for error in told.map(|error| error.to_string()) {
        assert!(error.contains("record.json is refused"), "{error}");
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), half, "it is left as it is");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(changed_input(&run, &[]).unwrap(), None);
    assert_eq!(begun().unwrap().completed().unwrap().earlier, []);
}

#[test]
fn what_sealed_an_attempt_is_gone_as_soon_as_the_next_is_on_record() {
    let root = tempfile::tempdir().unwrap();
    let run = RunDir::create(root.path(), "train").unwrap();
    let sealed = || [MANIFEST, CRATE, PREVIEW].map(|name| run.path().join(name).exists());
    let begin = || Recorder::begin(run.path(), opening(&[])).unwrap();
    begin().failed("stopped", 3).unwrap();
    assert_eq!(sealed(), [true; 3]);
    let recorder = begin();
    assert_eq!(sealed(), [false; 3]);
    recorder.completed().unwrap();
    assert_eq!(sealed(), [true; 3]);
    assert_eq!(verify(run.path()).unwrap().findings, []);
}

#[test]
fn a_finished_run_tells_inputs_outputs_numbers_and_steps() {
    let root = tempfile::tempdir().unwrap();
    let run = finished_run(root.path(), "run");
    let record = folder::record(&run).unwrap();
    assert_eq!((record.status, record.exit), (Status::Completed, Some(0)));
    // None in an archive of the source.
    assert!(record.cwd.is_none_or(|cwd| cwd == "crates/record"));
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
    let record = recorder.completed().unwrap();
    assert_eq!(record.inputs[0].path, "$RUN/inputs/weights");
    assert_eq!(record.outputs, []);
    assert_eq!(verify(run.path()).unwrap().findings, []);
}

#[test]
fn an_input_in_the_runs_own_folder_may_hold_no_key_either() {
    let root = tempfile::tempdir().unwrap();
    let run = RunDir::create(root.path(), "train").unwrap();
    let prompts = run.path().join("prompts.jsonl");
    std::fs::write(&prompts, concat!("hf", "_abcdefghijklmnopqrstuv")).unwrap();
    let recorder = Recorder::begin(run.path(), opening(&[("prompts", &prompts)])).unwrap();
    let error = recorder.completed().unwrap_err().to_string();
    assert!(error.contains("prompts.jsonl holds what looks like a Hugging Face"), "{error}");
}

#[test]
fn a_failure_is_told_without_the_home_folder() {
    let root = tempfile::tempdir().unwrap();
    let run = RunDir::create(root.path(), "train").unwrap();
    let home = std::env::home_dir().unwrap().join("x.json");
    let failure = format!("cannot read {}", home.display());
    let recorder = Recorder::begin(run.path(), opening(&[])).unwrap();
    let record = recorder.failed(&failure, 3).unwrap();
    assert_eq!((record.status, record.exit), (Status::Failed, Some(3)));
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
    let record = recorder.unwrap().completed().unwrap();
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
fn a_file_whose_name_looks_like_a_key_is_named_nowhere() {
    let root = tempfile::tempdir().unwrap();
    let run = RunDir::create(root.path(), "train").unwrap();
    let recorder = Recorder::begin(run.path(), opening(&[])).unwrap();
    let key = concat!("hf", "_abcdefghijklmnopqrstuv");
    std::fs::write(run.path().join(format!("{key}.txt")), "abc").unwrap();
    std::fs::write(run.path().join("other.txt"), "abc").unwrap();
    let error = recorder.completed().unwrap_err().to_string();
    assert!(error.contains("in its name") && !error.contains(key), "{error}");
    let record = folder::record(run.path()).unwrap();
    assert_eq!((record.status, record.outputs.len()), (Status::Failed, 1));
    for name in [RECORD, CRATE, PREVIEW, folder::MANIFEST] {
        let text = folder::text(run.path(), name).unwrap();
        assert!(!text.contains(key) && !text.is_empty(), "{name}");
    }
    let found = verify(run.path()).unwrap().findings;
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(found.iter().any(|finding| finding.contains("in its name")), "{found:?}");
    assert!(found.iter().all(|finding| !finding.contains(key)), "{found:?}");
}

#[test]
fn a_record_that_would_hold_a_secret_is_not_written() {
    let root = tempfile::tempdir().unwrap();
    let run = RunDir::create(root.path(), "train").unwrap();
    let key = concat!("hf", "_abcdefghijklmnopqrstuv");
    let mut opening = opening(&[]);
    opening.build.rustflags = Some(format!("--cfg {key}"));
    let error = Recorder::begin(run.path(), opening).unwrap_err().to_string();
    assert!(error.contains(RECORD) && !error.contains(key), "{error}");
    assert!(!run.path().join(RECORD).exists());
    let agent = Agent { name: key.to_owned(), orcid: None };
    let refused = refuse_secret_names(&Secrets::new([]), Some(&agent), None).unwrap_err();
    assert!(!refused.to_string().contains(key), "{refused}");
    refuse_secret_names(&Secrets::new([]), None, Some(key)).unwrap_err();
    let ada = Agent { name: "Ada".to_owned(), orcid: None };
    refuse_secret_names(&Secrets::new([]), Some(&ada), None).unwrap();
}

#[test]
fn lines_are_counted_with_and_without_the_last_end() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("lines");
    for text in ["", "a", "a\n", "a\n\nb", "\n"] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(lines(&path).unwrap(), text.lines().count(), "{text:?}");
    }
}

#[test]
fn a_run_whose_files_look_like_they_hold_a_key_fails() {
    let root = tempfile::tempdir().unwrap();
    let run = RunDir::create(root.path(), "train").unwrap();
    let recorder = Recorder::begin(run.path(), opening(&[])).unwrap();
    let key = concat!("hf", "_abcdefghijklmnopqrstuv");
    std::fs::write(run.path().join("responses.jsonl"), key).unwrap();
    let error = recorder.completed().unwrap_err().to_string();
    assert!(error.contains("responses.jsonl") && !error.contains(key), "{error}");
    let record = folder::record(run.path()).unwrap();
    assert_eq!(record.status, Status::Failed);
    assert!(!serde_json::to_string(&record).unwrap().contains(key));
}

#[test]
fn a_run_that_failed_goes_on_record_without_its_checkpoints_being_read() {
    let root = tempfile::tempdir().unwrap();
    let run = RunDir::create(root.path(), "train").unwrap();
    let begin = || Recorder::begin(run.path(), opening(&[])).unwrap();
    let recorder = begin();
    let step = run.path().join("checkpoints/step-000001");
    std::fs::create_dir_all(&step).unwrap();
    let key = concat!("hf", "_abcdefghijklmnopqrstuv");
    for name in ["model.safetensors", "optimizer.bpk", "state.json"] {
        std::fs::write(step.join(name), if name == "state.json" { "{}" } else { key }).unwrap();
    }
    // Others than the bytes have, so that one sees which are taken.
    let [a, b, c] = ["a", "b", "c"].map(|digit| digit.repeat(64));
    let list = format!("{a}  model.safetensors\n{b}  optimizer.bpk\n{c}  state.json\n");
    std::fs::write(step.join(MANIFEST), list).unwrap();
    // The clock of the file system goes on meanwhile; what a program says of the time of its changes does not count.
    std::thread::sleep(Duration::from_millis(30));
    let sealed = step.join(MANIFEST).metadata().unwrap().modified().unwrap();
    let state = std::fs::File::options().write(true).open(step.join("state.json")).unwrap();
    state.set_modified(sealed - Duration::from_secs(1)).unwrap();
    let digests = |record: &Record| -> Vec<String> {
        let outputs = record.outputs.iter().filter(|output| !output.path.ends_with(MANIFEST));
        outputs.map(|output| output.sha256.clone()).collect()
    };
    let failed = recorder.failed("stopped", 4).unwrap();
    assert_eq!(digests(&failed), [a, b, sha256_bytes(b"{}")], "the last was changed since");
    let found = verify(run.path()).unwrap().findings;
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(
        found
            .iter()
            .any(|finding| finding.ends_with("safetensors has changed since the run ended")),
        "{found:?}"
    );
    assert!(found.iter().any(|finding| finding.contains("bpk holds what looks like")), "{found:?}");

    // One that ends well is read as a whole.
    let error = begin().completed().unwrap_err().to_string();
    assert!(error.contains("model.safetensors holds what looks like"), "{error}");
    let record = folder::record(run.path()).unwrap();
    let key = sha256_bytes(key.as_bytes());
    assert_eq!(digests(&record), [key.clone(), key, sha256_bytes(b"{}")]);
}
