//! What runs leave behind holds no secret: a canary of the environment is in no byte.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod runs;
#[path = "../crates/remote/tests/server/mod.rs"]
mod server;

use std::path::Path;

use infalign_record::record::Status;
use runs::{done, fails, files, infalign, quickstart, record, train, with_run};
use server::{Reply, serve};

const CANARY: &str = "canary/Value 29ab+31";
/// One that the quickstart's model has words for.
const KNOWN_WORDS: &str = "friday at the library";

/// The digits of base64 that the canary decides where it follows two bytes.
const AFTER_TWO_BYTES: &str = "jYW5hcnkvVmFsdWUgMjlhYiszM";

/// The canary as addresses have it.
fn percent(canary: &str) -> String {
    canary.replace('/', "%2F").replace(' ', "%20").replace('+', "%2B")
}

/// The same with digits `a` to `f`.
fn lower_case(percent: &str) -> String {
    percent.replace("%2F", "%2f").replace("%2B", "%2b")
}

/// Every byte of a folder, in the forms that a value may take.
fn assert_clean(folder: &Path, canary: &str) {
    // In base64, as it stands there after none, one and two bytes, without the digits that depend on its neighbours.
    let base64 = match canary {
        CANARY => ["Y2FuYXJ5L1ZhbHVlIDI5YWIrMz", "NhbmFyeS9WYWx1ZSAyOWFiKzMx", AFTER_TWO_BYTES],
        _ => [
            "ZnJpZGF5IGF0IHRoZSBsaWJyYXJ5",
            "ZyaWRheSBhdCB0aGUgbGlicmFye",
            "mcmlkYXkgYXQgdGhlIGxpYnJhcn",
        ],
    };
    let encoded = percent(canary);
    let mut forms = vec![canary.to_owned(), lower_case(&encoded), encoded.replace("%20", "+")];
    forms.push(encoded);
    forms.extend(base64.map(str::to_owned));
    let all = files(folder);
    assert!(!all.is_empty(), "{} holds no file", folder.display());
    for file in all {
        let bytes = std::fs::read(&file).unwrap();
        for form in &forms {
            let found = bytes.windows(form.len()).any(|window| window == form.as_bytes());
            assert!(!found, "{} holds the canary", file.display());
        }
    }
}

/// `generate` on the quickstart's model with a record, under a canary.
fn generate(out: &Path, prompts: &Path, canary: &str) -> std::process::Command {
    let mut command = infalign(&["generate", "--max-tokens", "4"]);
    command.arg("--model").arg(quickstart().join("model")).arg("--prompts").arg(prompts);
    command.arg("--record").arg(out).env("CANARY_TOKEN", canary);
    command
}

#[test]
fn a_secret_of_the_environment_is_in_no_byte_of_a_run_that_ends_well() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("prompts.jsonl"), "{\"prompt\": \"the\"}\n").unwrap();
    // On the command line, and in an address there.
    let out = path("generated");
    let mut command = generate(&out, &path("prompts.jsonl"), CANARY);
    command.args(["--stop", CANARY, "--stop", &format!("http://me:{}@host/", percent(CANARY))]);
    // With digits of the other case, as forms have it, and as the user's password in a header, `user:` before it.
    let (lower, form) = (lower_case(&percent(CANARY)), percent(CANARY).replace("%20", "+"));
    let header = format!("Basic dXNlcjp{AFTER_TWO_BYTES}Q==");
    command.args(["--stop", &lower, "--stop", &form, "--stop", &header]);
    done(command);
    let kept = record(&out);
    let whole = kept.argv.iter().filter(|word| *word == "«redacted:CANARY_TOKEN»");
    assert_eq!(whole.count(), 3);
    assert!(kept.argv.contains(&"Basic dXNlcjp«redacted:CANARY_TOKEN»Q==".to_owned()));
    assert_eq!(kept.status, Status::Completed);
    assert_clean(&out, CANARY);
    done(with_run("verify", &out, &[]));

    // With words that might have been generated.
    let out = path("words");
    done(generate(&out, &path("prompts.jsonl"), KNOWN_WORDS));
    assert!(std::fs::read_to_string(out.join("results.txt")).unwrap().starts_with("the"));
    assert_eq!(record(&out).status, Status::Completed);
    assert_clean(&out, KNOWN_WORDS);

    // A whole training, its checkpoints and pages included.
    let out = path("trained");
    let mut command = train(&out, &[]);
    command.env("CANARY_TOKEN", CANARY);
    done(command);
    assert_clean(&out, CANARY);
}

#[test]
fn a_run_that_was_killed_is_looked_through_for_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let (out, prompts) = (dir.path().join("run"), dir.path().join("prompts.jsonl"));
    std::fs::write(&prompts, "{\"prompt\": \"the\"}\n").unwrap();
    done(generate(&out, &prompts, CANARY));
    let mut kept = record(&out);
    kept.status = Status::Running;
    std::fs::write(out.join("record.json"), serde_json::to_vec(&kept).unwrap()).unwrap();
    std::fs::write(out.join("log.txt"), lower_case(&percent(CANARY))).unwrap();
    let mut command = with_run("verify", &out, &[]);
    command.env("CANARY_TOKEN", CANARY);
    let text = fails(command, 1);
    assert!(text.contains("log.txt holds the value of CANARY_TOKEN"), "{text}");
    assert!(text.contains("it was killed"), "{text}");
}

#[test]
fn what_tools_keep_in_files_is_secret_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("prompts.jsonl"), "{\"prompt\": \"the\"}\n").unwrap();
    std::fs::create_dir(path("hub")).unwrap();
    let (password, token, moved) = ("canary-Pass-1", "canary-Token-1", "canary-Token-2");
    std::fs::write(path(".netrc"), format!("machine h login me password {password}\n")).unwrap();
    std::fs::write(path("hub/token"), format!("{token}\n")).unwrap();
    std::fs::write(path("moved"), moved).unwrap();
    let out = path("run");
    let mut command = generate(&out, &path("prompts.jsonl"), CANARY);
    command.env("HOME", dir.path()).env("USERPROFILE", dir.path());
    command.env("HF_HOME", path("hub")).env("HF_HUB_CACHE", path("cache/models"));
    command.env("HF_TOKEN_PATH", path("moved"));
    command.args(["--stop", password, "--stop", token, "--stop", moved]);
    done(command);
    let hub = "«redacted:the hub's token file»";
    let argv = record(&out).argv;
    let stops: Vec<&str> =
        argv.iter().filter(|word| word.starts_with('«')).map(String::as_str).collect();
    assert_eq!(stops, ["«redacted:.netrc»", hub, hub]);
    for canary in [password, token, moved] {
        assert_clean(&out, canary);
    }
}

/// Servers tell the key that they refuse, one that generates and one that scores.
#[test]
fn what_is_sent_as_an_api_key_is_secret_whatever_its_variable_is_called() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("prompts.jsonl"), "{\"prompt\": \"the\"}\n").unwrap();
    let url = serve(|request| match request.path.as_str() {
        "/v1/models" => Reply::new(200, r#"{"data": [{"id": "served"}]}"#),
        _ => Reply::new(401, format!("Incorrect API key provided: {CANARY}")),
    });
    let reward = path("reward.toml");
    let scores = format!("kind = 'remote'\nurl = '{url}/get_reward'\napi_key_env = 'OPENAI'\n");
    std::fs::write(&reward, scores).unwrap();
    let of_server = ["--server", &url, "--api-key-env", "OPENAI", "--stop", CANARY];
    let of_reward = ["--procedure", "best-of:2", "--reward", reward.to_str().unwrap()];
    for (name, args) in [("server", &of_server[..]), ("reward", &of_reward)] {
        let out = path(name);
        let mut command = generate(&out, &path("prompts.jsonl"), KNOWN_WORDS);
        command.args(args).env("OPENAI", CANARY);
        fails(command, 3);
        let kept = record(&out);
        let error = kept.error.as_ref().unwrap();
        assert!(error.contains("provided: «redacted:OPENAI»"), "{error}");
        assert_eq!(kept.argv.contains(&"«redacted:OPENAI»".to_owned()), name == "server");
        assert_clean(&out, CANARY);
    }
}

#[test]
fn whoever_runs_and_the_licence_are_no_secret_or_the_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("prompts.jsonl"), "{\"prompt\": \"the\"}\n").unwrap();
    for (name, variable, value, code) in [
        ("agent", "INFALIGN_AGENT", CANARY, 3),
        ("licence", "INFALIGN_LICENSE", "../x", 2),
        ("expression", "INFALIGN_LICENSE", "MIT OR Apache-2.0", 2),
    ] {
        let mut command = generate(&path(name), &path("prompts.jsonl"), CANARY);
        command.env(variable, value);
        let text = fails(command, code);
        assert!(!text.contains(value), "{text}");
        assert!(!path(name).join("record.json").exists(), "nothing was begun");
    }
    let mut command = generate(&path("orcid"), &path("prompts.jsonl"), CANARY);
    command.env("INFALIGN_AGENT", "Ada").env("INFALIGN_AGENT_ORCID", "me");
    assert!(fails(command, 2).contains("INFALIGN_AGENT_ORCID is not an ORCID"));
    let out = path("named");
    let mut command = generate(&out, &path("prompts.jsonl"), CANARY);
    command.env("INFALIGN_LICENSE", "spdx:MIT").env("INFALIGN_AGENT", "Ada");
    command.env("INFALIGN_AGENT_ORCID", "0000-0002-1825-0097");
    done(command);
    let kept = record(&out);
    assert_eq!(kept.license.as_deref(), Some("https://spdx.org/licenses/MIT"));
    let orcid = kept.agent.unwrap().orcid;
    assert_eq!(orcid.as_deref(), Some("https://orcid.org/0000-0002-1825-0097"));
    done(with_run("verify", &out, &[]));
}

#[test]
fn a_run_that_would_keep_a_secret_is_refused_or_fails_without_a_byte_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let prompts = path("prompts.jsonl");
    // In the recipe: refused before anything is written.
    let refused = path("refused");
    let mut command = train(&refused, &["--set", &format!("name={CANARY}")]);
    command.env("CANARY_TOKEN", CANARY);
    let text = fails(command, 2);
    assert!(text.contains("CANARY_TOKEN") && !text.contains(CANARY), "{text}");
    assert!(!refused.exists());

    // In the message of a failure: the address of a server that is not there.
    std::fs::write(&prompts, "{\"prompt\": \"the\"}\n").unwrap();
    let address = format!("http://127.0.0.1:9/{}", percent(CANARY));
    let reward = format!("kind = 'remote'\nurl = '{address}'\ntimeout_seconds = 1\n");
    std::fs::write(path("reward.toml"), reward).unwrap();
    let failed = path("failed");
    let mut command = generate(&failed, &prompts, CANARY);
    command.args(["--procedure", "best-of:2", "--reward"]).arg(path("reward.toml"));
    fails(command, 3);
    let kept = record(&failed);
    assert!(kept.error.as_ref().unwrap().contains("«redacted:CANARY_TOKEN»"), "{kept:?}");
    assert_eq!(kept.status, Status::Failed);
    assert_clean(&failed, CANARY);

    // In what is generated: it is not kept, the run does not count as finished, and says why without showing it.
    let prompt = serde_json::json!({ "prompt": format!("late on {KNOWN_WORDS} :") });
    std::fs::write(&prompts, format!("{}\n{prompt}\n", serde_json::json!({"prompt": "the"})))
        .unwrap();
    for more in [&[][..], &["--json"]] {
        let leaked = path(&format!("leaked{}", more.len()));
        let mut command = generate(&leaked, &prompts, KNOWN_WORDS);
        command.args(more);
        let text = fails(command, 3);
        assert!(text.contains("what is printed holds the value of CANARY_TOKEN"), "{text}");
        assert_eq!(record(&leaked).status, Status::Failed);
        assert_clean(&leaked, KNOWN_WORDS);
    }
}
