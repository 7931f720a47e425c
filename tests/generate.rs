//! `infalign generate` as a user runs it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::process::{Command, Output};

use common::{
    assert_done, copy, infalign, json, json_file, model_with, quickstart, refused, stderr,
};

/// A command on the quickstart's model, and prompts of it.
fn on_quickstart(command: &str, prompts: &str) -> Command {
    let mut command = infalign(&[command, "--max-tokens", "24", "--model"]);
    command.arg(quickstart().join("model")).arg("--prompts").arg(quickstart().join(prompts));
    command
}

fn generate(args: &[&str]) -> Output {
    on_quickstart("generate", "test.jsonl").args(args).output().unwrap()
}

fn scores(document: &serde_json::Value) -> Vec<f64> {
    document["responses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["score"].as_f64().unwrap())
        .collect()
}

#[test]
fn best_of_n_is_better_and_seeds_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let reward = dir.path().join("reward.toml");
    std::fs::write(
        &reward,
        "kind = \"lexicon\"\nweights = { good = 1.0, nice = 1.0, dull = -1.0, cold = -1.0 }\n",
    )
    .unwrap();
    let reward = reward.to_str().unwrap();
    let of = |procedure: &str, batch: &str| {
        json(&generate(&["--json", "--procedure", procedure, "--reward", reward, "--batch", batch]))
    };
    let (worst, one, best) = (of("worst-of:4", "64"), of("sample", "64"), of("best-of:4", "64"));
    let all = scores(&worst).into_iter().zip(scores(&one)).zip(scores(&best));
    assert!(
        all.clone().all(|((worst, one), best)| worst <= one && one <= best),
        "sample is one of the four"
    );
    assert!(all.map(|((worst, _), best)| best - worst).sum::<f64>() > 10.0);
    let texts = |document: &serde_json::Value| {
        document["responses"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["response"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(texts(&best), texts(&of("best-of:4", "7")), "the batch does not matter");
    assert_ne!(texts(&one), texts(&json(&generate(&["--json", "--seed", "1"]))), "the seed does");
}

#[test]
fn a_majority_is_of_the_answers_that_the_reward_finds() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let prompts = std::fs::read_to_string(quickstart().join("test.jsonl")).unwrap();
    let answered = |line: &str| {
        let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
        row["answer"] = "good".into();
        format!("{row}\n")
    };
    std::fs::write(path("answers.jsonl"), prompts.lines().map(answered).collect::<String>())
        .unwrap();
    let (file, words) = (path("answers.jsonl"), ["good", "nice", "dull", "cold"]);
    let reward = format!("kind = 'answer'\nfile = '{file}'\npattern = '{}'\n", words.join("|"));
    std::fs::write(path("reward.toml"), reward).unwrap();
    let rows = |args: &[&str]| -> Vec<serde_json::Value> {
        let document = json(&generate(&[&["--json"], args].concat()));
        document["responses"].as_array().unwrap().clone()
    };
    let kept = rows(&["--procedure", "majority:4", "--reward", &path("reward.toml")]);
    let drawn = rows(&["--samples", "4"]);
    let text = |row: &serde_json::Value| row["response"].as_str().unwrap().to_owned();
    let mut others = 0;
    for (row, drawn) in kept.iter().zip(drawn.chunks(4)) {
        let texts: Vec<String> = drawn.iter().map(text).collect();
        let last = |text: &String| words.into_iter().max_by_key(|word| text.rfind(word));
        let given = |text: &String| last(text).filter(|word| text.contains(word));
        let answers: Vec<Option<&str>> = texts.iter().map(given).collect();
        let votes = |place: usize| answers.iter().filter(|one| **one == answers[place]).count();
        let voters = (0..4).filter(|&place| answers[place].is_some());
        let most = voters.max_by_key(|&place| (votes(place), 4 - place)).unwrap_or(0);
        assert_eq!(text(row), texts[most], "{texts:?}");
        assert_eq!(row["score"], f64::from(answers[most] == Some("good")));
        others += usize::from(most > 0);
    }
    assert!(others > 0, "no two of the texts are the same, but their answers are");
}

#[test]
fn rejection_accepts_by_the_table_of_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let lexicon =
        "kind = \"lexicon\"\nweights = { good = 1.0, nice = 1.0, dull = -1.0, cold = -1.0 }\n";
    std::fs::write(path("reward.toml"), lexicon).unwrap();
    std::fs::write(path("other.toml"), lexicon.replace("nice = 1.0", "nice = 2.0")).unwrap();
    let (reward, table, other) = (path("reward.toml"), path("table.parquet"), path("other.toml"));
    let mut command = on_quickstart("calibrate", "test.jsonl");
    command.args(["--samples", "64", "--seed", "5", "--reward", &reward, "--out", &table]);
    assert_done(&command.output().unwrap());

    let of = |procedure: &str| {
        let args =
            ["--json", "--procedure", procedure, "--reward", &reward, "--calibration", &table];
        generate(&args)
    };
    let output = of("rejection:quantile=0.7,draws=24");
    let document = json(&output);
    let rows = document["responses"].as_array().unwrap();
    let given = path("responses.jsonl");
    let lines = rows.iter().map(|row| {
        serde_json::json!({ "prompt": row["prompt"], "reward": row["score"] }).to_string() + "\n"
    });
    std::fs::write(&given, lines.collect::<String>()).unwrap();
    let apply = ["calibrate", "apply", "--json", "--table", &table, "--input", &given];
    let ranked = json(&infalign(&apply).output().unwrap());
    let mut accepted = 0;
    for (row, ranked) in rows.iter().zip(ranked["rows"].as_array().unwrap()) {
        // The rank without the smoothing of calibrated rewards.
        let rank = (ranked["u"].as_f64().unwrap() * 65.0 - 0.5) / 64.0;
        assert_eq!(row["accepted"], rank >= 0.7 - 1e-9, "{row} {rank}");
        accepted += usize::from(row["accepted"] == true);
        assert_eq!(row["kl"][0]["kind"], "bound");
        assert_eq!(row["kl"][1]["kind"], "estimate");
    }
    assert!(accepted * 10 > rows.len() * 9, "{accepted} of {}", rows.len());
    // One draw is a sample, accepted or not, and that is said.
    let one = of("rejection:quantile=0.7,draws=1");
    let plain = json(&generate(&["--json", "--reward", &reward]));
    assert_eq!(scores(&json(&one)), scores(&plain));
    let told = stderr(&one);
    assert!(told.contains("responses are the last of their draws"), "{told}");

    let rejection = ["--procedure", "rejection:quantile=0.7,draws=4"];
    let [by_reward, by_table] = [["--reward", &reward], ["--calibration", &table]];
    for (options, more, told) in [
        ([rejection, by_reward].concat(), &[][..], "give --calibration"),
        ([rejection, by_table].concat(), &[], "give --reward"),
        ([by_reward, by_table].concat(), &[], "nothing to say in sample"),
        ([rejection, ["--reward", &other], by_table].concat(), &[], "reward"),
        ([rejection, by_reward, by_table].concat(), &["--top-k", "3"], "sampling"),
        ([rejection, by_reward, by_table].concat(), &["--stop", "was"], "draws without --stop"),
        ([rejection, by_reward].concat(), &["--calibration", "none.parquet"], "none.parquet"),
    ] {
        let mut command = on_quickstart("generate", "test.jsonl");
        command.args(options).args(more);
        refused(command, &[told]);
    }
}

#[test]
fn stop_texts_samples_and_memory() {
    let rows = |args: &[&str]| {
        let document = json(&generate(&[&["--json"], args].concat()));
        document["responses"].as_array().unwrap().clone()
    };
    let plain = rows(&["--samples", "2", "--batch", "5"]);
    let one = rows(&[]);
    assert_eq!(plain.len(), 2 * one.len());
    assert_eq!(plain[2], one[1], "the first sample is the same however many there are");
    assert_eq!(rows(&["--samples", "2", "--memory", "0.001"]), plain, "nor does the batch matter");
    let stopped = rows(&["--samples", "2", "--stop", "was", "--stop", "the"]);
    let text = |row: &serde_json::Value| row["response"].as_str().unwrap().to_owned();
    for (row, plain) in stopped.iter().zip(&plain) {
        let whole = text(plain);
        let end = ["was", "the"].iter().filter_map(|stop| whole.find(stop)).min();
        assert_eq!(text(row), whole[..end.unwrap_or(whole.len())]);
        if end.is_some() {
            assert_eq!(row["finish"], "stop");
        }
    }
    assert!(stopped.iter().zip(&plain).any(|(row, plain)| text(row) != text(plain)));
    // A token that ends responses is their last.
    let was = serde_json::Value::from(83);
    let stopped = rows(&["--samples", "2", "--stop-token-id", "83"]);
    for (row, plain) in stopped.iter().zip(&plain) {
        let whole = plain["tokens"].as_array().unwrap();
        let end = whole.iter().position(|token| *token == was).map_or(whole.len(), |at| at + 1);
        assert_eq!(row["tokens"].as_array().unwrap()[..], whole[..end]);
    }
    assert!(stopped.iter().any(|row| row["tokens"].as_array().unwrap().last() == Some(&was)));
}

#[test]
fn an_end_of_the_tokenizer_that_ends_no_response_is_told() {
    let model = model_with("tokenizer_config.json", r#"{"eos_token": "<unk>"}"#);
    let told = |more: &[&str]| {
        let mut command = infalign(&["generate", "--max-tokens", "1", "--model"]);
        command.arg(model.path()).arg("--prompts").arg(quickstart().join("test.jsonl"));
        let output = command.args(more).output().unwrap();
        assert_done(&output);
        stderr(&output)
    };
    let warned = told(&[]);
    assert!(warned.contains("warning: \"<unk>\" is the eos_token of "), "{warned}");
    let heeded = told(&["--stop-token-id", "0"]);
    assert!(!heeded.contains("eos_token"), "{heeded}");
}

#[test]
fn weights_in_bf16_change_numbers_by_their_rounding() {
    let log_probs = |dtype: &str| -> Vec<f64> {
        let document = json(&generate(&["--json", "--temperature", "0", "--dtype", dtype]));
        // Of the first token, whose context is the same whatever follows.
        let responses = document["responses"].as_array().unwrap().clone();
        responses.iter().map(|row| row["log_probs"][0].as_f64().unwrap()).collect()
    };
    let (full, rounded) = (log_probs("f32"), log_probs("bf16"));
    assert_ne!(full, rounded);
    let worst = full.iter().zip(&rounded).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst < 0.1, "off by {worst}");
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("kept");
    generate(&["--dtype", "bf16", "--record", kept.to_str().unwrap()]);
    let record = json_file(&kept.join("record.json"));
    assert_eq!(record["device"]["dtype"], "bf16", "a replication has to compute in it, too");
    // A server holds weights as it likes.
    let mut command = on_quickstart("generate", "test.jsonl");
    command.args(["--dtype", "bf16", "--server", "http://127.0.0.1:1"]);
    refused(command, &[]);
}

#[test]
fn a_prompt_longer_than_the_context_is_refused_by_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let prompts = dir.path().join("long.jsonl");
    let long = "on a cold saturday at the gallery : ".repeat(20);
    let text = format!("{{\"prompt\": \"on a cold sunday\"}}\n\n{{\"prompt\": \"{long}\"}}\n");
    std::fs::write(&prompts, text).unwrap();
    let reward = dir.path().join("reward.toml");
    std::fs::write(&reward, "kind = 'length'\nunit = 'words'\n").unwrap();
    let table = dir.path().join("table.parquet");
    let of_calibration = ["--samples", "2", "--out", table.to_str().unwrap()];
    for (command, more) in [("generate", &[][..]), ("calibrate", &of_calibration)] {
        let mut command = infalign(&[command, "--max-tokens", "8", "--model"]);
        command.arg(quickstart().join("model"));
        command.arg("--prompts").arg(&prompts).arg("--reward").arg(&reward);
        command.args(more);
        refused(command, &["long.jsonl, line 3: ", "context of 64"]);
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_a_document_of_what_was_finished() {
    let dir = tempfile::tempdir().unwrap();
    let printed = dir.path().join("printed.json");
    let mut command = on_quickstart("generate", "train.jsonl");
    command.args(["--samples", "2000", "--json"]);
    let mut child = command.stdout(std::fs::File::create(&printed).unwrap()).spawn().unwrap();
    let lines =
        || common::bytes(dir.path(), "printed.json").iter().filter(|byte| **byte == b'\n').count();
    common::wait_until(&mut child, "the first responses", || lines() >= 2);
    common::interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains("error: interrupted: ") && told.contains("prompts have responses"));
    let document = json_file(&printed);
    assert_eq!(document["finished"], false, "a program can tell that prompts are missing");
    let rows = document["responses"].as_array().unwrap();
    assert!(!rows.is_empty() && rows.len().is_multiple_of(2000), "{} rows", rows.len());
    assert!(rows.iter().all(|row| row["finish"] != "cancelled"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_with_the_file_that_it_kept_from_being_written() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("record");
    let mut command = on_quickstart("generate", "test.jsonl");
    command.args(["--json", "--samples", "8", "--record"]).arg(&record);
    let output = common::on_a_full_disk(command.get_args());
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    let told = format!("cannot write {}", record.join("results.json").display());
    assert!(text.contains(&told), "{text}");
}

#[test]
fn bad_input_is_one_sentence_and_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let truncated = dir.path().join("model");
    copy(&quickstart().join("model"), &truncated);
    let weights = truncated.join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() - 100]).unwrap();
    let pattern = dir.path().join("pattern.toml");
    std::fs::write(&pattern, "kind = \"patterns\"\nweights = { \"(\" = 1.0 }\n").unwrap();
    let pattern = pattern.to_str().unwrap();
    for (args, needle) in [
        (&["--procedure", "best-of:4"][..], "give --reward"),
        (&["--temperature", "-1"], "temperature"),
        (
            &["--temperature", "0", "--procedure", "best-of:2", "--reward", pattern],
            "above 0 for any procedure but `sample`",
        ),
        (&["--temperature", "inf"], "give a finite number, at least 0"),
        (&["--device", "tpu"], "the backends are cpu, wgpu, cuda"),
        (&["--reward", pattern], "pattern.toml: `(` is not a regular expression"),
        (&["--max-tokens", "60"], "context"),
        (&["--model", truncated.to_str().unwrap()], "model.safetensors is not a valid"),
        (&["--device", "cuda"], "no backend `cuda`"),
        (&["--procedure", "best-of:0"], "best-of"),
        (&["--memory", "0"], "give a number above 0"),
        (&["--memory", "1", "--batch", "2"], "cannot be used with"),
        (&["--batch", "0"], "give a whole number, at least 1"),
        (&["--stop", ""], "an empty text is everywhere: leave --stop out"),
        (&["--samples", "100000000000000"], "--samples: samples is 100000000000000"),
        (
            &["--procedure", "best-of:18446744073709551615", "--reward", pattern],
            "--procedure best-of:18446744073709551615 with --samples 1: ",
        ),
    ] {
        let mut command = infalign(&["generate", "--prompts"]);
        command.arg(quickstart().join("test.jsonl"));
        if !args.contains(&"--model") {
            command.arg("--model").arg(quickstart().join("model"));
        }
        if !args.contains(&"--max-tokens") {
            command.args(["--max-tokens", "24"]);
        }
        command.args(args);
        refused(command, &[needle]);
    }
}
