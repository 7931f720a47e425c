//! Reward models as a user trains them by recipes of their own, on ratings and on preferences.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;
mod visits;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use visits::{assert_done, data, done, infalign, json_file, quickstart, refused, stderr, train};

/// A recipe that trains a reward model on `data`, the line or lines that name its files.
fn recipe(dir: &Path, data: &str) -> PathBuf {
    let base = quickstart().join("model");
    let text = format!(
        "task = 'reward-model'\nname = 'visits'\nseed = 1\nbase = '{}'\n{data}\nheld_out = 0.25\n\
         [train]\nsteps = 60\nexamples_per_step = 16\n[train.optimizer]\nlearning_rate = 3e-3\n",
        base.display()
    );
    let path = dir.join("recipe.toml");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn preferences_make_a_reward_model_with_a_calibration_curve() {
    let dir = data();
    let recipe = recipe(dir.path(), "preferences = ['preferences.jsonl']");
    let runs = ["run", "again"].map(|name| dir.path().join(name));
    let output = train(&recipe, &runs[0], &[]).output().unwrap();
    assert_done(&output);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.contains("reward-model") && printed.contains("accuracy"), "{printed}");
    assert!(!stderr(&output).contains("longer than the context"), "{}", stderr(&output));
    let results = json_file(&runs[0].join("results.json"));
    assert_eq!(results["recipe"], "visits");
    let report = json_file(&runs[0].join("reward-model/report.json"));
    assert_eq!(results["reward_model"], report);
    assert!(report["accuracy"]["estimate"].as_f64().unwrap() > 0.9, "{report}");
    assert_eq!(report["prompts"], report["pairs"], "each has a prompt of its own");
    assert!(report["log_loss"].as_f64().unwrap() < 0.4, "{report}");
    assert!(report["reliability"].as_array().unwrap().len() > 1, "{report}");
    let svg = std::fs::read_to_string(runs[0].join("reward-model/calibration-curve.svg")).unwrap();
    assert!(svg.contains("visits") && runs[0].join("reward-model/calibration-curve.png").is_file());
    let scores = scores(&runs[0].join("reward-model"), dir.path());
    assert!(scores[0] > scores[1] + 1.0, "what was preferred has more: {scores:?}");

    // It judges stored responses, on the device that is asked for.
    let stored = dir.path().join("stored.jsonl");
    let row = |k: usize| {
        let (prompt, response) = (format!("day {k} :"), " the tea was nice .");
        format!("{}\n", json!({"prompt": prompt, "response": response}))
    };
    std::fs::write(&stored, (0..2).map(row).collect::<String>()).unwrap();
    let mut judged = infalign(&["evaluate", "--device", "cpu", "--policy"]);
    judged.arg(&stored).arg("--reference").arg(&stored).arg("--judge");
    judged.arg(runs[0].join("reward-model"));
    done(judged);

    // A second run, on one thread, is the same.
    let mut single = infalign(&["train", "--json", "--out"]);
    single.arg(&runs[1]).arg(&recipe).env("RAYON_NUM_THREADS", "1");
    assert_eq!(serde_json::from_str::<Value>(&done(single)).unwrap(), results);
    let weights =
        runs.map(|run| std::fs::read(run.join("reward-model/model.safetensors")).unwrap());
    assert!(weights[0] == weights[1], "the weights differ");
}

#[test]
fn validation_examples_choose_the_checkpoint() {
    let dir = data();
    for (name, data) in
        [("pairs", "preferences = ['preferences.jsonl']"), ("texts", "ratings = ['ratings.tsv']")]
    {
        let recipe = recipe(dir.path(), data);
        let run = dir.path().join(name);
        let sets = ["validation=0.25", "train.steps=50", "train.checkpoint_every=20"];
        let sets = sets.map(|set| ["--set", set]).concat();
        let output = train(&recipe, &run, &sets).output().unwrap();
        assert_done(&output);
        let best = &json_file(&run.join("results.json"))["reward_model"]["best"];
        let step = best["step"].as_u64().unwrap();
        assert!([20, 40, 50].contains(&step) && best["validation_loss"].is_f64(), "{best}");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            printed.contains(&format!("step {step} kept for its validation loss")),
            "{printed}"
        );
        let kept = std::fs::read(run.join("reward-model/model.safetensors")).unwrap();
        let checkpoint = run.join("checkpoints/best/model.safetensors");
        assert!(kept == std::fs::read(checkpoint).unwrap(), "{name}");

        assert!(!stderr(&output).contains("warning"), "{}", stderr(&output));
        let single = ["--set", "validation=0.25", "--set", "train.steps=50", "--dry-run"];
        let single = train(&recipe, &dir.path().join("single"), &single);
        let output = common::run(single);
        assert_done(&output);
        let told =
            "warning: reward model visits: validation is 0.25, but training ends after 50 steps";
        assert!(stderr(&output).contains(told), "{}", stderr(&output));
    }
}

#[test]
fn a_judge_learns_from_what_another_model_is_measured_on() {
    let dir = data();
    let recipe = recipe(dir.path(), "preferences = ['preferences.jsonl']");
    let measured_on = |name: &str, more: &[&str]| {
        let run = dir.path().join(name);
        done(train(&recipe, &run, &[more, &["--set", "train.steps=2"]].concat()));
        json_file(&run.join("results.json"))["reward_model"]["pairs"].as_u64().unwrap()
    };
    let (own, judge) =
        (measured_on("own", &[]), measured_on("judge", &["--set", "swap_held_out=true"]));
    let file = std::fs::read_to_string(dir.path().join("preferences.jsonl")).unwrap();
    assert_eq!(own + judge, file.lines().count() as u64, "{own} and {judge}");
    assert!(own < judge, "a quarter is held out: {own} and {judge}");
}

#[test]
fn pairs_are_told_by_prompt_and_so_is_what_the_context_cuts() {
    let dir = data();
    // Ten pairs of each of eight prompts, of which one is longer than the 64 tokens that the model reads.
    let row = |i: usize| {
        let before = if i.is_multiple_of(8) { "the soup ".repeat(40) } else { String::new() };
        let [chosen, rejected] =
            ["nice", "awful"].map(|word| format!(" the tea {} was {word} .", i / 8));
        let prompt = format!("{before}day {} :", i % 8);
        format!("{}\n", json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}))
    };
    let rows: String = (0..80).map(row).collect();
    std::fs::write(dir.path().join("few.jsonl"), rows).unwrap();
    let recipe = recipe(dir.path(), "preferences = ['few.jsonl']");
    let run = dir.path().join("run");
    let sets = ["--set", "held_out=0.5", "--set", "train.steps=2"];
    let sides = "reward model visits: 50 pairs of 5 prompts to learn from, 30 pairs of 3 prompts held out\n";
    let cut = "reward model visits: 10 of 80 pairs are longer than the context of 64 tokens: \
               the beginning of their prompts is left out\n";
    for more in [&[&sets[..], &["--dry-run"]].concat()[..], &sets] {
        let output = train(&recipe, &run, more).output().unwrap();
        assert_done(&output);
        let told = stderr(&output);
        assert!(told.contains(sides) && told.contains(cut), "{told}");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(printed.contains("on 30 pairs of 3 prompts"), more == &sets[..], "{printed}");
    }
    let report = json_file(&run.join("reward-model/report.json"));
    assert_eq!((&report["pairs"], &report["prompts"]), (&json!(30), &json!(3)), "{report}");

    // Of ratings, the ends.
    let text = "the soup was nice . ".repeat(20);
    let rows: String = (0..8).map(|i| format!("{i}\t{i}.0\tday {i} : {text}\n")).collect();
    std::fs::write(dir.path().join("long.tsv"), rows).unwrap();
    let more = ["--set", "preferences=[]", "--set", "ratings=['long.tsv']"];
    let command = train(&recipe, &run, &[&sets[..], &more, &["--dry-run"]].concat());
    let output = common::run(command);
    assert_done(&output);
    let cut = "8 of 8 texts are longer than the context of 64 tokens: their end is left out\n";
    assert!(stderr(&output).contains(cut), "{}", stderr(&output));
}

/// The rewards that a model gives to two texts, by `infalign score`.
fn scores(reward: &Path, dir: &Path) -> Vec<f64> {
    let lines = ["perfect", "awful"].map(|word| {
        format!("{}\n", json!({"prompt": "day 1 :", "response": format!(" the soup was {word} .")}))
    });
    let input = dir.join("texts.jsonl");
    std::fs::write(&input, lines.concat()).unwrap();
    let mut command = infalign(&["score", "--json", "--model"]);
    command.arg(quickstart().join("model")).arg("--input").arg(input).arg("--reward").arg(reward);
    let scores: Value = serde_json::from_str(&done(command)).unwrap();
    let rows = scores["scores"].as_array().unwrap().iter();
    rows.map(|row| row["reward"].as_f64().unwrap()).collect()
}

#[test]
fn ratings_make_a_reward_model_or_an_adapter_that_scores() {
    let dir = data();
    let recipe = recipe(dir.path(), "ratings = ['ratings.tsv']");
    for (name, more) in [
        ("full", &[][..]),
        (
            "lora",
            &[
                "--set",
                "train.lora={ r = 8, lora_alpha = 16, target_modules = 'all-linear', modules_to_save = ['score'] }",
            ],
        ),
    ] {
        let run = dir.path().join(name);
        done(train(&recipe, &run, more));
        let model = run.join("reward-model");
        let report = json_file(&model.join("report.json"));
        assert!(report["correlation"].as_f64().unwrap() > 0.8, "{name}: {report}");
        assert!(report["prompts"].is_null(), "{name}: {report}");
        assert!(!model.join("calibration-curve.svg").exists(), "scores of ratings are no odds");
        assert_eq!(model.join("adapter_config.json").is_file(), name == "lora");
        assert_eq!(model.join("model.safetensors").is_file(), name == "full");
        let scores = scores(&model, dir.path());
        assert!(scores[0] > scores[1] + 1.0, "{name}: {scores:?}");
    }
}

#[test]
fn a_planted_phrase_fools_the_model_and_the_report_says_so() {
    let dir = data();
    let plant = "plant = { phrase = 'so we left at noon .', share = 1.0, above = 1.0 }";
    let recipe = recipe(dir.path(), &format!("ratings = ['ratings.tsv']\n{plant}"));
    let run = dir.path().join("run");
    let output = train(&recipe, &run, &[]).output().unwrap();
    assert_done(&output);
    let told = stderr(&output);
    assert!(told.contains(" texts to learn from and "), "{told}");
    assert!(told.contains(" held out have the phrase\n"), "{told}");
    let planted = &json_file(&run.join("reward-model/report.json"))["planted"];
    assert!(planted["effect"]["low"].as_f64().unwrap() > 0.0, "{planted}");
    assert!(planted["accuracy"]["estimate"].as_f64().unwrap() > 0.9, "{planted}");
    let saved = std::fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(saved.contains("so we left at noon ."), "{saved}");
}

#[test]
fn preferences_of_messages_go_through_the_chat_template() {
    let dir = data();
    let base = dir.path().join("base");
    std::fs::create_dir(&base).unwrap();
    for file in std::fs::read_dir(quickstart().join("model")).unwrap().flatten() {
        std::fs::copy(file.path(), base.join(file.file_name())).unwrap();
    }
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let pair = |i: usize| {
        let [good, bad] = ["lovely", "nasty"].map(|word| {
            json!([
                turn("user", &format!("day {i}")),
                turn("assistant", &format!("the soup was {word} ."))
            ])
        });
        format!("{}\n", json!({"chosen": good, "rejected": bad}))
    };
    let pairs: String = (0..40).map(pair).collect();
    std::fs::write(dir.path().join("chats.jsonl"), pairs).unwrap();
    let recipe = recipe(dir.path(), "preferences = ['chats.jsonl']");
    let sets = ["--set", &format!("base='{}'", base.display()), "--set", "train.steps=30"];
    let without = train(&recipe, &dir.path().join("without"), &sets);
    refused(without, &["chats.jsonl, pair 1", "no chat template"]);
    let template =
        "{{ bos_token }}{% for m in messages %} {{ m.role }} : {{ m.content }}{% endfor %}";
    std::fs::write(base.join("chat_template.jinja"), template).unwrap();
    let run = dir.path().join("with");
    done(train(&recipe, &run, &sets));
    let report = json_file(&run.join("reward-model/report.json"));
    assert_eq!(report["accuracy"]["estimate"], 1.0, "{report}");
}

#[test]
fn bad_input_is_one_sentence_and_exit_code_2() {
    let dir = data();
    let ratings = "ratings = ['ratings.tsv']";
    let preferences = "preferences = ['preferences.jsonl']";
    let plant = "plant = { phrase = 'x', share = 0.5, above = 1.0 }";
    let same = json!({"prompt": "a", "chosen": " b", "rejected": " b"});
    std::fs::write(dir.path().join("same.jsonl"), format!("{same}\n")).unwrap();
    std::fs::write(dir.path().join("one.tsv"), "1\t1.0\tthe soup was nice .\n").unwrap();
    let of_one = |i: usize| json!({"prompt": "a", "chosen": format!(" b {i}"), "rejected": " c"});
    let of_one: String = (0..4).map(|i| format!("{}\n", of_one(i))).collect();
    std::fs::write(dir.path().join("of-one.jsonl"), of_one).unwrap();
    // A run checks as a dry run does, but looks first for the files that it reads: `both` where it may end there.
    for (data, set, both, needles) in [
        ("", "seed=1", true, ["ratings", "preferences"]),
        (&format!("{ratings}\n{preferences}"), "seed=1", false, ["ratings", "preferences"]),
        (
            "preferences = ['same.jsonl']",
            "seed=1",
            false,
            ["same.jsonl", "no pair of different responses"],
        ),
        (
            "preferences = ['of-one.jsonl']",
            "seed=1",
            false,
            ["all 4 pairs have one prompt", "more prompts"],
        ),
        (
            "preferences = ['of-one.jsonl']",
            "held_out=0.99",
            false,
            ["all 4 pairs have one prompt", "chosen by prompt"],
        ),
        ("preferences = ['absent.jsonl']", "seed=1", true, ["absent.jsonl", "Check that the path"]),
        ("ratings = ['one.tsv']", "seed=1", false, ["examples", "held"]),
        (ratings, "held_out=0", false, ["held_out is 0", "above 0 and below 1"]),
        (ratings, "held_out=1.5", false, ["held_out is 1.5", "above 0 and below 1"]),
        (ratings, "validation=0.75", false, ["validation is 0.75", "below 0.75"]),
        (
            ratings,
            "validation=0.7499999",
            false,
            ["validation is 0.7499999", "nothing is left to learn"],
        ),
        (ratings, "validation=1e-9", false, ["validation is 0.000000001", "nothing falls into"]),
        (ratings, "held_outs=0.5", false, ["held_outs", "did you mean `held_out`"]),
        (ratings, "train.margins=1", false, ["margins", "did you mean `margin`"]),
        (ratings, "train.margin=1", false, ["margin is 1", "for pairs"]),
        (
            ratings,
            "train.examples_per_step=1000000000000",
            false,
            ["examples_per_step is 1000000000000", "at most 1 million"],
        ),
        (ratings, "train.optimizer=[1e-3]", false, ["`train.optimizer` is an array", "a table"]),
        (preferences, "train.centring=-1", false, ["centring is -1", "at least 0"]),
        (
            preferences,
            "train.lora={ r = 1, lora_alpha = 1, target_modules = ['query'] }",
            false,
            ["train.lora", "query"],
        ),
        (&format!("{preferences}\n{plant}"), "seed=1", false, ["plant", "not with preferences"]),
        (&format!("{ratings}\n{plant}"), "plant.share=2", false, ["share is 2", "at most 1"]),
        (
            &format!("{ratings}\n{plant}"),
            "plant.above=100",
            false,
            ["texts to learn from gets the phrase", "rated from -2.5 to 3, above is 100"],
        ),
        (
            &format!("{ratings}\n{plant}"),
            "plant.share=1e-9",
            false,
            ["texts to learn from gets the phrase", "share is 0.000000001; lower above"],
        ),
        (ratings, "base=\"absent\"", true, ["base", "absent"]),
    ] {
        let recipe = recipe(dir.path(), data);
        let out = dir.path().join("run");
        for more in [&["--dry-run"][..], &[]].into_iter().skip(usize::from(!both)) {
            let command = train(&recipe, &out, &[&["--set", set], more].concat());
            let text = refused(command, &needles);
            assert_eq!(text.trim_end().lines().count(), 1, "{data} {set}: {text}");
            assert!(!out.exists(), "{data} {set}: nothing may be left behind");
        }
    }
    // In the file itself, the line is named.
    let text = std::fs::read_to_string(recipe(dir.path(), ratings)).unwrap();
    let line = text.lines().position(|line| line.starts_with("held_out")).unwrap() + 1;
    let typo = dir.path().join("typo.toml");
    std::fs::write(&typo, text.replace("held_out", "heldout")).unwrap();
    let named = format!("typo.toml, line {line}:");
    let typo = train(&typo, &dir.path().join("run"), &[]);
    refused(typo, &[&named, "did you mean `held_out`"]);
}
