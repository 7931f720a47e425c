//! `infalign evaluate`: the inference-time win rate of a policy over a reference, and the KL that it costs.

mod guided;
mod sides;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use infalign_backend::DeviceName;
use infalign_evaluate::{
    Contest, Effect, Entry, Label, Pairwise, Plan, Planned, Row, kl_text, pairwise, plan, table,
    text_table, with_interval,
};
use infalign_record::atomic::write_atomic;
use infalign_reward::{Preference, PreferenceConfig};
use infalign_transform::Procedure;
use serde::Serialize;
use serde_json::{Value, json};

use self::sides::Sides;
use crate::compare::plans;
use crate::failure::Failure;
use crate::output;
use crate::sampling::{BatchArgs, SamplingArgs};
use crate::server::api_key;
use crate::sources::{METHODS, REFERENCE, SAMPLES};
use crate::statistics::{PlanArgs, StatisticsArgs};
use crate::train::{RESULTS, SCHEMA};

/// Arguments of `infalign evaluate`.
#[derive(Args)]
pub(crate) struct EvaluateArgs {
    /// The policy: a model, by its directory or its name on the hub, or a file of its stored responses (.jsonl, .csv, .parquet with prompt,
    /// response, reward; what `generate --json` printed; samples.json of a run).
    #[arg(long)]
    policy: PathBuf,
    /// The reference: a model, or a file of its stored responses to the same prompts.
    #[arg(long)]
    reference: PathBuf,
    /// Procedure on both sides: sample, best-of:N, worst-of:N, averaged over all subsets of the stored responses; another one is run. May be
    /// repeated.
    #[arg(long, default_value = "sample")]
    procedure: Vec<Procedure>,
    /// Procedure of the reference, where it is another.
    #[arg(long)]
    reference_procedure: Option<Procedure>,
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
    /// A chat model on an OpenAI-compatible server that compares what the procedures keep, in both orders: a TOML file with url, model and
    /// most_requests, and optionally criterion, api_key_env, timeout_seconds, parallel and cache.
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
    /// Folder for the responses and results.json, which `compare` and `report` read; new or empty.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print a JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

/// `results.json` of an evaluation.
#[derive(Serialize)]
struct Results<'a> {
    schema: &'static str,
    command: String,
    policy: &'a Path,
    reference: &'a Path,
    rows: Vec<Row>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pairwise: Vec<Pairwise>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    plans: Vec<Planned>,
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] before sampling, and for samples that cannot be evaluated; [`Failure::Run`] after.
pub(crate) fn run(args: &EvaluateArgs) -> Result<(), Failure> {
    check(args).map_err(Failure::Input)?;
    let preference = args.pairwise.as_deref().map(preference).transpose();
    let preference = preference.map_err(Failure::Input)?;
    let sides = Sides::of(args)?;
    let mut results = results(args, &sides).map_err(Failure::Input)?;
    let judged = preference.map(|judge| pairwise_rows(args, &sides, &judge)).transpose();
    if let Some(out) = &args.out {
        // What was sampled stays, also where the judge failed.
        results.pairwise = judged.as_ref().ok().and_then(Clone::clone).unwrap_or_default();
        write(out, args, &sides, &results).map_err(Failure::Run)?;
    }
    results.pairwise = judged.map_err(Failure::Run)?.unwrap_or_default();
    if args.json {
        return output::print(&format!("{:#}", document(&results).map_err(Failure::Run)?));
    }
    output::print(text(&results).trim_end())
}

/// Refuses what could only fail after the sampling.
fn check(args: &EvaluateArgs) -> Result<()> {
    if let Some(out) = &args.out {
        let empty = std::fs::read_dir(out).map_or(true, |mut entries| entries.next().is_none());
        ensure!(empty, "--out {} is not empty: give a new folder", out.display());
    }
    let plain = !args.name.is_empty()
        && args.name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && !args.name.starts_with('.');
    ensure!(
        plain,
        "--name {:?} is no name for a folder: give letters, digits, `-`, `_` and `.`",
        args.name
    );
    Ok(())
}

fn contests(args: &EvaluateArgs) -> Vec<Contest> {
    let reference = |policy: &Procedure| args.reference_procedure.unwrap_or(*policy);
    let contest = |policy: &Procedure| Contest { policy: *policy, reference: reference(policy) };
    args.procedure.iter().map(contest).collect()
}

fn results<'a>(args: &'a EvaluateArgs, sides: &Sides) -> Result<Results<'a>> {
    let label = Label { method: &args.name, kind: None, objective: None, transform: None };
    let entry = Entry { label, sampled: &sides.policy, reference: &sides.reference };
    let (contests, statistics) = (contests(args), args.statistics.statistics());
    let judge = sides.judge();
    let of_judge = Plan {
        contests: &contests,
        judge,
        pairs: &[],
        length_controlled: args.length_controlled,
        statistics,
    };
    let mut rows = table(&[entry], &of_judge)?.rows;
    // Scorers have told more of it, response by response, than a procedure's name does.
    if let Some(kl) = sides.guided_kl {
        rows.iter_mut().for_each(|row| row.procedure_kl = Some(kl));
    }
    let effect = args.plan.plan.map(|size| Effect { size, power: args.plan.power });
    let plans = effect.map(|effect| {
        let of = |contest| plan(&entry, None, contest, judge, effect, &statistics);
        contests.iter().map(of).collect::<Result<Vec<_>, _>>()
    });
    Ok(Results {
        schema: SCHEMA,
        command: output::command_line(),
        policy: &args.policy,
        reference: &args.reference,
        rows,
        pairwise: Vec::new(),
        plans: plans.transpose()?.unwrap_or_default(),
    })
}

/// The judge of a file.
fn preference(path: &Path) -> Result<Preference> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the judge {}", path.display()))?;
    let config: PreferenceConfig =
        toml::from_str(&text).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    Preference::new(&config, &api_key).with_context(|| path.display().to_string())
}

fn pairwise_rows(args: &EvaluateArgs, sides: &Sides, judge: &Preference) -> Result<Vec<Pairwise>> {
    let label = Label { method: &args.name, kind: None, objective: None, transform: None };
    let entry = Entry { label, sampled: &sides.policy, reference: &sides.reference };
    let statistics = args.statistics.statistics();
    let judged = contests(args)
        .iter()
        .map(|contest| pairwise(&entry, contest, judge, args.pairs.get(), &statistics))
        .collect::<Result<_, _>>()?;
    Ok(judged)
}

/// The first row's keys, and all rows where there are several.
fn document(results: &Results<'_>) -> Result<Value> {
    let first = results.rows.first().context("there is no row")?;
    let mut document = serde_json::to_value(first)?;
    document["policy"] = json!(results.policy);
    document["reference"] = json!(results.reference);
    if results.rows.len() > 1 {
        document["rows"] = json!(results.rows);
    }
    if !results.pairwise.is_empty() {
        document["pairwise"] = json!(results.pairwise);
    }
    if !results.plans.is_empty() {
        document["plans"] = json!(results.plans);
    }
    Ok(document)
}

fn text(results: &Results<'_>) -> String {
    let mut text = text_table(&results.rows) + "\n";
    for row in &results.rows {
        let contest = row.contest();
        text += &format!("{contest}: win rate {}", with_interval(&row.win_rate));
        if let Some(controlled) = &row.length_controlled_win_rate {
            text += &format!(", at equal length {}", with_interval(controlled));
        }
        text += &format!(
            "; score {} against {}",
            with_interval(&row.score),
            with_interval(&row.reference_score)
        );
        if let Some(tokens) = row.tokens {
            text += &format!("; {tokens:.1} tokens made for a response");
        }
        if let Some(kl) = row.procedure_kl {
            let kind = format!("{:?}", kl.kind).to_lowercase();
            text += &format!("; the procedure adds {:.3} nats ({kind})", kl.estimate);
        }
        text.push('\n');
    }
    if let Some(row) = results.rows.first() {
        text += &format!("KL {} nats", kl_text(row));
        let other = |name: &str, part: Option<infalign_evaluate::Estimate>| {
            part.map_or(String::new(), |part| {
                format!(", {name} {:.3} ± {:.3}", part.estimate, part.standard_error)
            })
        };
        if let Some(kl) = row.kl {
            text += &(other("k1", kl.k1) + &other("k3", kl.k3));
        } else {
            text += ": these samples do not tell it";
        }
        text +=
            &format!("; {} prompts, {} responses or more to each\n", row.n_prompts, row.n_samples);
    }
    for judged in &results.pairwise {
        let kappa = judged.agreement.kappa.as_ref().map_or("–".to_owned(), with_interval);
        text += &format!(
            "{} by the pairwise judge: win rate {}, the first shown is preferred {}, κ with the reward {kappa}; {} pairs in both orders\n",
            judged.procedure,
            with_interval(&judged.win_rate),
            with_interval(&judged.first_preferred),
            judged.n_pairs
        );
    }
    text + &plans(&results.plans)
}

/// Writes the responses and the table, which comes last.
fn write(out: &Path, args: &EvaluateArgs, sides: &Sides, results: &Results<'_>) -> Result<()> {
    let method = out.join(METHODS).join(&args.name);
    std::fs::create_dir_all(&method)
        .with_context(|| format!("cannot make {}", method.display()))?;
    let file = |path: PathBuf, bytes: Vec<u8>| -> Result<()> {
        Ok(write_atomic(&path, |file| file.write_all(&bytes))?)
    };
    file(method.join(SAMPLES), serde_json::to_vec_pretty(&sides.policy)?)?;
    file(out.join(REFERENCE), serde_json::to_vec_pretty(&sides.reference)?)?;
    file(out.join(RESULTS), serde_json::to_vec_pretty(results)?)
}
