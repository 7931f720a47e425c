//! Stored responses: win rates worked by hand, verdicts, plans and costs, and what is refused of them.

use std::path::Path;

use serde_json::{Value, json};

use super::common::{self, infalign, json, quickstart, refused};
use super::{run, stdout};

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
