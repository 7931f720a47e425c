//! What runs leave behind: a record that verifies, that a killed run has too, and that holds no secret.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod runs;

use std::path::Path;

use infalign_record::folder;
use infalign_record::record::{Record, Status};
use runs::{copy, done, fails, files, infalign, run, stderr, train, with_run};

const CANARY: &str = "canary/Value 29ab+31";

fn record(run: &Path) -> Record {
    folder::record(run).unwrap()
}

fn quickstart() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/quickstart").canonicalize().unwrap()
}

#[test]
fn the_version_tells_the_build_and_the_record_has_the_same() {
    let short = done(infalign(&["--version"]));
    assert_eq!(short.trim(), format!("infalign {}", env!("CARGO_PKG_VERSION")));
    let verbose = done(infalign(&["--version", "--verbose"]));
    for row in
        ["build id", "source SHA-256", "Cargo.lock SHA-256", "rustc", "target", "burn", "cubecl"]
    {
        assert!(verbose.lines().any(|line| line.starts_with(row)), "{row}: {verbose}");
    }
    assert_eq!(verbose, done(infalign(&["-V", "-v"])));
}

#[test]
fn a_run_is_on_record_with_its_inputs_settings_numbers_and_outputs() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let mut command = train(&out, &[]);
    command.env("SLURM_JOB_ID", "4711").env("SLURM_NTASKS", "1").env("UNLISTED", "never recorded");
    command.env("INFALIGN_AGENT", "Ada").env("INFALIGN_LICENSE", "https://spdx.org/licenses/MIT");
    done(command);
    let record = record(&out);
    assert_eq!((record.status, record.command.as_str()), (Status::Completed, "train"));
    assert_eq!(record.seed.as_ref().unwrap().master, 1);
    assert_eq!(record.steps, Some(6), "two methods of three steps");
    assert!(
        record
            .inputs
            .iter()
            .any(|input| input.role == "model" && input.path.ends_with("model.safetensors"))
    );
    assert!(record.inputs.iter().any(|input| input.role == "prompts.test"));
    assert!(
        record
            .metrics
            .keys()
            .any(|name| name.contains("ctrl-best") && name.ends_with("win_rate.estimate"))
    );
    assert!(record.outputs.iter().any(|output| output.path == "results.json"));
    assert!(
        record.outputs.iter().all(|output| !output.path.starts_with("inputs/")),
        "inputs are no outputs"
    );
    assert_eq!(record.scheduler.as_ref().unwrap().job, "4711");
    assert_eq!(record.device.as_ref().unwrap().name, "cpu:0");
    assert!(record.peak_memory_bytes.is_some() && record.executable_sha256.is_some());
    let share = record.overhead_seconds.unwrap() / record.seconds.unwrap();
    assert!(share < 0.5, "recording took {share} of even this run of seconds");
    for file in files(&out) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(14).any(|w| w == b"never recorded"), "{}", file.display());
    }
    let verbose = done(infalign(&["--version", "--verbose"]));
    assert!(verbose.contains(&record.build.build_id));
    let text = done(with_run("verify", &out, &[]));
    assert!(text.contains("all as they were recorded"), "{text}");
    let metrics = std::fs::read_to_string(out.join("methods/raw/metrics.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
    assert_eq!(first["rollout"].as_str().unwrap().len(), 16, "{metrics}");

    let answers = done(with_run("checklist", &out, &[]));
    assert!(answers.contains("Are random seeds given? **Yes**: seed 1"), "{answers}");
    assert!(answers.contains("https://spdx.org/licenses/MIT"), "{answers}");
    let badges = done(with_run("badges", &out, &[]));
    assert_eq!(badges.lines().count(), 5, "{badges}");
    assert!(badges.contains("Results Reproduced: no; no statement"), "{badges}");

    tampered_folders_do_not_verify(dir.path(), &out);
}

/// One thing wrong at a time, in copies of a run.
fn tampered_folders_do_not_verify(dir: &Path, out: &Path) {
    let mut number = 0;
    let mut case = |change: &dyn Fn(&Path), code: i32, needle: &str| {
        number += 1;
        let folder = dir.join(format!("case-{number}"));
        copy(out, &folder);
        change(&folder);
        let text = fails(with_run("verify", &folder, &[]), code);
        assert!(text.contains(needle), "{needle}: {text}");
    };
    let edit = |folder: &Path, name: &str, from: &str, to: &str| {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        assert!(text.contains(from), "{name} has {from}");
        std::fs::write(folder.join(name), text.replace(from, to)).unwrap();
    };
    let flip = |folder: &Path| {
        let path = folder.join("methods/raw/policy/model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    case(&flip, 1, "methods/raw/policy/model.safetensors has changed");
    case(&|f| edit(f, "config.toml", "seed = 1", "seed = 2"), 1, "config.toml has changed");
    case(
        &|f| edit(f, "config.toml", "learning_rate = 0.001", "learning_rate = 0.01"),
        1,
        "config.toml has changed",
    );
    case(
        &|f| std::fs::write(f.join("inputs/quickstart/train.jsonl"), "{}").unwrap(),
        1,
        "train.jsonl has changed",
    );
    case(&|f| std::fs::remove_file(f.join("results.json")).unwrap(), 1, "results.json is missing");
    case(&|f| std::fs::write(f.join("extra.txt"), "").unwrap(), 1, "extra.txt was not there");
    case(
        &|f| edit(f, "manifest-sha256.txt", "  config.toml", "  ../config.toml"),
        2,
        "leads out of the run",
    );
    case(
        &|f| edit(f, "ro-crate-metadata.json", "\"results.json\"", "\"../../results.json\""),
        2,
        "leads out of the run",
    );
    case(&|f| edit(f, "record.json", "record/1", "record/2"), 2, "record/2");
    case(&|f| std::fs::write(f.join("record.json"), "[".repeat(1 << 20)).unwrap(), 2, "recursion");
    case(
        &|f| std::fs::write(f.join("record.json"), "{\"schema\": \"record/1\"").unwrap(),
        2,
        "is refused",
    );
    #[cfg(unix)]
    case(
        &|f| std::os::unix::fs::symlink("/etc/passwd", f.join("link")).unwrap(),
        2,
        "symbolic link",
    );
    let text = fails(with_run("verify", &dir.join("absent"), &[]), 2);
    assert!(text.contains("no folder of a run"), "{text}");
}

#[test]
fn a_killed_run_leaves_its_record_and_a_resumed_one_tells_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let mut child = train(&out, &[]).spawn().unwrap();
    for _ in 0..1200 {
        if out.join("record.json").exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let killed = record(&out);
    assert_eq!((killed.status, killed.end), (Status::Running, None));
    assert!(!killed.inputs.is_empty() && killed.config_sha256.is_some());
    let text = fails(with_run("verify", &out, &[]), 1);
    assert!(text.contains("killed"), "{text}");
    let mut resume = infalign(&["train", "--resume", "--out"]);
    resume.arg(&out);
    done(resume);
    let resumed = record(&out);
    assert_eq!(resumed.earlier.len(), 1);
    assert_eq!(resumed.earlier[0].status, Status::Running);
    done(with_run("verify", &out, &[]));
}

#[test]
fn other_commands_keep_what_they_print_with_a_record() {
    let dir = tempfile::tempdir().unwrap();
    let model = quickstart().join("model");
    let prompts = dir.path().join("prompts.jsonl");
    std::fs::write(&prompts, "{\"prompt\": \"the\"}\n{\"prompt\": \"we\"}\n").unwrap();
    let reward = dir.path().join("reward.toml");
    std::fs::write(&reward, "kind = \"length\"\nunit = \"words\"\n").unwrap();
    let of = |command: &[&str], out: &Path| {
        let mut words = infalign(command);
        words.arg("--model").arg(&model).arg("--record").arg(out);
        words
    };
    let out = dir.path().join("generated");
    let generate = || {
        let mut command =
            of(&["generate", "--procedure", "best-of:2", "--max-tokens", "4", "--json"], &out);
        command.arg("--prompts").arg(&prompts).arg("--reward").arg(&reward);
        command
    };
    let printed = done(generate());
    assert_eq!(std::fs::read_to_string(out.join("results.json")).unwrap(), printed);
    let kept = record(&out);
    let roles: Vec<&str> = kept.inputs.iter().map(|input| input.role.as_str()).collect();
    for role in ["--model", "--prompts", "--reward"] {
        assert!(roles.contains(&role), "{role}: {roles:?}");
    }
    done(with_run("verify", &out, &[]));
    assert!(fails(generate(), 2).contains("holds a run already"));
    let replica = dir.path().join("replica");
    let text = done(with_run("replicate", &out, &["--out", &replica.to_string_lossy()]));
    assert!(text.starts_with("# reproduced (repeat)"), "{text}");

    let table = dir.path().join("table");
    let mut command = of(&["calibrate", "--samples", "2", "--max-tokens", "4"], &table);
    command.arg("--prompts").arg(&prompts).arg("--reward").arg(&reward);
    command.arg("--out").arg(table.join("table.parquet"));
    done(command);
    let kept = record(&table);
    assert!(kept.outputs.iter().any(|output| output.path == "table.parquet"));
    done(with_run("verify", &table, &[]));

    // Bad input leaves nothing; a command without results says so.
    let nowhere = dir.path().join("nowhere");
    let mut command = of(&["generate", "--prompts", "absent.jsonl"], &nowhere);
    command.env("LANG", "C");
    fails(command, 2);
    assert!(!nowhere.exists());
    assert!(fails(infalign(&["doctor", "--record", "x"]), 2).contains("--record is for"));
}

/// Every byte of a folder, in the forms that a value may take.
fn assert_clean(folder: &Path) {
    let percent = CANARY.replace('/', "%2F").replace(' ', "%20").replace('+', "%2B");
    for file in files(folder) {
        let bytes = std::fs::read(&file).unwrap();
        for form in [CANARY.as_bytes(), percent.as_bytes(), b"Y2FuYXJ5L1ZhbHVlIDI5YWIrMz"] {
            let found = bytes.windows(form.len()).any(|window| window == form);
            assert!(!found, "{} holds the canary", file.display());
        }
    }
}

#[test]
fn a_secret_of_the_environment_is_in_no_byte_of_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let address = format!(
        "http://me:{}@host/",
        CANARY.replace('/', "%2F").replace(' ', "%20").replace('+', "%2B")
    );
    let prompts = dir.path().join("prompts.jsonl");
    std::fs::write(&prompts, "{\"prompt\": \"the\"}\n").unwrap();
    // In the environment, on the command line, and in an address there.
    let mut command =
        infalign(&["generate", "--max-tokens", "4", "--stop", CANARY, "--stop", &address]);
    command.arg("--model").arg(quickstart().join("model")).arg("--prompts").arg(&prompts);
    command.arg("--record").arg(&out).env("CANARY_TOKEN", CANARY);
    done(command);
    assert!(record(&out).argv.iter().any(|word| word == "«redacted:CANARY_TOKEN»"));
    assert_clean(&out);

    // In the recipe: refused before anything is written.
    let refused = dir.path().join("refused");
    let mut command = train(&refused, &["--set", &format!("name={CANARY}")]);
    command.env("CANARY_TOKEN", CANARY);
    let text = fails(command, 2);
    assert!(text.contains("CANARY_TOKEN") && !text.contains(CANARY), "{text}");
    assert!(!refused.exists());

    // In the message of a failure: the name of a folder that cannot be written.
    let failed = dir.path().join("failed");
    let mut command = infalign(&["calibrate", "--samples", "2", "--max-tokens", "2"]);
    let reward = dir.path().join("reward.toml");
    std::fs::write(&reward, "kind = \"length\"\nunit = \"words\"\n").unwrap();
    command.arg("--model").arg(quickstart().join("model")).arg("--prompts").arg(&prompts);
    command.arg("--reward").arg(&reward).arg("--record").arg(&failed);
    command.arg("--out").arg(dir.path().join("nobody").join(CANARY)).env("CANARY_TOKEN", CANARY);
    fails(command, 2);
    assert!(!failed.exists() || files(&failed).is_empty());

    // In what was generated from: the run does not count as finished, and says why without showing it.
    std::fs::write(
        &prompts,
        format!("{}\n", serde_json::json!({ "prompt": format!("the {CANARY}") })),
    )
    .unwrap();
    let leaked = dir.path().join("leaked");
    let mut command = infalign(&["generate", "--max-tokens", "4"]);
    command.arg("--model").arg(quickstart().join("model")).arg("--prompts").arg(&prompts);
    command.arg("--record").arg(&leaked).env("CANARY_TOKEN", CANARY);
    let output = run(command);
    let text = stderr(&output);
    if output.status.code() == Some(3) {
        assert!(text.contains("results.txt holds the value of CANARY_TOKEN"), "{text}");
        assert_eq!(record(&leaked).status, Status::Failed);
    } else {
        // The model has no words for the canary.
        assert_eq!(output.status.code(), Some(2), "{text}");
    }
}

#[cfg(unix)]
#[test]
fn a_job_script_runs_shards_under_slurm_and_in_a_plain_shell() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("prompts.jsonl"), "{\"prompt\": \"the\"}\n{\"prompt\": \"we\"}\n").unwrap();
    std::fs::write(path("reward.toml"), "kind = \"length\"\nunit = \"words\"\n").unwrap();
    let mut command =
        infalign(&["calibrate", "--samples", "2", "--max-tokens", "4", "--shard", "{i}/2"]);
    command.arg("--model").arg(quickstart().join("model")).current_dir(dir.path());
    command.args(["--prompts", "prompts.jsonl", "--reward", "reward.toml", "--record", "run-{i}"]);
    command.args(["--out", "run-{i}/shard.parquet", "--slurm", "job.sh", "--array", "2"]);
    let text = done(command);
    assert!(text.contains("sbatch job.sh") && text.contains("bash job.sh"), "{text}");
    let bash = || {
        let mut bash = std::process::Command::new("bash");
        bash.arg("job.sh").current_dir(dir.path());
        bash
    };
    // As Slurm runs the second job of the array.
    let mut second = bash();
    second
        .env("SLURM_ARRAY_TASK_ID", "2")
        .env("SLURM_ARRAY_JOB_ID", "70")
        .env("SLURM_CPUS_PER_TASK", "1");
    done(second);
    let job = record(&path("run-2"));
    assert!(!path("run-1").exists());
    let scheduler = job.scheduler.unwrap();
    assert_eq!((scheduler.job.as_str(), scheduler.array_task.as_deref()), ("70", Some("2")));
    assert_eq!(job.threads, 1);
    // And a plain shell, one after the other.
    std::fs::remove_dir_all(path("run-2")).unwrap();
    done(bash());
    for run in ["run-1", "run-2"] {
        assert_eq!(record(&path(run)).scheduler, None);
        done(with_run("verify", &path(run), &[]));
    }
    let merge = [
        "calibrate",
        "merge",
        "run-1/shard.parquet",
        "run-2/shard.parquet",
        "--out",
        "all.parquet",
    ];
    let mut command = infalign(&merge);
    command.current_dir(dir.path());
    done(command);
    // What could not be run is not written.
    let mut command = infalign(&["generate", "--modell", "x", "--slurm", "bad.sh"]);
    command.current_dir(dir.path());
    fails(command, 2);
    assert!(!path("bad.sh").exists());
}
