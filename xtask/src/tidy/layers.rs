//! Which crate may depend on which.

use super::{File, Finding};

/// A crate and the crates of this workspace that it may name, lower layers of lower layers
/// included. The direction is ARCHITECTURE.md's; development dependencies are free.
const ALLOWED: [(&str, &[&str]); 14] = [
    ("stats", &[]),
    ("record", &[]),
    ("data", &[]),
    ("backend", &[]),
    ("remote", &[]),
    ("transform", &["stats"]),
    ("calibrate", &["stats"]),
    ("model", &["backend"]),
    ("reward", &["model", "data", "backend", "remote"]),
    ("decode", &["model", "reward", "transform", "backend", "data", "stats", "remote"]),
    (
        "train",
        &[
            "model",
            "decode",
            "calibrate",
            "transform",
            "reward",
            "data",
            "record",
            "backend",
            "stats",
            "remote",
        ],
    ),
    (
        "evaluate",
        &[
            "decode",
            "calibrate",
            "transform",
            "stats",
            "reward",
            "model",
            "backend",
            "data",
            "record",
            "remote",
        ],
    ),
    (
        "serve",
        &["decode", "transform", "stats", "reward", "model", "backend", "data", "record", "remote"],
    ),
    ("xtask", &[]),
];

/// These may name every library.
const ON_TOP: [&str; 2] = ["cli", "infalign"];

/// Only these may name burn.
const WITH_TENSORS: [&str; 4] = ["backend", "model", "decode", "train"];

#[derive(Debug, PartialEq)]
struct Dependency {
    line: usize,
    name: String,
    /// Of tests, examples and benchmarks.
    development: bool,
}

/// Checks one Cargo.toml of a package of the workspace.
pub(super) fn check(manifest: &File) -> Vec<Finding> {
    let Some(package) = package(&manifest.path) else { return Vec::new() };
    let problem = |dependency: Dependency| {
        let what =
            layer_problem(package, &dependency).or_else(|| burn_problem(package, &dependency))?;
        Some(Finding::new(&manifest.path, dependency.line, what))
    };
    dependencies(&manifest.text).into_iter().filter_map(problem).collect()
}

/// The folder's name, which is the package's without `infalign-`.
fn package(path: &str) -> Option<&str> {
    let folder = path.strip_suffix("/Cargo.toml")?;
    folder.strip_prefix("crates/").or((folder == "xtask").then_some(folder))
}

fn layer_problem(package: &str, dependency: &Dependency) -> Option<String> {
    let name = dependency.name.strip_prefix("infalign-")?;
    if dependency.development || ON_TOP.contains(&package) {
        return None;
    }
    let Some((_, allowed)) = ALLOWED.iter().find(|(of, _)| *of == package) else {
        return Some(format!(
            "The crate `{package}` has no layer. Add it to the table of xtask/src/tidy/layers.rs \
             and to ARCHITECTURE.md."
        ));
    };
    (!allowed.contains(&name)).then(|| {
        format!(
            "`{package}` may not depend on `{name}`, only on: {}. Move the code to the layer it \
             belongs to.",
            if allowed.is_empty() {
                "nothing of this workspace".to_owned()
            } else {
                allowed.join(", ")
            }
        )
    })
}

fn burn_problem(package: &str, dependency: &Dependency) -> Option<String> {
    let name = dependency.name.as_str();
    if name == "burn" && !WITH_TENSORS.contains(&package) {
        return Some(format!(
            "`{package}` may not name burn: only {} may.",
            WITH_TENSORS.join(", ")
        ));
    }
    (name.starts_with("burn-") && package != "backend")
        .then(|| format!("Only `backend` names {name}. Use what it offers, or `burn`."))
}

/// The names in all dependency tables, read line by line.
fn dependencies(manifest: &str) -> Vec<Dependency> {
    let mut dependencies = Vec::new();
    let mut table = String::new();
    for (text, line) in manifest.lines().zip(1..) {
        let text = text.trim();
        let name = if let Some(header) = text.strip_prefix('[') {
            table = header.trim_end_matches(']').to_owned();
            table.split_once("dependencies.").map(|(_, name)| name)
        } else if table.ends_with("dependencies") && !text.starts_with('#') {
            text.split(['=', '.', ' ']).next().filter(|_| text.contains('='))
        } else {
            None
        };
        if let Some(name) = name {
            let development = table.contains("dev-dependencies");
            dependencies.push(Dependency {
                line,
                name: name.trim_matches('"').to_owned(),
                development,
            });
        }
    }
    dependencies
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        let file = File { path: path.to_owned(), text: text.to_owned() };
        check(&file).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_form_of_a_dependency_is_read() {
        let text = "[package]\nname = \"x\"\n[dependencies]\n# no = 1\na.workspace = true\nb = \"1\"\n\
                    features = [\n  \"f\",\n]\n[dependencies.c]\nversion = \"1\"\n\
                    [target.'cfg(unix)'.dependencies]\nd = { path = \"d\" }\n[dev-dependencies]\ne = \"1\"\n";
        let names: Vec<_> =
            dependencies(text).into_iter().map(|d| (d.line, d.name, d.development)).collect();
        let expected = [
            (5, "a", false),
            (6, "b", false),
            (7, "features", false),
            (10, "c", false),
            (13, "d", false),
            (15, "e", true),
        ];
        assert_eq!(names, expected.map(|(line, name, dev)| (line, name.to_owned(), dev)));
    }

    #[test]
    fn a_dependency_against_the_direction_is_found() {
        let text =
            "[dependencies]\ninfalign-stats.workspace = true\ninfalign-train.workspace = true\n";
        let found = messages("crates/transform/Cargo.toml", text);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with(
            "crates/transform/Cargo.toml:3: `transform` may not depend on `train`, only on: stats."
        ));
        assert!(messages("crates/cli/Cargo.toml", text).is_empty());
        assert!(messages("crates/record/Cargo.toml", &text.replace("[", "[dev-")).is_empty());
        assert_eq!(messages("crates/record/Cargo.toml", text).len(), 2);
        assert!(messages("crates/novel/Cargo.toml", text)[0].contains("has no layer"));
        assert!(messages("Cargo.toml", text).is_empty());
    }

    #[test]
    fn burn_stays_where_tensors_are() {
        let burn = "[dependencies]\nburn.workspace = true\n";
        assert!(messages("crates/model/Cargo.toml", burn).is_empty());
        assert_eq!(messages("crates/cli/Cargo.toml", burn).len(), 1);
        assert_eq!(messages("crates/evaluate/Cargo.toml", burn).len(), 1);
        assert_eq!(messages("crates/stats/Cargo.toml", &burn.replace("[", "[dev-")).len(), 1);
        let flex = "[dependencies]\nburn-flex = \"1\"\n";
        assert!(messages("crates/backend/Cargo.toml", flex).is_empty());
        assert_eq!(messages("crates/model/Cargo.toml", flex).len(), 1);
    }

    /// What the table allows is closed: a crate may name whatever those that it names may name.
    #[test]
    fn the_table_is_transitive_and_has_no_cycle() {
        let of = |name: &str| ALLOWED.iter().find(|(crate_name, _)| *crate_name == name).unwrap().1;
        for (name, allowed) in ALLOWED {
            assert!(!allowed.contains(&name), "{name} depends on itself");
            for lower in allowed {
                assert!(of(lower).iter().all(|below| allowed.contains(below)), "{name} -> {lower}");
            }
        }
    }
}
