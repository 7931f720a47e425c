//! From TOML text and `--set` to a recipe, with errors that name the line and the key that was meant.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use infalign_reward::RewardConfig;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::paths::{anchor, anchor_model};
use super::set;
use super::{AlignRecipe, LanguageModelRecipe, RewardModelRecipe, RewardModelStage, ScorerRecipe};

/// The tasks of recipes.
const TASKS: &str = "\"align\", \"language-model\", \"reward-model\" or \"scorer\"";
/// What a mark begins with that stands for a path; no text of a recipe has it.
const MARK: char = '\u{e000}';

/// A recipe of any task.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Recipe {
    /// `task = "align"`.
    Align(Box<AlignRecipe>),
    /// `task = "language-model"`.
    LanguageModel(Box<LanguageModelRecipe>),
    /// `task = "reward-model"`.
    RewardModel(Box<RewardModelRecipe>),
    /// `task = "scorer"`.
    Scorer(Box<ScorerRecipe>),
}

/// Reads a recipe, applies `--set key=value` and makes its paths absolute.
///
/// # Errors
/// One sentence that names the file, the line and the key, with the valid ones for an unknown one, and the one that it may be a slip of.
pub(crate) fn read(path: &Path, sets: &[String]) -> Result<Recipe> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the recipe {}", path.display()))?;
    let folder = dunce::canonicalize(folder)
        .with_context(|| format!("cannot find the folder {}", folder.display()))?;
    read_text(&text, &path.display().to_string(), &folder, sets)
}

/// Reads a recipe from its text; its relative paths are taken from `folder`.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_text(
    text: &str,
    origin: &str,
    folder: &Path,
    sets: &[String],
) -> Result<Recipe> {
    let mut recipe = parse(text, origin, sets)?;
    recipe.anchor(folder).with_context(|| origin.to_owned())?;
    Ok(recipe)
}

/// Reads the resolved recipe that a run has saved.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_resolved(path: &Path) -> Result<Recipe> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the run's recipe {}", path.display()))?;
    parse(&text, &path.display().to_string(), &[])
}

fn parse(text: &str, origin: &str, sets: &[String]) -> Result<Recipe> {
    let table: Table = toml::from_str(text).map_err(|error| describe(&error, text, origin))?;
    let task = table.get("task").and_then(Value::as_str).map(str::to_owned);
    let mut given = Value::Table(table);
    let recipe = match task.as_deref() {
        Some("align") => Recipe::Align(deserialize(text, origin, &mut given, sets)?),
        Some("language-model") => {
            Recipe::LanguageModel(deserialize(text, origin, &mut given, sets)?)
        }
        Some("reward-model") => Recipe::RewardModel(deserialize(text, origin, &mut given, sets)?),
        Some("scorer") => Recipe::Scorer(deserialize(text, origin, &mut given, sets)?),
        Some(other) => bail!("{origin}: task is \"{other}\": it must be {TASKS}"),
        None => bail!("{origin}: the key `task` is missing: it must be {TASKS}"),
    };
    let read: Value = toml::from_str(&recipe.to_toml()?)?;
    check_tables(&given, &read, "").with_context(|| origin.to_owned())?;
    Ok(recipe)
}

/// The file is read once as it stands, for errors with lines, and then with the settings of the command line.
///
/// - `given`: the file's keys and values; afterwards with those of the command line.
fn deserialize<T: DeserializeOwned>(
    text: &str,
    origin: &str,
    given: &mut Value,
    sets: &[String],
) -> Result<T> {
    let recipe = toml::from_str(text).map_err(|error| describe(&error, text, origin))?;
    if sets.is_empty() {
        return Ok(recipe);
    }
    sets.iter().try_for_each(|set| set::apply(given, set))?;
    given.clone().try_into().map_err(|error: toml::de::Error| {
        anyhow!("--set {}: {}", sets.join(" --set "), with_nearest(error.message()))
    })
}

/// Refuses arrays in place of tables, whose keys serde would take their elements for, by an order that no recipe tells.
///
/// - `read`: what was made of `given`, as it is written.
fn check_tables(given: &Value, read: &Value, key: &str) -> Result<()> {
    match (given, read) {
        (Value::Array(_), Value::Table(_)) => {
            bail!("`{key}` is an array, but it has to be a table, as in {key} = {{ key = value }}")
        }
        (Value::Table(given), Value::Table(read)) => given.iter().try_for_each(|(name, given)| {
            let dot = if key.is_empty() { "" } else { "." };
            let read = read.get(name);
            read.map_or(Ok(()), |read| check_tables(given, read, &format!("{key}{dot}{name}")))
        }),
        (Value::Array(given), Value::Array(read)) => {
            let mut both = given.iter().zip(read).enumerate();
            both.try_for_each(|(index, (given, read))| {
                check_tables(given, read, &format!("{key}[{index}]"))
            })
        }
        _ => Ok(()),
    }
}

fn describe(error: &toml::de::Error, text: &str, origin: &str) -> anyhow::Error {
    let line =
        error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let place = line.map_or(origin.to_owned(), |line| format!("{origin}, line {line}"));
    anyhow!("{place}: {}", with_nearest(error.message()))
}

/// Adds the valid key that was meant to serde's message about an unknown one, where that is a slip of it.
fn with_nearest(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let nearest = match (message.starts_with("unknown"), quoted.next()) {
        (true, Some(unknown)) => {
            let slips = quoted.filter_map(|valid| Some((slips(valid, unknown)?, valid)));
            slips.min_by_key(|(slips, _)| *slips).map(|(_, valid)| valid)
        }
        _ => None,
    };
    let message = message.trim_end();
    nearest.map_or(message.to_owned(), |nearest| format!("{message}; did you mean `{nearest}`?"))
}

/// By how many letters a word is another one: none where that is too many for a slip, or digits differ, which tell keys apart. A key of another
/// meaning would be a worse hint than none.
fn slips(valid: &str, unknown: &str) -> Option<usize> {
    let digits = |word: &str| word.chars().filter(char::is_ascii_digit).collect::<String>();
    let slips = strsim::osa_distance(valid, unknown);
    let few = slips <= 2 && 2 * slips < valid.chars().count().max(unknown.chars().count());
    (few && digits(valid) == digits(unknown)).then_some(slips)
}

impl Recipe {
    /// Seed of every random draw.
    pub(crate) fn seed(&self) -> u64 {
        match self {
            Self::Align(recipe) => recipe.seed,
            Self::LanguageModel(recipe) => recipe.seed,
            Self::RewardModel(recipe) => recipe.seed,
            Self::Scorer(recipe) => recipe.seed,
        }
    }

    /// The resolved recipe as TOML, every default explicit.
    ///
    /// # Errors
    /// When a value cannot be written as TOML.
    pub(crate) fn to_toml(&self) -> Result<String> {
        Ok(match self {
            Self::Align(recipe) => toml::to_string_pretty(recipe)?,
            Self::LanguageModel(recipe) => toml::to_string_pretty(recipe)?,
            Self::RewardModel(recipe) => toml::to_string_pretty(recipe)?,
            Self::Scorer(recipe) => toml::to_string_pretty(recipe)?,
        })
    }

    /// Models and other files that the recipe reads, each with the key that names it.
    ///
    /// # Errors
    /// As [`Recipe::to_toml`].
    pub(crate) fn reads(&self) -> Result<[Vec<(String, PathBuf)>; 2]> {
        let mut marked = self.clone();
        let models = mark(marked.models_mut(), "model");
        let files = mark(marked.files_mut(), "file");
        let texts = texts(&toml::from_str(&marked.to_toml()?)?);
        let key = |mark: &str| {
            // The file of a table stands behind `table:`.
            let found = texts.iter().find(|(text, _)| text.ends_with(mark));
            found.map(|(_, key)| key.clone()).unwrap_or_default()
        };
        Ok([models, files]
            .map(|marked| marked.into_iter().map(|(mark, path)| (key(&mark), path)).collect()))
    }

    fn anchor(&mut self, folder: &Path) -> Result<()> {
        self.files_mut().into_iter().for_each(|path| anchor(path, folder));
        self.models_mut().into_iter().try_for_each(|path| anchor_model(path, folder))
    }

    /// Every model that the recipe reads.
    fn models_mut(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Align(recipe) => recipe.models_mut(),
            Self::LanguageModel(_) => Vec::new(),
            Self::RewardModel(recipe) => vec![&mut recipe.stage.base],
            Self::Scorer(recipe) => recipe.models_mut(),
        }
    }

    /// Every other file that the recipe reads.
    fn files_mut(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Align(recipe) => recipe.files_mut(),
            Self::LanguageModel(recipe) => vec![&mut recipe.grammar],
            Self::RewardModel(recipe) => recipe.stage.files_mut().collect(),
            Self::Scorer(recipe) => recipe.files_mut(),
        }
    }
}

/// Puts a mark of its own in the place of each path, by which its key is found: two keys may have the same path.
fn mark(paths: Vec<&mut PathBuf>, what: &str) -> Vec<(String, PathBuf)> {
    let marked = paths.into_iter().enumerate().map(|(index, path)| {
        let mark = format!("{MARK}{what} {index}");
        let path = std::mem::replace(path, PathBuf::from(&mark));
        (mark, path)
    });
    marked.collect()
}

/// Every text of a recipe, with its key.
fn texts(value: &Value) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    let mut waiting = vec![(String::new(), value)];
    while let Some((key, value)) = waiting.pop() {
        match value {
            Value::String(text) => texts.push((text.clone(), key)),
            Value::Table(table) => {
                let dot = if key.is_empty() { "" } else { "." };
                waiting
                    .extend(table.iter().map(|(name, value)| (format!("{key}{dot}{name}"), value)));
            }
            Value::Array(values) => {
                let indexed = values.iter().enumerate();
                waiting.extend(indexed.map(|(index, value)| (format!("{key}[{index}]"), value)));
            }
            _ => {}
        }
    }
    texts
}

impl AlignRecipe {
    /// Whether some file is read from under a folder.
    pub(crate) fn reads_under(&self, folder: &str) -> bool {
        let mut recipe = self.clone();
        recipe.models_mut().iter().any(|path| path.starts_with(folder))
            || recipe.files_mut().iter().any(|path| path.starts_with(folder))
    }

    /// Every model that the recipe reads.
    fn models_mut(&mut self) -> Vec<&mut PathBuf> {
        let rewards = [Some(&mut self.reward), self.evaluation.judge.as_mut()];
        let mut models = vec![&mut self.model];
        models.extend(rewards.into_iter().flatten().flat_map(RewardConfig::models_mut));
        models.extend(self.reward_model.iter_mut().map(|stage| &mut stage.base));
        models
    }

    /// Every other file that the recipe reads.
    fn files_mut(&mut self) -> Vec<&mut PathBuf> {
        let mut files = self.prompts.files_mut();
        let rewards = [Some(&mut self.reward), self.evaluation.judge.as_mut()];
        files.extend(rewards.into_iter().flatten().flat_map(RewardConfig::files_mut));
        files.extend(self.reward_model.iter_mut().flat_map(RewardModelStage::files_mut));
        files.extend(self.calibration.iter_mut().filter_map(|config| config.table.as_mut()));
        files.extend(self.method.iter_mut().flat_map(|method| method.kind.files_mut()));
        files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICKSTART: &str = include_str!("../../../../recipes/quickstart.toml");

    #[test]
    fn a_resolved_recipe_reads_back_the_same() {
        let recipe = parse(QUICKSTART, "quickstart.toml", &[]).unwrap();
        assert_eq!(parse(&recipe.to_toml().unwrap(), "config.toml", &[]).unwrap(), recipe);
    }

    #[test]
    fn unknown_keys_name_the_line_and_the_nearest() {
        let text = QUICKSTART.replace("prompts_per_step", "prompt_per_step");
        let line = text.lines().position(|l| l.starts_with("prompt_per_step")).unwrap() + 1;
        let message = parse(&text, "my.toml", &[]).unwrap_err().to_string();
        assert!(
            message.contains("did you mean `prompts_per_step`") && message.contains("my.toml"),
            "{message}"
        );
        assert!(message.contains(&format!("line {line}:")), "{message}");
    }

    #[test]
    fn keys_of_other_trainers_are_not_taken_for_slips() {
        let told =
            |set: &str| parse(QUICKSTART, "q.toml", &[set.to_owned()]).unwrap_err().to_string();
        let lora = |key: &str| {
            format!(
                "train.lora={{ r = 1, lora_alpha = 1, target_modules = 'all-linear', {key} = 0.1 }}"
            )
        };
        let dpo = |key: &str| {
            format!(
                "method=[{{ name = 'a', kind = 'dpo', beta = 1, {key} = 0.1, \
                 train = {{ steps = 1, examples_per_step = 1, optimizer = {{ learning_rate = 0.1 }} }} }}]"
            )
        };
        for (set, key) in [
            ("train.optimizer.betas=[0.9, 0.95]".to_owned(), "betas"),
            ("train.optimizer.beta_1=0.9".to_owned(), "beta_1"),
            (dpo("label_smoothing"), "label_smoothing"),
            (lora("lora_dropout"), "lora_dropout"),
            (lora("use_dora"), "use_dora"),
        ] {
            let message = told(&set);
            assert!(message.contains(&format!("unknown field `{key}`")), "{message}");
            assert!(!message.contains("did you mean"), "{message}");
        }
        for (set, meant) in [
            ("train.optimizer.learnign_rate=0.1".to_owned(), "learning_rate"),
            ("train.optimizer.final-share=0.1".to_owned(), "final_share"),
            (dpo("label"), "labels"),
            (lora("lora_alfa"), "lora_alpha"),
        ] {
            let message = told(&set);
            assert!(message.ends_with(&format!("did you mean `{meant}`?")), "{message}");
        }
    }

    #[test]
    fn settings_of_the_command_line_win() {
        let set = |sets: &[&str]| {
            parse(QUICKSTART, "q.toml", &sets.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
        };
        let Recipe::Align(recipe) = set(&["train.steps=7", "name=mine"]).unwrap() else {
            panic!("an align recipe")
        };
        assert_eq!((recipe.train.unwrap().steps, recipe.name.as_str()), (7, "mine"));
        let Recipe::Align(recipe) = set(&["method[1].name=second"]).unwrap() else {
            panic!("an align recipe")
        };
        assert_eq!(recipe.method[1].name, "second");
        assert!(set(&["method[9].name=x"]).unwrap_err().to_string().contains("--set method[9]"));
        assert!(set(&["train.step=7"]).unwrap_err().to_string().contains("did you mean `steps`"));
        assert!(set(&["evaluation.procedures=[\"best-of:0\"]"]).is_err());
    }

    #[test]
    fn an_array_is_no_table() {
        let refused = |set: &str| {
            let read = parse(QUICKSTART, "q.toml", &[set.to_owned()]);
            format!("{:#}", read.expect_err(set))
        };
        for (set, key) in [
            ("train.optimizer=[1e-3]", "`train.optimizer`"),
            ("calibration=[16]", "`calibration`"),
            ("evaluation.watch=[10, 4]", "`evaluation.watch`"),
        ] {
            let message = refused(set);
            assert!(message.starts_with("q.toml: ") && message.contains("a table"), "{message}");
            assert!(message.contains(&format!("{key} is an array")), "{message}");
        }
    }

    #[test]
    fn what_a_recipe_reads_goes_by_its_keys() {
        let recipe = read_text(QUICKSTART, "q.toml", Path::new("$RUN/inputs"), &[]).unwrap();
        let [models, files] = recipe.reads().unwrap();
        assert_eq!(models, [("model".to_owned(), "$RUN/inputs/quickstart/model".into())]);
        let keys: Vec<_> = files.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["prompts.train", "prompts.test"]);
    }

    #[test]
    fn paths_that_are_the_same_go_by_a_key_each() {
        let sets = [
            "reward_model=[{name='r', base='quickstart/model', preferences=['$RUN/p'], held_out=0.5, \
             train={steps=1, examples_per_step=1, optimizer={learning_rate=0.1}}}]",
            "method=[{name='a', objective='table:$RUN/p'}]",
        ]
        .map(str::to_owned);
        let recipe = read_text(QUICKSTART, "q.toml", Path::new("$RUN/inputs"), &sets).unwrap();
        let [models, files] = recipe.reads().unwrap();
        let model = PathBuf::from("$RUN/inputs/quickstart/model");
        let keys = ["model", "reward_model[0].base"];
        assert_eq!(models, keys.map(|key| (key.to_owned(), model.clone())));
        let keys = ["reward_model[0].preferences[0]", "method[0].objective"];
        assert_eq!(files[2..], keys.map(|key| (key.to_owned(), PathBuf::from("$RUN/p"))));
    }

    #[test]
    fn paths_within_nested_rewards_are_the_recipes() {
        let reward = "reward={kind='sum', parts=[{weight=1, reward={kind='answer', file='a.jsonl'}}, \
                      {weight=1, reward={kind='remote', url='http://host', cache='$RUN/c.jsonl'}}, \
                      {weight=1, reward={kind='ensemble', by='mean', of=[{kind='model', path='m'}]}}]}";
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
        let recipe = read_text(QUICKSTART, "q.toml", &folder, &[reward.to_owned()]).unwrap();
        let Recipe::Align(mut recipe) = recipe else { panic!("an align recipe") };
        let paths = |paths: Vec<&mut PathBuf>| -> Vec<PathBuf> {
            paths.into_iter().map(|path| path.clone()).collect()
        };
        assert_eq!(
            paths(recipe.reward.files_mut()),
            [folder.join("a.jsonl"), "$RUN/c.jsonl".into()]
        );
        assert_eq!(paths(recipe.reward.models_mut()), [folder.join("m")]);
    }
}
