//! By what runs and evaluations were measured: whether win rates of one say something about those of another.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use infalign_record::env::data_dir;
use infalign_record::folder::{self, SETTINGS_VERSION};
use infalign_record::record::Input;

use crate::evaluate;
use crate::sources::Source;

/// Keys of recipes by which win rates are measured: what is won against, by whose word, and how responses are sampled.
const OF_RECIPES: [&str; 5] = ["model", "reward", "reward_model", "evaluation.judge", "generation"];
/// The same of evaluations' settings.
const OF_EVALUATIONS: [&str; 4] = ["--reference", "--judge", "--reward", "way to sample"];

/// What a source was measured by, by keys of its own kind.
struct Measures {
    kind: &'static str,
    /// Of what an evaluation says: values of another say the same in other words.
    version: Option<String>,
    values: BTreeMap<&'static str, String>,
}

/// Where sources were measured by something else than the first of them, a sentence each. They may be compared still: policies that were
/// trained on two rewards by a judge, for one.
pub(crate) fn warnings(sources: &[Source]) -> Vec<String> {
    let known = sources.iter().filter_map(|source| Some((&source.path, measures(&source.path)?)));
    let known: Vec<_> = known.collect();
    let Some((first, measured)) = known.first() else { return Vec::new() };
    let warning = |(path, other): &(&PathBuf, Measures)| {
        let (first, path) = (first.display(), path.display());
        if measured.kind != other.kind {
            return Some(format!(
                "{first} is {} and {path} {}: whether both were measured by one reward against one reference is not known",
                measured.kind, other.kind
            ));
        }
        if measured.version != other.version {
            return Some(format!(
                "{first} and {path} were evaluated by versions of infalign that tell models and rewards apart in different ways: whether both were measured by one reward against one reference is not known"
            ));
        }
        let keys: BTreeSet<&str> =
            measured.values.keys().chain(other.values.keys()).copied().collect();
        let differs = |key: &&str| measured.values.get(key) != other.values.get(key);
        let differ: Vec<&str> = keys.into_iter().filter(differs).collect();
        let keys = differ.join(" and in ");
        (!differ.is_empty()).then(|| {
            format!("{first} and {path} differ in {keys}: win rates of the one are no measure for the other")
        })
    };
    known[1..].iter().filter_map(warning).collect()
}

/// None of what says nothing about it, such as a file of samples.
fn measures(path: &Path) -> Option<Measures> {
    if let Some(settings) = evaluate::settings(path) {
        let value = |key: &'static str| Some((key, settings.get(key)?.clone()));
        let values = OF_EVALUATIONS.into_iter().filter_map(value).collect();
        let version = settings.get(SETTINGS_VERSION).cloned();
        return Some(Measures { kind: "an evaluation", version, values });
    }
    let recipe: toml::Table =
        std::fs::read_to_string(path.join(folder::CONFIG)).ok()?.parse().ok()?;
    let models = names(&recipe);
    let files = folder::record(path).map(|record| record.inputs).unwrap_or_default();
    let value = |key: &'static str| {
        let said = without_names(under(&recipe, key)?, &models);
        let seed = recipe.get("seed").filter(|_| key == "reward_model" && seeded_by_run(&recipe));
        Some((key, format!("{said} {seed:?} {:?}", digests(&files, key))))
    };
    let values = OF_RECIPES.into_iter().filter_map(value).collect();
    Some(Measures { kind: "a run", version: None, values })
}

/// Whether a reward model of a recipe has no seed of its own, so that another run trains another one.
fn seeded_by_run(recipe: &toml::Table) -> bool {
    let models = recipe.get("reward_model").and_then(toml::Value::as_array);
    models.into_iter().flatten().any(|model| model.get("seed").is_none())
}

/// What the files hold that a run has read for a key.
fn digests<'a>(files: &'a [Input], key: &str) -> BTreeSet<&'a str> {
    let of_key = |role: &str| {
        role.strip_prefix(key)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[', ' ']))
    };
    files.iter().filter(|file| of_key(&file.role)).map(|file| file.sha256.as_str()).collect()
}

/// What a recipe calls its reward models.
fn names(recipe: &toml::Table) -> Vec<&str> {
    let models = recipe.get("reward_model").and_then(toml::Value::as_array);
    let models = models.into_iter().flatten();
    models
        .map(|model| model.get("name").and_then(toml::Value::as_str).unwrap_or_default())
        .collect()
}

/// A value but for what things are called in their own run: reward models have their places in place of names, and data lie where they lie.
fn without_names(value: &toml::Value, models: &[&str]) -> toml::Value {
    match value {
        toml::Value::Table(table) => {
            let kept = table.iter().filter(|(key, _)| *key != "name");
            let kept = kept.map(|(key, value)| (key.clone(), without_names(value, models)));
            toml::Value::Table(kept.collect())
        }
        toml::Value::Array(values) => {
            toml::Value::Array(values.iter().map(|value| without_names(value, models)).collect())
        }
        toml::Value::String(text) => {
            let model = text.strip_prefix("$RUN/reward-models/");
            let place = model.and_then(|name| models.iter().position(|model| *model == name));
            let data = data_dir().map(|dir| dir.to_string_lossy().into_owned());
            toml::Value::String(match (place, data) {
                (Some(place), _) => format!("reward model {place}"),
                (None, Some(data)) => text.replace("$INFALIGN_DATA", &data),
                (None, None) => text.clone(),
            })
        }
        value => value.clone(),
    }
}

/// What a recipe has under a key, whose parts are divided by dots.
fn under<'a>(recipe: &'a toml::Table, key: &str) -> Option<&'a toml::Value> {
    let (first, rest) = key.split_once('.').unwrap_or((key, ""));
    match recipe.get(first)? {
        toml::Value::Table(inner) if !rest.is_empty() => under(inner, rest),
        value => rest.is_empty().then_some(value),
    }
}
