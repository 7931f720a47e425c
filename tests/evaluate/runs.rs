//! A run: its methods compared, a report of it, and its policies evaluated again.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::common::{
    self, as_another, assert_done, copy, infalign, json, json_file, quickstart, refused, stderr,
    train_small,
};
use super::{run, stdout};

#[test]
fn a_run_is_compared_reported_and_its_policies_evaluated_again() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("first");
    let sets = [
        "evaluation.samples=6",
        "evaluation.procedures=['sample', 'best-of:2']",
        "evaluation.judge={ kind = 'length', unit = 'words' }",
    ];
    assert_done(&common::run(train_small(&out, &sets)));
    let path = |part: &str| -> PathBuf { out.join(part) };
    let text = |part: &str| path(part).to_str().unwrap().to_owned();
    let run_folder = out.to_str().unwrap();
    compared(
        run_folder,
        &text("methods/ctrl-best"),
        &text("methods/raw"),
        &json_file(&path("results.json")),
    );
    reported(&out, run_folder);
    evaluated_again(dir.path(), &text("methods/ctrl-best/policy"));

    // The same once more: methods of the same name, and points of one frontier.
    let second = dir.path().join("second");
    copy(&out, &second);
    as_another(&second);
    let second = second.to_str().unwrap();
    let both = json(&run(&[
        "compare",
        run_folder,
        second,
        "--json",
        "--procedure",
        "best-of:2",
        "--margin",
        "0.02",
    ]));
    let comparisons = both["comparisons"].as_array().unwrap();
    assert_eq!(comparisons.len(), 8, "four methods by two judges");
    for one in comparisons {
        assert_eq!(one["difference"]["estimate"], json!(0.0), "{one}");
        assert_eq!(one["p_adjusted"], json!(1.0), "{one}");
        assert!(one["equivalence"]["p_value"].as_f64().unwrap() < 1e-3, "{one}");
        assert!(one["method"].as_str().unwrap().starts_with("first/"), "{one}");
    }
    let both = json(&run(&[
        "report",
        run_folder,
        second,
        "--out",
        dir.path().join("both").to_str().unwrap(),
        "--json",
    ]));
    assert_eq!(both["provenance"]["sources"].as_array().unwrap().len(), 2);
    let names = both["judged"][0]["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["method"].as_str().unwrap());
    assert_eq!(names.filter(|name| name.ends_with("/raw")).count(), 4);

    // Folders of one name, and runs that were measured by different rewards.
    let again = dir.path().join("again");
    std::fs::create_dir(&again).unwrap();
    std::fs::rename(second, again.join("first")).unwrap();
    let config = again.join("first/config.toml");
    let changed = std::fs::read_to_string(&config).unwrap().replace("good = 1.0", "good = 2.0");
    std::fs::write(&config, changed).unwrap();
    let output = run(&["compare", run_folder, again.join("first").to_str().unwrap(), "--json"]);
    let told = stderr(&output);
    assert!(told.contains("differ in reward: win rates"), "{told}");
    let page = dir.path().join("warned");
    let (again, page) = (again.join("first"), page.to_str().unwrap());
    let report =
        json(&run(&["report", run_folder, again.to_str().unwrap(), "--out", page, "--json"]));
    let warning = report["provenance"]["warnings"][0].as_str().unwrap();
    assert!(told.contains(warning), "{warning}");
    for name in ["report.html", "report.md"] {
        let text = std::fs::read_to_string(Path::new(page).join(name)).unwrap();
        assert!(text.contains("differ in reward"), "{name}");
    }
    let both = json(&output);
    for one in both["comparisons"].as_array().unwrap() {
        let [method, baseline] = ["method", "baseline"].map(|key| one[key].as_str().unwrap());
        assert!(method.starts_with("first/") && baseline.starts_with("first (2)/"), "{one}");
    }
}

fn compared(run_folder: &str, best: &str, raw: &str, results: &Value) {
    let all = json(&run(&["compare", run_folder, "--json"]));
    // Six pairs of four methods, two procedures, two judges.
    assert_eq!(all["comparisons"].as_array().unwrap().len(), 24);
    let record = Path::new(run_folder).with_file_name("compared");
    let record = record.to_str().unwrap();
    let two = json(&run(&["compare", best, raw, "--json", "--record", record]));
    let recorded = json_file(&Path::new(record).join("record.json"));
    assert_eq!(recorded["seed"]["master"], results["seed"]);
    let comparisons = two["comparisons"].as_array().unwrap();
    assert_eq!(comparisons.len(), 4);
    // The run's own table has the same numbers, its baseline being `raw`.
    let same = |one: &Value| {
        let own = results["comparisons"].as_array().unwrap().iter();
        let mut own = own.filter(|own| {
            ["method", "baseline", "procedure", "judge"].iter().all(|key| own[key] == one[key])
        });
        own.next().unwrap()["difference"].clone()
    };
    for one in comparisons {
        assert_eq!(one["difference"], same(one), "the interval, too, of the same resamples");
    }
    // Of the run's two sets of reference responses, the first is the reference.
    let [samples, reference] =
        [format!("{best}/samples.json"), format!("{run_folder}/reference-samples.json")];
    let sides = ["evaluate", "--policy", &samples, "--reference", &reference, "--json"];
    let found = json(&run(&sides));
    let is_it = |row: &&Value| {
        row["method"] == "ctrl-best"
            && row["procedure"] == "sample"
            && row["judge"] == found["judge"]
    };
    let row = results["rows"].as_array().unwrap().iter().find(is_it).unwrap();
    assert_eq!(row["win_rate"]["estimate"], found["win_rate"]["estimate"]);
    for (command, paths) in [("compare", &[best, raw][..]), ("report", &[run_folder])] {
        let words = [&[command][..], paths, &["--reference", &reference]].concat();
        refused(infalign(&words), &["--reference is for files of samples"]);
    }
    let planned = json(&run(&["compare", best, raw, "--plan", "0.05", "--json"]));
    let plans = planned["plans"].as_array().unwrap().iter();
    let plans: Vec<(&Value, &Value)> = plans.map(|p| (&p["judge"], &p["procedure"])).collect();
    let [reward, judge] = ["reward", "judge"].map(Value::from);
    let [sample, two] = ["sample", "best-of:2"].map(Value::from);
    assert_eq!(plans, [(&reward, &sample), (&reward, &two), (&judge, &sample), (&judge, &two)]);
    let text = stdout(&run(&["compare", best, raw, "--plan", "0.05", "--margin", "0.1"]));
    assert!(
        text.contains("ctrl-best − raw, best-of:2") && text.contains("by the judge:"),
        "{text}"
    );
    for told in ["0.05 by the reward is seen", "0.05 by the judge is seen"] {
        assert!(text.contains(told), "{text}");
    }
}

fn reported(out: &Path, run_folder: &str) {
    // Beside the run, which stays as it was recorded.
    let out = &out.with_file_name("first-report");
    let exports = ["--export", "alpaca-eval", "--export", "lm-eval", "--length-controlled"];
    let text = stdout(&run(&[&["report", run_folder, "--examples", "2"], &exports[..]].concat()));
    assert!(text.contains("report.html"), "{text}");
    assert_done(&run(&["verify", run_folder]));
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    for told in [
        "ctrl-best",
        "Responses side by side",
        "<svg",
        "config.toml",
        "infalign report",
        "Agreement of the judges",
    ] {
        assert!(page.contains(told), "{told}");
    }
    let fetched = page.matches("http").count() - page.matches("http://www.w3.org").count();
    assert_eq!(fetched, 0, "the page needs nothing from elsewhere");
    assert!(!page.contains("<script"), "nor does it run anything");
    let report = json_file(&out.join("report.json"));
    assert_eq!(report["schema"], "report/1");
    assert_eq!(report["examples"].as_array().unwrap().len(), 2);
    assert!(report["judged"][0]["rows"][0]["length_controlled_win_rate"].is_object());
    // Win rates at the same KL are resampled by Student's t, too, and the page says so.
    let student = out.with_file_name("student");
    let student = student.to_str().unwrap();
    let by = ["--interval", "t", "--replicates", "300", "--resample-seed", "5"];
    let page = ["report", run_folder, "--out", student, "--json"];
    let intervals = json!({ "kind": "student-t", "replicates": 300, "seed": 5 });
    assert_eq!(json(&run(&[&page[..], &by].concat()))["statistics"]["intervals"], intervals);
    let told = "Student's t, and at the same KL by the BCa bootstrap with 300 resamples";
    let markdown = std::fs::read_to_string(Path::new(student).join("report.md")).unwrap();
    assert!(markdown.contains(told), "{markdown}");
    // Where no method has been, there is nothing to compare.
    let far = out.with_file_name("far");
    let far = run(&["report", run_folder, "--kl", "50", "--out", far.to_str().unwrap()]);
    assert_done(&far);
    let told = match report["judged"][0]["common_kl"].as_f64() {
        Some(kl) => format!(
            "no method was measured near --kl 50: the greatest KL that all reach is {kl:.3}"
        ),
        None => "no method was measured near --kl 50, and there is no KL that all reach".to_owned(),
    };
    assert!(stderr(&far).contains(&told), "{told}: {}", stderr(&far));
    let markdown = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(markdown.contains("| ctrl-best |"));
    let shown: Vec<&str> = markdown.split("](report/").skip(1).collect();
    assert_eq!(
        shown.len(),
        5,
        "two plots a judge, whose costs are alike, and one of both: {markdown}"
    );
    for plot in shown {
        let name = plot.split(')').next().unwrap();
        assert!(out.join("report").join(name).is_file(), "{name}");
    }
    for file in ["win-rate-kl.svg", "win-rate-kl.png", "score-kl.png", "proxy-gold.svg"] {
        assert!(out.join("report").join(file).is_file(), "{file}");
    }
    let outputs = json_file(&out.join("report/alpaca-eval-ctrl-best.json"));
    assert_eq!(outputs[0]["generator"], "ctrl-best");
    let samples = json_file(&Path::new(run_folder).join("methods/ctrl-best/samples.json"));
    assert_eq!(outputs[0]["output"], samples["responses"][0][0]);
    assert_eq!(outputs[0]["instruction"], samples["prompts"][0]["text"]);
    let harness = json_file(&out.join("report/lm-eval.json"));
    let task = &harness["results"]["infalign_best_of_2_ctrl-best"];
    let is_it = |row: &&Value| row["method"] == "ctrl-best" && row["procedure"] == "best-of:2";
    let row = report["judged"][0]["rows"].as_array().unwrap().iter().find(is_it).unwrap();
    assert_eq!(task["win_rate,none"], row["win_rate"]["estimate"]);
    assert_eq!(task["win_rate_stderr,none"], row["win_rate_error"]);
}

fn evaluated_again(dir: &Path, policy: &str) {
    let prompts = dir.join("prompts.jsonl");
    let all = std::fs::read_to_string(quickstart().join("test.jsonl")).unwrap();
    std::fs::write(&prompts, all.lines().take(8).collect::<Vec<_>>().join("\n")).unwrap();
    let judge = dir.join("judge.toml");
    std::fs::write(&judge, "kind = 'lexicon'\nweights = { good = 1.0, nice = 1.0, dull = -1.0 }\n")
        .unwrap();
    let (model, out) = (quickstart().join("model"), dir.join("evaluation"));
    let args = [
        "evaluate",
        "--policy",
        policy,
        "--reference",
        model.to_str().unwrap(),
        "--prompts",
        prompts.to_str().unwrap(),
        "--judge",
        judge.to_str().unwrap(),
        "--samples",
        "6",
        "--max-tokens",
        "20",
        "--procedure",
        "best-of:2",
        "--procedure",
        "sample",
        "--name",
        "again",
        "--json",
    ];
    let found = json(&run(&[&args[..], &["--out", out.to_str().unwrap()]].concat()));
    assert_eq!(
        (&found["procedure"], &found["n_prompts"], &found["n_samples"]),
        (&json!("best-of:2"), &json!(8), &json!(6))
    );
    assert_eq!(found["rows"].as_array().unwrap().len(), 2);
    let kl = &found["kl"];
    assert!(kl["estimate"].as_f64().unwrap() > 0.0 && kl["standard_error"].as_f64().unwrap() > 0.0);
    assert_eq!(kl["kind"], "estimate");
    assert!(kl["k1"]["estimate"].is_number() && kl["k3"]["estimate"].as_f64().unwrap() > 0.0);
    assert_eq!(
        json(&run(&[&args[..], &["--batch", "3"]].concat())),
        found,
        "the batch does not matter"
    );
    // As many as there are in the vocabulary leave none out.
    let all = json(&run(&[&args[..], &["--top-k", "89"]].concat()));
    for key in ["kl", "win_rate", "score"] {
        assert_eq!(all[key], found[key], "{key}");
    }
    // Tempered tokens are not the model's own, so that its KL is not told.
    let tempered = json(&run(&[&args[..], &["--temperature", "0.7"]].concat()));
    assert_eq!(tempered["kl"], Value::Null);
    let again = infalign(&[&args[..], &["--out", out.to_str().unwrap()]].concat());
    refused(again, &["holds an evaluation already"]);
    // What was stored has the same numbers, and a page.
    let samples = out.join("methods/again/samples.json");
    let reference = out.join("reference-samples.json");
    let stored = json(&run(&[
        "evaluate",
        "--policy",
        samples.to_str().unwrap(),
        "--reference",
        reference.to_str().unwrap(),
        "--procedure",
        "best-of:2",
        "--json",
    ]));
    for key in ["win_rate", "kl", "score", "tokens"] {
        assert_eq!(stored[key], found[key], "{key}");
    }
    // It is on record, and its page comes beside it, with the command that made it.
    let folder = out.to_str().unwrap();
    assert_done(&run(&["report", folder]));
    let page = std::fs::read_to_string(dir.join("evaluation-report/report.html")).unwrap();
    assert!(page.contains("infalign evaluate --policy"), "the command that made it");
    assert!(stdout(&run(&["verify", folder])).contains("all as they were recorded"));
    let replayed = stdout(&run(&["replay", folder]));
    assert!(replayed.contains("results.json  the same bytes"), "{replayed}");
    let again = dir.join("replica");
    let report = stdout(&run(&["replicate", folder, "--out", again.to_str().unwrap()]));
    assert!(report.starts_with("# reproduced (repeat)"), "{report}");
}
