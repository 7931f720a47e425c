//! `infalign transform curve` and `optimum`: continuous language.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use infalign_calibrate::store;
use infalign_train::{Objective, in_theory};
use infalign_transform::{Beta, Curve, Optimum, Procedure, Tilt, Transform, TransformError};
use serde_json::{Map, json};

use super::Level;
use crate::failure::{Failure, OrFailure};
use crate::output::{self, shown};

/// Arguments of `infalign transform curve`.
#[derive(Args)]
pub(crate) struct CurveArgs {
    /// identity, log, exp:T, optimal:PROCEDURE or table:FILE; with --table also raw or standardized, the reward itself.
    #[arg(long)]
    pub(super) transform: String,
    /// Calibration table: what training leads to on these reference rewards, ties and spreads included, in place of the limit of rewards that never
    /// tie. β is then that of a recipe, and an optimal:PROCEDURE names its own.
    #[arg(long)]
    pub(super) table: Option<PathBuf>,
    #[command(flatten)]
    level: Level,
    /// Procedure on both sides: sample, best-of:N, worst-of:N, soft-best-of:N,temperature=T with T in units of u, with --table of the reward, or rejection:quantile=Q,draws=N; may be repeated. Without any: sample,
    /// and best and worst of 2 and 4.
    #[arg(long)]
    procedure: Vec<Procedure>,
    /// Print a JSON document.
    #[arg(long)]
    pub(super) json: bool,
}

/// Arguments of `infalign transform optimum`.
#[derive(Args)]
pub(crate) struct OptimumArgs {
    /// sample, best-of:N, worst-of:N or rejection:quantile=Q,draws=N.
    #[arg(long)]
    procedure: Procedure,
    #[command(flatten)]
    level: Level,
    /// Points of the curve, evenly from u = 0 to u = 1; without --json at most 11 of them are printed.
    #[arg(long, default_value_t = 101, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    points: u32,
    /// Print a JSON document.
    #[arg(long)]
    pub(super) json: bool,
}

/// Prints KL and win rates.
///
/// # Errors
/// [`Failure::Input`].
pub(crate) fn curve(args: &CurveArgs) -> Result<(), Failure> {
    let found = match &args.table {
        Some(table) => of_table(args, table),
        None => in_the_limit(args),
    };
    let Led { transform, beta, kl, win_rates } = found.or_input()?;
    if args.json {
        let named = win_rates.into_iter().map(|(name, won)| (name, json!(won)));
        let document = json!({
            "transform": transform, "beta": beta.get(), "kl": kl, "win_rate": named.collect::<Map<_, _>>(),
        });
        return output::print(&format!("{document:#}"));
    }
    let mut rows = head("transform", &transform, beta, kl);
    rows.extend(win_rates.into_iter().map(|(name, won)| (format!("win rate, {name}"), shown(won))));
    output::print_rows(&rows)
}

/// What a transform leads to.
struct Led {
    transform: String,
    beta: Beta,
    kl: f64,
    win_rates: Vec<(String, f64)>,
}

fn in_the_limit(args: &CurveArgs) -> anyhow::Result<Led> {
    ensure!(
        !["raw", "standardized"].contains(&args.transform.as_str()),
        "--transform {} needs --table: what the reward itself leads to depends on how rewards are spread",
        args.transform
    );
    let (transform, beta) = at(&args.transform, &args.level)?;
    let tilt = Tilt::new(&transform, beta)?;
    let win_rates = win_rates(args, |procedure| tilt.win_rate(procedure))?;
    Ok(Led { transform: transform.to_string(), beta, kl: tilt.kl(), win_rates })
}

fn of_table(args: &CurveArgs, path: &Path) -> anyhow::Result<Led> {
    let objective: Objective = args.transform.parse()?;
    let prompts = in_theory(&objective, &store::read(path)?);
    let prompts = prompts.with_context(|| path.display().to_string())?;
    let policies = match (args.level.beta, args.level.kl) {
        (Some(beta), _) => prompts.at_beta(Beta::new(beta)?),
        (None, kl) => prompts.at_kl(kl.unwrap_or(f64::NAN))?,
    };
    let win_rates = win_rates(args, |procedure| prompts.win_rate(procedure, &policies))?;
    Ok(Led { transform: objective.to_string(), beta: policies.beta, kl: policies.kl, win_rates })
}

/// Under the procedures asked for, or the usual ones.
fn win_rates(
    args: &CurveArgs,
    win_rate: impl Fn(&Procedure) -> Result<f64, TransformError>,
) -> Result<Vec<(String, f64)>, TransformError> {
    let procedures = procedures(args)?;
    procedures.iter().map(|procedure| Ok((procedure.to_string(), win_rate(procedure)?))).collect()
}

/// Those asked for, or the usual ones.
fn procedures(args: &CurveArgs) -> Result<Vec<Procedure>, TransformError> {
    if args.procedure.is_empty() {
        let usual = ["sample", "best-of:2", "worst-of:2", "best-of:4", "worst-of:4"];
        return usual.iter().map(|name| name.parse()).collect();
    }
    Ok(args.procedure.clone())
}

/// Prints the optimum.
///
/// # Errors
/// [`Failure::Input`].
pub(crate) fn optimum(args: &OptimumArgs) -> Result<(), Failure> {
    let solved = match (args.level.beta, args.level.kl) {
        (Some(beta), _) => Beta::new(beta).and_then(|beta| Optimum::new(&args.procedure, beta)),
        (None, kl) => Optimum::for_kl(&args.procedure, kl.unwrap_or(f64::NAN)),
    };
    let optimum = solved.or_input()?;
    let last = args.points - 1;
    let u: Vec<f64> = (0..=last).map(|k| f64::from(k) / f64::from(last)).collect();
    let Optimum { beta, kl, win_rate, objective, residual, .. } = optimum;
    let curve = optimum.curve(&u);
    if args.json {
        let document = json!({
            "procedure": args.procedure, "beta": beta.get(), "kl": kl, "win_rate": win_rate,
            "objective": objective, "residual": residual, "curve": curve,
        });
        return output::print(&format!("{document:#}"));
    }
    print_rows(&args.procedure, &optimum, &curve)
}

fn print_rows(procedure: &Procedure, optimum: &Optimum, curve: &Curve) -> Result<(), Failure> {
    let mut rows = head("procedure", &procedure.to_string(), optimum.beta, optimum.kl);
    rows.extend([
        ("win rate".to_owned(), shown(optimum.win_rate)),
        ("win rate − β·KL".to_owned(), shown(optimum.objective)),
        ("residual".to_owned(), format!("{:.1e}", optimum.residual)),
        (String::new(), String::new()),
        ("u".to_owned(), format!("{:<15}{}", "Φ", "F")),
    ]);
    let point = |k: usize| {
        (format!("{:.4}", curve.u[k]), format!("{:<14.9} {:.9}", curve.phi[k], curve.cdf[k]))
    };
    let count = curve.u.len();
    let shown = count.min(11);
    rows.extend((0..shown).map(|k| point(k * (count - 1) / (shown - 1))));
    output::print_rows(&rows)
}

/// The transform and its β.
fn at(text: &str, level: &Level) -> anyhow::Result<(Transform, Beta)> {
    match (level.beta, level.kl) {
        (Some(beta), _) => {
            let beta = Beta::new(beta)?;
            Ok((Transform::at_beta(text, beta)?, beta))
        }
        (None, kl) => Ok(Transform::at_kl(text, kl.unwrap_or(f64::NAN))?),
    }
}

fn head(what: &str, name: &str, beta: Beta, kl: f64) -> Vec<(String, String)> {
    vec![
        (what.to_owned(), name.to_owned()),
        ("β".to_owned(), format!("{:.9e}", beta.get())),
        ("KL (nats)".to_owned(), shown(kl)),
    ]
}
