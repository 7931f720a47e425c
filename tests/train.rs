//! `infalign train` as a user runs it: the whole chain in miniature, killed, resumed, repeated, and given bad input.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use common::{
    assert_done, bytes, done, infalign, json, json_file, quickstart, refused, run, stderr,
    train_small, wait_until,
};

/// More of everything than the small settings have.
const MORE: [&str; 4] = [
    "calibration.samples=8",
    "train.steps=6",
    "train.prompts_per_step=4",
    "train.checkpoint_every=1",
];

/// `train` on the bundled quickstart with the small settings.
fn train(out: &Path, more: &[&str]) -> Command {
    let mut command = train_small(out, &MORE);
    command.args(more);
    command
}

const METHODS: [&str; 4] = ["raw", "calibrated", "ctrl-best", "ctrl-worst"];

/// Everything of two finished runs that must be equal byte for byte.
fn assert_equal(a: &Path, b: &Path) {
    let files = ["results.json", "calibration.parquet", "win-rate-kl.svg", "win-rate-kl.png"];
    common::assert_equal([a, b], &files, &METHODS, 6);
}

#[test]
fn runs_repeat_and_survive_being_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, again, killed) =
        (dir.path().join("whole"), dir.path().join("again"), dir.path().join("killed"));
    let start = Instant::now();
    let table = done(train(&whole, &[]));
    let took = start.elapsed();
    assert!(
        ["base", "raw", "ctrl-best", "best-of:4", "worst-of:4"]
            .iter()
            .all(|word| table.contains(word)),
        "{table}"
    );

    // A second run, on one thread.
    let mut single = train(&again, &["--json"]);
    single.env("RAYON_NUM_THREADS", "1");
    let printed = json(&run(single));
    assert_equal(&whole, &again);
    assert_eq!(printed, json_file(&again.join("results.json")));
    let sets = json_file(&whole.join("reference-samples.json"));
    assert_ne!(sets[0]["responses"], sets[1]["responses"], "the sets are independent");
    assert_eq!(
        printed["rows"].as_array().unwrap().len(),
        15,
        "a row a method and procedure, the reference included"
    );

    common::killed_until_done(&killed, took, || train(&killed, &[]), || resumed(&killed));
    assert_equal(&whole, &killed);
}

fn resumed(out: &Path) -> Command {
    let mut command = infalign(&["train", "--resume", "--out"]);
    command.arg(out);
    command
}

#[test]
fn a_watch_looks_again_from_the_newest_checkpoint_on() {
    let dir = tempfile::tempdir().unwrap();
    let prompts = dir.path().join("few.jsonl");
    let all = std::fs::read_to_string(quickstart().join("test.jsonl")).unwrap();
    std::fs::write(&prompts, all.lines().take(4).collect::<Vec<_>>().join("\n")).unwrap();
    let test = format!("prompts.test='{}'", prompts.display());
    let watched = |out: &Path| {
        let method = "method=[{ name = 'raw', objective = 'raw' }]";
        let watch = "evaluation.watch={ every = 2, samples = 4 }";
        train_small(out, &[method, watch, "train.steps=62", "train.checkpoint_every=31", &test])
    };
    let [whole, killed] = ["whole", "killed"].map(|name| dir.path().join(name));
    assert_done(&run(watched(&whole)));
    // Killed after a look at step 32, of which the checkpoint of step 31 does not know.
    let looks = killed.join("methods/raw/evaluations.jsonl");
    let mut child = watched(&killed).spawn().unwrap();
    let seen = || std::fs::read_to_string(&looks).unwrap_or_default().lines().count();
    wait_until(&mut child, "the look at step 32", || seen() >= 16);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_done(&run(resumed(&killed)));
    for file in ["methods/raw/evaluations.jsonl", "methods/raw/responses.jsonl"] {
        assert!(bytes(&whole, file) == bytes(&killed, file), "{file} differs");
    }
    let lines = std::fs::read_to_string(looks).unwrap();
    let step = |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].clone();
    let steps: Vec<_> = lines.lines().map(step).collect();
    assert_eq!(steps, (2..=62).step_by(2).map(serde_json::Value::from).collect::<Vec<_>>());
}

#[cfg(unix)]
#[test]
fn ctrl_c_checkpoints_and_says_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let mut child = train(&run_dir, &["--set", "train.steps=100000"]).spawn().unwrap();
    let started = run_dir.join("methods/raw/checkpoints");
    wait_until(&mut child, "the first checkpoint", || common::steps_kept(&started) > 0);
    common::interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains("--resume") && text.contains("checkpoint"), "{text}");
    assert_eq!(common::steps_kept(&started), 1, "the newest checkpoint alone is kept");
}

#[test]
fn an_expected_reward_is_trained_on_with_fewer_reference_rewards_than_it_looks_at() {
    let dir = tempfile::tempdir().unwrap();
    let methods = "method=[{ name = 'raw', objective = 'raw' }, \
                   { name = 'one', objective = 'reward:sample' }, \
                   { name = 'max', objective = 'reward:best-of:3' }]";
    let set = [methods, "calibration.samples=2", "evaluation.baseline=max"];
    let out = dir.path().join("run");
    assert_done(&run(train_small(&out, &set)));
    // The first responses are those of the reference, whatever is trained on.
    let first = |name: &str| {
        let metrics = bytes(&out, &format!("methods/{name}/metrics.jsonl"));
        let line = metrics.split(|byte| *byte == b'\n').next().unwrap();
        let line: serde_json::Value = serde_json::from_slice(line).unwrap();
        line["reward/transformed"].as_f64().unwrap()
    };
    assert!((first("one") - first("raw")).abs() < 1e-9, "one response is the reward itself");
    assert!(first("max") > first("raw"), "the best of three is above their mean");
}

#[test]
fn an_adapter_is_trained_resumed_and_loaded_in_place_of_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let lora = "train.lora={ r = 4, lora_alpha = 8, target_modules = ['q_proj', 'v_proj'] }";
    let method = "method=[{ name = 'lora', objective = 'exp:10' }]";
    let sets = ["--set", lora, "--set", method, "--set", "evaluation.baseline=lora"];
    done(train(&run_dir, &sets));
    // The base of a replica lies in the replica.
    let mut replicate = infalign(&["replicate", "--out"]);
    replicate.arg(dir.path().join("again")).arg(&run_dir);
    let report = done(replicate);
    assert!(report.starts_with("# reproduced"), "{report}");
    let policy = run_dir.join("methods/lora/policy");
    assert!(policy.join("adapter_config.json").is_file() && !policy.join("config.json").exists());
    let results = bytes(&run_dir, "results.json");
    // What is read back is what was trained: the same samples, and the same results.
    for file in ["results.json", "methods/lora/samples.json"] {
        std::fs::remove_file(run_dir.join(file)).unwrap();
    }
    done(resumed(&run_dir));
    assert!(bytes(&run_dir, "results.json") == results);

    let generate = |model: &Path| {
        let mut command = infalign(&["generate", "--max-tokens", "4", "--seed", "3", "--json"]);
        command.arg("--model").arg(model);
        command.arg("--prompts").arg(quickstart().join("test.jsonl"));
        done(command)
    };
    let generated = generate(&policy);
    assert_ne!(generated, generate(&run_dir.join("inputs/quickstart/model")));
    // A run that is moved takes the base along.
    let moved = dir.path().join("moved");
    std::fs::rename(&run_dir, &moved).unwrap();
    assert_eq!(generate(&moved.join("methods/lora/policy")), generated);
    let bad = lora.replace("q_proj", "query");
    refused(train(&dir.path().join("bad"), &["--set", &bad]), &["\"query\""]);
}

#[test]
fn a_run_that_does_not_fit_into_memory_is_refused_before_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    let sets = ["--set", "batch=1000000000000", "--set", "calibration.samples=400000", "--dry-run"];
    let needles = ["memory: about", "does not fit", "lower batch"];
    refused(train(&dir.path().join("run"), &sets), &needles);
    let output = run(train(&dir.path().join("run"), &["--dry-run"]));
    assert!(stderr(&output).contains("memory: about"), "{}", stderr(&output));
    assert!(output.status.success(), "{}", stderr(&output));
}

/// A recipe file made from the quickstart's, with its inputs beside it.
fn recipe(dir: &Path, change: impl Fn(String) -> String) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let text = std::fs::read_to_string(source.join("quickstart.toml")).unwrap();
    let folder = source.canonicalize().unwrap().join("quickstart");
    let text = text.replace("\"quickstart/", &format!("\"{}/", folder.display()));
    let path = dir.join("recipe.toml");
    std::fs::write(&path, change(text)).unwrap();
    path
}

#[test]
fn bad_input_is_one_sentence_and_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.jsonl");
    std::fs::write(&empty, "").unwrap();
    let long = dir.path().join("long.jsonl");
    let words = "the soup was warm . ".repeat(20);
    std::fs::write(
        &long,
        format!(
            "{}\n{}\n",
            serde_json::json!({"prompt": words}),
            serde_json::json!({"prompt": "the"})
        ),
    )
    .unwrap();
    let endless = dir.path().join("endless.jsonl");
    let prompt = serde_json::json!({"prompt": "the soup was warm . ".repeat(5000)});
    std::fs::write(&endless, format!("{prompt}\n{{\"prompt\": \"the\"}}\n")).unwrap();
    let test = |path: &Path| format!("prompts.test='{}'", path.display());
    let lora = |keys: &str| {
        format!("train.lora={{ r = 2, lora_alpha = 4, target_modules = ['k_proj'], {keys} }}")
    };
    // A run checks as a dry run does, but looks first for the files that it reads: `both` where it may end there.
    for (set, both, needles) in [
        ("model='absent'".to_owned(), true, ["absent", "config.json"]),
        (test(&dir.path().join("absent.jsonl")), true, ["absent.jsonl", "read"]),
        (test(&empty), false, ["empty.jsonl", "prompt"]),
        (test(&long), false, ["long.jsonl: the model's context of 64", "(line 1): shorten"]),
        (test(&endless), false, ["100000 bytes", "context of 64 tokens"]),
        (
            test(&quickstart().join("train.jsonl")),
            false,
            ["the prompt \"", "both trained on and held out"],
        ),
        ("seed=18446744073709551615".to_owned(), false, ["--set seed", "to 9223372036854775807"]),
        ("evaluation.procedures=['best-of:0']".to_owned(), false, ["best-of:0", "0"]),
        ("evaluation.procedures=['best-of:100']".to_owned(), false, ["best-of:100", "100"]),
        (
            "evaluation.procedures=['sample', 'best-of:2', 'sample']".to_owned(),
            false,
            ["evaluation.procedures names", "sample twice"],
        ),
        ("calibration.samples=1".to_owned(), false, ["calibration.samples", "at least 2"]),
        ("train.samples_per_prompt=1".to_owned(), false, ["samples_per_prompt", "at least 2"]),
        ("train.target_kl=-1".to_owned(), false, ["target_kl", "above 0"]),
        ("train.target_kl=inf".to_owned(), false, ["target_kl is inf", "finite"]),
        ("train.target_kl=1e-50".to_owned(), false, ["target_kl is 1e-50", "32 bits"]),
        ("train.optimizer.learning_rate=inf".to_owned(), false, ["learning_rate is inf", "finite"]),
        (
            "train.optimizer.learning_rate=1e300".to_owned(),
            false,
            ["learning_rate is 1e300", "finite"],
        ),
        (
            lora("rank_pattern = { 'layers.0.self_attn.k_proj' = 3, k_proj = 4 }"),
            false,
            [
                "\"layers.0.self_attn.k_proj\", which has no effect",
                "and \"k_proj\" comes before it",
            ],
        ),
        (
            lora("layers_to_transform = [0, 99]"),
            false,
            ["[train.lora]", "holds 99, but the model has"],
        ),
        (
            "prompts={ kind = 'story-openings', file = 'a.txt', words = 0, test = 2 }".to_owned(),
            false,
            ["prompts.words is 0", "at least 1"],
        ),
        ("train.beta=0.1".to_owned(), false, ["target_kl", "beta"]),
        ("generation.temperature=0.5".to_owned(), false, ["generation", "temperature 1"]),
        ("evaluation.baseline='none'".to_owned(), false, ["baseline", "none"]),
        (
            "expect={ tolerance = { relative = -1, absolute = nan } }".to_owned(),
            false,
            ["[expect]: tolerance.relative is -1", "at least 0"],
        ),
        (
            "expect={ equivalence = { win_rate = -0.5, kl = -1 } }".to_owned(),
            false,
            ["[expect]: equivalence.win_rate is -0.5", "above 0"],
        ),
        ("reward.weights.Bad=1".to_owned(), false, ["Bad", "lower-case"]),
    ] {
        let path = recipe(dir.path(), |text| text);
        let out = dir.path().join("run");
        for more in [&["--dry-run"][..], &[]].into_iter().skip(usize::from(!both)) {
            let mut command = infalign(&["train", "--out"]);
            command.arg(&out).arg(&path).args(["--set", &set]).args(more);
            let text = refused(command, &needles);
            assert_eq!(text.trim_end().lines().count(), 1, "{set}: {text}");
            assert!(!out.exists(), "{set}: nothing may be left behind");
        }
    }
}

#[test]
fn a_language_model_prints_its_results_where_json_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let mut command = infalign(&["train", "--json", "--out"]);
    command.arg(&out).arg(recipes.join("quickstart-model.toml"));
    for set in [
        "texts=200",
        "prompts.train=20",
        "prompts.test=10",
        "train.steps=2",
        "train.texts_per_step=2",
        "train.optimizer.warmup_steps=1",
    ] {
        command.args(["--set", set]);
    }
    assert_eq!(json(&run(command)), json_file(&out.join("results.json")));
}

#[test]
fn values_out_of_range_name_the_recipe() {
    let dir = tempfile::tempdir().unwrap();
    let path =
        recipe(dir.path(), |text| text.replace("prompts_per_step = ", "prompts_per_step = 0 # "));
    let out = dir.path().join("run");
    for more in [&["--dry-run"][..], &[]] {
        let mut command = infalign(&["train", "--out"]);
        command.arg(&out).arg(&path).args(more);
        let named = format!("error: {}: [train] with method", path.display());
        refused(command, &[named.as_str(), "prompts_per_step is 0"]);
    }
}

#[test]
fn a_run_goes_on_with_the_files_that_it_was_begun_with() {
    let dir = tempfile::tempdir().unwrap();
    let (prompts, out) = (dir.path().join("train.jsonl"), dir.path().join("run"));
    let source = quickstart().join("train.jsonl");
    let all = std::fs::read_to_string(source).unwrap();
    std::fs::write(&prompts, &all).unwrap();
    assert_done(&run(train(&out, &["--set", &format!("prompts.train={}", prompts.display())])));
    std::fs::write(&prompts, all.lines().rev().map(|line| format!("{line}\n")).collect::<String>())
        .unwrap();
    refused(resumed(&out), &["train.jsonl (prompts.train) is another than when"]);
    std::fs::write(&prompts, all).unwrap();
    assert_done(&run(resumed(&out)));
}

#[test]
fn a_reward_knows_every_prompt_before_anything_is_sampled() {
    let dir = tempfile::tempdir().unwrap();
    let answers = dir.path().join("answers.jsonl");
    std::fs::write(&answers, "{\"prompt\": \"another\", \"answer\": \"4\"}\n").unwrap();
    let part = format!("{{ kind = \"answer\", file = {answers:?} }}");
    let sum = format!("reward={{ kind = \"sum\", parts = [{{ weight = 1.0, reward = {part} }}] }}");
    refused(train(&dir.path().join("run"), &["--set", &sum, "--dry-run"]), &["[reward]"]);
}

#[test]
fn a_run_is_not_overwritten_and_a_stranger_is_not_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let full = dir.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("mine.txt"), "mine").unwrap();
    refused(train(&full, &[]), &[]);
    assert_eq!(
        std::fs::read_dir(&full).unwrap().count(),
        1,
        "a folder of somebody's is left as it is"
    );
    refused(resumed(&full), &["no run to resume"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let output = common::on_a_full_disk(train(&out, &[]).get_args());
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("write") && text.contains(&*out.to_string_lossy()), "{text}");
    for entry in ["inputs", "methods/raw/policy", "results.json"] {
        assert!(!out.join(entry).exists(), "{entry} must not be there half-written");
    }
    // With space again the run goes on.
    done(resumed(&out));
}
