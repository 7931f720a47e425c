//! What runs leave behind: a record that verifies, and that a killed run has, too.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod runs;

use std::path::{Path, PathBuf};

use infalign_record::record::Status;
use runs::{
    copy, done, fails, files, infalign, quickstart, record, refused, train, wait_until, with_run,
};

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

    nothing_is_written_into_it(dir.path(), &out);
    let answers = done(with_run("checklist", &out, &[]));
    assert!(answers.contains("Are random seeds given? **Yes**: seed 1"), "{answers}");
    assert!(answers.contains("https://spdx.org/licenses/MIT"), "{answers}");
    let badges = done(with_run("badges", &out, &[]));
    assert_eq!(badges.lines().count(), 5, "{badges}");
    assert!(badges.contains("Results Reproduced: no; no statement"), "{badges}");

    tampered_folders_do_not_verify(dir.path(), &out);
}

/// Other commands leave a run as it was recorded.
fn nothing_is_written_into_it(dir: &Path, out: &Path) {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (run, below) = (&text(out), &text(&out.join("new/below")));
    let (table, samples) =
        (&text(&out.join("calibration.parquet")), &text(&out.join("methods/raw/samples.json")));
    let (script, merged) = (&text(&out.join("job.sh")), &text(&out.join("merged.parquet")));
    for words in [
        &["report", run, "--out", run][..],
        &["report", run, "--out", below],
        &["transform", "plot", "frontiers", "--out", run],
        &["calibrate", "report", table, "--out", below],
        &["calibrate", "merge", table, "--out", merged],
        &["compare", run, "--record", below],
        &["evaluate", "--policy", samples, "--reference", samples, "--out", below],
        &["replicate", run, "--out", below],
        &["doctor", "--slurm", script],
    ] {
        refused(infalign(words), &["belongs to the run on record in"]);
    }
    done(with_run("verify", out, &[]));
    // Nor is a folder made in what is none, and it is told before any work.
    let file = dir.join("file");
    std::fs::write(&file, "").unwrap();
    let nowhere = &text(&file.join("new"));
    for words in [
        &["report", run, "--out", nowhere][..],
        &["transform", "plot", "transforms", "--out", nowhere],
        &["calibrate", "report", table, "--out", nowhere],
    ] {
        refused(infalign(words), &["is no folder"]);
    }
}

/// The exit code tells a run that has changed from a folder that is refused.
fn tampered_folders_do_not_verify(dir: &Path, out: &Path) {
    let edited = |name: &str, file: &str, from: &str, to: &str| {
        let folder = dir.join(name);
        copy(out, &folder);
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        assert!(text.contains(from), "{file} has {from}");
        std::fs::write(folder.join(file), text.replace(from, to)).unwrap();
        with_run("verify", &folder, &[])
    };
    let text = fails(edited("changed", "config.toml", "seed = 1", "seed = 2"), 1);
    assert!(text.contains("config.toml has changed"), "{text}");
    let away = edited("away", "manifest-sha256.txt", "  config.toml", "  ../config.toml");
    refused(away, &["leads out of the run"]);
    refused(with_run("verify", &dir.join("absent"), &[]), &["no folder of a run"]);
}

#[test]
fn a_killed_run_leaves_its_record_and_a_resumed_one_tells_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let mut child = train(&out, &[]).spawn().unwrap();
    wait_until(&mut child, "its record", || out.join("record.json").exists());
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
    refused(generate(), &["holds a run already"]);
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
    // Neither seconds nor the folder's place are in what is kept, so that another folder gets the same.
    let sentence = "table.parquet: 2 prompts, 4 new responses\n";
    assert_eq!(std::fs::read_to_string(table.join("results.txt")).unwrap(), sentence);
    repeats(dir.path(), &table);

    // What only reads samples, or nothing, too.
    let row = |prompt: &str, reward: f32| {
        format!("{{\"prompt\": \"{prompt}\", \"response\": \"so\", \"reward\": {reward}}}\n")
    };
    let stored = |name: &str, rewards: [f32; 4]| {
        let prompts = ["the", "the", "we", "we"];
        let rows: String = prompts.iter().zip(rewards).map(|(p, reward)| row(p, reward)).collect();
        let path = dir.path().join(name);
        std::fs::write(&path, rows).unwrap();
        path.to_string_lossy().into_owned()
    };
    std::fs::write(dir.path().join("phi.csv"), "u,phi\n0,0\n0.5,0.1\n1,1\n").unwrap();
    let table = format!("table:{}", dir.path().join("phi.csv").display());
    let samples = stored("samples.jsonl", [0.0, 1.0, 2.0, 3.0]);
    let other = stored("other.jsonl", [1.0, 1.5, 2.0, 4.0]);
    let page = &dir.path().join("page").display().to_string();
    for (name, role, words) in [
        (
            "curve",
            "--transform",
            &["transform", "curve", "--transform", &table, "--kl", "0.5", "--json"][..],
        ),
        (
            "figure",
            "--transform",
            &["transform", "plot", "transforms", "--transform", &table, "--out", page],
        ),
        ("compared", "--reference", &["compare", &samples, &other, "--reference", &samples]),
        ("reported", "--reference", &["report", &other, "--reference", &samples, "--out", page]),
    ] {
        let out = dir.path().join(name);
        let mut command = infalign(words);
        command.arg("--record").arg(&out);
        done(command);
        let kept = record(&out);
        assert_eq!(kept.command, words[0]);
        let roles: Vec<&str> = kept.inputs.iter().map(|input| input.role.as_str()).collect();
        assert!(roles.contains(&role), "{name}: {roles:?}");
        done(with_run("verify", &out, &[]));
    }
    // What they write beside their record is the same in another folder, too.
    for (name, words) in [
        ("page-within", &["report", &other, "--reference", &samples][..]),
        ("figure-within", &["transform", "plot", "transforms", "--json"]),
    ] {
        let out = dir.path().join(name);
        let mut command = infalign(words);
        command.arg("--record").arg(&out).arg(format!("--out={}", out.join("inner").display()));
        done(command);
        assert!(std::fs::read_dir(out.join("inner")).unwrap().count() > 1, "{name}");
        done(with_run("verify", &out, &[]));
        repeats(dir.path(), &out);
    }

    // Bad input leaves nothing; a command without results says so.
    let nowhere = dir.path().join("nowhere");
    let mut command = of(&["generate", "--prompts", "absent.jsonl"], &nowhere);
    command.env("LANG", "C");
    fails(command, 2);
    assert!(!nowhere.exists());
    refused(infalign(&["doctor", "--record", "x"]), &["--record is for"]);
}

/// A replica has the same bytes.
fn repeats(dir: &Path, run: &Path) {
    let replica = dir.join(format!("{}-again", run.file_name().unwrap().to_str().unwrap()));
    let text = done(with_run("replicate", run, &["--out", replica.to_str().unwrap()]));
    assert!(text.starts_with("# reproduced (repeat)"), "{text}");
}

/// The folder that is named may be a link; those within it are refused.
#[cfg(unix)]
#[test]
fn a_run_may_be_named_by_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("prompts.jsonl"), "{\"prompt\": \"the\"}\n").unwrap();
    std::fs::create_dir(path("run")).unwrap();
    std::os::unix::fs::symlink(path("run"), path("link")).unwrap();
    let mut command = infalign(&["generate", "--max-tokens", "2", "--prompts"]);
    command.arg(path("prompts.jsonl")).arg("--model").arg(quickstart().join("model"));
    command.arg("--record").arg(path("link"));
    done(command);
    for name in ["link", "run"] {
        done(with_run("verify", &path(name), &[]));
    }
    std::os::unix::fs::symlink("results.txt", path("run/other")).unwrap();
    refused(with_run("verify", &path("link"), &[]), &["symbolic link"]);
}

#[test]
fn options_may_stand_before_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("prompts.jsonl"), "{\"prompt\": \"the\"}\n").unwrap();
    std::fs::write(path("reward.toml"), "kind = \"length\"\nunit = \"words\"\n").unwrap();
    let with = |before: &[&str], rest: &[&str]| {
        let mut command = infalign(before);
        command.args(rest).arg("--model").arg(quickstart().join("model"));
        command.args(["--prompts", "prompts.jsonl", "--max-tokens", "2"]).current_dir(dir.path());
        command
    };
    done(with(&["--record", "run"], &["generate"]));
    assert_eq!(record(&path("run")).command, "generate");
    let calibrate =
        ["calibrate", "--reward", "reward.toml", "--samples", "2", "--out", "t.parquet"];
    done(with(&["--record=table"], &calibrate));
    assert_eq!(record(&path("table")).command, "calibrate");
    done(with(&["--record", "later", "--slurm", "job.sh"], &["generate"]));
    let script = std::fs::read_to_string(path("job.sh")).unwrap();
    assert!(script.contains("--job-name=infalign-generate\n"), "{script}");
    // What is run again is the same command.
    let mut again = with_run("replicate", &path("run"), &["--out", "again"]);
    again.current_dir(dir.path());
    assert!(done(again).starts_with("# reproduced (repeat)"));
}

#[test]
fn the_changes_of_the_build_are_for_runs_with_a_record() {
    let needle = "--include-diff is for runs with a record";
    refused(infalign(&["doctor", "--include-diff"]), &[needle]);
}

/// The program that finds out what another is built from, as cargo has built it.
fn build_script() -> PathBuf {
    let builds = Path::new(env!("OUT_DIR")).ancestors().nth(2).unwrap();
    let scripts = std::fs::read_dir(builds).unwrap().flatten().map(|entry| entry.path());
    let scripts = scripts.filter(|path| path.to_string_lossy().contains("infalign-cli-"));
    let scripts = scripts.map(|path| path.join("build-script-build")).filter(|path| path.exists());
    scripts.max_by_key(|path| path.metadata().unwrap().modified().unwrap()).unwrap()
}

/// As much of this repository as the build script is shown.
#[cfg(unix)]
fn copy_source(to: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for part in ["crates/cli/src", "crates/stats/src"] {
        copy(&root.join(part), &to.join(part));
    }
    for file in ["Cargo.toml", "Cargo.lock", "crates/cli/build.rs", "crates/cli/Cargo.toml"] {
        std::fs::copy(root.join(file), to.join(file)).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn an_archive_and_a_clone_of_one_source_have_the_same_build_id() {
    let dir = tempfile::tempdir().unwrap();
    let [archive, clone] = ["archive", "clone"].map(|name| dir.path().join(name));
    copy_source(&archive);
    copy_source(&clone);
    runs::git(&clone, &["init", "--quiet"]);
    runs::git(&clone, &["add", "."]);
    runs::git(&clone, &["commit", "--quiet", "--message", "t"]);
    let told = |root: &Path, key: &str| {
        let mut script = runs::clean(build_script());
        script.env("CARGO_MANIFEST_DIR", root.join("crates/cli")).env("RUSTC", "rustc");
        // As a hook of the clone has it.
        script.env("GIT_DIR", clone.join(".git"));
        let text = done(script);
        let line = format!("cargo:rustc-env=INFALIGN_BUILD_{key}=");
        text.lines().find_map(|found| found.strip_prefix(&line)).map(str::to_owned)
    };
    // What desktops and editors leave there is no source.
    for left in ["crates/cli/src/.DS_Store", "crates/stats/src/.idea/a.xml", "crates/.idea/src/a"] {
        let path = clone.join(left);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "left").unwrap();
    }
    assert!(told(&archive, "COMMIT").is_none() && told(&clone, "COMMIT").is_some());
    assert_eq!(told(&archive, "ID").unwrap(), told(&clone, "ID").unwrap());
    assert_eq!(told(&clone, "DIRTY").unwrap(), "false");
    std::fs::write(clone.join("crates/cli/src/main.rs"), "fn main() {}").unwrap();
    assert_eq!(told(&clone, "DIRTY").unwrap(), "true");
    let id = told(&clone, "ID").unwrap();
    assert_ne!(told(&archive, "ID").unwrap(), id);
    // The settings of cargo are source, whatever their folder is called.
    std::fs::create_dir(clone.join(".cargo")).unwrap();
    std::fs::write(clone.join(".cargo/config.toml"), "").unwrap();
    assert_eq!(told(&clone, "UNTRACKED").unwrap(), "1");
    assert_ne!(told(&clone, "ID").unwrap(), id);
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
        let mut bash = runs::clean("bash");
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
    // A script is written anew, and nothing else is overwritten.
    let doctor = |file: &str| {
        let mut command = infalign(&["doctor", "--slurm", file]);
        command.current_dir(dir.path());
        command
    };
    done(doctor("job.sh"));
    assert!(std::fs::read_to_string(path("job.sh")).unwrap().contains("infalign-doctor"));
    for (file, told) in
        [("reward.toml", "is no job script"), ("none/job.sh", "a folder that is there")]
    {
        refused(doctor(file), &[told]);
    }
    assert!(std::fs::read_to_string(path("reward.toml")).unwrap().contains("words"));
}
