//! Prefix scorers as a user trains them by a recipe, and decodes by them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;
#[allow(dead_code, reason = "each test file uses a part")]
mod scorers;

use std::path::{Path, PathBuf};

use common::{assert_done, done, infalign, json_file, quickstart, refused, stderr, tuned};
use scorers::{copy, folder, generate, mean, other_tokenizer, scorer};
use serde_json::{Value, json};

fn responses(dir: &Path, model: &Path, args: &[&str]) -> Vec<Value> {
    common::responses(&common::run(generate(dir, model, args)))
}

#[test]
fn a_scorer_is_trained_and_guides() {
    let dir = folder();
    let dir = dir.path();
    let printed = done(scorer(dir, "run", &[]));
    assert!(printed.contains("lovely: error") && printed.contains("length: error"), "{printed}");
    let results = json_file(&dir.join("run/results.json"));
    assert_eq!(results["scorer"], json_file(&dir.join("run/scorer/report.json")));
    for head in results["scorer"].as_array().unwrap() {
        let (error, deviation) =
            (head["error"].as_f64().unwrap(), head["deviation"].as_f64().unwrap());
        assert!(error < deviation, "{head}");
        assert!(head["by_length"].as_array().unwrap().len() > 1, "{head}");
        let name = head["name"].as_str().unwrap();
        assert!(dir.join(format!("run/scorer/calibration-{name}.svg")).is_file());
    }

    // What the recipe's procedures came to, in the order in which it has them.
    let evaluated = results["evaluation"].as_array().unwrap();
    let lovely = |row: usize| evaluated[row]["rewards"]["lovely"]["estimate"].as_f64().unwrap();
    assert_eq!(evaluated.len(), 4);
    assert!((1..4).all(|row| lovely(row) > lovely(0) + 0.2), "{evaluated:?}");
    let kl = |row: usize| &evaluated[row]["kl"][0];
    assert_eq!(kl(0)["nats"], 0.0);
    for (row, kind) in [(1, "bound"), (2, "bound"), (3, "exact")] {
        assert!(kl(row)["kind"] == kind && kl(row)["nats"].as_f64().unwrap() > 0.0, "{row}");
    }
    assert_eq!(evaluated[1]["kl"][1]["kind"], "estimate");
    assert!(dir.join("run/reward-kl.svg").is_file() && printed.contains("cd-token:lambda=2"));

    let model = quickstart().join("model");
    let folder = dir.join("run/scorer");
    let lovely = format!("{}#lovely", folder.display());
    let of = |procedure: &str, scorers: &[&str], more: &[&str]| {
        let mut args = vec!["--procedure", procedure, "--samples", "8"];
        scorers.iter().for_each(|scorer| args.extend(["--scorer", scorer]));
        responses(dir, &model, &[&args, more].concat())
    };
    let score = |row: &Value| row["score"].as_f64().unwrap();
    let plain = mean(&of("sample", &[], &[]), score);
    let block = of("cd-block:length=4,samples=4", &[&lovely], &[]);
    let token = of("cd-token:lambda=2,candidates=20", &[&lovely], &[]);
    let best = of("best-of:2 over cd-block:length=4,samples=4", &[&lovely], &[]);
    assert!(mean(&block, score) > plain + 0.3, "{plain}, {}", mean(&block, score));
    assert!(mean(&token, score) > plain + 0.3, "{plain}, {}", mean(&token, score));
    assert!(mean(&best, score) > mean(&block, score));
    for (rows, kind) in [(&block, "bound"), (&token, "exact"), (&best, "bound")] {
        assert!(rows.iter().all(|row| row["kl"][0]["kind"] == kind), "{}", rows[0]);
        assert!(rows.iter().all(|row| row["kl"][0]["nats"].as_f64().unwrap() >= 0.0));
    }
    assert!(token.iter().any(|row| row["truncation"].as_f64().unwrap() > 0.0));
    assert!(token.iter().all(|row| row["scorer_calls"].as_u64().unwrap() > 1));
    let again = of("cd-block:length=4,samples=4", &[&lovely], &["--batch", "3"]);
    assert_eq!(block, again, "the batch does not matter");
    let pruned = of("pruned-best-of:4,length=4,keep=0.5", &[&lovely], &[]);
    let tokens = |row: &Value| row["model_tokens"].as_f64().unwrap();
    assert!(mean(&pruned, score) > plain);
    assert!(mean(&pruned, tokens) < mean(&of("best-of:4", &[], &[]), tokens));

    // The weights of the request choose between the rewards.
    let length = |row: &Value| row["response"].as_str().unwrap().split_whitespace().count() as f64;
    let shorter = format!("{}#length:-1", folder.display());
    let both = of("cd-block:length=4,samples=4", &[&lovely, &shorter], &[]);
    assert!(mean(&both, length) < mean(&block, length));

    // Another base of the same tokenizer: the scorer runs the one that it knows.
    let tuned = tuned(dir);
    let args =
        ["--procedure", "cd-block:length=4,samples=4", "--samples", "8", "--scorer", &lovely];
    let transferred = responses(dir, &tuned, &args);
    assert!(mean(&transferred, score) > plain + 0.3);

    let other = other_tokenizer(dir);
    let (all, heavy) = (folder.display().to_string(), format!("{lovely}:heavy"));
    let unknown = format!("{all}#depth");
    for (procedure, scorer, model, told) in [
        ("cd-token:lambda=1", lovely.as_str(), other.as_path(), "its tokenizer is another"),
        ("cd-token:lambda=1", &heavy, &model, "give a finite number"),
        ("cd-token:lambda=1", &all, &model, "has values of lovely, length: name one"),
        ("cd-token:lambda=1", &unknown, &model, "no values of \"depth\""),
        ("cd-token:lambda=1", "absent", &model, "is not a folder"),
        ("cd-token:lambda=1", "", &model, "needs a prefix scorer"),
        ("best-of:4", &lovely, &model, "--scorer has nothing to say"),
        ("cd-block:length=0,samples=4", &lovely, &model, "length is `0`"),
        ("best-of:4 over sample", &lovely, &model, "cannot stand over"),
    ] {
        let args = ["--procedure", procedure, "--scorer", scorer];
        let args = if scorer.is_empty() { &args[..2] } else { &args[..] };
        refused(generate(dir, model, args), &[told]);
    }
}

/// Candidates that the reward decides between are heard of by nobody before all responses to a prompt are there.
#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_search_within_a_prompt() {
    let dir = folder();
    let dir = dir.path();
    let fast = ["--set", "train.steps=4", "--set", "rollouts.samples=2", "--set", "evaluation=[]"];
    done(scorer(dir, "run", &fast));
    let lovely = format!("{}#lovely", dir.join("run/scorer").display());
    let procedure = ["--procedure", "pruned-best-of:4,length=1,keep=0.5", "--scorer", &lovely];
    let args = [&procedure[..], &["--samples", "20000"]].concat();
    let mut command = generate(dir, &quickstart().join("model"), &args);
    let printed = dir.join("printed.json");
    let mut child = command.stdout(std::fs::File::create(&printed).unwrap()).spawn().unwrap();
    let has_begun = || std::fs::metadata(&printed).unwrap().len() > 0;
    common::wait_until(&mut child, "the head of the document", has_begun);
    common::interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let document = json_file(&printed);
    assert_eq!((&document["responses"], &document["finished"]), (&json!([]), &json!(false)));
}

#[cfg(unix)]
#[test]
fn responses_that_were_drawn_before_ctrl_c_are_gone_on_with() {
    use std::io::{BufRead, BufReader};

    let dir = folder();
    let dir = dir.path();
    // A prompt a block.
    let sets = ["batch=32", "rollouts.samples=500", "train.steps=2", "evaluation=[]"];
    let more: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
    done(scorer(dir, "whole", &more));

    let mut child = scorer(dir, "stopped", &more).spawn().unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let mut lines = stderr.lines().map_while(Result::ok);
    // Of the first tenth of the prompts.
    assert!(lines.any(|line| line.contains("500 responses a prompt")));
    common::interrupt(&child);
    let told = lines.collect::<Vec<String>>().join("\n");
    assert_eq!(child.wait().unwrap().code(), Some(4), "{told}");
    let file = |run: &str, name: &str| dir.join(run).join(name);
    let [drawn, all] = ["stopped", "whole"].map(|run| {
        infalign_calibrate::rollouts::read(file(run, "rollouts.parquet")).unwrap().len()
    });
    assert!(0 < drawn && drawn < all, "{drawn} of {all}");

    let mut resumed = infalign(&["scorer", "--resume", "--out"]);
    resumed.arg(dir.join("stopped"));
    done(resumed);
    for name in ["rollouts.parquet", "results.json"] {
        let [stopped, whole] =
            ["stopped", "whole"].map(|run| std::fs::read(file(run, name)).unwrap());
        assert!(stopped == whole, "{name}");
    }
}

#[test]
fn runs_repeat_go_on_and_refuse() {
    let dir = folder();
    let dir = dir.path();
    let small = ["--set", "train.steps=4", "--set", "rollouts.samples=2", "--json"];
    let first = done(scorer(dir, "one", &small));
    // On one thread, and by `train` as well.
    let mut single = infalign(&["train", "--out"]);
    single.arg(dir.join("two")).arg(dir.join("recipe.toml")).args(small);
    single.env("RAYON_NUM_THREADS", "1");
    assert_eq!(done(single), first);
    let weights = |run: &str| std::fs::read(dir.join(run).join("scorer/head.safetensors")).unwrap();
    assert!(weights("one") == weights("two"));
    // What is finished is skipped, and the same comes out.
    std::fs::remove_file(dir.join("one/results.json")).unwrap();
    let mut resumed = infalign(&["scorer", "--json", "--resume", "--out"]);
    resumed.arg(dir.join("one"));
    assert_eq!(done(resumed), first);

    // A smaller model as a trunk of its own, and responses of other origin.
    let given = "{\"prompt\": \"day 1 :\", \"completion\": \" the soup was lovely .\"}\n";
    std::fs::write(dir.join("given.jsonl"), given).unwrap();
    let trunk = format!("trunk={:?}", quickstart().join("model"));
    let more = [
        "--set",
        &trunk,
        "--set",
        "train.method=cd-q",
        "--set",
        "completions=[\"given.jsonl\"]",
        "--set",
        "train.target_rate=0.1",
    ];
    done(scorer(dir, "own", &[&small[..], &more].concat()));
    assert!(dir.join("own/scorer/trunk/model.safetensors").is_file());
    let args = ["--procedure", "beam:width=2,branch=2,length=4"];
    let length = format!("{}#length", dir.join("own/scorer").display());
    let args = [&args[..], &["--scorer", &length]].concat();
    assert_eq!(responses(dir, &quickstart().join("model"), &args).len(), 12);

    // Procedures may draw from another model; one of the same weights draws the same.
    let (same, other) = (copy(dir, "same", "", |bytes| bytes), other_tokenizer(dir));
    let on = |base: &Path, out: &str| -> Value {
        let base = format!("evaluation_base={base:?}");
        let printed = done(scorer(dir, out, &[&small[..], &["--set", &base]].concat()));
        serde_json::from_str(&printed).unwrap()
    };
    let own: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(on(&same, "elsewhere"), own);
    assert!(dir.join("elsewhere/evaluation-base.parquet").is_file(), "what its rows win over");
    let tuned = on(&tuned(dir), "on-tuned");
    assert_eq!(tuned["scorer"], own["scorer"]);
    for row in 0..4 {
        let rewards = |of: &Value| of["evaluation"][row]["rewards"].clone();
        assert_ne!(rewards(&tuned), rewards(&own), "{row}");
    }

    for (sets, told) in [
        (&["train.method=cd-p"][..], "did you mean"),
        (&["train.method=cd-fudge", "completions=[\"given.jsonl\"]"], "leave them out"),
        (&["train.method=cd-fudge", "train.children=4"], "children is 4"),
        (&["rollouts.held_out=1"], "at least 1 and 2"),
        (&["rollouts.validation=100000"], "rollouts.validation is 100000, but there are only"),
        (&["head=[]"], "no [[head]]"),
        (&["generation.temperature=0.5"], "temperature 1"),
        (&["generation.stop_token_ids=[100000]"], "stop_token_ids is 100000"),
        (&[&format!("evaluation_base={other:?}")], "another tokenizer than the base"),
        (&[&format!("evaluation_base={same:?}"), "evaluation=[]"], "evaluation_base has no effect"),
        (&["heads=1"], "did you mean `head`"),
        (&["evaluation=[{samples=1,weights={depth=1.0},procedures=['best-of:2']}]"], "no [[head]]"),
        (&["evaluation=[{samples=1,procedures=[]}]"], "procedures is empty"),
        (&["evaluation=[{samples=1,procedures=['best-of:2']}]"], "weights has no weight but 0"),
        (
            &["evaluation=[{samples=1,weights={length=1.0},procedures=['sample']}]"],
            "weights have no effect on plain samples",
        ),
        (
            &[
                "evaluation=[{samples=1,weights={length=1.0},procedures=['rejection:quantile=0.5,draws=2']}]",
            ],
            "needs a calibration table",
        ),
    ] {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        refused(scorer(dir, "bad", &sets), &[told]);
        assert!(!dir.join("bad").exists(), "nothing is left behind");
    }
    recipes_and_runs_of_other_tasks_are_refused(dir);
    a_run_is_named_after_the_command(dir);
}

#[test]
fn validation_prompts_choose_the_checkpoint_and_are_not_learned_from() {
    let dir = folder();
    let dir = dir.path();
    let sets = ["rollouts.validation=4", "train.steps=50", "train.checkpoint_every=20"];
    let sets = [&sets[..], &["evaluation=[]"]].concat();
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let output = common::run(scorer(dir, "run", &sets));
    assert_done(&output);
    let best = json_file(&dir.join("run/results.json"))["best"].take();
    let step = best["step"].as_u64().unwrap();
    assert!([20, 40, 50].contains(&step) && best["validation_loss"].is_f64(), "{best}");
    // 20 of the 24 prompts, with 16 responses each.
    let told = format!("320 responses, step {step} kept for its validation loss");
    assert!(stderr(&output).contains(&told), "{}", stderr(&output));
    assert!(!stderr(&output).contains("warning"), "{}", stderr(&output));
    let single = ["--set", "train.checkpoint_every=50", "--dry-run"];
    let output = common::run(scorer(dir, "single", &[&sets[..], &single].concat()));
    assert_done(&output);
    let told = "warning: rollouts.validation is 4, but training ends after 50 steps";
    assert!(stderr(&output).contains(told), "{}", stderr(&output));
    let [kept, checkpoint] = ["scorer", "checkpoints/scorer/best"].map(|folder| {
        std::fs::read(dir.join("run").join(folder).join("head.safetensors")).unwrap()
    });
    assert!(kept == checkpoint);

    // Responses of files to the validation prompts are left out as those to prompts held out are.
    let text = std::fs::read_to_string(dir.join("train.jsonl")).unwrap();
    let prompts = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let rows =
        prompts.skip(19).map(|row| json!({"prompt": row["prompt"], "completion": " nice ."}));
    let rows: String = rows.map(|row| format!("{row}\n")).collect();
    std::fs::write(dir.join("given.jsonl"), rows).unwrap();
    let given = ["--set", "train.method=cd-q", "--set", "completions=['given.jsonl']"];
    let output = common::run(scorer(dir, "given", &[&sets[..], &given].concat()));
    assert_done(&output);
    assert!(stderr(&output).contains("4 of 5 rows are left out"), "{}", stderr(&output));
    assert!(stderr(&output).contains("321 responses"), "{}", stderr(&output));

    // A prompt that is written twice cannot be on both sides.
    let first = text.lines().next().unwrap().replacen('{', "{\"id\": \"again\", ", 1);
    std::fs::write(dir.join("train.jsonl"), format!("{text}\n{first}\n")).unwrap();
    refused(scorer(dir, "twice", &sets), &["is among those that are learned from"]);
}

fn recipes_and_runs_of_other_tasks_are_refused(dir: &Path) {
    let quickstart = quickstart().join("../quickstart.toml");
    let mut command = infalign(&["scorer"]);
    command.arg(&quickstart);
    let of_recipe = refused(command, &["infalign train"]);
    let align = dir.join("align");
    std::fs::create_dir(&align).unwrap();
    std::fs::copy(&quickstart, align.join("config.toml")).unwrap();
    let mut command = infalign(&["scorer", "--resume", "--out"]);
    command.arg(&align);
    let of_run = refused(command, &[]);
    assert!(of_run.ends_with(of_recipe.trim_start_matches("error: ")), "{of_run}");
    assert_eq!(std::fs::read_dir(&align).unwrap().count(), 1, "it is left as it is");
}

fn a_run_is_named_after_the_command(dir: &Path) {
    let mut command = infalign(&["scorer", "recipe.toml"]);
    for set in ["train.steps=2", "rollouts.samples=2", "evaluation=[]"] {
        command.args(["--set", set]);
    }
    command.current_dir(dir);
    done(command);
    let runs = std::fs::read_dir(dir.join("runs")).unwrap();
    let runs: Vec<PathBuf> = runs.map(|entry| entry.unwrap().path()).collect();
    let [run] = &runs[..] else { panic!("{runs:?}") };
    assert!(run.to_string_lossy().contains("-scorer-"), "{}", run.display());
    assert_eq!(json_file(&run.join("start.json"))["command"], "scorer");
    // A newer one of another task is not what it goes on with.
    let align = dir.join("runs/99991231T000000Z-train-0000");
    std::fs::create_dir(&align).unwrap();
    std::fs::copy(quickstart().with_extension("toml"), align.join("config.toml")).unwrap();
    std::fs::remove_file(run.join("results.json")).unwrap();
    let mut resumed = infalign(&["scorer", "--resume"]);
    resumed.current_dir(dir);
    done(resumed);
    assert!(run.join("results.json").exists());
}

#[test]
fn responses_of_files_are_rewarded_for_the_prompt_as_it_is_written() {
    let dir = folder();
    let dir = dir.path();
    // The tokenizer does not know the words of this prompt, nor how they are spaced.
    let prompt = "day  1 :";
    let given = json!({"prompt": prompt, "completion": " the soup was lovely ."});
    std::fs::write(dir.join("given.jsonl"), format!("{given}\n")).unwrap();
    let mut answers = format!("{}\n", json!({"prompt": prompt, "answer": "lovely"}));
    for name in ["train.jsonl", "test.jsonl"] {
        for line in std::fs::read_to_string(dir.join(name)).unwrap().lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            answers += &format!("{}\n", json!({"prompt": row["prompt"], "answer": "lovely"}));
        }
    }
    std::fs::write(dir.join("answers.jsonl"), answers).unwrap();
    let sets = [
        "head=[{ name='right', reward={ kind='answer', file='answers.jsonl', pattern='lovely' } }]",
        "completions=['given.jsonl']",
        "train.method=cd-q",
        "train.steps=2",
        "rollouts.samples=8",
        "evaluation=[]",
    ];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    done(scorer(dir, "run", &sets));

    // Nothing is learned from the prompts that values are measured on.
    let text = std::fs::read_to_string(dir.join("test.jsonl")).unwrap();
    let held_out: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let given = json!({"prompt": held_out["prompt"], "completion": " the soup was lovely ."});
    std::fs::write(dir.join("given.jsonl"), format!("{given}\n")).unwrap();
    refused(scorer(dir, "bad", &sets), &["completions", "all rows are held out"]);
}

#[test]
fn responses_of_files_end_where_those_of_the_base_do() {
    let dir = folder();
    let dir = dir.path();
    let texts = [" lovely".repeat(40), " the soup was dull .".to_owned()];
    let rows = texts.map(|text| json!({"prompt": "day 1 :", "completion": text}).to_string());
    std::fs::write(dir.join("given.jsonl"), rows.join("\n")).unwrap();
    let small = ["train.steps=2", "rollouts.samples=2", "evaluation=[]"];
    let given = ["train.method=cd-q", "completions=['given.jsonl']"];
    let sets: Vec<&str> = small.iter().chain(&given).flat_map(|set| ["--set", set]).collect();
    let output = common::run(scorer(dir, "run", &sets));
    assert_done(&output);
    let told = "completions: 1 of 2 responses go on where the base's own end, at generation.max_tokens = 16";
    assert!(stderr(&output).contains(told), "{}", stderr(&output));
    // Of 40 times one point, what 16 tokens have of it.
    let spec = json_file(&dir.join("run/scorer/scorer.json"));
    assert_eq!(spec["heads"][0]["greatest"], 16.0, "{spec}");

    // `was` ends responses, too, and a recipe can be looked through before it is run.
    let more = ["--set", "generation.stop_token_ids=[83]", "--dry-run"];
    let output = common::run(scorer(dir, "none", &[&sets[..], &more].concat()));
    assert_done(&output);
    assert!(stderr(&output).contains("completions: 2 of 2 responses"), "{}", stderr(&output));
}
