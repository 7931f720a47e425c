//! `infalign transform`, as a user runs it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod common;

use std::path::Path;
use std::process::Command;

use common::{done, infalign, quickstart, refused, stderr};
use infalign_calibrate::store::write_to;
use infalign_calibrate::{Calibration, CalibrationMeta};
use serde_json::Value;

fn transform(arguments: &[&str]) -> Command {
    infalign(&[&["transform"], arguments].concat())
}

fn json(arguments: &[&str]) -> Value {
    common::json(&common::run(transform(&[arguments, &["--json"]].concat())))
}

fn text(arguments: &[&str]) -> String {
    done(transform(arguments))
}

fn assert_close(got: &Value, expected: f64) {
    let got = got.as_f64().expect("a number");
    assert!((got - expected).abs() < 1e-10, "{got} against {expected}");
}

#[test]
fn a_curve_has_kl_and_win_rates() {
    let at_kl = json(&["curve", "--transform", "exp:10", "--kl", "0.5"]);
    assert_close(&at_kl["kl"], 0.5);
    let names: Vec<&String> = at_kl["win_rate"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["best-of:2", "best-of:4", "sample", "worst-of:2", "worst-of:4"]);
    let beta = at_kl["beta"].to_string();
    let same = ["curve", "--transform", "exp:10", "--beta", &beta, "--procedure", "best-of:4"];
    let at_beta = json(&same);
    assert_close(
        &at_beta["win_rate"]["best-of:4"],
        at_kl["win_rate"]["best-of:4"].as_f64().unwrap(),
    );
    assert_eq!(at_beta["win_rate"].as_object().unwrap().len(), 1);
    assert!(text(&same).contains("win rate, best-of:4  0.8715"));
}

#[test]
fn a_procedure_that_a_curve_cannot_take_is_answered_with_those_that_it_takes() {
    let curve = ["curve", "--transform", "identity", "--kl", "0.5", "--procedure"];
    let of = |procedure: &str| transform(&[&curve[..], &[procedure]].concat());
    let forms =
        ["`sample", "`best-of:N", "`worst-of:N", "`rejection:", "`soft-best-of:N,temperature="];
    refused(of("cd-token:lambda=2"), &forms);
    done(of("soft-best-of:4,temperature=0.1"));
}

#[test]
fn an_optimum_is_above_other_transforms_and_comes_with_its_curve() {
    for procedure in ["best-of:4", "worst-of:8"] {
        let best = json(&["optimum", "--procedure", procedure, "--kl", "0.5", "--points", "11"]);
        assert!(best["residual"].as_f64().unwrap() < 1e-11);
        let column = |name: &str| -> Vec<f64> {
            best["curve"][name].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
        };
        let (u, phi, cdf) = (column("u"), column("phi"), column("cdf"));
        assert_eq!((u[0], u[1], u[10], phi[10], cdf[10]), (0.0, 0.1, 1.0, 0.0, 1.0));
        assert!(phi.is_sorted() && cdf.is_sorted() && cdf[0].abs() < 1e-10);
        let other =
            json(&["curve", "--transform", "exp:5", "--kl", "0.5", "--procedure", procedure]);
        assert!(other["win_rate"][procedure].as_f64() < best["win_rate"].as_f64());
        // The optimum is also a transform.
        let name = format!("optimal:{procedure}");
        let itself =
            json(&["curve", "--transform", &name, "--kl", "0.5", "--procedure", procedure]);
        assert_close(&itself["win_rate"][procedure], best["win_rate"].as_f64().unwrap());
        assert!(text(&["optimum", "--procedure", procedure, "--kl", "0.5"]).contains("residual"));
    }
}

#[test]
fn a_table_is_a_transform() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("phi.csv");
    let rows: String = (0..=1000).map(|k| format!("{0},{0}\n", f64::from(k) / 1000.0)).collect();
    std::fs::write(&path, format!("u,phi\n{rows}")).unwrap();
    let name = format!("table:{}", path.display());
    let [table, known] =
        [name.as_str(), "identity"].map(|t| json(&["curve", "--transform", t, "--beta", "0.2"]));
    assert_close(&table["kl"], known["kl"].as_f64().unwrap());
    assert_close(
        &table["win_rate"]["worst-of:4"],
        known["win_rate"]["worst-of:4"].as_f64().unwrap(),
    );
}

#[test]
fn a_finite_problem_has_its_optimum_and_tilts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("problem.json");
    std::fs::write(&path, r#"{"probabilities": [0.5, 0.3, 0.2], "rewards": [0, 1, 5]}"#).unwrap();
    let problem = path.to_str().unwrap();
    let arguments =
        ["discrete", "--problem", problem, "--procedure", "worst-of:16", "--beta", "0.3"];
    let best = json(&arguments);
    assert_eq!(best["stationary_points"], 2);
    assert!(best["residual"].as_f64().unwrap() < 1e-12);
    let policy: f64 = best["policy"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).sum();
    assert!((policy - 1.0).abs() < 1e-12);
    let tilt = json(&[&arguments[..], &["--transform", "exp:-5"]].concat());
    assert!(tilt["objective"].as_f64() <= best["objective"].as_f64());
    assert!(tilt.get("residual").is_none());
    assert!(text(&arguments).contains("stationary points"));
}

#[test]
fn a_policy_on_an_edge_of_rejection_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let of = |probabilities: &str, rewards: &str, procedure: &str, beta: &str| {
        let path = dir.path().join("problem.json");
        let problem = format!("{{\"probabilities\": {probabilities}, \"rewards\": {rewards}}}");
        std::fs::write(&path, problem).unwrap();
        let problem = path.to_str().unwrap();
        let words = ["discrete", "--problem", problem, "--procedure", procedure, "--beta", beta];
        (json(&words), text(&words))
    };
    let (best, rows) = of("[0.6, 0.4]", "[0, 1]", "rejection:quantile=0.7,draws=4", "0.1");
    assert_eq!(best["edge"], serde_json::json!({ "reward": 1.0, "accepted": true }));
    assert!((best["objective"].as_f64().unwrap() - 0.543_890_698).abs() < 1e-8, "{best}");
    assert!(best["residual"].as_f64().unwrap() < 1e-12, "{best}");
    assert!(rows.contains("the mid-rank of reward 1 is the quantile"), "{rows}");
    let procedure = "rejection:quantile=0.3,draws=20";
    let (best, rows) = of("[0.3, 0.3, 0.4]", "[0, 1, 2]", procedure, "0.1");
    assert_eq!(best["edge"], serde_json::json!({ "reward": 1.0, "accepted": false }));
    assert!(rows.contains("no policy is the best"), "{rows}");
    let (best, rows) = of("[0.5, 0.3, 0.2]", "[0, 1, 2]", "best-of:4", "0.1");
    assert!(best.get("edge").is_none() && !rows.contains("edge"), "{rows}");
}

#[test]
fn plots_are_written_as_svg_and_png() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let frontiers =
        json(&["plot", "frontiers", "--out", out, "--procedure", "best-of:2", "sample"]);
    let panels = frontiers["panels"].as_array().unwrap();
    assert_eq!(panels.len(), 2);
    // The optimum, eight transforms, and no curve above the optimum's end.
    let curves = panels[0]["curves"].as_array().unwrap();
    let end =
        |curve: &Value| curve["points"].as_array().unwrap().last().unwrap()[1].as_f64().unwrap();
    assert_eq!((curves.len(), curves[0]["name"].as_str()), (9, Some("optimum")));
    assert!(curves.iter().all(|curve| end(curve) <= end(&curves[0]) + 1e-12));
    assert!(text(&["plot", "transforms", "--out", out]).contains("transforms.png"));
    for name in ["frontiers", "transforms"] {
        let svg = std::fs::read_to_string(dir.path().join(format!("{name}.svg"))).unwrap();
        assert!(svg.contains("exp:10"), "{name}");
        let png = std::fs::read(dir.path().join(format!("{name}.png"))).unwrap();
        assert!(png.starts_with(b"\x89PNG") && png.len() > 20_000, "{name}");
    }
}

#[test]
fn bad_input_is_answered_with_code_2_and_the_value() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let sum = file("sum.json", r#"{"probabilities": [0.5, 0.4], "rewards": [0, 1]}"#);
    let key = file("key.json", r#"{"probabilities": [1], "reward": [0]}"#);
    let table = file("table.csv", "u,phi\n0,0\n0.7,1\n0.6,2\n1,3\n");
    let table = format!("table:{table}");
    let discrete =
        |path| vec!["discrete", "--procedure", "sample", "--beta", "1", "--problem", path];
    let cases: [(Vec<&str>, &str); 13] = [
        (vec!["curve", "--transform", "exp:0", "--beta", "1"], "t is `0`"),
        (vec!["curve", "--transform", "exp:5", "--beta", "0"], "β = 0"),
        (vec!["curve", "--transform", "exp:5", "--beta", "-1"], "β = -1"),
        (vec!["curve", "--transform", "exp:5", "--beta", "NaN"], "β = NaN"),
        (
            vec!["curve", "--transform", "exp:200", "--beta", "1e-300"],
            "beyond the range of numbers",
        ),
        (
            vec!["curve", "--transform", "exp:5", "--kl", "1e6"],
            "no β was found at which `exp:5` has a KL of 1e6",
        ),
        (vec!["curve", "--transform", &table, "--beta", "1"], "table.csv:4: u = 0.6 follows 0.7"),
        (vec!["optimum", "--procedure", "best-of:0", "--beta", "1"], "N is `0`"),
        (vec!["optimum", "--procedure", "cd-token:lambda=1", "--beta", "1"], "cd-token:lambda=1"),
        (vec!["optimum", "--procedure", "best-of:4"], "--beta"),
        (discrete(&sum), "the probabilities sum to 0.9"),
        (discrete(&key), "unknown field `reward`"),
        (discrete("none.json"), "cannot read none.json"),
    ];
    for (arguments, message) in cases {
        let output = common::run(transform(&arguments));
        let errors = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(message), "{arguments:?}: {errors}");
        assert!(output.stdout.is_empty());
    }
}

/// The file of a command's document.
fn written(dir: &Path, name: &str, args: &[&str]) -> String {
    let mut command = infalign(args);
    command.arg("--model").arg(quickstart().join("model")).current_dir(dir);
    let (printed, path) = (done(command), dir.join(name));
    if !path.exists() {
        std::fs::write(&path, printed).unwrap();
    }
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_transform_for_a_decoder_is_estimated_from_what_it_returns() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let prompts: String = (0..12).map(|day| format!("{{\"prompt\": \"day {day} :\"}}\n")).collect();
    std::fs::write(dir.join("prompts.jsonl"), prompts).unwrap();
    std::fs::write(dir.join("reward.toml"), "kind = 'length'\nunit = 'characters'\n").unwrap();
    let common = ["--prompts", "prompts.jsonl", "--reward", "reward.toml", "--max-tokens", "12"];
    let calibrate = ["calibrate", "--samples", "200", "--out", "table.parquet"];
    let table = written(dir, "table.parquet", &[&calibrate[..], &common].concat());
    let generate =
        ["generate", "--json", "--samples", "100", "--seed", "9", "--procedure", "best-of:4"];
    let responses = written(dir, "best.json", &[&generate[..], &common].concat());
    let out = dir.join("phi.csv").to_str().unwrap().to_owned();
    let args = ["estimate", "--responses", &responses, "--table", &table, "--beta", "0.3"];
    let found = json(&[&args[..], &["--bins", "10", "--out", &out]].concat());
    assert_eq!((&found["procedure"], &found["ranks"]), (&"best-of:4".into(), &1200.into()));
    let known = json(&["optimum", "--procedure", "best-of:4", "--beta", "0.3"]);
    for key in ["win_rate", "kl"] {
        let gap = found[key].as_f64().unwrap() - known[key].as_f64().unwrap();
        assert!(gap.abs() < 0.05, "{key}: {} against {}", found[key], known[key]);
    }
    let column = |name: &str| -> Vec<f64> {
        found["curve"][name].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    assert!(column("phi").is_sorted() && column("phi").len() == 11);
    assert!(column("standard_error").iter().all(|error| error.is_finite()));
    // What is written is a transform, and one for this decoder.
    let won = |transform: &str| {
        let curve = ["curve", "--transform", transform, "--kl", "0.5", "--procedure", "best-of:4"];
        json(&curve)["win_rate"]["best-of:4"].as_f64().unwrap()
    };
    let (ours, identity) = (won(&format!("table:{out}")), won("identity"));
    assert!(ours > identity + 0.02, "{ours} against {identity}");
    assert!(text(&args).contains("procedure  best-of:4"));

    std::fs::write(dir.join("bare.jsonl"), "{\"prompt\": \"day 1 :\", \"response\": \" x\"}\n")
        .unwrap();
    std::fs::write(
        dir.join("other.jsonl"),
        "{\"prompt\": \"?\", \"response\": \" x\", \"reward\": 1}\n",
    )
    .unwrap();
    let mut judged: Value =
        serde_json::from_str(&std::fs::read_to_string(&responses).unwrap()).unwrap();
    judged["reward"] = "another".into();
    std::fs::write(dir.join("judged.json"), judged.to_string()).unwrap();
    for (responses, more, told) in [
        ("bare.jsonl", [].as_slice(), "has no `reward`"),
        ("judged.json", &[], "the rewards are those of another, and the table was made with"),
        ("other.jsonl", &[], "table.parquet"),
        ("best.json", &["--bins", "1000"], "at least 4000 ranks"),
        ("best.json", &["--beta", "-1"], "-1"),
        ("none.json", &[], "none.json"),
    ] {
        let responses = dir.join(responses).to_str().unwrap().to_owned();
        let args = ["estimate", "--responses", &responses, "--table", &table, "--beta", "0.3"];
        let args = if more.first() == Some(&"--beta") { &args[..5] } else { &args[..] };
        refused(transform(&[args, more].concat()), &[told]);
    }
}

#[test]
fn a_table_of_two_rewards_has_the_win_rates_worked_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let mut table = Calibration::new(CalibrationMeta::default());
    table.insert("a", "a", vec![0.0, 1.0]).unwrap();
    write_to(&table, std::fs::File::create(&path).unwrap()).unwrap();
    let (beta, file) = ((1.0_f64 / 3.0).to_string(), path.to_str().unwrap());
    let words = ["curve", "--transform", "identity", "--beta", &beta, "--table", file];
    let soft = "soft-best-of:2,temperature=0.5";
    let found = json(&[&words[..], &["--procedure", "sample", "--procedure", soft]].concat());
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    // As training has them, the calibrated rewards are ⅓ and ⅔, which differ by β.
    let p = logistic(1.0);
    assert_close(&found["win_rate"]["sample"], 0.25 + 0.5 * p);
    // Of two that differ the better is kept with the odds e^{1/τ}: τ is in units of the reward.
    let kept = |p: f64| p * p + 2.0 * p * (1.0 - p) * logistic(2.0);
    assert_close(&found["win_rate"][soft], 0.5 + 0.5 * (kept(p) - kept(0.5)));
}

#[test]
fn a_table_of_rewards_tells_what_the_reward_itself_leads_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let mut table = Calibration::new(CalibrationMeta::default());
    table.insert("a", "narrow", (0..64u8).map(f32::from).collect()).unwrap();
    table.insert("b", "wide", (0..64u8).map(|k| 8.0 * f32::from(k)).collect()).unwrap();
    write_to(&table, std::fs::File::create(&path).unwrap()).unwrap();
    let file = path.to_str().unwrap();
    let of = |transform: &str| {
        let words = ["curve", "--transform", transform, "--kl", "0.5", "--table", file];
        let document = json(&[&words[..], &["--procedure", "best-of:4"]].concat());
        assert_close(&document["kl"], 0.5);
        assert_eq!(document["transform"], transform);
        document["win_rate"]["best-of:4"].as_f64().unwrap()
    };
    // 64 evenly spread rewards a prompt are close to the limit; the raw reward spends its KL on the wide ones.
    let (raw, calibrated, best) = (of("raw"), of("identity"), of("exp:10"));
    assert!((calibrated - 0.7998).abs() < 2e-3 && (best - 0.8715).abs() < 5e-3);
    assert!(raw < calibrated - 0.02, "{raw} {calibrated}");
    assert!((of("standardized") - calibrated).abs() < 1e-9);

    let of = |more: &[&str]| transform(&[&["curve", "--transform", "raw", "--kl"], more].concat());
    refused(of(&["0.5"]), &["needs --table"]);
    let empty = dir.path().join("zero.parquet");
    let none = Calibration::new(CalibrationMeta::default());
    write_to(&none, std::fs::File::create(&empty).unwrap()).unwrap();
    let empty = empty.to_str().unwrap();
    refused(of(&["0.5", "--table", empty]), &["zero.parquet: "]);
    // ln 64.
    refused(of(&["9", "--table", file]), &["4.159e0"]);
}
