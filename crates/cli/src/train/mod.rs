//! `infalign train`: run a recipe from its beginning or from where it stopped.

mod baselines;
mod calibration;
mod given;
mod inputs;
mod language_model;
mod made_by;
mod memory_check;
mod methods;
mod metrics;
mod optimum;
mod prompts;
mod replay;
mod results;
mod reward_data;
mod reward_model;
mod rewards;
mod rollouts;
mod run_dir;
mod scorer;
mod stages;
mod tensorboard;
mod watch;
mod without_effect;

pub(crate) use metrics::Lines;
pub(crate) use optimum::OPTIMUM;
pub(crate) use results::SCHEMA;
pub(crate) use run_dir::RESULTS;
pub(crate) use scorer::{Difference, Measure, Row, difference};

use std::path::{Path, PathBuf};

use anyhow::{anyhow, ensure};
use clap::Args;
use infalign_backend::{Device, DeviceName};
use infalign_record::Expect;
use infalign_train::TrainError;

pub(crate) use self::replay::replay;

use self::inputs::Inputs;
use self::language_model::Corpus;
use self::reward_model::RewardModelInputs;
use self::scorer::ScorerInputs;
use crate::failure::{Failure, OrFailure};
use crate::files::make_folder;
use crate::recipe::{LanguageModelRecipe, Paths, Recipe, RewardModelRecipe, read, read_text};
use crate::recording::RunInputs;
use crate::resume::{Before, Damaged, before, recorded_unless_whole};
use crate::{bundle, interrupt, output};

/// The command that takes recipes of every task.
const TRAIN: &str = "train";
/// The command that takes those of prefix scorers alone.
const SCORER: &str = "scorer";

/// Arguments of `infalign train`.
#[derive(Args)]
pub(crate) struct TrainArgs {
    /// The recipe; absent, for train: quickstart, on inputs bundled with the binary.
    recipe: Option<PathBuf>,
    /// Change a key of the recipe, as in train.steps=50; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Folder of the run; absent: a new one under runs/.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the run in --out, which begins where the recipe is named and there is none yet; without --out, with the newest unfinished run
    /// under runs/.
    #[arg(long)]
    resume: bool,
    /// Read and check everything, print the resolved recipe, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Device: cpu, cuda, wgpu, with :INDEX for another than the first.
    #[arg(long)]
    device: Option<DeviceName>,
    /// Print results.json instead of the table.
    #[arg(long)]
    json: bool,
}

impl TrainArgs {
    /// Whether `--resume` may be added, so that the same words begin the run and go on with it.
    pub(crate) fn can_resume(&self) -> bool {
        self.recipe.is_some() && self.out.is_some() && !self.resume && !self.dry_run
    }
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] before any work is begun, and for a file that a run has left and cannot go on with; [`Failure::Run`] and
/// [`Failure::Stopped`] after.
pub(crate) fn run(args: &TrainArgs) -> Result<(), Failure> {
    run_as(TRAIN, args)
}

/// Runs `infalign scorer`, which takes recipes of that task alone.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_scorer(args: &TrainArgs) -> Result<(), Failure> {
    if args.recipe.is_none() && !args.resume {
        return Err(Failure::Input(anyhow!("give the recipe of a scorer")));
    }
    run_as(SCORER, args)
}

fn run_as(command: &str, args: &TrainArgs) -> Result<(), Failure> {
    let device = infalign_backend::device(args.device.as_ref()).or_input()?;
    let recipe = given_recipe(args).or_input()?;
    recipe.iter().try_for_each(|recipe| check_task(command, recipe)).or_input()?;
    if args.dry_run {
        return dry_run(args, recipe, &device);
    }
    let run_dir::Opened { dir, recipe, fresh, lock: _lock } =
        run_dir::open(command, args.out.as_deref(), args.resume, recipe).or_input()?;
    let result =
        execute(args, &recipe, &dir, &device, fresh).map_err(|failure| in_recipe(args, failure));
    if let (Err(Failure::Input(_)), true) = (&result, fresh) {
        run_dir::abandon(&dir);
    }
    result
}

/// Refuses a recipe of a task that the command does not take.
fn check_task(command: &str, recipe: &Recipe) -> anyhow::Result<()> {
    ensure!(
        command != SCORER || matches!(recipe, Recipe::Scorer(_)),
        "the recipe has another task than \"scorer\": run it by `infalign train`"
    );
    Ok(())
}

/// Loads and checks the inputs, and only then works.
fn execute(
    args: &TrainArgs,
    recipe: &Recipe,
    run: &Path,
    device: &Device,
    fresh: bool,
) -> Result<(), Failure> {
    bundle_if_needed(run, recipe)?;
    interrupt::watch();
    let reads = reads(recipe, run, args).or_input()?;
    let before = if fresh { Ok(Before::Unfinished) } else { unchanged(run, &reads) };
    let before = before.or_input()?;
    let loaded = Loaded::of(args, recipe, run, device).or_input()?;
    let expect = match recipe {
        Recipe::Align(recipe) => recipe.expect.clone().unwrap_or_default(),
        _ => Expect::default(),
    };
    let work = || {
        let made = loaded.execute(run, device, args.json);
        made.map_err(|error| unfinished(run, fresh, error))
    };
    output::print(&recorded_unless_whole(run, &before, reads, Some(expect), work)?)
}

/// A recipe with all that it reads, loaded and checked.
enum Loaded<'a> {
    Align(Box<Inputs<'a>>),
    LanguageModel(&'a LanguageModelRecipe, Corpus),
    RewardModel(&'a RewardModelRecipe, Box<RewardModelInputs<'a>>),
    Scorer(Box<ScorerInputs<'a>>),
}

impl<'a> Loaded<'a> {
    fn of(
        args: &TrainArgs,
        recipe: &'a Recipe,
        run: &'a Path,
        device: &Device,
    ) -> anyhow::Result<Self> {
        // Before the reference is loaded, which counts with what is needed.
        let there = memory_check::available(device, args.device.as_ref());
        Ok(match recipe {
            Recipe::Align(recipe) => {
                let inputs = Inputs::load(recipe, run, device)?;
                memory_check::check(&inputs, there)?;
                Self::Align(Box::new(inputs))
            }
            Recipe::LanguageModel(recipe) => {
                Self::LanguageModel(recipe, language_model::check(recipe, run, there)?)
            }
            Recipe::RewardModel(recipe) => {
                let inputs = RewardModelInputs::load(&recipe.stage, &Paths { run }, device)?;
                Self::RewardModel(recipe, Box::new(inputs))
            }
            Recipe::Scorer(recipe) => {
                let inputs = ScorerInputs::load(recipe, run, device)?;
                scorer::check_memory(&inputs)?;
                Self::Scorer(Box::new(inputs))
            }
        })
    }

    /// Runs what is left of it, and returns what is printed.
    fn execute(&self, run: &Path, device: &Device, json: bool) -> anyhow::Result<String> {
        match self {
            Self::Align(inputs) => results::text(&stages::execute(inputs)?, run, json),
            Self::LanguageModel(recipe, corpus) => {
                language_model::execute(recipe, corpus, run, device, json)
            }
            Self::RewardModel(recipe, inputs) => reward_model::execute(recipe, inputs, run, json),
            Self::Scorer(inputs) => scorer::execute(inputs, json),
        }
    }
}

/// Refuses files of a run's own as [`before`] does, and inputs that are others than when it was begun; says what there is.
fn unchanged(run: &Path, reads: &RunInputs) -> anyhow::Result<Before> {
    let before = before(run)?;
    reads.check_unchanged(run)?;
    Ok(before)
}

/// Why a run has not finished, and what to do: where a file that it left cannot be used, the error says that itself.
fn unfinished(run: &Path, fresh: bool, error: anyhow::Error) -> Failure {
    let diverged = matches!(error.downcast_ref::<TrainError>(), Some(TrainError::Diverged { .. }));
    if diverged || error.is::<scorer::NothingToLearn>() {
        // It would come to the same again, and says what to change.
        return Failure::Run(error);
    }
    let of_checkpoint =
        matches!(error.downcast_ref::<TrainError>(), Some(TrainError::State { .. }));
    if !fresh && (of_checkpoint || error.is::<Damaged>()) {
        return Failure::Input(error);
    }
    let how = format!("the run in {} has not finished; --resume goes on with it", run.display());
    Failure::of_work(error.context(how))
}

/// Everything that the recipe reads, but for what the run makes itself.
fn reads(recipe: &Recipe, run: &Path, args: &TrainArgs) -> anyhow::Result<RunInputs> {
    let paths = Paths { run };
    let is_read = |path: &Path| !path.starts_with("$RUN") || path.starts_with(bundle::FOLDER);
    let mut reads = RunInputs::new(Some(recipe.seed()), args.device.as_ref(), args.json);
    let [models, files] = recipe.reads()?;
    for (key, path) in models.iter().filter(|(_, path)| is_read(path)) {
        reads = reads.model_at(key, &path.to_string_lossy(), &paths.model(path)?);
    }
    // The cache of a server's answers is written as well, and another one when the run goes on.
    let is_cache = |key: &str| key.rsplit('.').next() == Some("cache");
    let files = files.iter().filter(|(key, path)| is_read(path) && !is_cache(key));
    for (key, path) in files {
        reads = reads.named(key, &path.to_string_lossy(), &paths.resolve(path)?);
    }
    Ok(reads)
}

/// The recipe of the command line; None when a run is resumed without naming one.
fn given_recipe(args: &TrainArgs) -> anyhow::Result<Option<Recipe>> {
    match &args.recipe {
        Some(path) => read(path, &args.sets).map(Some),
        None if args.resume && args.sets.is_empty() => Ok(None),
        None if args.resume => {
            Err(anyhow!("--resume goes on with the run's own recipe: leave --set out"))
        }
        None => {
            read_text(bundle::RECIPE, "quickstart (bundled)", bundle::FOLDER.as_ref(), &args.sets)
                .map(Some)
        }
    }
}

/// Puts the recipe's file in front of what is wrong with its values, or with what it reads, but for what the run itself has left.
fn in_recipe(args: &TrainArgs, failure: Failure) -> Failure {
    match (&args.recipe, failure) {
        (Some(path), Failure::Input(error)) if !error.is::<Damaged>() => {
            Failure::Input(error.context(path.display().to_string()))
        }
        (_, failure) => failure,
    }
}

fn dry_run(args: &TrainArgs, recipe: Option<Recipe>, device: &Device) -> Result<(), Failure> {
    let recipe = recipe
        .ok_or_else(|| Failure::Input(anyhow!("--dry-run and --resume exclude each other")))?;
    let folder = tempfile::tempdir().or_run()?;
    check(args, &recipe, folder.path(), device)
        .map_err(|failure| in_recipe(args, in_run(folder.path(), failure)))?;
    output::print(&recipe.to_toml().or_input()?)?;
    tell!(
        "{} is fine; nothing was run",
        args.recipe.as_deref().map_or("quickstart".into(), |p| p.display().to_string())
    );
    Ok(())
}

/// Names the folder that stands for the run's as recipes do.
fn in_run(folder: &Path, failure: Failure) -> Failure {
    match failure {
        Failure::Input(_) => {
            let text = failure.message().replace(&*folder.to_string_lossy(), "$RUN");
            Failure::Input(anyhow!(text))
        }
        other => other,
    }
}

fn check(args: &TrainArgs, recipe: &Recipe, folder: &Path, device: &Device) -> Result<(), Failure> {
    bundle_if_needed(folder, recipe)?;
    Loaded::of(args, recipe, folder, device).map(drop).or_input()
}

/// Unpacks the bundled inputs where the recipe reads them.
fn bundle_if_needed(run: &Path, recipe: &Recipe) -> Result<(), Failure> {
    match recipe {
        Recipe::Align(recipe) if recipe.reads_under(bundle::FOLDER) => {
            make_folder(run).or_run()?;
            bundle::unpack(run).or_run()
        }
        _ => Ok(()),
    }
}
