//! Policies beside decoding by a scorer, and policies that are trained for it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;
#[allow(dead_code, reason = "each test file uses a part")]
mod scorers;
#[path = "../crates/remote/tests/server/mod.rs"]
mod server;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{done, infalign, json_file, quickstart, refused, tuned};
use scorers::{copy, folder, other_tokenizer, scorer};
use serde_json::{Value, json};
use server::{Reply, serve};

/// `scorer` with other values of some keys.
fn with_sets(dir: &Path, out: &str, sets: &[&str]) -> Command {
    scorer(dir, out, &sets.iter().flat_map(|set| ["--set", set]).collect::<Vec<_>>())
}

/// The quickstart's model with a part of its `config.json` replaced.
fn with_config(dir: &Path, name: &str, from: &str, to: &str) -> PathBuf {
    copy(dir, name, "config.json", |bytes| {
        String::from_utf8(bytes).unwrap().replace(from, to).into_bytes()
    })
}

#[test]
fn policies_stand_beside_procedures() {
    let dir = folder();
    let dir = dir.path();
    let policy = |name: &str, model: &Path| {
        format!("{{name='{name}',model='{}',samples=4}}", model.display())
    };
    let base = policy("none", &quickstart().join("model"));
    let tuned = policy("tuned", &tuned(dir));
    let set = format!("policy=[{base},{tuned}]");
    let printed = done(with_sets(dir, "run", &[&set, "train.steps=2"]));
    assert!(printed.contains("policy tuned"), "{printed}");
    let results = json_file(&dir.join("run/results.json"));
    let rows = results["evaluation"].as_array().unwrap();
    assert_eq!(rows.len(), 6);
    let [sampled, none, tuned] = [&rows[0], &rows[4], &rows[5]];
    assert_eq!(none["policy"], "none");
    assert_eq!(
        none["rewards"], sampled["rewards"],
        "the base's own samples, from the same streams"
    );
    assert_eq!(none["kl"][0]["nats"], 0.0);
    assert!(tuned["kl"][0]["nats"].as_f64().unwrap() > 0.0, "{tuned}");
    assert_eq!(tuned["kl"][0]["kind"], "exact");
    let svg = std::fs::read_to_string(dir.join("run/reward-kl.svg")).unwrap();
    assert!(svg.contains("policy tuned"), "it is in the legend");

    let foreign = other_tokenizer(dir);
    let other = policy("other", &foreign);
    let [short, wide] = [
        ("short", "\"max_position_embeddings\": 64", "\"max_position_embeddings\": 16"),
        ("wide", "\"vocab_size\": 89", "\"vocab_size\": 96"),
    ]
    .map(|(name, from, to)| with_config(dir, name, from, to));
    let short_base = format!("evaluation_base='{}'", short.display());
    // The trunk is refused before another base is loaded.
    let trunk = format!("trunk='{}'", short.display());
    let foreign = format!("evaluation_base='{}'", foreign.display());
    refused(
        with_sets(dir, "refused", &[&trunk, &foreign]),
        &["the scorer's trunk reads 16 tokens, but the model 64"],
    );
    let [short, wide] = [policy("short", &short), policy("wide", &wide)];
    let other_base = format!("evaluation_base='{}'", quickstart().join("model").display());
    let both = with_sets(dir, "refused", &[&set, &other_base]);
    refused(both, &["[[policy]] cannot stand beside evaluation_base"]);
    let none = "policy=[{name='none',model='absent',samples=0}]".to_owned();
    for (set, needles) in [
        (format!("policy=[{short}]"), ["[[policy]] \"short\"", "context is 16 tokens"]),
        (short_base, ["evaluation_base: ", "context is 16 tokens"]),
        (format!("policy=[{other}]"), ["[[policy]] \"other\"", "tokenizer"]),
        (
            format!("policy=[{wide}]"),
            ["[[policy]] \"wide\"", "a vocab_size of 96 and the base one of 89"],
        ),
        (none, ["[[policy]] \"none\"", "samples"]),
    ] {
        refused(with_sets(dir, "refused", &[&set]), &needles);
    }
}

/// Rows say how often their responses win over plain ones of the base, by the rewards and by a judge that nothing is chosen by.
#[test]
fn responses_win_by_the_rewards_and_by_a_judge() {
    let dir = folder();
    let dir = dir.path();
    let lovely = std::fs::read_to_string(dir.join("reward.toml")).unwrap();
    let recipe = std::fs::read_to_string(dir.join("recipe.toml")).unwrap();
    let recipe = recipe.replace("[train]", &format!("[judge]\n{lovely}\n[train]"));
    std::fs::write(dir.join("recipe.toml"), recipe).unwrap();
    let policy = format!("policy=[{{name='tuned',model='{}',samples=8}}]", tuned(dir).display());
    let evaluation = "evaluation=[{samples=32,weights={length=1},procedures=['sample','best-of:4','worst-of:4']}]";
    let length = "head[1].reward.unit=characters";
    let sets = ["train.steps=2", "rollouts.held_out=32", length, &policy, evaluation];
    let printed = done(with_sets(dir, "run", &sets));
    assert!(printed.contains("judge   wins\n"), "{printed}");
    let rows = json_file(&dir.join("run/results.json"))["evaluation"].take();
    let rows = rows.as_array().unwrap();
    for row in rows {
        for of in ["rewards", "win_rates"] {
            assert_eq!(row[of]["judge"], row[of]["lovely"], "the judge is the same reward: {row}");
            assert_ne!(row[of]["judge"], row[of]["length"]);
        }
    }
    // Of four that do not tie, the best wins four times in five, and the worst once.
    let wins = |row: usize, name: &str| rows[row]["win_rates"][name]["estimate"].as_f64().unwrap();
    for (row, expected) in [(0, 0.5), (1, 0.8), (2, 0.2)] {
        let near = wins(row, "length");
        assert!((near - expected).abs() < 0.05, "{near} of {expected}");
    }
    let svg = std::fs::read_to_string(dir.join("run/win-rate-kl.svg")).unwrap();
    assert!(["judge", "optimum", "policy tuned"].iter().all(|name| svg.contains(name)));

    // What an older program has left says less.
    let first = dir.join("run/evaluation/0.json");
    let mut row = json_file(&first);
    row.as_object_mut().unwrap().remove("win_rates");
    std::fs::write(&first, row.to_string()).unwrap();
    for name in ["results.json", "record.json"] {
        std::fs::remove_file(dir.join("run").join(name)).unwrap();
    }
    let mut resumed = infalign(&["scorer", "--resume", "--out"]);
    resumed.arg(dir.join("run"));
    refused(resumed, &["0.json cannot be used: delete it"]);

    let named = "head=[{name='judge',reward={kind='length',unit='words'}}]";
    let other = "evaluation=[{samples=1,weights={judge=1},procedures=['best-of:2']}]";
    let own = "judge={kind='model',path='$RUN/reward-models/none'}";
    for (sets, told) in [
        (&[named, other][..], "[[head]] \"judge\" stands beside [judge]"),
        (&["evaluation=[]"], "judge has no effect"),
        (&["judge.kind='none'"], "judge"),
        (&[own], "judge.path"),
    ] {
        refused(with_sets(dir, "refused", sets), &[told]);
    }
}

/// A judge at a server is asked for what is missing, and a finished run misses nothing.
#[test]
fn a_finished_run_asks_its_judge_nothing_more() {
    let dir = folder();
    let dir = dir.path();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let url = serve(move |request| {
        let queries = request.json["query"].as_array().unwrap();
        count.fetch_add(queries.len(), Ordering::Relaxed);
        let rewards = queries.iter().map(|query| query.as_str().unwrap().len() as f64);
        Reply::new(200, json!({ "rewards": rewards.collect::<Vec<f64>>() }))
    });
    let judge = format!("judge={{kind='remote',url='{url}/get_reward'}}");
    let evaluation = "evaluation=[{samples=2,procedures=['sample']}]";
    let sets = ["train.steps=2", "rollouts.held_out=2", &judge, evaluation];
    done(with_sets(dir, "run", &sets));
    let all = asked.load(Ordering::Relaxed);
    assert!(all > 0, "it judges");
    let mut resumed = infalign(&["scorer", "--resume", "--out"]);
    resumed.arg(dir.join("run"));
    done(resumed);
    assert_eq!(asked.load(Ordering::Relaxed), all);
}

/// The scorer of the base guides a policy that was trained from it, and the KL is that from the base to the end.
#[test]
fn procedures_run_on_policies_too() {
    let dir = folder();
    let dir = dir.path();
    let policy = |name: &str, model: &Path| {
        let run = "procedures=['sample','cd-token:lambda=1','cd-block:length=4,samples=2'],weights={lovely=1}";
        format!("{{name='{name}',model='{}',samples=4,{run}}}", model.display())
    };
    let base = policy("none", &quickstart().join("model"));
    let tuned = policy("tuned", &tuned(dir));
    let evaluation = "evaluation=[{samples=4,weights={lovely=1},procedures=['sample','cd-token:lambda=1','cd-block:length=4,samples=2']}]";
    let set = format!("policy=[{base},{tuned}]");
    let printed = done(with_sets(dir, "run", &[&set, evaluation, "train.steps=20"]));
    let results = json_file(&dir.join("run/results.json"));
    let rows = results["evaluation"].as_array().unwrap();
    let nats = |row: &Value, kind: &str| -> f64 {
        let of = |kl: &&Value| kl["kind"] == kind;
        row["kl"].as_array().unwrap().iter().find(of).unwrap()["nats"].as_f64().unwrap()
    };
    let (of_base, of_policies) = rows.split_at(3);
    for (own, none) in of_base.iter().zip(&of_policies[..3]) {
        assert_eq!(none["rewards"], own["rewards"], "the base under another name");
        let both = [own, none].map(|row| row["kl"][0]["nats"].as_f64().unwrap());
        assert!((both[0] - both[1]).abs() < 1e-6, "{both:?}");
    }
    let [plain, tokenwise, blocks] = [3, 4, 5].map(|place| &of_policies[place]);
    assert_eq!((&plain["policy"], &blocks["policy"]), (&"tuned".into(), &"tuned".into()));
    let of_policy = nats(plain, "exact");
    assert!(of_policy > 1e-3, "{of_policy}");
    assert!(nats(tokenwise, "exact") > of_policy / 2.0, "{tokenwise}");
    assert!(nats(blocks, "bound") >= nats(blocks, "estimate"), "{blocks}");
    assert!(printed.contains("cd-token:lambda=1 on tuned"), "{printed}");

    let unweighed = set.replace(",weights={lovely=1}", "");
    let model = quickstart().join("model").display().to_string();
    let weighed = format!(
        "policy=[{{name='a',model='{model}',samples=1,procedures=['sample'],weights={{lovely=1}}}}]"
    );
    for (set, told) in [
        (unweighed, "weights has no weight but 0"),
        (set.replace("tuned'", "none'"), "there are two [[policy]] \"none\""),
        (weighed, "weights have no effect on plain samples"),
        (set.replace("'cd-token:lambda=1'", "'sample'"), "procedures has sample twice"),
    ] {
        refused(with_sets(dir, "refused", &[&set]), &[told]);
    }
}

/// From a scorer to a policy that is trained for decoding by it, and evaluated under that decoding.
#[test]
fn a_policy_is_trained_for_the_decoder_and_evaluated_under_it() {
    let dir = folder();
    let dir = dir.path();
    let small = ["train.steps=60", "rollouts.samples=4", "evaluation=[]"];
    done(with_sets(dir, "run", &small));
    let within = |args: &[&str]| {
        let mut command = infalign(args);
        command.current_dir(dir);
        command
    };
    let done = |args: &[&str]| done(within(args));
    let model = quickstart().join("model").display().to_string();
    let common = ["--reward", "reward.toml", "--max-tokens", "16"];
    let calibrate = [
        "calibrate",
        "--model",
        &model,
        "--prompts",
        "train.jsonl",
        "--samples",
        "16",
        "--out",
        "table.parquet",
    ];
    done(&[&calibrate[..], &common].concat());

    const PROCEDURE: &str = "cd-block:length=4,samples=4";
    let decode = |model: &str, prompts: &str, samples: &str, file: &str| {
        let scorer = ["--scorer", "run/scorer#lovely", "--procedure", PROCEDURE, "--json"];
        let args = ["generate", "--model", model, "--prompts", prompts, "--samples", samples];
        std::fs::write(dir.join(file), done(&[&args[..], &scorer, &common].concat())).unwrap();
    };
    decode(&model, "train.jsonl", "8", "decoded.json");
    let estimate = [
        "transform",
        "estimate",
        "--responses",
        "decoded.json",
        "--table",
        "table.parquet",
        "--beta",
        "0.3",
    ];
    done(&[&estimate[..], &["--bins", "10", "--out", "phi.csv"]].concat());

    let recipe = format!(
        r#"task = "align"
name = "for-blocks"
seed = 1
model = {model:?}
batch = 64
prompts = {{ kind = "files", train = "train.jsonl", test = "test.jsonl" }}
reward = {{ kind = 'lexicon', weights = {{ lovely = 1.0, good = 1.0, perfect = 2.0, dull = -1.0, nasty = -2.0 }} }}
generation = {{ max_tokens = 16 }}
calibration = {{ table = "table.parquet" }}
train = {{ steps = 3, prompts_per_step = 4, samples_per_prompt = 4, target_kl = 0.3, optimizer = {{ learning_rate = 1e-3, warmup_steps = 1 }} }}
method = [{{ name = "u", objective = "identity" }}, {{ name = "for-blocks", objective = "table:phi.csv" }}]
evaluation = {{ samples = 4, procedures = ["sample"], baseline = "u" }}
"#
    );
    std::fs::write(dir.join("align.toml"), recipe).unwrap();
    done(&["train", "align.toml", "--out", "aligned"]);

    decode("aligned/methods/for-blocks/policy", "test.jsonl", "4", "policy.json");
    decode(&model, "test.jsonl", "4", "reference.json");
    let evaluate = ["evaluate", "--policy", "policy.json", "--reference", "reference.json"];
    let printed = done(&[&evaluate[..], &["--procedure", PROCEDURE, "--json"]].concat());
    let row: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&row["procedure"], &row["n_prompts"]), (&PROCEDURE.into(), &12.into()));
    assert_eq!(row["procedure_kl"]["kind"], "bound");
    let won = ["low", "estimate", "high"].map(|key| row["win_rate"][key].as_f64().unwrap());
    assert!(won.is_sorted() && (0.0..=1.0).contains(&won[1]), "{row}");

    // Or in one command, which tells what scorers know of the KL.
    let policy = "aligned/methods/for-blocks/policy";
    let evaluate =
        ["evaluate", "--policy", policy, "--reference", &model, "--prompts", "test.jsonl"];
    let more = ["--samples", "4", "--judge", "reward.toml", "--max-tokens", "16", "--json"];
    let evaluate = [&evaluate[..], &more].concat();
    let guided = ["--scorer", "run/scorer#lovely", "--procedure"];
    for (procedure, kind) in [(PROCEDURE, "bound"), ("cd-token:lambda=2", "exact")] {
        let args = [&evaluate[..], &guided, &[procedure]].concat();
        let row: Value = serde_json::from_str(&done(&args)).unwrap();
        assert_eq!((&row["procedure"], &row["n_samples"]), (&procedure.into(), &4.into()));
        assert_eq!(row["procedure_kl"]["kind"], kind, "{row}");
        assert_eq!(row["kl"], Value::Null, "what is guided does not tell the policy's own");
        assert!(row["procedure_kl"]["estimate"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["procedure_kl"]["standard_error"].as_f64().unwrap() > 0.0, "{row}");
        let whole = &row["kl_to_reference"];
        assert_eq!(whole["kind"], kind, "{row}");
        let error = whole["standard_error"].as_f64().unwrap();
        assert!(error > row["procedure_kl"]["standard_error"].as_f64().unwrap(), "{row}");
        assert!(row["tokens"].as_f64().unwrap() > 4.0, "{row}");
    }
    // A selection over it is estimated from all subsets of the same responses, as one over plain samples is.
    let over = format!("best-of:2 over {PROCEDURE}");
    let both = [&evaluate[..], &guided, &[PROCEDURE, "--procedure", &over]].concat();
    let rows: Value = serde_json::from_str(&done(&both)).unwrap();
    let rows = rows["rows"].as_array().unwrap();
    let score = |row: &Value| row["score"]["estimate"].as_f64().unwrap();
    let tokens = |row: &Value| row["tokens"].as_f64().unwrap();
    assert_eq!(
        (&rows[0]["procedure"], &rows[1]["procedure"]),
        (&PROCEDURE.into(), &over.as_str().into())
    );
    assert!(score(&rows[1]) > score(&rows[0]), "{rows:?}");
    assert!((tokens(&rows[1]) / tokens(&rows[0]) - 2.0).abs() < 1e-9, "{rows:?}");
    let files = [
        &["evaluate", "--policy", "policy.json", "--reference", "reference.json", "--json"][..],
        &["--procedure", &over],
    ]
    .concat();
    let row: Value = serde_json::from_str(&done(&files)).unwrap();
    assert_eq!(row["procedure"], over.as_str());
    let mixed = [&evaluate[..], &guided, &[PROCEDURE, "--procedure", "sample"]].concat();
    refused(within(&mixed), &["drawn in different ways"]);

    let against =
        [&evaluate[..], &guided, &[PROCEDURE, "--reference-procedure", "sample"]].concat();
    let row: Value = serde_json::from_str(&done(&against)).unwrap();
    assert!(row["win_rate"]["estimate"].as_f64().unwrap() > 0.55, "{row}");
    // A model that writes more than the scorer's base reads is refused before anything is drawn.
    let context = ["\"max_position_embeddings\": 64", "\"max_position_embeddings\": 128"];
    let longer = with_config(dir, "longer", context[0], context[1]);
    let sides = ["--reference", longer.to_str().unwrap(), "--prompts", "test.jsonl"];
    let sides = [&["evaluate", "--policy", policy][..], &sides, &more].concat();
    let command = within(&[&sides[..], &guided, &[PROCEDURE]].concat());
    let trunk = "its trunk reads 64 tokens, but the model 128";
    let told = refused(command, &["--reference", trunk]);
    assert!(!told.contains("[1/2]"), "{told}");
    // It goes on with the scorers that it was begun with alone.
    let kept = [&evaluate[..], &["--procedure", PROCEDURE, "--out", "kept", "--scorer"]].concat();
    done(&[&kept[..], &["run/scorer#lovely"]].concat());
    let other = [&kept[..], &["run/scorer#lovely:2", "--resume"]].concat();
    refused(within(&other), &["begun with another --scorer"]);
    let other = [&evaluate[..], &guided, &["cd-token:lambda=2", "--out", "kept", "--resume"]];
    refused(within(&other.concat()), &["another --procedure that is run"]);
    for (args, told) in [
        (&["--procedure", PROCEDURE][..], "needs a prefix scorer"),
        (&["--procedure", "rejection:quantile=0.5,draws=4"], "needs a calibration table"),
        (&["--scorer", "run/scorer#lovely"], "--scorer has nothing to say"),
        (&["--scorer", "run/scorer#depth", "--procedure", PROCEDURE], "no values of \"depth\""),
    ] {
        refused(within(&[&evaluate[..], args].concat()), &[told]);
    }
}
