//! Every type of data set in every format, from files written here, and what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod common;

use std::fmt::Debug;

use common::{csv, file, jsonl, packed, write_parquet};
use infalign_data::dataset::{
    LanguageModeling, Preference, PromptCompletion, Record, Unpaired, read,
};
use infalign_data::{Message, Role, Text, prompts, rows};
use serde_json::{Value, json};
use tempfile::tempdir;

const MULTI_LINE: &str = " a \"quoted\", text\nof two lines\u{e9} ";

fn plain(text: &str) -> Text {
    Text::Plain(text.to_owned())
}

fn talk(turns: &[(Role, &str)]) -> Text {
    let message = |&(role, content): &(Role, &str)| Message { role, content: content.to_owned() };
    Text::Messages(turns.iter().map(message).collect())
}

/// Reads the rows back from each format that can hold them.
fn check<T: Record + PartialEq + Debug>(rows: &[Value], expected: &[T]) {
    let folder = tempdir().unwrap();
    let lines = jsonl(rows);
    let mut paths = vec![
        file(&folder, "rows.jsonl", lines.as_bytes()),
        file(&folder, "rows.JSONL.gz", &packed(lines.as_bytes())),
        folder.path().join("rows.parquet"),
    ];
    write_parquet(&paths[2], rows);
    for path in &paths {
        let same = rows::read(path).unwrap().into_iter().map(|row| Value::Object(row.values));
        assert_eq!(same.collect::<Vec<_>>(), rows, "{}", path.display());
    }
    if !lines.contains("\"role\"") {
        paths.push(file(&folder, "rows.csv", csv(rows).as_bytes()));
        paths.push(file(&folder, "rows.csv.gz", &packed(csv(rows).as_bytes())));
    }
    for path in paths {
        assert_eq!(read::<T>(&path).unwrap(), expected, "{}", path.display());
    }
}

#[test]
fn texts_and_conversations() {
    let rows = [
        json!({"text": MULTI_LINE, "score": 0.5, "n": 7}),
        json!({"text": "b", "score": 2.0, "n": -1}),
    ];
    check(&rows, &[MULTI_LINE, "b"].map(|text| LanguageModeling { text: plain(text) }));
    let rows = [
        json!({"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}),
        json!({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "v"}]}),
    ];
    let texts =
        [[(Role::User, "u"), (Role::Assistant, "a")], [(Role::System, "s"), (Role::User, "v")]];
    let texts = texts.map(|turns| talk(&turns));
    check(&rows, &texts.map(|text| LanguageModeling { text }));
}

#[test]
fn prompts_with_responses_and_labels() {
    let rows = [
        json!({"prompt": "p", "completion": MULTI_LINE, "label": true}),
        json!({"prompt": "q", "completion": "", "label": false}),
    ];
    let expected = [("p", MULTI_LINE, true), ("q", "", false)];
    let first = PromptCompletion { prompt: plain("p"), completion: plain(MULTI_LINE) };
    check(&rows[..1], &[first]);
    check(
        &rows,
        &expected.map(|(p, c, label)| Unpaired { prompt: plain(p), completion: plain(c), label }),
    );
    let prompt = json!([{"role": "user", "content": "u"}]);
    let completion = json!([{"role": "assistant", "content": "a"}]);
    check(
        &[json!({"prompt": prompt, "completion": completion, "label": true})],
        &[Unpaired {
            prompt: talk(&[(Role::User, "u")]),
            completion: talk(&[(Role::Assistant, "a")]),
            label: true,
        }],
    );
}

#[test]
fn preferences_with_and_without_a_prompt() {
    let texts =
        Preference { prompt: plain("p"), chosen: plain("a"), rejected: plain("b"), margin: 0.0 };
    check(&[json!({"prompt": "p", "chosen": "a", "rejected": "b"})], &[texts]);
    let (chosen, rejected) = ("\n\nHuman: u\n\nAssistant: a", "\n\nHuman: u\n\nAssistant: b");
    let expected = Preference {
        prompt: plain("\n\nHuman: u\n\nAssistant:"),
        chosen: plain(" a"),
        rejected: plain(" b"),
        margin: 0.0,
    };
    check(&[json!({"chosen": chosen, "rejected": rejected})], &[expected]);
    let answered = |content: &str| json!([{"role": "user", "content": "u"}, {"role": "assistant", "content": content}]);
    let expected = Preference {
        prompt: talk(&[(Role::User, "u")]),
        chosen: talk(&[(Role::Assistant, "a")]),
        rejected: talk(&[(Role::Assistant, "b")]),
        margin: 0.0,
    };
    check(&[json!({"chosen": answered("a"), "rejected": answered("b")})], &[expected]);
}

#[test]
fn null_columns_are_absent() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    write_parquet(&path, &[json!({"prompt": "a"}), json!({"prompt": null})]);
    let error = prompts::read(&path).unwrap_err().to_string();
    assert!(error.contains("rows.parquet, row 2: The key `prompt` is null"), "{error}");
}

/// The message for a JSON Lines file whose second line is `row`.
fn refused<T: Record + Debug>(good: &Value, row: &Value) -> String {
    let folder = tempdir().unwrap();
    let path = file(&folder, "rows.jsonl", jsonl(&[good.clone(), row.clone()]).as_bytes());
    let error = read::<T>(&path).unwrap_err().to_string();
    assert!(error.contains("rows.jsonl, line 2: "), "{error}");
    error
}

#[test]
fn malformed_rows_are_named_by_place_and_key() {
    let good = json!({"prompt": "p", "completion": "c", "label": true});
    let user = json!({"role": "user", "content": "u"});
    for (row, problem) in [
        (json!({"prompt": "p", "competion": "c"}), "Is `competion` a misspelling"),
        (json!({"prompt": "p", "completion": 3}), "`completion` has to be text or a list"),
        (json!({"prompt": "p", "completion": "c"}), "The key `label` is missing"),
        (json!({"prompt": "p", "completion": "c", "label": "good"}), "`label` is `good`"),
        (json!({"prompt": "p", "completion": "c", "label": 2}), "`label` is `2`"),
        (json!({"prompt": [user], "completion": [user]}), "begins with the role user"),
        (json!({"prompt": [user], "completion": "c"}), "Give both the same form"),
        (json!({"prompt": [user, user]}), "`prompt`, message 2: The role user cannot follow user"),
        (json!({"prompt": [user, {"role": "system", "content": ""}]}), "The role system cannot"),
        (json!({"prompt": [{"role": "bot", "content": ""}]}), "The role `bot` is none of"),
        (json!({"prompt": [{"role": "user"}]}), "message 1: The key `content` is missing"),
        (json!({"prompt": []}), "The list of messages `prompt` is empty"),
    ] {
        let error = refused::<Unpaired>(&good, &row);
        assert!(error.contains(problem), "{error}");
    }
    let pair = json!({"prompt": "p", "chosen": "a", "rejected": "b"});
    let error = refused::<Preference>(&pair, &json!({"chosen": "a", "rejected": "b"}));
    assert!(error.contains("Add the key `prompt`"), "{error}");
    let error = refused::<LanguageModeling>(&json!({"text": "a"}), &json!({"text": " "}));
    assert!(error.contains("The `text` is empty"), "{error}");
    let error = refused::<LanguageModeling>(&json!({"text": "a"}), &json!({"txt": "a"}));
    assert!(error.contains("Is `txt` a misspelling"), "{error}");
}

/// The message for texts from a file of these bytes.
fn broken(name: &str, bytes: &[u8]) -> String {
    let folder = tempdir().unwrap();
    read::<LanguageModeling>(&file(&folder, name, bytes)).unwrap_err().to_string()
}

#[test]
fn broken_files_are_refused() {
    for name in ["a.jsonl", "a.csv"] {
        assert!(broken(name, b"").contains("holds no text"));
    }
    assert!(broken("a.csv", b"prompt\n").contains("holds no text"));
    assert!(broken("a.parquet", b"").contains("cannot be read as Parquet"));
    assert!(broken("a.txt", b"a").contains("ends in none of"));
    assert!(broken("a.parquet.gz", b"a").contains("ends in none of"));
    let error = broken("a.jsonl", b"{\"prompt\": \"a\"}\n{\"prompt\": \"\xff\"}\n");
    assert!(error.contains("a.jsonl, line 2: Cannot read it"), "{error}");
    let error = broken("a.csv", b"prompt\r\n\"a\r\nb\"\r\n\xff\r\n");
    assert!(error.contains("a.csv, line 4: Cannot read it") && error.contains("UTF-8"), "{error}");
    let error = broken("a.csv", b"prompt,id\n\"a\nb\",1\nc\n");
    assert!(error.contains("a.csv, line 4: It has 1 fields, and the header has 2"), "{error}");
    let error = broken("a.csv", b"prompt,id\r\n\r\na,1\r\n\r\nc\r\n");
    assert!(error.contains("a.csv, line 5: It has 1 fields"), "{error}");
    assert!(broken("a.csv", b"prompt,prompt\n").contains("line 1: The column `prompt`"));
}

#[test]
fn truncated_files_are_refused() {
    let rows: Vec<_> = (0..100).map(|i| json!({"prompt": format!("prompt {i}")})).collect();
    for (name, text) in [("a.jsonl.gz", jsonl(&rows)), ("a.csv.gz", csv(&rows))] {
        let bytes = packed(text.as_bytes());
        let error = broken(name, &bytes[..bytes.len() / 2]);
        assert!(error.contains(&format!("{name}, line ")), "{error}");
    }
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write_parquet(&path, &rows);
    let bytes = std::fs::read(&path).unwrap();
    let error = broken("a.parquet", &bytes[..bytes.len() / 2]);
    assert!(error.contains("cannot be read as Parquet"), "{error}");
}

#[test]
fn no_damaged_byte_of_a_parquet_file_stops_the_program() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let user = json!([{"role": "user", "content": "u"}]);
    write_parquet(&path, &[json!({"prompt": user, "label": true, "n": 1})]);
    let bytes = std::fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        for flip in [0x01, 0x55, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            std::fs::write(&path, &damaged).unwrap();
            // Damage to a value may go unseen: the point is that the call returns.
            if let Err(error) = rows::read(&path) {
                assert!(error.to_string().contains("a.parquet cannot be read as Parquet"));
            }
        }
    }
}
