//! CTRL by several solvers and the methods that it is compared with, as a user runs them: in one recipe, killed, resumed, and given bad input.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;
mod visits;

use std::path::{Path, PathBuf};
use std::time::Instant;

use common::bytes;
use serde_json::Value;
use tempfile::TempDir;
use visits::{data, done, infalign, json_file, quickstart, refused, stderr, train};

/// Steps of every method.
const STEPS: usize = 4;

/// Methods of every kind.
const METHODS: [(&str, &str); 10] = [
    ("standardized", "objective = 'standardized'"),
    ("vbon", "kind = 'vbon'\nn = 4"),
    ("sft", "kind = 'sft'\ncompletions = ['completions.jsonl']"),
    ("best-of-4-sft", "kind = 'best-of-n-sft'\nn = 4"),
    ("dpo", "kind = 'dpo'\nbeta = 0.1\nlabels = 'bradley-terry'"),
    ("ipo", "kind = 'ipo'\ntau = 0.5\npreferences = ['preferences.jsonl']"),
    ("bonbon", "kind = 'bonbon'\nn = 4\nalpha = 0.5"),
    ("bond", "kind = 'bond'"),
    ("ppo", "objective = 'identity'\nsolver = { kind = 'ppo', epochs = 2 }"),
    ("offline", "objective = 'identity'\nsolver = { kind = 'regression', rollouts = 'reference' }"),
];

/// The kind that the results give a method of [`METHODS`].
fn kind(name: &str) -> &str {
    match name {
        "standardized" | "ppo" | "offline" => "ctrl",
        "best-of-4-sft" => "best-of-n-sft",
        kind => kind,
    }
}

/// A folder with a recipe of all kinds, and the files that it reads.
fn folder() -> (TempDir, PathBuf) {
    let dir = data();
    let completions = (0..12).map(|i| {
        format!("{}\n", serde_json::json!({"prompt": format!("day {i} :"), "completion": " the soup was lovely ."}))
    });
    std::fs::write(dir.path().join("completions.jsonl"), completions.collect::<String>()).unwrap();
    let inputs = quickstart();
    for (name, lines) in [("train.jsonl", 24), ("test.jsonl", 6)] {
        let all = std::fs::read_to_string(inputs.join(name)).unwrap();
        let some: String = all.lines().take(lines).map(|line| format!("{line}\n")).collect();
        std::fs::write(dir.path().join(name), some).unwrap();
    }
    let inputs = inputs.display();
    let optimizer = "optimizer = { learning_rate = 1e-3 }";
    let mut text = format!(
        "task = 'align'\nname = 'baselines'\nseed = 1\nmodel = '{inputs}/model'\n\
         [prompts]\nkind = 'files'\ntrain = 'train.jsonl'\ntest = 'test.jsonl'\n\
         [reward]\nkind = 'lexicon'\nweights = {{ nice = 0.8, lovely = 1.6, awful = -2.6, nasty = -2.2 }}\n\
         [generation]\nmax_tokens = 16\n[calibration]\nsamples = 4\n[rollouts]\nsamples = 4\n\
         [train]\nsteps = {STEPS}\nprompts_per_step = 4\nsamples_per_prompt = 4\ntarget_kl = 0.5\n\
         checkpoint_every = 1\n{optimizer}\n\
         [evaluation]\nsamples = 4\nprocedures = ['sample', 'best-of:4']\nbaseline = 'dpo'\n"
    );
    for (name, keys) in METHODS {
        text += &format!("[[method]]\nname = '{name}'\n{keys}\n");
        text += &match name {
            "standardized" | "vbon" | "ppo" | "offline" => String::new(),
            "bond" => format!(
                "[method.train]\nsteps = {STEPS}\nprompts_per_step = 4\nsamples_per_prompt = 2\n\
                 anchor_rate = 0.1\ncheckpoint_every = 1\n{optimizer}\n"
            ),
            _ => format!(
                "[method.train]\nsteps = {STEPS}\nexamples_per_step = 8\ncheckpoint_every = 1\n{optimizer}\n"
            ),
        };
    }
    let recipe = dir.path().join("recipe.toml");
    std::fs::write(&recipe, text).unwrap();
    (dir, recipe)
}

/// Everything of two finished runs that must be equal byte for byte.
fn assert_equal(a: &Path, b: &Path) {
    let files = ["results.json", "reference-rollouts.parquet", "calibration.parquet"];
    common::assert_equal([a, b], &files, &METHODS.map(|(method, _)| method), STEPS);
}

/// What steps tell of pairs and of responses to imitate: the policy begins as the reference.
fn learned_from_stored_responses(run: &Path) {
    let steps = |name: &str| -> Vec<Value> {
        let lines =
            String::from_utf8(bytes(run, &format!("methods/{name}/metrics.jsonl"))).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    for name in ["dpo", "ipo", "bonbon"] {
        let steps = steps(name);
        let number = |step: &Value, key: &str| step[key].as_f64().unwrap();
        for key in ["chosen", "rejected", "margin"] {
            assert!(number(&steps[0], key).abs() < 1e-3, "{name}: {key} of {}", steps[0]);
        }
        assert_eq!(number(&steps[0], "accuracy"), 0.5, "{name}: {}", steps[0]);
        for step in &steps {
            let [chosen, rejected, margin, accuracy] =
                ["chosen", "rejected", "margin", "accuracy"].map(|key| number(step, key));
            assert!((chosen - rejected - margin).abs() < 1e-9, "{name}: {step}");
            assert!((16.0 * accuracy).fract() == 0.0 && accuracy <= 1.0, "{name}: {step}");
        }
        assert!(number(steps.last().unwrap(), "margin").abs() > 1e-3, "{name} has moved");
    }
    let per_token = steps("best-of-4-sft")[0]["loss_per_token"].as_f64().unwrap();
    assert!(per_token > 0.1 && per_token < 5.0, "{per_token} nats a token");
}

#[test]
fn all_kinds_run_in_one_recipe_and_survive_being_killed() {
    let (dir, recipe) = folder();
    let [whole, again, killed] = ["whole", "again", "killed"].map(|name| dir.path().join(name));
    let start = Instant::now();
    done(train(&recipe, &whole, &[]));
    let took = start.elapsed();
    let results = json_file(&whole.join("results.json"));
    let rows = results["rows"].as_array().unwrap();
    for (name, _) in METHODS {
        let of_method: Vec<&Value> = rows.iter().filter(|row| row["method"] == name).collect();
        assert_eq!(of_method.len(), 2, "{name}: a row a procedure");
        assert_eq!(of_method[0]["kind"], kind(name));
        let kl = of_method[0]["kl"]["estimate"].as_f64().unwrap();
        assert!(kl > 0.0, "{name} was trained: {kl}");
        let compared = results["comparisons"].as_array().unwrap();
        let compared = compared.iter().filter(|row| row["method"] == name).count();
        assert_eq!(compared, if name == "dpo" { 0 } else { 2 }, "{name}");
    }
    assert_eq!(rows.iter().find(|row| row["method"] == "vbon").unwrap()["objective"], "log");
    let base = rows.iter().find(|row| row["method"] == "base").unwrap();
    assert!(base.get("kind").is_none() && base.get("objective").is_none());
    learned_from_stored_responses(&whole);
    // β of variational best-of-4 is 1/3, whatever [train] says.
    let first = |name: &str| -> Value {
        let metrics = bytes(&whole, &format!("methods/{name}/metrics.jsonl"));
        serde_json::from_str(String::from_utf8(metrics).unwrap().lines().next().unwrap()).unwrap()
    };
    let beta = |name: &str| first(name)["beta"].as_f64().unwrap();
    assert!((beta("vbon") - 1.0 / 3.0).abs() < 1e-12, "{}", beta("vbon"));
    // Of all others it is that of the same target KL; the solver is the method's own.
    assert_eq!(beta("ppo"), beta("offline"));
    assert!(first("ppo").get("value_loss").is_some(), "{}", first("ppo"));
    assert!(first("standardized").get("value_loss").is_none(), "{}", first("standardized"));

    // A second run, on one thread.
    let mut single = infalign(&["train", "--out"]);
    single.arg(&again).arg(&recipe).env("RAYON_NUM_THREADS", "1");
    done(single);
    assert_equal(&whole, &again);

    let command = |words: &[&str]| {
        let mut command = infalign(&["train", "--out"]);
        command.arg(&killed).args(words);
        command
    };
    let begun = || command(&[recipe.to_str().unwrap()]);
    common::killed_until_done(&killed, took, begun, || command(&["--resume"]));
    assert_equal(&whole, &killed);
}

/// Leaves a recipe with one method, which learns from what is stored, and without what others need.
fn leave(recipe: &Path, rollouts: &str, method: &str) {
    let text = std::fs::read_to_string(recipe).unwrap();
    let (before, rest) = text.split_once("[calibration]").unwrap();
    let evaluation = rest.split_once("[evaluation]").unwrap().1.split_once("[[method]]").unwrap().0;
    let text =
        format!("{before}{rollouts}[evaluation]{evaluation}[[method]]\nname = 'dpo'\n{method}");
    std::fs::write(recipe, text).unwrap();
}

#[test]
fn dpo_makes_what_was_chosen_more_probable_than_what_was_rejected() {
    let (dir, recipe) = folder();
    let method = "kind = 'dpo'\nbeta = 0.1\npreferences = ['preferences.jsonl']\n[method.train]\n\
                  steps = 16\nexamples_per_step = 8\noptimizer = { learning_rate = 1e-3 }\n";
    leave(&recipe, "", method);
    let run = dir.path().join("run");
    done(train(&recipe, &run, &[]));
    let rows = ["perfect", "awful"].map(|word| {
        format!(
            "{}\n",
            serde_json::json!({"prompt": "day 1 :", "response": format!(" the soup was {word} .")})
        )
    });
    let input = dir.path().join("texts.jsonl");
    std::fs::write(&input, rows.concat()).unwrap();
    let log_ratio = |model: &Path| {
        let mut command = infalign(&["score", "--json", "--model"]);
        let scores = common::json(&command.arg(model).arg("--input").arg(&input).output().unwrap());
        let [chosen, rejected] =
            [0, 1].map(|row| scores["scores"][row]["log_prob"].as_f64().unwrap());
        chosen - rejected
    };
    let (reference, policy) =
        (log_ratio(&quickstart().join("model")), log_ratio(&run.join("methods/dpo/policy")));
    assert!(policy > reference + 1.0, "{reference} and {policy}");
}

#[test]
fn a_recipe_of_offline_methods_alone_needs_neither_train_nor_calibration() {
    let (dir, recipe) = folder();
    let best = "kind = 'best-of-n-sft'\nn = 4\n[method.train]\nsteps = 2\n\
                examples_per_step = 4\noptimizer = { learning_rate = 1e-3 }\n\
                lora = { r = 2, lora_alpha = 4, target_modules = 'all-linear' }\n";
    leave(&recipe, "[rollouts]\nsamples = 4\n", best);
    let run = dir.path().join("run");
    done(train(&recipe, &run, &[]));
    assert!(!run.join("calibration.parquet").exists());
    let policy = run.join("methods/dpo/policy");
    assert!(policy.join("adapter_config.json").is_file() && !policy.join("config.json").exists());
    // Rollouts of another number are not taken for these.
    std::fs::remove_file(run.join("results.json")).unwrap();
    let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
    std::fs::write(run.join("config.toml"), config.replace("samples = 4", "samples = 8")).unwrap();
    // Of a run on record, the settings could not be changed.
    std::fs::remove_file(run.join("record.json")).unwrap();
    let mut command = infalign(&["train", "--resume", "--out"]);
    let output = command.arg(&run).output().unwrap();
    let message = stderr(&output);
    assert!(message.contains("samples `4`, but the run has `8`"), "{message}");
}

#[test]
fn contradictions_are_refused_before_any_work() {
    let (dir, recipe) = folder();
    let method = |keys: &str| format!("method=[{{ name = 'dpo', {keys} }}]");
    let training =
        "train = { steps = 1, examples_per_step = 1, optimizer = { learning_rate = 0.1 } }";
    std::fs::write(dir.path().join("long.jsonl"), {
        let words = "the soup was warm . ".repeat(20);
        format!("{}\n", serde_json::json!({"prompt": "the", "completion": words}))
    })
    .unwrap();
    let held_out = std::fs::read_to_string(dir.path().join("test.jsonl")).unwrap();
    let held_out: Value = serde_json::from_str(held_out.lines().next().unwrap()).unwrap();
    let row = |prompt: &Value| {
        let [good, bad] = [" nice .", " awful ."];
        let row = serde_json::json!({"prompt": prompt, "completion": good, "chosen": good, "rejected": bad});
        format!("{row}\n")
    };
    let rows = row(&held_out["prompt"]);
    std::fs::write(dir.path().join("held-out.jsonl"), rows).unwrap();
    let beside = |keys: &str| {
        let others = format!(
            "{{ name = 'a', objective = 'raw' }}, {{ name = 'b', kind = 'best-of-n-sft', n = 2, {training} }}"
        );
        format!("method=[{{ name = 'dpo', {keys}, {training} }}, {others}]")
    };
    // A run checks as a dry run does, but looks first for the files that it reads: `both` where it may end there.
    for (set, both, needles) in [
        ("rollouts.samples=3".to_owned(), true, ["best-of-4-sft", "rollouts.samples is 3"]),
        ("calibration={ group = true }".to_owned(), false, ["standardized", "calibration.group"]),
        (
            method(&format!("kind = 'dpo', beta = 0.1, {training}")),
            false,
            ["[train] has no effect", "no [[method]]"],
        ),
        (method("objective = 'raw', beta = 1"), false, ["unknown field `beta`", "objective"]),
        (method(&format!("kind = 'dpo', beta = 0, {training}")), false, ["\"dpo\"", "beta is 0"]),
        (
            "train.samples_per_prompt=5".to_owned(),
            false,
            ["\"offline\" needs 5", "rollouts.samples is 4"],
        ),
        (
            method("objective = 'raw', solver = { kind = 'ppo', clip = 2.0 }"),
            false,
            ["[train] with method \"dpo\"", "solver.clip is 2"],
        ),
        (method("kind = 'vbonn', n = 2"), false, ["vbonn", "did you mean `vbon`"]),
        (
            beside("kind = 'sft', completions = ['long.jsonl']"),
            false,
            ["context of 64 tokens has no room", "1 of 1 rows (line 1)"],
        ),
        (beside("kind = 'sft', completions = ['absent.jsonl']"), true, ["absent.jsonl", "\"dpo\""]),
        (
            beside("kind = 'sft', completions = ['held-out.jsonl']"),
            false,
            ["\"dpo\"", "the prompts of all rows are held out"],
        ),
        (
            beside("kind = 'dpo', beta = 0.1, preferences = ['held-out.jsonl']"),
            false,
            ["\"dpo\"", "the prompts of all rows are held out"],
        ),
    ] {
        let out = dir.path().join("refused");
        for more in [&["--dry-run"][..], &[]].into_iter().skip(usize::from(!both)) {
            let command = train(&recipe, &out, &[&["--set", set.as_str()], more].concat());
            let message = refused(command, &needles);
            assert_eq!(message.trim_end().lines().count(), 1, "{set}: {message}");
            assert!(!out.exists(), "{set}: nothing may be left behind");
        }
    }
    // In the file itself, the line is named.
    let text = std::fs::read_to_string(&recipe).unwrap().replace("alpha = 0.5", "alfa = 0.5");
    std::fs::write(&recipe, &text).unwrap();
    let typo = train(&recipe, &dir.path().join("refused"), &[]);
    refused(typo, &["did you mean `alpha`", ", line "]);
}

#[test]
fn a_table_of_another_reward_is_refused_before_any_work() {
    let (dir, recipe) = folder();
    std::fs::write(dir.path().join("words.toml"), "kind = 'length'\nunit = 'words'\n").unwrap();
    let table = dir.path().join("table.parquet");
    let mut calibrate = infalign(&["calibrate", "--samples", "4", "--max-tokens", "16"]);
    calibrate.arg("--model").arg(quickstart().join("model"));
    calibrate.arg("--prompts").arg(dir.path().join("train.jsonl"));
    calibrate.arg("--reward").arg(dir.path().join("words.toml")).arg("--out").arg(&table);
    done(calibrate);
    let out = dir.path().join("run");
    let sets = ["--set", "calibration={ table = 'table.parquet' }"];
    for more in [&["--dry-run"][..], &[]] {
        let command = train(&recipe, &out, &[&sets, more].concat());
        refused(command, &["table.parquet", "made with reward"]);
        assert!(!out.exists(), "nothing may be left behind");
    }
    let own = "reward={ kind = 'length', unit = 'words' }";
    done(train(&recipe, &out, &[&sets[..], &["--set", own, "--dry-run"]].concat()));
}
