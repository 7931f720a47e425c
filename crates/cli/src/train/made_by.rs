//! What the stages of a run were made by. What an unfinished run holds may be of other settings or of another stage: a recipe was edited, or files
//! were copied into it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use infalign_evaluate::Sampled;
use infalign_record::compare::inputs_by_name;
use infalign_record::folder::{self, CONFIG, is_weights};
use infalign_record::hash::sha256_bytes;
use infalign_train::Nearness;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::Value;

use super::scorer::Row;
use crate::files::{make_folder, read, write_json};
use crate::recipe::read_resolved;
use crate::resume::Damaged;

/// Keys of recipes that nothing is made by.
const OF_PAPERS: [&str; 2] = ["expect", "name"];
/// Which of a run's stages it was, by the place of what it makes.
const STAGE: &str = "stage";
/// How the name of an input begins, after which its role comes, and its name where several files have one.
const INPUT: &str = "input ";
/// What a folder of checkpoints says of it.
const OF_CHECKPOINTS: &str = "made-by.json";
/// What a model's folder may hold besides its weights that numbers depend on.
const COMPUTED_WITH: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];
/// How the names of checkpoints begin.
const STEP: &str = "step-";

/// By names, digests of what they stand for.
type Digests = BTreeMap<String, String>;

/// What the stages of a run are made by: what its recipe says, table by table, and what its inputs hold, wherever they and the run lie.
pub(crate) struct MadeBy {
    run: PathBuf,
    digests: Digests,
}

/// What a stage makes, as its file has it.
#[derive(Serialize)]
struct Marked<'a, T> {
    made_by: &'a Digests,
    #[serde(flatten)]
    made: &'a T,
}

/// What a file says of it; nothing in those of older programs.
#[derive(Deserialize)]
struct Mark {
    #[serde(default)]
    made_by: Option<Digests>,
}

/// What a stage makes and a file keeps.
pub(crate) trait Product: Serialize + DeserializeOwned {
    /// Writes it with what it was made by.
    ///
    /// # Errors
    /// When the file cannot be written.
    fn write(&self, path: &Path, made_by: &Digests) -> Result<()> {
        write_json(path, &Marked { made_by, made: self })
    }
}

impl Product for Sampled {}

impl Product for Nearness {}

impl Product for Row {}

impl Product for (Sampled, Sampled) {
    fn write(&self, path: &Path, made_by: &Digests) -> Result<()> {
        let marked = [&self.0, &self.1].map(|made| Marked { made_by, made });
        write_json(path, &marked)
    }
}

impl MadeBy {
    /// What those of a run on record are made by.
    ///
    /// # Errors
    /// When its recipe or its record cannot be read.
    pub(crate) fn of(run: &Path) -> Result<Self> {
        let [models, files] = read_resolved(&run.join(CONFIG))?.reads()?;
        let paths = models.into_iter().chain(files).map(|(_, path)| path);
        // In the run's folder a place says what is there.
        let paths: Vec<PathBuf> = paths.filter(|path| !path.starts_with("$RUN")).collect();
        let mut digests = Digests::new();
        let table: toml::Table = toml::from_str(&folder::text(run, CONFIG)?)?;
        for (key, mut value) in table.into_iter().filter(|(key, _)| !is_of_papers(key)) {
            take_out(&mut value, &paths);
            digests.insert(key, sha256_bytes(&serde_json::to_vec(&value)?));
        }
        let inputs = inputs_by_name(&folder::record(run)?).into_iter();
        let input = |(name, all): (String, Vec<String>)| {
            (format!("{INPUT}{name}"), sha256_bytes(all.concat().as_bytes()))
        };
        digests.extend(inputs.map(input));
        Ok(Self { run: run.to_path_buf(), digests })
    }

    /// The same with the stage that makes what lies at a path.
    fn at(&self, path: &Path) -> Digests {
        let place = path.strip_prefix(&self.run).unwrap_or(path);
        let parts = place.components().map(|part| part.as_os_str().to_string_lossy());
        let stage = (STAGE.to_owned(), parts.collect::<Vec<_>>().join("/"));
        self.digests.clone().into_iter().chain([stage]).collect()
    }

    /// Writes what the stage of a path has made.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, path: &Path, made: &impl Product) -> Result<()> {
        made.write(path, &self.at(path))
    }

    /// Reads what the stage of a path has made; a file of an older program does not say by what it was made.
    ///
    /// # Errors
    /// When the file cannot be read; [`Damaged`] with what differs where something else has made it.
    pub(crate) fn read<T: Product>(&self, path: &Path) -> Result<T> {
        let bytes = read(path)?;
        let made = serde_json::from_slice(&bytes).with_context(|| Damaged::at(path))?;
        self.check(&bytes, path, path)?;
        Ok(made)
    }

    /// Has the checkpoints of a training begin with what they are made by, and refuses those that are made by something else.
    ///
    /// # Errors
    /// As [`MadeBy::read`], and when the file cannot be written.
    pub(crate) fn check_checkpoints(&self, dir: &Path) -> Result<()> {
        let file = dir.join(OF_CHECKPOINTS);
        if file.exists() || has_checkpoint(dir) {
            return self.check_trained(dir, dir);
        }
        make_folder(dir)?;
        write_json(&file, &BTreeMap::from([("made_by", self.at(dir))]))
    }

    /// Refuses what a training has made where the folder of its checkpoints is there and says that they are made by something else.
    ///
    /// # Errors
    /// As [`MadeBy::read`].
    pub(crate) fn check_trained(&self, made: &Path, checkpoints: &Path) -> Result<()> {
        let file = checkpoints.join(OF_CHECKPOINTS);
        if !file.exists() {
            return Ok(());
        }
        let bytes = std::fs::read(file).with_context(|| Damaged::at(made))?;
        self.check(&bytes, checkpoints, made)
    }

    /// - `bytes`: of a file with marks; `stage`: the place of what the stage makes; `path`: of what is refused.
    fn check(&self, bytes: &[u8], stage: &Path, path: &Path) -> Result<()> {
        let damaged = || Damaged::at(path);
        // Of the rest of the file, nothing is kept.
        let marks: Vec<Mark> = match bytes.trim_ascii_start().starts_with(b"[") {
            true => serde_json::from_slice(bytes).with_context(damaged)?,
            false => vec![serde_json::from_slice(bytes).with_context(damaged)?],
        };
        let ours = self.at(stage);
        let mut theirs = marks.into_iter().filter_map(|mark| mark.made_by);
        match theirs.find_map(|theirs| difference(&ours, &theirs)) {
            Some(differs) => Err(anyhow!(differs).context(damaged())),
            None => Ok(()),
        }
    }
}

/// Whether there is a checkpoint in a folder, whole or not.
fn has_checkpoint(dir: &Path) -> bool {
    let mut entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name().to_string_lossy().starts_with(STEP))
}

/// What differs, in words. A file that one of the two lacks is no difference where nothing is computed with it: models get such files.
fn difference(ours: &Digests, theirs: &Digests) -> Option<String> {
    let lacks = |key: &str| !ours.contains_key(key) || !theirs.contains_key(key);
    let mut keys = ours.keys().chain(theirs.keys());
    let differs = |key: &&String| {
        ours.get(*key) != theirs.get(*key) && (is_computed_with(key) || !lacks(key))
    };
    let key = keys.find(differs)?;
    Some(match theirs.get(key) {
        Some(stage) if key == STAGE => format!("it was made as {stage}"),
        _ => format!("it was made with another {key}"),
    })
}

/// Whether what a run makes may depend on that part of its recipe, or on that file of its inputs.
fn is_computed_with(key: &str) -> bool {
    let file = key.strip_prefix(INPUT).and_then(|input| input.rsplit_once('/'));
    file.is_none_or(|(_, name)| is_weights(name.as_ref()) || COMPUTED_WITH.contains(&name))
}

fn is_of_papers(key: &str) -> bool {
    OF_PAPERS.contains(&key)
}

/// Takes the places of inputs out of a recipe: what lies there counts by itself.
fn take_out(value: &mut Value, paths: &[PathBuf]) {
    match value {
        Value::String(text) => {
            let path = Path::new(text.strip_prefix("table:").unwrap_or(text));
            if paths.iter().any(|one| one == path) {
                text.clear();
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|one| take_out(one, paths)),
        Value::Table(table) => table.iter_mut().for_each(|(_, one)| take_out(one, paths)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use infalign_record::hash::sha256_file;
    use infalign_record::{InputFile, Opening, Recorder};

    use super::*;
    use crate::bundle;
    use crate::recipe::read_text;

    /// A run that has begun, with prompts of its own to train on.
    fn begun(root: &Path, name: &str, seed: u64, prompts: &str) -> MadeBy {
        let run = root.join(name);
        std::fs::create_dir(&run).unwrap();
        let path = root.join(format!("{name}.jsonl"));
        std::fs::write(&path, prompts).unwrap();
        let sets = [format!("seed={seed}"), format!("prompts.train='{}'", path.display())];
        let recipe = read_text(bundle::RECIPE, name, bundle::FOLDER.as_ref(), &sets).unwrap();
        std::fs::write(run.join(CONFIG), recipe.to_toml().unwrap()).unwrap();
        let input = InputFile { role: "prompts.train".into(), name: name.into(), path };
        let opening = Opening { inputs: vec![input], ..Opening::default() };
        drop(Recorder::begin(&run, opening).unwrap());
        MadeBy::of(&run).unwrap()
    }

    fn sampled() -> Sampled {
        Sampled {
            rewards: vec![vec![0.1]],
            log_ratios: Some(vec![vec![0.1]]),
            ..Sampled::default()
        }
    }

    #[test]
    fn what_is_of_another_stage_seed_or_input_is_refused_and_says_so() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let ours = begun(root, "ours", 1, "a");
        let path = ours.run.join("samples.json");
        for (name, seed, prompts, told) in [
            ("same", 1, "a", None),
            ("seed", 2, "a", Some("it was made with another seed")),
            ("prompts", 1, "b", Some("it was made with another input prompts.train")),
        ] {
            let theirs = begun(root, name, seed, prompts);
            let from = theirs.run.join("samples.json");
            let pair = (sampled(), sampled());
            for list in [false, true] {
                match list {
                    true => theirs.write(&from, &pair).unwrap(),
                    false => theirs.write(&from, &pair.0).unwrap(),
                }
                std::fs::copy(&from, &path).unwrap();
                let found = match list {
                    true => ours.read::<(Sampled, Sampled)>(&path).map(drop),
                    false => ours.read::<Sampled>(&path).map(drop),
                };
                let found = found.map_err(|error| {
                    assert!(error.is::<Damaged>(), "{error:#}");
                    format!("{error:#}")
                });
                match told {
                    None => found.unwrap(),
                    Some(told) => {
                        let found = found.unwrap_err();
                        assert!(found.contains("samples.json cannot be used"), "{found}");
                        assert!(found.contains(told), "{found}");
                    }
                }
                // The same bytes wherever the run lies.
                let written = sha256_file(&from).unwrap();
                match list {
                    true => ours.write(&path, &pair).unwrap(),
                    false => ours.write(&path, &pair.0).unwrap(),
                }
                assert_eq!(sha256_file(&path).unwrap() == written, told.is_none());
            }
        }
        let moved = ours.run.join("other.json");
        std::fs::copy(&path, &moved).unwrap();
        let error = format!("{:#}", ours.read::<(Sampled, Sampled)>(&moved).unwrap_err());
        assert!(error.contains("it was made as samples.json"), "{error}");
    }

    #[test]
    fn a_product_reads_back_without_its_mark_and_may_have_none() {
        let root = tempfile::tempdir().unwrap();
        let ours = begun(root.path(), "ours", 1, "a");
        let path = ours.run.join("samples.json");
        ours.write(&path, &sampled()).unwrap();
        assert_eq!(ours.read::<Sampled>(&path).unwrap(), sampled());
        let older = sampled();
        write_json(&path, &older).unwrap();
        ours.read::<Sampled>(&path).unwrap();
        write_json(&path, &(&older, &older)).unwrap();
        ours.read::<(Sampled, Sampled)>(&path).unwrap();
    }

    #[test]
    fn a_file_without_effect_is_no_difference_and_weights_and_tables_of_the_recipe_are() {
        let of = |names: &[&str]| -> Digests {
            names.iter().map(|name| ((*name).to_owned(), "0".to_owned())).collect()
        };
        let few = of(&["a", "input model/w"]);
        let more = of(&["a", "input model/vocab.json", "input model/w"]);
        assert_eq!((difference(&few, &more), difference(&more, &few)), (None, None));
        for added in ["b", "input model (base)/2.safetensors", "input model/config.json", "input c"]
        {
            let more = of(&["a", added, "input model/w"]);
            for (ours, theirs) in [(&few, &more), (&more, &few)] {
                let told = difference(ours, theirs).unwrap();
                assert_eq!(told, format!("it was made with another {added}"));
            }
        }
        let other = Digests::from([("input model/w".to_owned(), "1".to_owned())]);
        let changed: Digests = few.clone().into_iter().chain(other).collect();
        let told = difference(&few, &changed).unwrap();
        assert_eq!(told, "it was made with another input model/w");
    }

    #[test]
    fn a_run_whose_inputs_lie_elsewhere_goes_on() {
        let root = tempfile::tempdir().unwrap();
        let ours = begun(root.path(), "ours", 1, "a");
        let path = ours.run.join("samples.json");
        ours.write(&path, &sampled()).unwrap();
        let config = ours.run.join(CONFIG);
        let text = std::fs::read_to_string(&config).unwrap();
        assert!(text.contains("ours.jsonl"));
        std::fs::write(&config, text.replace("ours.jsonl", "moved.jsonl")).unwrap();
        MadeBy::of(&ours.run).unwrap().read::<Sampled>(&path).unwrap();
    }

    #[test]
    fn checkpoints_are_those_of_one_training() {
        let root = tempfile::tempdir().unwrap();
        let ours = begun(root.path(), "ours", 1, "a");
        let [one, other, older] =
            ["a", "b", "c"].map(|name| ours.run.join(format!("methods/{name}/checkpoints")));
        for _ in 0..2 {
            ours.check_checkpoints(&one).unwrap();
        }
        make_folder(&other).unwrap();
        std::fs::copy(one.join(OF_CHECKPOINTS), other.join(OF_CHECKPOINTS)).unwrap();
        let error = ours.check_checkpoints(&other).unwrap_err();
        assert!(error.is::<Damaged>(), "{error:#}");
        let error = format!("{error:#}");
        assert!(error.contains("it was made as methods/a/checkpoints"), "{error}");
        let policy = other.with_file_name("policy");
        let error = format!("{:#}", ours.check_trained(&policy, &other).unwrap_err());
        assert!(error.contains("policy cannot be used: delete it"), "{error}");
        ours.check_trained(&policy, &older).unwrap();
        // Those of an older program, and what a process left that was killed before it said so.
        let step = older.join("step-000001");
        make_folder(&step).unwrap();
        ours.check_checkpoints(&older).unwrap();
        assert!(!older.join(OF_CHECKPOINTS).exists());
        std::fs::remove_dir(step).unwrap();
        ours.check_checkpoints(&older).unwrap();
        assert!(older.join(OF_CHECKPOINTS).exists());
    }
}
