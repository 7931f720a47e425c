//! The reference pages of the book, generated: commands from their arguments, recipes from the types that they are read into, lines of metrics from
//! those that they are written from.
//!
//! The committed pages have to be the generated ones; `cargo xtask book` writes them.

mod commands;
mod metrics;
mod recipes;
mod source;

use std::path::{Path, PathBuf};

/// Set by `cargo xtask book`.
const WRITE: &str = "INFALIGN_WRITE_REFERENCE";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn check(name: &str, page: &str) {
    let path = root().join("docs/src/reference").join(name);
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let differing = committed.lines().zip(page.lines()).position(|(old, new)| old != new);
    assert!(
        committed == page,
        "docs/src/reference/{name} is out of date (line {}): run `cargo xtask book`",
        differing.unwrap_or(committed.lines().count()) + 1
    );
}

#[test]
fn the_reference_of_commands_is_that_of_the_program() {
    check("commands.md", &commands::page());
}

#[test]
fn the_reference_of_recipes_is_that_of_the_source() {
    check("recipes.md", &recipes::page());
}

#[test]
fn the_reference_of_metrics_is_that_of_the_source() {
    check("metrics.md", &metrics::page());
}

/// Keys of tables whose keys are names that a recipe makes up.
const OF_NAMES: [&str; 3] = ["weights", "rank_pattern", "alpha_pattern"];

fn keys(table: &toml::Table) -> Vec<String> {
    let mut keys = Vec::new();
    for (key, value) in table {
        keys.push(key.clone());
        let tables = match value {
            toml::Value::Table(table) => vec![table],
            toml::Value::Array(values) => values.iter().filter_map(|v| v.as_table()).collect(),
            _ => Vec::new(),
        };
        let inner = tables.into_iter().filter(|_| !OF_NAMES.contains(&key.as_str()));
        keys.extend(inner.flat_map(self::keys));
    }
    keys
}

#[test]
fn every_key_of_the_repositorys_recipes_is_in_the_reference() {
    let page = recipes::page();
    for file in std::fs::read_dir(root().join("recipes")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "toml") {
            let recipe: toml::Table =
                toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            for key in keys(&recipe) {
                assert!(page.contains(&format!("| `{key}` |")), "{}: {key}", path.display());
            }
        }
    }
}
