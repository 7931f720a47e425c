//! `infalign evaluate`: the inference-time win rate of a policy over a reference, and the KL that it costs.
//!
//! Everything is read and checked first (`check`); then both sides are sampled and scored (`sides.rs`), and what they hold becomes numbers
//! (`results.rs`). With `--out`, an evaluation has a folder (`folder.rs`), a record, and goes on where it was stopped.

mod folder;
mod guided;
mod models;
mod pairwise;
mod replay;
mod results;
mod sides;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use clap::Args;
use infalign_backend::DeviceName;
use infalign_evaluate::{Asked, Contest, check as check_samples};
use infalign_record::Expect;
use infalign_record::folder::{LONGEST_NAME, can_be_named};
use infalign_reward::Preference;
use infalign_transform::Composed;

pub(crate) use self::folder::{is_begun, settings};
pub(crate) use self::replay::replay;

use self::folder::Folder;
use self::pairwise::Pairwise;
use self::sides::{Place, Prepared};
use crate::failure::{Failure, OrFailure};
use crate::given_options::GivenOptions;
use crate::recording::RunInputs;
use crate::resume::{Damaged, recorded_unless_whole};
use crate::sampling::{BatchArgs, SamplingArgs};
use crate::statistics::{PlanArgs, StatisticsArgs};
use crate::values::twice;
use crate::{interrupt, output, scorers};

/// Arguments of `infalign evaluate`.
#[derive(Args)]
pub(crate) struct EvaluateArgs {
    #[command(flatten)]
    given: GivenOptions,
    /// The policy: a model, by its directory or its name on the hub, or a file of its stored responses (.jsonl, .csv, .parquet with prompt,
    /// response, reward; what `generate --json` printed; samples.json of a run).
    #[arg(long)]
    policy: PathBuf,
    /// The reference: a model, or a file of its stored responses to the same prompts.
    #[arg(long)]
    reference: PathBuf,
    /// Procedure on both sides: sample, best-of:N, worst-of:N, soft-best-of:N,temperature=T, averaged over all subsets of the stored
    /// responses, or of a guided procedure's, as best-of:4 over cd-block:length=8,samples=4; majority:N by their answers. May be repeated.
    #[arg(long, default_value = "sample")]
    procedure: Vec<Composed>,
    /// Procedure of the reference, where it is another.
    #[arg(long)]
    reference_procedure: Option<Composed>,
    /// What guides cd-token, cd-block, beam and pruned-best-of, as for `generate`: the folder of a prefix scorer, DIR, or DIR#REWARD where it has
    /// several, either with :WEIGHT; for models. Several are added.
    #[arg(long)]
    scorer: Vec<String>,
    /// Prompts, as for `generate`; for models.
    #[arg(long)]
    prompts: Option<PathBuf>,
    /// Who judges: a TOML file like a recipe's reward table, or a reward model, by its directory or its name on the hub. Without one, files
    /// have to hold rewards.
    #[arg(long)]
    judge: Option<PathBuf>,
    /// What procedures select by, where that is not the judge.
    #[arg(long, requires = "judge")]
    reward: Option<PathBuf>,
    /// A chat model on an OpenAI-compatible server that compares what the procedures keep, in both orders: a TOML file with url, as
    /// http://HOST:PORT/v1 or http://HOST:PORT/v1/chat/completions, model and most_requests, and optionally criterion, api_key_env,
    /// timeout_seconds, parallel and cache.
    #[arg(long, value_name = "FILE.toml")]
    pairwise: Option<PathBuf>,
    /// Pairs of a prompt that it compares, at most as many as there are groups of N responses; each takes two requests.
    #[arg(long, requires = "pairwise", default_value_t = NonZeroUsize::MIN)]
    pairs: NonZeroUsize,
    /// Responses to each prompt, of either side; for models.
    #[arg(long)]
    samples: Option<usize>,
    /// Seed of every random draw.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    batch: BatchArgs,
    /// Device: cpu, cuda, wgpu, with :INDEX for another than the first.
    #[arg(long)]
    device: Option<DeviceName>,
    /// What the policy is called.
    #[arg(long, default_value = "policy")]
    name: String,
    /// Add win rates at equal lengths.
    #[arg(long)]
    length_controlled: bool,
    #[command(flatten)]
    statistics: StatisticsArgs,
    #[command(flatten)]
    plan: PlanArgs,
    /// Folder of the evaluation, new or empty: its responses, results.json, which `compare` and `report` read, and its record. What is drawn
    /// is written there as it comes.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the evaluation in --out, or begin it where there is none yet. --judge and --reward may be others as long as nothing is scored.
    #[arg(long, requires = "out")]
    resume: bool,
    /// Print a JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

impl EvaluateArgs {
    /// Whether `--resume` may be added, so that the same words begin the evaluation and go on with it.
    pub(crate) fn can_resume(&self) -> bool {
        self.out.is_some() && !self.resume
    }

    /// Whether it has a folder, in which it keeps a record.
    pub(crate) fn is_on_record(&self) -> bool {
        self.out.is_some()
    }

    /// What is read.
    fn reads(&self) -> RunInputs {
        let draws = !self.policy.is_file();
        let reads = RunInputs::new(draws.then_some(self.seed), self.device.as_ref(), self.json);
        let side = |reads: RunInputs, role: &str, path: &Path| {
            if path.is_file() { reads.file(role, path) } else { reads.model(role, path) }
        };
        let reads = side(reads, "--policy", &self.policy);
        let reads = side(reads, "--reference", &self.reference);
        let reads = scorers::read_by(reads, &self.scorer);
        let files = [("--prompts", &self.prompts), ("--pairwise", &self.pairwise)];
        let files = files.into_iter().filter_map(|(role, path)| Some((role, path.as_ref()?)));
        files
            .fold(reads, |reads, (role, path)| reads.file(role, path))
            .reward("--judge", self.judge.as_deref())
            .reward("--reward", self.reward.as_deref())
    }
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] before anything is sampled or scored, and for a file in `--out` that cannot be gone on with; [`Failure::Run`] and
/// [`Failure::Stopped`] after. What was finished is in `--out`.
pub(crate) fn run(args: &EvaluateArgs) -> Result<(), Failure> {
    interrupt::watch();
    check_options(args).or_input()?;
    // Before the answers that it keeps are read.
    let held = args.out.as_deref().map(folder::hold).transpose().or_input()?.flatten();
    let pairwise = args.pairwise.as_deref().map(|file| Pairwise::read(args, file)).transpose();
    let pairwise = pairwise.or_input()?;
    let preference = pairwise.as_ref().map(Pairwise::build).transpose().or_input()?;
    let prepared = Prepared::read(args).or_input()?;
    check(args, &prepared).or_input()?;
    pairwise.as_ref().map_or(Ok(()), Pairwise::check_server).or_input()?;
    let evaluate = |folder: Option<&Folder>| {
        evaluate(args, &prepared, preference.as_ref(), folder)
            .map_err(|error| unfinished(args, error))
    };
    let text = match &args.out {
        None => evaluate(None)?,
        Some(out) => {
            let settings = prepared.settings(args).or_input()?;
            let folder = Folder::open(out, args.resume, &args.name, &settings, held);
            let folder = folder.or_input()?;
            let (reads, expect) = (args.reads(), Some(Expect::default()));
            let work = || evaluate(Some(&folder));
            recorded_unless_whole(out, &folder.before, reads, expect, work)?
        }
    };
    output::print(text.trim_end())
}

/// Samples, scores and measures, and returns what is printed.
fn evaluate(
    args: &EvaluateArgs,
    prepared: &Prepared,
    preference: Option<&Preference>,
    folder: Option<&Folder>,
) -> Result<String> {
    let sides = prepared.sides(args, folder)?;
    let results = results::results(args, &sides, preference)?;
    folder.map_or(Ok(()), |folder| folder.finish(&results))?;
    if args.json { results.json() } else { Ok(results.text()) }
}

/// What becomes of what was done. Where a file that was left cannot be used, the error says what to do.
fn unfinished(args: &EvaluateArgs, error: anyhow::Error) -> Failure {
    if error.is::<Damaged>() {
        return Failure::Input(error);
    }
    Failure::of_work(match &args.out {
        Some(out) => error.context(format!(
            "the evaluation in {} has not finished; the same command with --resume goes on with it",
            out.display()
        )),
        None if interrupt::asked() => error.context("without --out, nothing is kept"),
        None => error,
    })
}

/// Refuses options by themselves, before anything is read.
fn check_options(args: &EvaluateArgs) -> Result<()> {
    if let Some(out) = &args.out {
        folder::check(out, args.resume)?;
    }
    ensure!(
        can_be_named(&args.name),
        "--name {:?} is no name for a folder: give letters, digits, `-`, `_` and `.`, with no dot at an end, and not the name of a device, such as con",
        args.name
    );
    ensure!(
        args.name.len() <= LONGEST_NAME,
        "--name has {} characters: give at most {LONGEST_NAME}",
        args.name.len()
    );
    if let Some(procedure) = twice(&args.procedure) {
        bail!("--procedure {procedure} is given twice");
    }
    sides::check_options(args)?;
    for procedure in args.procedure.iter().chain(&args.reference_procedure) {
        args.sampling.sampling().check_choice(*procedure)?;
    }
    Ok(())
}

/// Refuses what could only fail after the sampling: all that is known of both sides but their responses and scores.
fn check(args: &EvaluateArgs, prepared: &Prepared) -> Result<()> {
    let [policy, reference] = Place::BOTH.map(|place| prepared.outline(place));
    ensure!(
        policy.prompts.len() != 1 || reference.prompts.len() != 1,
        "1 prompt is too few: an interval over prompts needs at least 2"
    );
    let (contests, statistics) = (contests(args), args.statistics.statistics(0));
    let halves = args.plan.plan.is_some();
    let asked = Asked { contests: &contests, statistics: &statistics, halves };
    check_samples((&args.name, &policy), &reference, &asked)?;
    Ok(())
}

fn contests(args: &EvaluateArgs) -> Vec<Contest> {
    Contest::all(args.procedure.iter().copied(), args.reference_procedure)
}
