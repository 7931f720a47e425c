//! Stored samples, as commands name them: a run's folder, a method of one, or a file.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use infalign_data::responses::{self, StoredPrompt, StoredResponses};
use infalign_data::{Role, Text};
use infalign_evaluate::report::Source as Origin;
use infalign_evaluate::{Contest, Entry, Judge, Label, PromptText, Row, Sampled, distinct};
use infalign_record::folder::{self, CONFIG, RECORD};
use infalign_record::hash::sha256_file;
use infalign_record::record::Record;
use infalign_record::{START_FILE, command_line};
use infalign_train::Objective;
use infalign_transform::{Composed, Procedure, Theory};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::measures;
use crate::recording::RunInputs;
use crate::references::References;
use crate::train::RESULTS;

/// What a run's folder holds of the reference.
pub(crate) const REFERENCE: &str = "reference-samples.json";
/// Where its methods are.
pub(crate) const METHODS: &str = "methods";
/// What each of them holds.
pub(crate) const SAMPLES: &str = "samples.json";

/// With which a file of UTF-8 may begin.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A method with its samples.
pub(crate) struct Method {
    /// As its run calls it.
    pub(crate) name: String,
    /// The same, but other than all others of the command.
    pub(crate) unique: String,
    kind: Option<String>,
    objective: Option<String>,
    pub(crate) theory: Option<Theory>,
    pub(crate) sampled: Sampled,
    /// Whether it is the reference's own row.
    pub(crate) is_base: bool,
}

/// Methods that were measured against the same samples of a reference.
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    /// What a report is called.
    pub(crate) title: String,
    pub(crate) methods: Vec<Method>,
    pub(crate) reference: Sampled,
    /// What the run's evaluation came to.
    pub(crate) rows: Vec<Row>,
    pub(crate) origin: Origin,
    /// Of a run or an evaluation, where it can be read.
    pub(crate) record: Option<Record>,
}

/// What is needed of `results.json`, whoever wrote it.
#[derive(Deserialize)]
struct Results {
    #[serde(default)]
    recipe: Option<String>,
    #[serde(default)]
    seed: u64,
    rows: Vec<Row>,
}

impl Method {
    /// Reads the samples of a run's method, and adds their file to the run's origin.
    ///
    /// - `row`: one of the method in the run's results.
    /// - `base`: the reference's own row, where it has no file of its own.
    ///
    /// # Errors
    /// As [`Source::read`].
    fn read(run: &Path, row: &Row, base: Option<&Sampled>, origin: &mut Origin) -> Result<Self> {
        let inside = format!("{METHODS}/{}/{SAMPLES}", row.method);
        ensure!(
            folder::stays_inside(&inside),
            "{} names {inside:?}, which leads out of the run",
            run.join(RESULTS).display()
        );
        let file = run.join(&inside);
        let (sampled, is_base) = match (base, row.kind.is_none() && !file.exists()) {
            (Some(base), true) => (base.clone(), true),
            _ => (folder::samples(run, &inside)?, false),
        };
        checked(&file, &sampled)?;
        if !is_base {
            origin.sha256.push((inside, sha256_file(&file)?));
        }
        Ok(Self {
            name: row.method.clone(),
            unique: row.method.clone(),
            kind: row.kind.clone(),
            objective: row.objective.clone(),
            theory: row.objective.as_deref().and_then(theory),
            sampled,
            is_base,
        })
    }
}

impl Source {
    /// Reads what a path names: a run's folder, a method of one (`RUN/methods/NAME`), or a file of samples.
    ///
    /// - `reference`: the reference's samples, for a file.
    ///
    /// # Errors
    /// One sentence that names the file and what is wrong with it.
    pub(crate) fn read(path: &Path, reference: Option<&Path>) -> Result<Self> {
        if path.is_file() {
            return Self::file(path, reference);
        }
        ensure!(path.is_dir(), "there is no file or folder {}", path.display());
        if path.join(REFERENCE).is_file() {
            return Self::run(path, None);
        }
        match method_of(path) {
            Some((run, name)) if path.join(SAMPLES).is_file() => Self::run(&run, Some(&name)),
            _ => bail!(
                "{} holds no evaluation: give the folder of a finished run, which has {REFERENCE}, RUN/{METHODS}/NAME of one, or a file of samples",
                path.display()
            ),
        }
    }

    /// Reads a run's folder.
    ///
    /// - `only`: of its methods.
    ///
    /// # Errors
    /// As [`Source::read`].
    pub(crate) fn run(run: &Path, only: Option<&str>) -> Result<Self> {
        let results = run.join(RESULTS);
        ensure!(results.is_file(), "{} has no {RESULTS}: the run has not finished", run.display());
        let results: Results = folder::json(run, RESULTS)?;
        let References { reference, base } = folder::samples(run, REFERENCE)?;
        checked(&run.join(REFERENCE), &reference)?;
        let mut origin = origin(run)?;
        let mut methods: Vec<Method> = Vec::new();
        for row in &results.rows {
            let known = methods.iter().any(|method| method.name == row.method);
            if !known && only.is_none_or(|name| name == row.method) {
                methods.push(Method::read(run, row, base.as_ref(), &mut origin)?);
            }
        }
        ensure!(!methods.is_empty(), "{} holds no such method", run.display());
        Ok(Self {
            path: run.to_path_buf(),
            title: results.recipe.unwrap_or_else(|| name_of(run)),
            methods,
            reference,
            rows: results.rows,
            origin,
            record: folder::record(run).ok(),
        })
    }

    fn file(path: &Path, reference: Option<&Path>) -> Result<Self> {
        let reference = reference.with_context(|| {
            format!(
                "{} is a file of samples: give those of the reference with --reference",
                path.display()
            )
        })?;
        let (ours, theirs) = (read_samples(path, false)?, read_samples(reference, false)?);
        let origin = Origin {
            path: path.display().to_string(),
            sha256: vec![
                (name_of(path), sha256_file(path)?),
                (name_of(reference), sha256_file(reference)?),
            ],
            ..Origin::default()
        };
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let method = Method {
            unique: name.clone(),
            name: name.clone(),
            kind: None,
            objective: None,
            theory: None,
            sampled: ours,
            is_base: false,
        };
        Ok(Self {
            path: path.to_path_buf(),
            title: name,
            methods: vec![method],
            reference: theirs,
            rows: Vec::new(),
            origin,
            record: None,
        })
    }

    /// Its methods as a table takes them.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Method, Entry<'_>)> {
        self.methods.iter().map(|method| {
            let label = Label {
                method: &method.unique,
                kind: method.kind.as_deref(),
                objective: method.objective.as_deref(),
                theory: method.theory.as_ref(),
            };
            (method, Entry { label, sampled: &method.sampled, reference: &self.reference })
        })
    }

    /// Whether another judge judged every response.
    fn is_judged(&self) -> bool {
        let methods = self.methods.iter().all(|method| method.sampled.judged.is_some());
        methods && self.reference.judged.is_some()
    }
}

/// What the continuous limit says of an objective, by its text.
fn theory(objective: &str) -> Option<Theory> {
    objective.parse::<Objective>().ok()?.theory()
}

/// Adds what [`read_all`] reads to what a command reads.
pub(crate) fn read_by(reads: RunInputs, paths: &[PathBuf], reference: Option<&Path>) -> RunInputs {
    let named = |reads: RunInputs, path: &Path| reads.file("samples", path);
    let reads = paths.iter().fold(reads, |reads, path| {
        if path.is_file() {
            return named(reads, path);
        }
        let run = run_of(path);
        let mut reads = [RESULTS, REFERENCE, CONFIG, RECORD]
            .iter()
            .fold(reads, |r, name| named(r, &run.join(name)));
        let methods = std::fs::read_dir(run.join(METHODS)).into_iter().flatten().flatten();
        let mut methods: Vec<PathBuf> = methods.map(|entry| entry.path()).collect();
        let only = method_of(path).map(|(_, name)| name);
        methods.retain(|one| run == *path || name_of(one) == only.as_deref().unwrap_or_default());
        methods.sort();
        for method in methods {
            reads = named(reads, &method.join(SAMPLES));
        }
        reads
    });
    reference.into_iter().fold(reads, |reads, path| reads.file("--reference", path))
}

/// Refuses a path that is given twice: what is counted twice would pass for two measurements.
fn refuse_twice(paths: &[PathBuf]) -> Result<()> {
    let whole = |path: &PathBuf| dunce::canonicalize(path).unwrap_or_else(|_| path.clone());
    let mut seen = HashSet::new();
    match paths.iter().find(|path| !seen.insert(whole(path))) {
        Some(twice) => bail!("{} is given twice", twice.display()),
        None => Ok(()),
    }
}

/// Reads several, and gives methods of the same name others.
///
/// # Errors
/// As [`Source::read`], for a path or a run's method that is given twice, and for a reference's samples beside folders alone.
pub(crate) fn read_all(paths: &[PathBuf], reference: Option<&Path>) -> Result<Vec<Source>> {
    refuse_twice(paths)?;
    ensure!(
        reference.is_none() || !paths.iter().all(|path| path.is_dir()),
        "--reference is for files of samples: the folder of a run or an evaluation holds those of its reference"
    );
    let mut sources =
        paths.iter().map(|path| Source::read(path, reference)).collect::<Result<Vec<_>>>()?;
    measures::refuse_copies(&sources)?;
    let names: Vec<String> =
        sources.iter().flat_map(|s| s.methods.iter().map(|m| m.name.clone())).collect();
    let twice = |name: &str| names.iter().filter(|other| *other == name).count() > 1;
    let mut seen = HashSet::new();
    for (source, number) in sources.iter_mut().zip(1..) {
        let mut folder = name_of(&source.path);
        // Folders may have the same name, too.
        if !seen.insert(folder.clone()) {
            folder = format!("{folder} ({number})");
        }
        for method in source.methods.iter_mut().filter(|method| twice(&method.name)) {
            method.unique = format!("{folder}/{}", method.name);
        }
    }
    Ok(sources)
}

/// The procedures asked for, or those of the first source.
pub(crate) fn contests(
    sources: &[Source],
    policy: &[Composed],
    reference: Option<Composed>,
) -> Vec<Contest> {
    let rows = sources.first().map_or(&[][..], |source| &source.rows);
    let stored = distinct(rows.iter().map(|row| row.contest));
    if policy.is_empty() && reference.is_none() && !stored.is_empty() {
        return stored;
    }
    let policies: Vec<Composed> = match (policy.is_empty(), stored.len()) {
        (false, _) => policy.to_vec(),
        (true, 0) => vec![Procedure::Sample.into()],
        (true, _) => stored.iter().map(|contest| contest.policy).collect(),
    };
    Contest::all(policies, reference)
}

/// The seed of the recipe of the run that the first path names, otherwise 0.
pub(crate) fn recipe_seed(paths: &[PathBuf]) -> u64 {
    let results = paths.first().map(|path| folder::json::<Results>(&run_of(path), RESULTS));
    results.and_then(Result::ok).map_or(0, |results| results.seed)
}

/// The run that a folder is a method of, and the method's name.
fn method_of(path: &Path) -> Option<(PathBuf, String)> {
    let method = |path: &Path| {
        let run = path.ancestors().nth(2).filter(|run| run.join(REFERENCE).is_file())?;
        Some((run.to_path_buf(), path.file_name()?.to_string_lossy().into_owned()))
    };
    // Of a path with fewer parts, the run lies above where it starts.
    let parts = path.components().filter(|part| matches!(part, Component::Normal(_))).count();
    let by_names = match path.components().rev().take(2).all(|part| part != Component::ParentDir) {
        true if parts < 3 => std::path::absolute(path).ok(),
        true => Some(path.to_path_buf()),
        false => None,
    };
    let by_names = by_names.and_then(|path| method(&path));
    // Links may lead to it, too.
    by_names.or_else(|| method(&dunce::canonicalize(path).ok()?))
}

/// The run that a folder is, or is a method of.
fn run_of(path: &Path) -> PathBuf {
    let method = method_of(path).filter(|_| !path.join(REFERENCE).is_file());
    method.map_or_else(|| path.to_path_buf(), |(run, _)| run)
}

/// The reward, and the judge where all sources have one.
pub(crate) fn judges(sources: &[Source]) -> Vec<Judge> {
    let judged = sources.iter().all(Source::is_judged);
    [Some(Judge::Reward), judged.then_some(Judge::Judge)].into_iter().flatten().collect()
}

/// Samples of a file: a `samples.json`, what `generate --json` printed, or rows.
///
/// - `to_be_scored`: whether rewards are going to take the place of those of the file, which may lack them then.
///
/// # Errors
/// When the file cannot be read, or its responses have no rewards and are not to be scored.
pub(crate) fn read_samples(path: &Path, to_be_scored: bool) -> Result<Sampled> {
    let sampled = match whole(path)? {
        Some(sampled) => sampled,
        None => from_rows(path, responses::read(path)?, !to_be_scored)?,
    };
    checked(path, &sampled)?;
    Ok(sampled)
}

/// A file that is a [`Sampled`] as a whole, or the [`References`] of a run, of which the first is the reference.
fn whole(path: &Path) -> Result<Option<Sampled>> {
    if path.extension().is_none_or(|ending| ending != "json") {
        return Ok(None);
    }
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
    let is_list = text.trim_ascii_start().starts_with(b"[");
    if !holds_rewards(text, is_list) {
        return Ok(None);
    }
    let sampled = serde_json::from_slice(text).map(|sets: References| sets.reference);
    Ok(Some(sampled.with_context(|| path.display().to_string())?))
}

/// Whether a JSON object, or the first of a list of them, has the key `rewards`. What the keys hold is passed over: documents of rows are large.
fn holds_rewards(text: &[u8], is_list: bool) -> bool {
    type Keys = HashMap<String, IgnoredAny>;
    let first: Option<Keys> = if is_list {
        serde_json::from_slice(text).ok().and_then(|sets: Vec<Keys>| sets.into_iter().next())
    } else {
        serde_json::from_slice(text).ok()
    };
    first.is_some_and(|keys| keys.contains_key("rewards"))
}

fn from_rows(path: &Path, stored: StoredResponses, need_rewards: bool) -> Result<Sampled> {
    let StoredResponses { procedure, prompts, .. } = stored;
    let procedure = procedure.map(|text| made_by(path, &text)).transpose()?;
    let procedure = procedure.filter(|procedure| *procedure != Procedure::Sample.into());
    let mut sampled = Sampled { procedure, ..Sampled::default() };
    let all = |of: fn(&responses::StoredResponse) -> bool| {
        prompts.iter().all(|prompt| prompt.responses.iter().all(of))
    };
    let counted = all(|response| response.tokens.is_some());
    let costed = all(|response| response.made.is_some());
    if need_rewards && !all(|response| response.reward.is_some()) {
        return Err(anyhow!(
            "{}: not every response has a `reward`; add them, or give a --judge that scores the texts",
            path.display()
        ));
    }
    let counts = |of: fn(&responses::StoredResponse) -> Option<usize>| -> Vec<Vec<usize>> {
        prompts.iter().map(|prompt| prompt.responses.iter().filter_map(of).collect()).collect()
    };
    sampled.tokens = counted.then(|| counts(|response| response.tokens));
    sampled.made = costed.then(|| counts(|response| response.made));
    for StoredPrompt { prompt, responses } in prompts {
        let (text, sha256) = (plain(&prompt.text), Some(prompt.digest()));
        sampled.prompts.push(PromptText { id: prompt.id, text, sha256 });
        sampled.rewards.push(responses.iter().map(|one| one.reward.unwrap_or(0.0)).collect());
        sampled.responses.push(responses.into_iter().map(|one| one.text).collect());
    }
    Ok(sampled)
}

/// The procedure that a file says to have been made by.
fn made_by(path: &Path, text: &str) -> Result<Composed> {
    text.parse().with_context(|| {
        format!(
            "{}: its responses are those of `{text}`, of which no win rate is computed",
            path.display()
        )
    })
}

/// A conversation as one text, for people and for judges of texts.
fn plain(text: &Text) -> String {
    match text {
        Text::Plain(text) => text.clone(),
        Text::Messages(messages) => messages
            .iter()
            .map(|message| {
                let who = match message.role {
                    Role::System => "system",
                    Role::User => "user",
                    Role::Assistant => "assistant",
                };
                format!("{who}: {}\n", message.content)
            })
            .collect(),
    }
}

/// Refuses samples whose parts do not belong together, by their file.
fn checked(path: &Path, sampled: &Sampled) -> Result<()> {
    sampled.check().with_context(|| path.display().to_string())
}

/// The last part of a path.
fn name_of(path: &Path) -> String {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    whole.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn origin(run: &Path) -> Result<Origin> {
    let config = run.join(CONFIG);
    let recipe = std::fs::read_to_string(&config).ok();
    let start = folder::json::<Value>(run, START_FILE).ok();
    let start = start.and_then(|start| Some(start["start"].as_str()?.to_owned()));
    let again = || command_line(["train", &config.to_string_lossy()]);
    let recorded = || folder::record(run).ok().map(|record| command_line(record.argv));
    let mut sha256 = Vec::new();
    for file in [RESULTS, REFERENCE, CONFIG, RECORD] {
        let path = run.join(file);
        if path.is_file() {
            sha256.push((file.to_owned(), sha256_file(&path)?));
        }
    }
    Ok(Origin {
        path: run.display().to_string(),
        command: recipe.is_some().then(again).or_else(recorded),
        start,
        sha256,
        recipe,
    })
}
