//! `infalign evaluate`, `compare` and `report` as a user runs them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Output;

use common::{
    as_another, assert_done, copy, infalign, json, json_file, quickstart, refused, stderr,
    train_small,
};
use serde_json::{Value, json};

fn run(args: &[&str]) -> Output {
    common::run(infalign(args))
}

fn stdout(output: &Output) -> String {
    assert_done(output);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Rows of stored responses: for each prompt its rewards. Texts are as long as their number says.
fn stored(dir: &Path, name: &str, prompts: &[(&str, &[f64])]) -> String {
    let mut text = String::new();
    for (prompt, rewards) in prompts {
        for (k, reward) in rewards.iter().enumerate() {
            let response = "x".repeat(3 + k);
            let row =
                json!({"prompt": prompt, "response": response, "reward": reward, "tokens": k + 1});
            text += &format!("{row}\n");
        }
    }
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_verdict_of_equivalence_allows_for_the_number_of_comparisons() {
    let dir = tempfile::tempdir().unwrap();
    let rewards = [0.0, 1.0];
    let prompts = ["a", "b", "c", "d", "e"].map(|prompt| (prompt, rewards.as_slice()));
    let [first, second, reference] = ["first.jsonl", "second.jsonl", "reference.jsonl"]
        .map(|name| stored(dir.path(), name, &prompts));
    let sides = ["compare", &first, &second, "--reference", &reference, "--margin", "0.1"];
    let alone = ["evaluate", "--policy", &first, "--reference", &reference, "--margin", "0.1"];
    // Of five prompts without any difference p is 2⁻⁵, below 0.05 for one comparison and not for two.
    for (procedures, adjusted, verdict) in [
        (
            &["--procedure", "sample"][..],
            0.03125,
            ["equivalent", "], equivalent to ½ within ±0.1;"],
        ),
        (
            &["--procedure", "sample", "--procedure", "best-of:2"],
            0.0625,
            ["undecided", "], not shown to be equivalent to ½ within ±0.1;"],
        ),
    ] {
        let words = [&sides[..], procedures].concat();
        let document = json(&run(&[&words[..], &["--json"]].concat()));
        for one in document["comparisons"].as_array().unwrap() {
            assert_eq!(one["equivalence"]["p_value"], json!(0.03125), "{one}");
            assert_eq!(one["equivalence"]["p_adjusted"], json!(adjusted), "{one}");
        }
        let text = stdout(&run(&words));
        assert!(text.contains(verdict[0]), "{text}");
        // So many rows of one policy, which wins half of each prompt.
        let words = [&alone[..], procedures].concat();
        let document = json(&run(&[&words[..], &["--json"]].concat()));
        let test = json!({ "margin": 0.1, "p_value": 0.03125, "p_adjusted": adjusted });
        assert_eq!(document["equivalence"], test, "{document}");
        let text = stdout(&run(&words));
        assert_eq!(text.matches(verdict[1]).count(), procedures.len() / 2, "{text}");
    }
}

#[test]
fn stored_responses_have_the_win_rates_worked_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let policy = stored(dir.path(), "policy.jsonl", &[("a", &[1.0, 3.0]), ("b", &[2.0, 2.0])]);
    let reference =
        stored(dir.path(), "reference.jsonl", &[("a", &[2.0, 0.0]), ("b", &[2.0, 1.0])]);
    let sides = ["evaluate", "--policy", &policy, "--reference", &reference];
    // One sample: on a 3 of 4 pairs are won, on b 2 won and 2 tied.
    let one = json(&run(&[&sides[..], &["--json"]].concat()));
    assert!((one["win_rate"]["estimate"].as_f64().unwrap() - 0.75).abs() < 1e-12, "{one}");
    assert_eq!(
        (&one["procedure"], &one["n_prompts"], &one["n_samples"]),
        (&json!("sample"), &json!(2), &json!(2))
    );
    assert_eq!((&one["kl"], &one["win_rate"]["level"]), (&Value::Null, &json!(0.95)));
    // The best of two: 3 beats 2, and 2 ties 2. Against a single sample of the reference: 1, and ¾.
    let best = [&sides[..], &["--json", "--procedure", "best-of:2"]].concat();
    assert!((json(&run(&best))["win_rate"]["estimate"].as_f64().unwrap() - 0.75).abs() < 1e-12);
    let other = json(&run(&[&best[..], &["--reference-procedure", "sample"]].concat()));
    assert!((other["win_rate"]["estimate"].as_f64().unwrap() - 0.875).abs() < 1e-12, "{other}");
    assert_eq!(other["reference_procedure"], "sample");
    assert_eq!(other["score"]["estimate"], json!(2.5));
    // (1 + 2)/2 tokens, twice.
    assert_eq!(other["tokens"], json!(3.0));
    let text = stdout(&run(&[&sides[..], &["--procedure", "best-of:2"]].concat()));
    assert!(
        text.contains("best-of:2: win rate 0.750") && text.contains("do not tell it"),
        "{text}"
    );
    assert!(text.contains("what is kept is 0.193 nats from the policy (bound)"), "{text}");
    // Soft best-of-2 draws each of two with probability ∝ e^r: of 1 and 3, the mean is 1 + 2/(1 + e⁻²), of 2 and 2 it is 2.
    let soft = [&sides[..], &["--json", "--procedure", "soft-best-of:2,temperature=1"]].concat();
    let soft = json(&run(&soft));
    let expected = (1.0 + 2.0 / (1.0 + (-2.0f64).exp()) + 2.0) / 2.0;
    assert!((soft["score"]["estimate"].as_f64().unwrap() - expected).abs() < 1e-12, "{soft}");
    // In closed form the estimate is the same.
    let student = json(&run(&[&best[..], &["--interval", "t"]].concat()));
    assert_eq!(student["win_rate"]["estimate"], json!(0.75));
    // Of so few prompts the bootstrap tells no more.
    let [student, bootstrap] =
        [student, json(&run(&best))].map(|found| found["win_rate"]["low"].as_f64().unwrap());
    assert!((student - bootstrap).abs() < 1e-9, "{student} {bootstrap}");
}

#[test]
fn a_judge_scores_stored_texts_and_the_reward_selects() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let rows = |texts: [&str; 4]| -> String {
        let row = |(k, text): (usize, &&str)| {
            format!("{}\n", json!({"prompt": format!("p{}", k / 2), "response": text}))
        };
        texts.iter().enumerate().map(row).collect()
    };
    let policy = write("a.jsonl", &rows(["good good", "dull", "good", "dull dull dull"]));
    let reference = write("b.jsonl", &rows(["dull", "dull dull", "dull", "good dull"]));
    let lexicon =
        write("lexicon.toml", "kind = 'lexicon'\nweights = { good = 1.0, dull = -1.0 }\n");
    let length = write("length.toml", "kind = 'length'\nunit = 'words'\n");
    let sides = ["evaluate", "--policy", &policy, "--reference", &reference, "--json"];
    refused(infalign(&sides), &["--judge"]);
    let by =
        |more: &[&str]| json(&run(&[&sides[..], &["--procedure", "best-of:2"], more].concat()));
    // The best by the lexicon: "good good" and "good" against "dull" and "good dull".
    let lexical = by(&["--judge", &lexicon]);
    assert_eq!(lexical["win_rate"]["estimate"], json!(1.0));
    assert_eq!(lexical["judge"], "reward");
    // The same are kept where the length judges: 2 words against 1, 1 against 2.
    let judged = by(&["--judge", &length, "--reward", &lexicon]);
    assert_eq!((&judged["win_rate"]["estimate"], &judged["judge"]), (&json!(0.5), &json!("judge")));
    // The longest of two win where the length selects, too: 2 against 2, 3 against 2.
    assert_eq!(by(&["--judge", &length])["win_rate"]["estimate"], json!(0.75));
}

#[test]
fn bad_input_is_one_sentence_and_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let whole = stored(dir.path(), "whole.jsonl", &[("a", &[1.0, 2.0]), ("b", &[1.0, 2.0])]);
    let other = stored(dir.path(), "other.jsonl", &[("a", &[1.0, 2.0]), ("c", &[1.0, 2.0])]);
    let single = stored(dir.path(), "single.jsonl", &[("a", &[1.0, 2.0])]);
    let nan = dir.path().join("nan.csv");
    std::fs::write(&nan, "prompt,response,reward\na,x,1\nb,y,NaN\n").unwrap();
    let nan = nan.to_str().unwrap();
    let [selected, guided] =
        ["best-of:2", "best-of:2 over cd-block:length=2,samples=2"].map(|made| {
            let row = |prompt: &str| json!({"prompt": prompt, "response": "x", "score": 1.0});
            let document = json!({"procedure": made, "responses": [row("a"), row("b")]});
            let path = dir.path().join(format!("{}.json", made.len()));
            std::fs::write(&path, document.to_string()).unwrap();
            path.to_str().unwrap().to_owned()
        });
    let model = quickstart().join("model");
    let model = model.to_str().unwrap();
    for (args, told) in [
        (&["--policy", &whole, "--reference", &other][..], "prompt 2 is"),
        (&["--policy", &whole, "--reference", &single], "2 against 1"),
        (&["--policy", &single, "--reference", &single], "1 prompt is too few"),
        (&["--policy", nan, "--reference", nan], "line 3: The key `reward`"),
        (
            &["--policy", &whole, "--reference", &whole, "--procedure", "best-of:3"],
            "give 3 or more",
        ),
        (
            &["--policy", &whole, "--reference", &whole, "--procedure", "cd-token:lambda=1"],
            "cd-token",
        ),
        (&["--policy", &whole, "--reference", model], "two files or two models"),
        (&["--policy", &selected, "--reference", &selected, "--procedure", "sample"], "best-of:2"),
        (&["--policy", &guided, "--reference", &guided], "from which `sample` cannot be evaluated"),
        (&["--policy", &whole, "--reference", &whole, "--samples", "4"], "--samples is for models"),
        (&["--policy", &whole, "--reference", &whole, "--level", "1"], "between 0 and 1"),
        (
            &[
                "--policy",
                &whole,
                "--reference",
                &whole,
                "--procedure",
                "sample",
                "--procedure",
                "sample",
            ],
            "--procedure sample is given twice",
        ),
        (&["--policy", &whole, "--reference", &whole, "--resume"], "--out"),
        (&["--policy", "absent", "--reference", "absent"], "no file or folder absent"),
        (
            &["--policy", "none.jsonl", "--reference", &whole],
            "--policy: there is no file or folder",
        ),
        (&["--policy", &whole, "--reference", "a/none.csv"], "no file or folder a/none.csv"),
        (&["--policy", "a/none", "--reference", "a/none"], "--prompts is missing"),
    ] {
        refused(infalign(&[&["evaluate"], args].concat()), &[told]);
    }
    for (args, told) in [
        (&["compare", dir.path().to_str().unwrap()][..], "holds no evaluation"),
        (&["compare", &whole], "--reference"),
        (&["compare", "absent"], "no file or folder"),
        (&["compare", &whole, "--reference", &whole], "no two methods"),
        (&["compare", &whole, &other, "--reference", &whole], "prompt 2 is"),
        (&["report", "absent"], "no file or folder"),
        (&["report", &whole, "--reference", &other, "--kl", "0"], "give a number above 0"),
        (&["report", &whole, "--reference", &other, "--kl", "-1"], "give a number above 0"),
        (&["report", &whole, "--reference", &other, "--kl", "nan"], "give a number above 0"),
        (&["report", &whole, "--reference", &other, "--kl", "inf"], "give a number above 0"),
    ] {
        refused(infalign(args), &[told]);
    }
}

#[test]
fn what_was_made_for_a_response_is_what_it_cost() {
    let dir = tempfile::tempdir().unwrap();
    let generated = dir.path().join("generated.json");
    let (model, prompts) = (quickstart().join("model"), quickstart().join("test.jsonl"));
    let reward = dir.path().join("reward.toml");
    std::fs::write(&reward, "kind = 'length'\nunit = 'words'\n").unwrap();
    let mut command =
        infalign(&["generate", "--json", "--max-tokens", "8", "--procedure", "best-of:3"]);
    command.arg("--model").arg(&model).arg("--prompts").arg(&prompts).arg("--reward").arg(&reward);
    let document = json(&common::run(command));
    std::fs::write(&generated, document.to_string()).unwrap();
    let made = document["responses"].as_array().unwrap().iter();
    let made: Vec<f64> = made.map(|one| one["model_tokens"].as_f64().unwrap()).collect();
    let file = generated.to_str().unwrap();
    let sides = ["evaluate", "--policy", file, "--reference", file, "--procedure", "best-of:3"];
    let found = json(&run(&[&sides[..], &["--json"]].concat()));
    let mean = made.iter().sum::<f64>() / made.len() as f64;
    assert!((found["tokens"].as_f64().unwrap() - mean).abs() < 1e-9, "{found}");
    // Drafts that were thrown away count for every one of the four that a selection looks at.
    let rows = |prompt: &str| -> String {
        let row =
            json!({"prompt": prompt, "response": "x", "reward": 1, "tokens": 2, "model_tokens": 5});
        format!("{row}\n").repeat(4)
    };
    let stored = dir.path().join("stored.jsonl");
    std::fs::write(&stored, rows("a") + &rows("b")).unwrap();
    let file = stored.to_str().unwrap();
    let sides = ["evaluate", "--policy", file, "--reference", file, "--procedure", "best-of:4"];
    assert_eq!(json(&run(&[&sides[..], &["--json"]].concat()))["tokens"], json!(20.0));
}

#[test]
fn plans_tell_how_many_prompts_an_effect_needs() {
    let dir = tempfile::tempdir().unwrap();
    let rewards: Vec<Vec<f64>> =
        (0..12).map(|p| (0..8).map(|k| f64::from((p * 7 + k * 5) % 11)).collect()).collect();
    let names: Vec<String> = (0..12).map(|p| format!("p{p}")).collect();
    let rows = |shift: usize| -> Vec<(&str, &[f64])> {
        (0..12).map(|p| (names[p].as_str(), rewards[(p + shift) % 12].as_slice())).collect()
    };
    let (a, b) = (stored(dir.path(), "a.jsonl", &rows(1)), stored(dir.path(), "b.jsonl", &rows(0)));
    let found =
        json(&run(&["evaluate", "--policy", &a, "--reference", &b, "--json", "--plan", "0.05"]));
    let needs = found["plans"][0]["needs"].as_array().unwrap();
    assert_eq!(needs[0]["samples"], 1);
    let prompts: Vec<u64> = needs.iter().map(|need| need["prompts"].as_u64().unwrap()).collect();
    assert!(prompts.is_sorted_by(|a, b| a >= b) && prompts[0] > 2, "{prompts:?}");
    let text = stdout(&run(&["evaluate", "--policy", &a, "--reference", &b, "--plan", "0.05"]));
    assert!(text.contains("a win rate 0.05 from ½ is seen with probability 0.8 from"), "{text}");
}

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
