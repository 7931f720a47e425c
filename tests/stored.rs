//! `infalign evaluate` on stored responses: whose scores and answers count, and how intervals are made.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::path::Path;

use common::{done, infalign, json, refused, run};
use serde_json::{Value, json};

/// What is found of two files of a folder.
fn evaluate(dir: &Path, [policy, reference]: [&str; 2], more: &[&str]) -> Value {
    let sides = ["evaluate", "--json", "--policy", policy, "--reference", reference];
    let mut command = infalign(&sides);
    command.args(more).current_dir(dir);
    json(&run(command))
}

#[test]
fn a_reward_that_is_asked_for_overrules_the_judge_of_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, response: &str, score: f64| {
        let samples = json!({
            "prompts": [{ "id": "a", "text": "a" }, { "id": "b", "text": "b" }],
            "responses": [[response, response], [response, response]],
            "rewards": [[score, score], [score, score]], "judged": [[score, score], [score, score]],
        });
        std::fs::write(dir.path().join(name), samples.to_string()).unwrap();
    };
    write("policy.json", "so it was", 0.0);
    write("reference.json", "so", 1.0);
    std::fs::write(dir.path().join("length.toml"), "kind = 'length'\nunit = 'words'\n").unwrap();
    let found = |more: &[&str]| {
        let row = evaluate(dir.path(), ["policy.json", "reference.json"], more);
        (row["win_rate"]["estimate"].as_f64().unwrap(), row["judge"].clone())
    };
    assert_eq!(found(&[]), (0.0, json!("judge")));
    assert_eq!(found(&["--judge", "length.toml"]), (1.0, json!("reward")));
}

#[test]
fn a_document_of_responses_is_told_from_samples_by_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let samples = json!({
        "prompts": [{ "id": "a", "text": "a" }, { "id": "b", "text": "b" }],
        "responses": [["x", "x"], ["x", "x"]], "rewards": [[0.0, 0.0], [0.0, 0.0]],
    });
    let row = |id: &str| json!({ "id": id, "prompt": id, "response": "rewards", "score": 1.0 });
    let responses = ["a", "a", "b", "b"].map(row);
    let document = json!({ "procedure": "sample", "responses": responses }).to_string();
    // Both may begin with the mark of UTF-8, and samples may be the first of a run's two sets.
    write("policy.json", &format!("\u{feff}{document}"));
    let sides = ["policy.json", "reference.json"];
    for reference in [json!([samples, samples]), samples] {
        write("reference.json", &format!("\u{feff}{reference}"));
        let found = evaluate(dir.path(), sides, &[]);
        assert_eq!(found["win_rate"]["estimate"], 1.0, "{found}");
    }
    for (score, told) in [
        ("NaN", "a NaN or Infinity is no JSON number"),
        ("1.0, \"score\": 0.0", "the key `score` is there twice"),
    ] {
        write("policy.json", &document.replace("1.0", score));
        let mut command = infalign(&["evaluate", "--policy", sides[0], "--reference", sides[1]]);
        command.current_dir(dir.path());
        refused(command, &["policy.json, line 1: Column ", told]);
    }
    // What ends sooner comes first, so that a part is not like the whole.
    write("policy.json", &document.replacen('{', "{\"finished\": false, ", 1));
    for args in [&["evaluate", "--policy", sides[0]][..], &["compare", sides[0]]] {
        let mut command = infalign(args);
        command.args(["--reference", sides[1]]).current_dir(dir.path());
        refused(command, &["policy.json", "not `finished`", "Run it again"]);
    }
}

/// How often the first that gives the most frequent answer, a digit, is right, of three of the texts in every order.
fn right(texts: [&str; 5], answer: &str) -> f64 {
    let digit = |text: &str| text.chars().rev().find(char::is_ascii_digit);
    let given = texts.map(digit);
    let draws = (0..125).map(|code| [code / 25, code / 5 % 5, code % 5]);
    let kept = draws.filter(|[a, b, c]| a != b && b != c && a != c).map(|drawn: [usize; 3]| {
        let votes = |sample: usize| {
            let same = drawn.iter().filter(|other| given[**other] == given[sample]);
            if given[sample].is_some() { same.count() } else { 0 }
        };
        let first =
            |kept: usize, &sample: &usize| if votes(sample) > votes(kept) { sample } else { kept };
        let kept = given[drawn.iter().fold(drawn[0], first)];
        f64::from(kept.is_some_and(|kept| kept.to_string() == answer))
    });
    let kept: Vec<f64> = kept.collect();
    kept.iter().sum::<f64>() / kept.len() as f64
}

#[test]
fn a_majority_of_stored_responses_is_of_their_answers_and_over_all_subsets() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let rows = |prompts: [[&str; 5]; 2]| -> String {
        let row = |prompt: usize, text: &str| {
            format!("{}\n", json!({"prompt": format!("p{prompt}"), "response": text}))
        };
        let prompts = prompts.iter().enumerate();
        prompts.flat_map(|(prompt, texts)| texts.map(|text| row(prompt, text))).collect()
    };
    let ours =
        [["so 1", "it is 2", "2", "or 3", "none"], ["3", "either 2 or 1", "1", "none", "so 3"]];
    let theirs = [["2", "3", "3", "so 1", "none"], ["none", "never", "1", "2", "so 2"]];
    write("policy.jsonl", &rows(ours));
    write("reference.jsonl", &rows(theirs));
    let row = |prompt: &str, answer: &str| json!({"prompt": prompt, "answer": answer});
    write("answers.jsonl", &format!("{}\n{}\n", row("p0", "2"), row("p1", "1")));
    write("judge.toml", "kind = 'answer'\nfile = 'answers.jsonl'\npattern = '[0-9]'\n");
    let asked = ["--judge", "judge.toml", "--procedure", "majority:3"];
    let found = evaluate(dir.path(), ["policy.jsonl", "reference.jsonl"], &asked);
    let mean = |side: [[&str; 5]; 2]| (right(side[0], "2") + right(side[1], "1")) / 2.0;
    let (ours, theirs) = (mean(ours), mean(theirs));
    for (key, expected) in [
        ("score", ours),
        ("reference_score", theirs),
        ("win_rate", (1.0 + ours - theirs) / 2.0),
        ("procedure_kl", 3_f64.ln() - 2.0 / 3.0),
    ] {
        let estimate = found[key]["estimate"].as_f64().unwrap();
        assert!((estimate - expected).abs() < 1e-12, "{key}: {estimate} against {expected}");
    }
}

#[test]
fn intervals_are_made_as_they_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, reward: fn(usize, usize) -> usize| {
        let row = |k: usize| {
            let (prompt, sample) = (k / 4, k % 4);
            let reward = reward(prompt, sample);
            format!(
                "{}\n",
                json!({ "prompt": format!("p{prompt}"), "response": "x", "reward": reward })
            )
        };
        std::fs::write(dir.path().join(name), (0..48).map(row).collect::<String>()).unwrap();
    };
    write("policy.jsonl", |prompt, sample| (prompt * prompt * 7 + sample * 5) % 11);
    write("reference.jsonl", |prompt, sample| (prompt * 3 + sample * 4) % 7);
    let sides = ["policy.jsonl", "reference.jsonl"];
    let found = |more: &[&str]| evaluate(dir.path(), sides, more)["win_rate"].clone();
    let ends = |more: &[&str]| {
        let found = found(more);
        ["low", "estimate", "high"].map(|key| found[key].as_f64().unwrap())
    };
    // Student's is as wide on one side as on the other.
    let skew = |[low, estimate, high]: [f64; 3]| (high - estimate) - (estimate - low);
    assert!(skew(ends(&["--interval", "t"])).abs() < 1e-12);
    assert!(skew(ends(&[])).abs() > 1e-3);
    for more in [&[][..], &["--interval", "t"]] {
        let narrow = [more, &["--level", "0.5"]].concat();
        let ([low, _, high], [inner_low, _, inner_high]) = (ends(more), ends(&narrow));
        assert!(low < inner_low && inner_high < high, "{more:?}");
        assert_eq!(found(&narrow)["level"], 0.5);
    }
    let few = ["--replicates", "200"];
    assert_ne!(ends(&few), ends(&[]));
    assert_ne!(ends(&[&few[..], &["--resample-seed", "1"]].concat()), ends(&few));
    for words in [&["evaluate", "--policy", sides[0]][..], &["compare", sides[0], sides[1]]] {
        for interval in ["bca", "t"] {
            let mut command = infalign(words);
            command.args(["--reference", sides[1], "--interval", interval, "--replicates", "0"]);
            command.current_dir(dir.path());
            refused(command, &["at least 100"]);
        }
    }
}

/// Rows of six prompts whose responses have these scores.
fn rows(scores: [f64; 4], made: usize) -> Vec<Value> {
    let row = |prompt, score| json!({ "id": prompt, "prompt": prompt, "response": "so", "score": score, "model_tokens": made });
    ["a", "b", "c", "d", "e", "f"]
        .iter()
        .flat_map(|prompt| scores.map(|score| row(prompt, score)))
        .collect()
}

#[test]
fn decoders_are_compared_by_what_each_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, procedure: &str, rows: Vec<Value>| {
        let document = json!({ "procedure": procedure, "responses": rows }).to_string();
        std::fs::write(dir.path().join(name), document).unwrap();
    };
    let blocks = "cd-block:length=2,samples=2";
    write("base.json", "sample", rows([0.0, 1.0, 2.0, 3.0], 7));
    write("blocks.json", blocks, rows([3.0; 4], 14));
    let compare = |words: &[&str]| {
        let mut command = infalign(&[&["compare", "--reference", "base.json"], words].concat());
        command.current_dir(dir.path());
        command
    };
    let several = [
        "--decoders",
        "--procedure",
        "sample",
        "--procedure",
        "best-of:2",
        "--procedure",
        "best-of:4",
    ];
    let found = json(&run(compare(&[&["base.json", "--json"], &several[..]].concat())));
    let rates: Vec<(&str, f64)> = found["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            assert_eq!(
                row.get("reference_procedure").is_none(),
                row["procedure"] == "sample",
                "{row}"
            );
            (row["procedure"].as_str().unwrap(), row["win_rate"]["estimate"].as_f64().unwrap())
        })
        .collect();
    // Of 0, 1, 2 and 3 the best of two is 1, 2 and 3 with 1/6, 1/3 and 1/2, which wins 3/8, 5/8 and 7/8.
    let expected = [("sample", 0.5), ("best-of:2", 17.0 / 24.0), ("best-of:4", 0.875)];
    for ((procedure, found), (other, expected)) in rates.iter().zip(expected) {
        assert!(*procedure == other && (found - expected).abs() < 1e-12, "{rates:?}");
    }
    let compared: Vec<(&Value, &Value)> = found["comparisons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (&one["procedure"], &one["baseline_procedure"]))
        .collect();
    let expected = [("best-of:2", "sample"), ("best-of:4", "sample"), ("best-of:4", "best-of:2")];
    assert_eq!(
        compared,
        expected.map(|(a, b)| (json!(a), json!(b))).iter().map(|(a, b)| (a, b)).collect::<Vec<_>>()
    );

    // Each file by the procedure that made it, the greatest win rate first.
    let text = done(compare(&["base.json", "blocks.json", "--decoders"]));
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[2].starts_with(&format!("blocks under {blocks}")), "{text}");
    assert!(lines[2].contains("0.875 [0.875, 0.875]") && lines[2].ends_with("14.0"), "{text}");
    assert!(
        lines[3].starts_with("base under sample")
            && lines[3].ends_with("-0.375 [-0.375, -0.375]  worse"),
        "{text}"
    );
    for (words, told) in [
        (&["base.json", "--decoders"][..], "no two decoders"),
        (&["base.json", "blocks.json", "base.json"], "give two, or --decoders"),
        (&["base.json", "blocks.json", "--decoders", "--plan", "0.1"], "cannot be used with"),
        (
            &["blocks.json", "--decoders", "--procedure", "sample", "--procedure", blocks],
            "from which `sample` cannot be evaluated",
        ),
        (
            &["base.json", "blocks.json", "--decoders", "--reference-procedure", "best-of:9"],
            "the reference, prompt `a`: ",
        ),
    ] {
        refused(compare(words), &[told]);
    }
}
