//! Evaluations that are killed or told to stop, by signals.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use infalign_record::folder;
use infalign_record::record::Status;
use serde_json::json;

use super::common::{self, done, fails, infalign, refused, stderr};
use super::server::{Reply, Request, serve};
use super::{Given, write_responses};

/// Waits for a file with lines, while the process runs.
fn wait_for_lines(child: &mut Child, file: &Path) {
    let has_lines = || std::fs::read_to_string(file).is_ok_and(|text| text.contains('\n'));
    common::wait_until(child, &file.display().to_string(), has_lines);
}

#[test]
fn a_stopped_evaluation_goes_on_where_it_was_and_ends_as_if_it_had_not_been() {
    let given = Given::new(60);
    let args = |out: &'static str| {
        [
            "--samples",
            "24",
            "--judge",
            "judge.toml",
            "--procedure",
            "best-of:4",
            "--batch",
            "8",
            "--out",
            out,
        ]
    };
    // It begins where there is none yet.
    let printed = done(given.models(&[&args("whole")[..], &["--resume"]].concat()));

    // Killed in the middle of one side, and told to stop in the middle of the other.
    let mut child = given.models(&args("parts")).spawn().unwrap();
    wait_for_lines(&mut child, &given.path("parts/drawn.jsonl"));
    child.kill().unwrap();
    child.wait().unwrap();
    refused(given.models(&args("parts")), &["holds an evaluation already", "--resume"]);
    let other_seed = [&args("parts")[..], &["--resume", "--seed", "5"]].concat();
    refused(given.models(&other_seed), &["another --seed: it was 0 and is 5"]);
    let resumed = [&args("parts")[..], &["--resume"]].concat();
    let before = std::fs::read_to_string(given.path("parts/drawn.jsonl")).unwrap();
    let mut child = given.models(&resumed).spawn().unwrap();
    wait_for_lines(&mut child, &given.path("parts/reference-drawn.jsonl"));
    common::interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains("--resume goes on") && output.stdout.is_empty(), "{text}");
    let record = folder::record(&given.path("parts")).unwrap();
    assert_eq!((record.status, record.earlier.len()), (Status::Failed, 1));
    assert!(record.error.unwrap().contains("stopped"));
    assert!(given.path("parts/methods/policy/samples.json").is_file(), "one side is whole");
    assert!(!given.path("parts/drawn.jsonl").exists() && !before.is_empty());
    assert!(!given.path("parts/results.json").exists());

    assert_eq!(done(given.models(&resumed)), printed);
    for file in
        ["results.json", "reference-samples.json", "methods/policy/samples.json", "settings.json"]
    {
        let read = |run: &str| std::fs::read(given.path(run).join(file)).unwrap();
        assert!(read("whole") == read("parts"), "{file} differs");
    }
    assert!(!given.path("parts/reference-drawn.jsonl").exists());
    let mut verify = infalign(&["verify", "parts"]);
    verify.current_dir(given.0.path());
    done(verify);

    // Without a folder nothing is kept, which is said.
    let many = ["--samples", "5000", "--judge", "judge.toml", "--batch", "8"];
    let mut child = given.models(&many).spawn().unwrap();
    let mut text = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(text.by_ref().map(Result::unwrap).any(|line| line.contains("[1/2] policy")));
    common::interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(4));
    let rest: Vec<String> = text.map(Result::unwrap).collect();
    assert!(rest.iter().any(|line| line.contains("without --out, nothing is kept")), "{rest:?}");
}

#[test]
fn answers_of_judges_are_asked_for_once_whatever_happens() {
    let given = Given::new(1);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let url = serve(move |request: &Request| {
        if request.path != "/v1/chat/completions" {
            return Reply::new(404, "there is nothing here");
        }
        counted.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(40));
        Reply::new(200, json!({ "choices": [{ "message": { "content": "A" } }] }))
    });
    let judge = |most: usize| {
        let text = format!(
            "url = '{url}/v1/chat/completions'\nmodel = 'judge'\nmost_requests = {most}\nparallel = 1\n"
        );
        given.write("pairwise.toml", &text);
    };
    let rows = |word: &str| -> String {
        let row = |k: usize| json!({"prompt": format!("p{k}"), "response": format!("{word} {k}"), "reward": 1.0});
        (0..20).map(|k| format!("{}\n", row(k))).collect()
    };
    given.write("a.jsonl", &rows("ours"));
    given.write("b.jsonl", &rows("theirs"));
    let args = [
        "--policy",
        "a.jsonl",
        "--reference",
        "b.jsonl",
        "--pairwise",
        "pairwise.toml",
        "--out",
        "out",
    ];
    // More than may be asked: nothing is.
    judge(39);
    let text = fails(given.evaluate(&args), 3);
    assert!(text.contains("`most_requests` is 39") && text.contains("40 more questions"), "{text}");
    assert_eq!(asked.load(Ordering::Relaxed), 0);

    judge(40);
    let resumed = [&args[..], &["--resume"]].concat();
    let mut child = given.evaluate(&resumed).spawn().unwrap();
    common::wait_until(&mut child, "five questions", || asked.load(Ordering::Relaxed) >= 5);
    common::interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let so_far = asked.load(Ordering::Relaxed);
    assert!(so_far < 40, "it was stopped before the end");
    done(given.evaluate(&resumed));
    assert_eq!(asked.load(Ordering::Relaxed), 40, "no question was asked twice");
    // The answers are in the folder, so its results can be computed again without the server.
    let mut replay = infalign(&["replay", "out"]);
    replay.current_dir(given.0.path());
    assert!(done(replay).contains("results.json  the same bytes"));
    assert_eq!(asked.load(Ordering::Relaxed), 40);
}

#[test]
fn a_second_wish_to_stop_ends_what_waits() {
    let given = Given::new(1);
    write_responses(&given);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let url = serve(move |_: &Request| {
        counted.fetch_add(1, Ordering::Relaxed);
        Reply::Silence
    });
    given.write("server.toml", &format!("kind = 'remote'\nurl = '{url}/get_reward'\n"));
    let args = ["--policy", "a.jsonl", "--reference", "b.jsonl", "--judge", "server.toml"];
    let told = given.path("told.txt");
    let mut command = given.evaluate(&args);
    let mut child = command.stderr(std::fs::File::create(&told).unwrap()).spawn().unwrap();
    common::wait_until(&mut child, "a question", || asked.load(Ordering::Relaxed) > 0);
    common::interrupt(&child);
    let is_stopping = || std::fs::read_to_string(&told).unwrap().contains("stopping; Ctrl-C again");
    common::wait_until(&mut child, "the first wish", is_stopping);
    // What comes within 0.1 s is the same wish.
    std::thread::sleep(Duration::from_millis(400));
    assert!(child.try_wait().unwrap().is_none(), "the first waits for what was begun");
    common::interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(4));
}
