//! By what runs and evaluations were measured: whether win rates of one say something about those of another.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use infalign_record::env::data_dir;
use infalign_record::folder::{self, SETTINGS_VERSION};
use infalign_record::record::Input;

use crate::evaluate;
use crate::sources::Source;

/// Keys of recipes by which win rates are measured: what is won against, on what prompts, by whose word, and how responses are sampled.
const OF_RECIPES: [&str; 6] =
    ["model", "prompts", "reward", "reward_model", "evaluation.judge", "generation"];
/// The same of evaluations' settings.
const OF_EVALUATIONS: [&str; 5] =
    ["--reference", "--prompts", "--judge", "--reward", "way to sample"];
/// Those of them that samples may tell better: files that differ may hold the same prompts.
const OF_PROMPTS: [&str; 2] = ["prompts", "--prompts"];

/// What a source was measured by, by keys of its own kind.
struct Measures {
    kind: &'static str,
    /// Of what an evaluation says: values of another say the same in other words.
    version: Option<String>,
    values: BTreeMap<&'static str, String>,
    /// What tells the prompts, where all samples have it.
    prompts: Option<Vec<String>>,
}

impl Measures {
    /// What it has under a key. What evaluations say of a reference ends with the prompts as it reads them.
    fn value(&self, key: &str, same_prompts: bool) -> Option<&str> {
        let value = self.values.get(key)?;
        let model = value.rsplit_once(' ').filter(|_| key == "--reference" && !same_prompts);
        Some(model.map_or(value.as_str(), |(model, _)| model))
    }

    /// Whether another has the same prompts, as far as is known.
    fn has_prompts_of(&self, other: &Self) -> bool {
        match (&self.prompts, &other.prompts) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => OF_PROMPTS.iter().all(|key| self.values.get(key) == other.values.get(key)),
        }
    }
}

/// Refuses a run's method that is there twice, by another path or in a copy of the run: it would pass for two measurements.
///
/// # Errors
/// One sentence that names both.
pub(crate) fn refuse_copies(sources: &[Source]) -> Result<()> {
    let mut seen = HashMap::new();
    for source in sources.iter().filter(|source| source.path.is_dir()) {
        let whole = dunce::canonicalize(&source.path).unwrap_or_else(|_| source.path.clone());
        let uuid = source.record.as_ref().map(|record| record.uuid.clone());
        let run = uuid.unwrap_or_else(|| whole.display().to_string());
        for method in &source.methods {
            if let Some(first) = seen.insert((run.clone(), &method.name), &source.path) {
                bail!(
                    "the method {:?} of {} is that of {}, the same run or a copy of it: give it once",
                    method.name,
                    source.path.display(),
                    first.display()
                );
            }
        }
    }
    Ok(())
}

/// What is another than a run's record says, a sentence; or that the record cannot be read.
fn changed(source: &Source) -> Option<String> {
    let Some(record) = &source.record else {
        // Files of samples have none.
        let unread =
            folder::record_if_there(&source.path).err().filter(|_| source.path.is_dir())?;
        let run = source.path.display();
        return Some(format!("whether files of {run} are those on record is not known: {unread}"));
    };
    let outputs = &record.outputs;
    let is_other = |(file, sha256): &&(String, String)| {
        outputs.iter().any(|output| output.path == *file && output.sha256 != *sha256)
    };
    let (file, _) = source.origin.sha256.iter().find(is_other)?;
    let run = source.path.display();
    Some(format!(
        "{file} of {run} has changed since the run ended: its numbers may be others than on record; `infalign verify` tells more"
    ))
}

/// What speaks against numbers, a sentence each: files that are others than on record, and sources that were measured by something else than
/// the first of them. They may be compared still: policies that were trained on two rewards by a judge, for one.
pub(crate) fn warnings(sources: &[Source]) -> Vec<String> {
    let mut warnings: Vec<String> = sources.iter().filter_map(changed).collect();
    let mut known = Vec::new();
    // One alone is not compared with another.
    for source in sources.iter().filter(|_| sources.len() > 1) {
        match measures(source) {
            Ok(found) => known.extend(found.map(|found| (&source.path, found))),
            Err(error) => warnings.push(format!(
                "by what {} was measured is not known: {error:#}",
                source.path.display()
            )),
        }
    }
    let Some(((first, measured), others)) = known.split_first() else { return warnings };
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
        let same_prompts = measured.has_prompts_of(other);
        let differs = |key: &&str| match OF_PROMPTS.contains(key) {
            true => !same_prompts,
            false => measured.value(key, same_prompts) != other.value(key, same_prompts),
        };
        let differ: Vec<&str> = keys.into_iter().filter(differs).collect();
        let keys = differ.join(" and in ");
        (!differ.is_empty()).then(|| {
            format!("{first} and {path} differ in {keys}: win rates of the one are no measure for the other")
        })
    };
    warnings.extend(others.iter().filter_map(warning));
    warnings
}

/// None of what says nothing about it, such as a file of samples.
///
/// # Errors
/// When the file that says it cannot be read.
fn measures(source: &Source) -> Result<Option<Measures>> {
    let path = &source.path;
    let prompts = source.reference.prompts.iter().map(|prompt| prompt.sha256.clone()).collect();
    if let Some(settings) = evaluate::settings(path)? {
        let value = |key: &'static str| Some((key, settings.get(key)?.clone()));
        let values = OF_EVALUATIONS.into_iter().filter_map(value).collect();
        let version = settings.get(SETTINGS_VERSION).cloned();
        return Ok(Some(Measures { kind: "an evaluation", version, values, prompts }));
    }
    let config = path.join(folder::CONFIG);
    if !config.is_file() {
        return Ok(None);
    }
    let text = folder::text(path, folder::CONFIG)?;
    let recipe: toml::Table = text.parse().with_context(|| config.display().to_string())?;
    let models = names(&recipe);
    let has_record = path.join(folder::RECORD).exists();
    let files = if has_record { folder::record(path)?.inputs } else { Vec::new() };
    let value = |key: &'static str| {
        if key == "prompts" {
            return Some((key, held_out(&recipe, &files)?));
        }
        let said = without_names(under(&recipe, key)?, &models);
        let seed = recipe.get("seed").filter(|_| key == "reward_model" && seeded_by_run(&recipe));
        Some((key, format!("{said} {seed:?} {:?}", digests(&files, key))))
    };
    let values = OF_RECIPES.into_iter().filter_map(value).collect();
    Ok(Some(Measures { kind: "a run", version: None, values, prompts }))
}

/// What a recipe says of the prompts that are held out, wherever they lie; policies may be trained on others.
fn held_out(recipe: &toml::Table, files: &[Input]) -> Option<String> {
    let prompts = recipe.get("prompts")?.as_table()?;
    let of_file = prompts.get("test").is_some_and(toml::Value::is_str);
    let digests = digests(files, if of_file { "prompts.test" } else { "prompts" });
    let kept = |(key, value): &(&String, &toml::Value)| *key == "kind" || value.is_integer();
    let kept: Vec<_> = prompts.iter().filter(kept).collect();
    Some(format!("{kept:?} {digests:?}"))
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
