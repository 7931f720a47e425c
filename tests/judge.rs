//! Align recipes that train their own reward models, one to be trained on and one to judge.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;
mod visits;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::SMALL;
use visits::{assert_done, data, done, infalign, json_file, quickstart, refused, stderr, train};

/// The quickstart made small, with two reward models of which the second is the judge.
fn align_recipe(dir: &Path) -> PathBuf {
    let source = std::fs::read_to_string(quickstart().join("../quickstart.toml")).unwrap();
    let folder = quickstart();
    let text = source.replace("\"quickstart/", &format!("\"{}/", folder.display()));
    let model = |name: &str, data: &str| {
        format!(
            "[[reward_model]]\nname = '{name}'\nbase = '{}'\n{data}\nheld_out = 0.25\n\
             [reward_model.train]\nsteps = 20\nexamples_per_step = 8\n\
             [reward_model.train.optimizer]\nlearning_rate = 3e-3\n",
            folder.join("model").display()
        )
    };
    let models = [
        model("proxy", "preferences = ['preferences.jsonl']"),
        model("gold", "ratings = ['ratings.tsv']"),
    ];
    let path = dir.join("align.toml");
    std::fs::write(&path, format!("{text}\n{}", models.concat())).unwrap();
    path
}

const SETS: [&str; 4] = [
    "train.steps=2",
    "reward={ kind = 'model', path = '$RUN/reward-models/proxy' }",
    "evaluation.judge={ kind = 'model', path = '$RUN/reward-models/gold', reads = 'response' }",
    "method=[{ name = 'raw', objective = 'raw' }, { name = 'calibrated', objective = 'identity' }]",
];

fn align(dir: &Path, out: &Path, more: &[&str]) -> Command {
    let mut args = Vec::new();
    for set in SMALL.iter().chain(&SETS).chain(more) {
        args.extend(["--set", set]);
    }
    train(&align_recipe(dir), out, &args)
}

#[test]
fn a_run_trains_on_one_reward_model_and_is_judged_by_another() {
    let dir = data();
    let run = dir.path().join("run");
    assert!(done(align(dir.path(), &run, &[])).contains("by the judge:"));
    for name in ["proxy", "gold"] {
        assert!(run.join("reward-models").join(name).join("report.json").is_file(), "{name}");
    }
    assert!(run.join("win-rate-kl-judge.svg").is_file());
    let results = json_file(&run.join("results.json"));
    // The reference and two methods under three procedures; one comparison under each.
    for (key, n) in [("rows", 9), ("comparisons", 3)] {
        for judge in ["reward", "judge"] {
            let rows = results[key].as_array().unwrap().iter().filter(|row| row["judge"] == judge);
            assert_eq!(rows.count(), n, "{key} of {judge}");
        }
    }
    let of = |judge: &str| {
        let mut rows = results["rows"].as_array().unwrap().iter();
        rows.find(|row| row["judge"] == judge && row["method"] == "calibrated").unwrap()
    };
    assert_ne!(of("reward")["win_rate"], of("judge")["win_rate"]);
    assert!(of("reward")["predicted_win_rate"].is_number());
    assert!(of("judge")["predicted_win_rate"].is_null(), "theory speaks of the trained reward");

    // Resumed, the run reads the models and the samples back.
    let bytes = std::fs::read(run.join("results.json")).unwrap();
    std::fs::remove_file(run.join("results.json")).unwrap();
    let output = infalign(&["train", "--resume", "--out"]).arg(&run).output().unwrap();
    assert_done(&output);
    assert!(stderr(&output).contains("reward model gold: already done"), "{}", stderr(&output));
    assert!(std::fs::read(run.join("results.json")).unwrap() == bytes);

    // Of several, the one is named that cannot be read.
    std::fs::remove_file(run.join("record.json")).unwrap();
    std::fs::write(run.join("reward-models/gold/model.safetensors"), "cut").unwrap();
    let mut resumed = infalign(&["train", "--resume", "--out"]);
    resumed.arg(&run);
    refused(resumed, &["gold cannot be used: delete it and resume"]);
}

#[test]
fn models_of_the_same_data_differ_by_their_seeds() {
    let dir = data();
    let run = dir.path().join("run");
    let same = [
        "reward_model[1].ratings=[]",
        "reward_model[1].preferences=['preferences.jsonl']",
        "reward_model[1].seed=2",
        "method=[{ name = 'raw', objective = 'raw' }]",
        "evaluation.procedures=['sample']",
    ];
    done(align(dir.path(), &run, &same));
    let weights = ["proxy", "gold"]
        .map(|name| std::fs::read(run.join("reward-models").join(name).join("model.safetensors")));
    let [proxy, gold] = weights.map(Result::unwrap);
    assert!(proxy != gold, "an ensemble of them would be of one");
}

#[test]
fn reward_models_and_rewards_have_to_fit_together() {
    let dir = data();
    let lexicon = "{ kind = 'lexicon', weights = { nice = 1.0 } }";
    let model = |key: &str, name: &str| {
        format!("{key}={{ kind = 'model', path = '$RUN/reward-models/{name}' }}")
    };
    for (sets, needles) in [
        (vec![format!("reward={lexicon}")], ["reward-models/proxy", "nothing uses"]),
        (vec![format!("evaluation.judge={lexicon}")], ["reward-models/gold", "nothing uses"]),
        (
            vec!["reward_model=[]".into(), format!("evaluation.judge={lexicon}")],
            ["reward.path is $RUN/reward-models/proxy", "no [[reward_model]]"],
        ),
        (
            vec![
                "reward_model=[]".into(),
                format!("reward={lexicon}"),
                model("evaluation.judge", "gold"),
            ],
            ["evaluation.judge.path is $RUN/reward-models/gold", "no [[reward_model]]"],
        ),
        (
            vec![
                "reward_model=[]".into(),
                format!("reward={lexicon}"),
                "evaluation.judge={ kind = 'lexicon', weights = { Bad = 1 } }".into(),
            ],
            ["evaluation.judge", "Bad"],
        ),
    ] {
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let out = dir.path().join("run");
        refused(align(dir.path(), &out, &sets), &needles);
        assert!(!out.exists(), "{sets:?}: nothing may be left behind");
    }
}
