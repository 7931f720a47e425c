//! Evaluations beside each other: what is the same, a copy, changed since, or of other prompts is told apart.

use infalign_record::folder;
use serde_json::json;

use super::Given;
use super::common::{as_another, copy, done, infalign, json_file, refused, run, stderr};

#[test]
fn of_an_evaluation_by_another_version_nobody_knows_whether_the_reference_is_the_same() {
    let given = Given::new(2);
    done(given.models(&["--samples", "2", "--judge", "judge.toml", "--out", "out"]));
    copy(&given.path("out"), &given.path("old"));
    as_another(&given.path("old"));
    let file = given.path("old/settings.json");
    let mut settings = json_file(&file);
    let version = settings.as_object_mut().unwrap().remove(folder::SETTINGS_VERSION);
    assert_eq!(version, Some(json!("2")));
    settings["--reference"] = json!("weights and tokenizer.json");
    std::fs::write(&file, settings.to_string()).unwrap();
    let told = warned(&given, &["out", "old"]);
    assert!(!told.contains("differ in"), "{told}");
    assert!(told.contains("out and old were evaluated by versions of infalign that"), "{told}");
}

/// What is said where a comparison is made.
fn warned(given: &Given, paths: &[&str]) -> String {
    let mut command = infalign(&[&["compare"], paths].concat());
    command.current_dir(given.0.path());
    let output = run(command);
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn evaluations_that_were_copied_or_changed_are_told_from_others() {
    let given = Given::new(2);
    done(given.models(&["--samples", "2", "--judge", "judge.toml", "--out", "out"]));
    copy(&given.path("out"), &given.path("other"));
    for paths in [["out", "other"], ["out", "out/methods/policy"]] {
        let mut command = infalign(&[&["compare"], &paths[..]].concat());
        command.current_dir(given.0.path());
        refused(command, &["\"policy\"", "the same run or a copy of it"]);
    }
    as_another(&given.path("other"));
    let told = warned(&given, &["out", "other"]);
    assert!(!told.contains("warning"), "{told}");
    // A method is found from among the methods, too.
    let mut command = infalign(&["compare", "policy", "../../other/methods/policy"]);
    command.current_dir(given.path("out/methods"));
    done(command);
    let samples = given.path("other/methods/policy/samples.json");
    std::fs::copy(given.path("other/reference-samples.json"), samples).unwrap();
    let told = warned(&given, &["out", "other"]);
    assert!(told.contains("methods/policy/samples.json of other has changed since"), "{told}");
    for file in ["settings.json", "record.json"] {
        std::fs::write(given.path("other").join(file), "{").unwrap();
    }
    let told = warned(&given, &["out", "other"]);
    assert!(told.contains("by what other was measured is not known"), "{told}");
    assert!(told.contains("settings.json"), "{told}");
    assert!(told.contains("whether files of other are those on record is not known"), "{told}");
}

#[test]
fn other_prompts_of_the_same_ids_are_refused() {
    let given = Given::new(4);
    let all = std::fs::read_to_string(given.path("prompts.jsonl")).unwrap();
    let prompts: Vec<serde_json::Value> =
        all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let named = |(id, row): (usize, &serde_json::Value)| {
        format!("{}\n", json!({ "id": id, "prompt": row["prompt"] }))
    };
    for (out, two) in ["first", "second"].into_iter().zip(prompts.chunks(2)) {
        given.write("prompts.jsonl", &two.iter().enumerate().map(named).collect::<String>());
        done(given.models(&["--samples", "2", "--judge", "judge.toml", "--out", out]));
    }
    let told = ["have other prompts", "prompt 1, `0`, is", "cold saturday at the gallery"];
    let mut compare = infalign(&["compare", "first", "second"]);
    compare.current_dir(given.0.path());
    let text = refused(compare, &told);
    assert!(text.contains("differ in --prompts: win rates"), "{text}");
    let [policy, reference] =
        ["first/methods/policy/samples.json", "second/reference-samples.json"];
    refused(given.evaluate(&["--policy", policy, "--reference", reference]), &told);
}
