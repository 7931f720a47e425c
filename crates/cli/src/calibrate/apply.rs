//! `infalign calibrate apply`: the calibrated rewards of given responses.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use infalign_backend::DeviceName;
use infalign_calibrate::{Calibration, store};
use infalign_data::rewarded::{self, Rewarded};
use infalign_transform::Transform;
use serde_json::{Value, json};

use crate::failure::{Failure, OrFailure};
use crate::generate::{build_reward, reward_config};
use crate::{identity, output};

/// Arguments of `infalign calibrate apply`.
#[derive(Args)]
pub(crate) struct ApplyArgs {
    /// The table.
    #[arg(long)]
    table: PathBuf,
    /// JSONL, CSV or Parquet: `prompt`, as the model reads it, with `reward`, or with `response`, to be scored by --reward.
    #[arg(long)]
    input: PathBuf,
    /// Scores responses: the reward that the table was made with, as a TOML file or a reward model.
    #[arg(long)]
    reward: Option<PathBuf>,
    /// Also print Φ(u), as identity, log, exp:t, optimal:PROCEDURE,beta=B or table:FILE.
    #[arg(long)]
    transform: Option<Transform>,
    /// Leave out rows whose prompt is not in the table, and say how many.
    #[arg(long)]
    skip_missing: bool,
    /// Device of a reward model: cpu, cuda, wgpu, with :INDEX for another than the first.
    #[arg(long)]
    device: Option<DeviceName>,
    /// Print a JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] for input that does not belong to the table, [`Failure::Run`] when scoring fails.
pub(crate) fn run(args: &ApplyArgs) -> Result<(), Failure> {
    let (table, mut rows) = read(args).or_input()?;
    let count = rows.len();
    if args.skip_missing {
        rows.retain(|row| table.get(&row.prompt).is_some());
        if rows.len() < count {
            tell!(
                "{} of {count} rows left out: their prompts are not in the table",
                count - rows.len()
            );
        }
    }
    let names = rows.iter().map(|row| (row.prompt.as_str(), row.prompt.as_str()));
    table.check_holds(names).or_input()?;
    let rewards = rewards(args, &table, &rows)?;
    let calibrated = rows.iter().zip(&rewards).map(|(row, &r)| table.quantile(&row.prompt, r));
    let calibrated = calibrated.collect::<Result<Vec<f64>, _>>().or_input()?;
    print(args, &rows, &rewards, &calibrated)
}

fn read(args: &ApplyArgs) -> Result<(Calibration, Vec<Rewarded>)> {
    Ok((store::read(&args.table)?, rewarded::read(&args.input)?))
}

/// The rewards that the rows have, or those that --reward gives.
fn rewards(args: &ApplyArgs, table: &Calibration, rows: &[Rewarded]) -> Result<Vec<f32>, Failure> {
    let Some(path) = &args.reward else {
        let known = |row: &Rewarded| {
            row.reward
                .with_context(|| format!("{} has no `reward`: add it, or give --reward", row.place))
        };
        return rows.iter().map(known).collect::<Result<_>>().or_input();
    };
    let reward = build(args, path, table).or_input()?;
    let pair = |row: &Rewarded| match &row.response {
        Some(response) => Ok((row.prompt.clone(), response.clone())),
        None => bail!("{} has no `response` for --reward to score", row.place),
    };
    let pairs = rows.iter().map(pair).collect::<Result<Vec<_>>>().or_input()?;
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(p, r)| (p.as_str(), r.as_str())).collect();
    reward.score(&pairs).or_run()
}

/// The reward, if it is the one that the table was made with.
fn build(
    args: &ApplyArgs,
    path: &std::path::Path,
    table: &Calibration,
) -> Result<Box<dyn infalign_reward::Reward>> {
    let config = reward_config(path)?;
    let name = identity::given_reward(&config)?;
    ensure!(
        name == table.meta().reward,
        "the table was made with the reward {}, but --reward is {name}",
        table.meta().reward
    );
    let device = infalign_backend::device(args.device.as_ref())?;
    build_reward(path, &config, &device, None)
}

fn print(
    args: &ApplyArgs,
    rows: &[Rewarded],
    rewards: &[f32],
    calibrated: &[f64],
) -> Result<(), Failure> {
    let phi = |u: f64| args.transform.as_ref().map(|transform| transform.raw(u));
    let all = rows.iter().zip(rewards).zip(calibrated);
    if args.json {
        let document = |((row, reward), &u): ((&Rewarded, &f32), &f64)| json!({ "prompt": row.prompt, "response": row.response, "reward": reward, "u": u, "phi": phi(u) });
        let rows: Vec<Value> = all.map(document).collect();
        return output::print(&format!("{:#}", json!({ "rows": rows })));
    }
    let line = |((row, reward), &u): ((&Rewarded, &f32), &f64)| {
        let phi = phi(u).map_or(String::new(), |phi| format!("{phi:.6}"));
        let place = row.place.to_string();
        format!("{place:<12}{reward:<16.6}{u:<12.6}{phi}").trim_end().to_owned()
    };
    let head = format!("{:<12}{:<16}{:<12}", "row", "reward", "u");
    let head = if args.transform.is_some() { head + "Φ(u)" } else { head.trim_end().to_owned() };
    output::print(&std::iter::once(head).chain(all.map(line)).collect::<Vec<_>>().join("\n"))
}
