//! `infalign transform discrete`: finitely many outcomes.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use infalign_transform::discrete::Edge;
use infalign_transform::{Beta, Outcomes, Procedure, Transform};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::failure::{Failure, OrFailure};
use crate::output;

/// Arguments of `infalign transform discrete`.
#[derive(Args)]
pub(crate) struct DiscreteArgs {
    /// JSON file: {"probabilities": […], "rewards": […]}, the responses of the reference policy to one prompt.
    #[arg(long)]
    pub(super) problem: PathBuf,
    /// sample, best-of:N, worst-of:N, rejection:quantile=Q,draws=N or soft-best-of:N,temperature=T, the temperature in units of the rewards.
    #[arg(long)]
    procedure: Procedure,
    /// KL coefficient β, on the scale of Φ as the papers write it.
    #[arg(long, allow_negative_numbers = true)]
    beta: f64,
    /// The policy that this transform of the calibrated reward leads to, instead of the optimum.
    #[arg(long)]
    pub(super) transform: Option<String>,
    /// Print a JSON document.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Problem {
    probabilities: Vec<f64>,
    rewards: Vec<f64>,
}

/// A policy and what is known of it.
struct Solved {
    policy: Vec<f64>,
    kl: f64,
    win_rate: f64,
    certificate: Option<Certificate>,
}

/// What an optimum tells of itself.
struct Certificate {
    residual: f64,
    /// How many local maxima were found.
    stationary_points: usize,
    /// The edge of rejection that it lies on.
    edge: Option<Edge>,
}

/// Prints the policy.
///
/// # Errors
/// [`Failure::Input`].
pub(crate) fn run(args: &DiscreteArgs) -> Result<(), Failure> {
    let outcomes = read(&args.problem).or_input()?;
    let solved = solve(args, &outcomes).or_input()?;
    let objective = solved.win_rate - args.beta * solved.kl;
    if args.json {
        print_json(&outcomes, solved, objective)
    } else {
        print_rows(args, &outcomes, &solved, objective)
    }
}

fn print_json(outcomes: &Outcomes, solved: Solved, objective: f64) -> Result<(), Failure> {
    let mut document = Map::new();
    let numbers = [("kl", solved.kl), ("win_rate", solved.win_rate), ("objective", objective)];
    document.extend(numbers.map(|(name, value)| (name.to_owned(), json!(value))));
    document.insert("policy".to_owned(), json!(solved.policy));
    document.insert("calibrated".to_owned(), json!(outcomes.calibrated()));
    if let Some(certificate) = solved.certificate {
        document.insert("residual".to_owned(), json!(certificate.residual));
        document.insert("stationary_points".to_owned(), json!(certificate.stationary_points));
        if let Some(Edge { reward, accepted }) = certificate.edge {
            document.insert("edge".to_owned(), json!({ "reward": reward, "accepted": accepted }));
        }
    }
    output::print(&format!("{:#}", Value::Object(document)))
}

fn print_rows(
    args: &DiscreteArgs,
    outcomes: &Outcomes,
    solved: &Solved,
    objective: f64,
) -> Result<(), Failure> {
    let mut rows = vec![
        ("procedure".to_owned(), args.procedure.to_string()),
        ("KL (nats)".to_owned(), format!("{:.9}", solved.kl)),
        ("win rate".to_owned(), format!("{:.9}", solved.win_rate)),
        ("win rate − β·KL".to_owned(), format!("{objective:.9}")),
    ];
    if let Some(certificate) = &solved.certificate {
        rows.push(("residual".to_owned(), format!("{:.1e}", certificate.residual)));
        rows.push(("stationary points".to_owned(), certificate.stationary_points.to_string()));
        rows.extend(certificate.edge.map(|edge| ("on the edge".to_owned(), words(edge))));
    }
    rows.push((String::new(), String::new()));
    rows.push((
        "reward".to_owned(),
        format!("{:<14}{:<14}{}", "reference", "calibrated", "policy"),
    ));
    let calibrated = outcomes.calibrated();
    rows.extend((0..solved.policy.len()).map(|y| {
        let (p, u, q) = (outcomes.probabilities()[y], calibrated[y], solved.policy[y]);
        (outcomes.rewards()[y].to_string(), format!("{p:<14.9}{u:<14.9}{q:.9}"))
    }));
    output::print_rows(&rows)
}

/// Where a policy on an edge of rejection lies.
fn words(edge: Edge) -> String {
    let reward = edge.reward;
    if edge.accepted {
        format!("the mid-rank of reward {reward} is the quantile, and it is accepted")
    } else {
        format!(
            "the mid-rank of reward {reward} is just below the quantile, and it is not accepted: no policy is the best, nearer ones win more"
        )
    }
}

fn read(path: &Path) -> anyhow::Result<Outcomes> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let problem: Problem = serde_json::from_str(&text).map_err(|error| {
        anyhow!("{name}: {error}; it has to hold {{\"probabilities\": […], \"rewards\": […]}}")
    })?;
    Outcomes::new(problem.probabilities, problem.rewards).with_context(|| name.to_string())
}

fn solve(args: &DiscreteArgs, outcomes: &Outcomes) -> anyhow::Result<Solved> {
    let beta = Beta::new(args.beta)?;
    let Some(transform) = &args.transform else {
        let best = outcomes.optimum(&args.procedure, beta)?;
        let certificate = Certificate {
            residual: best.residual,
            stationary_points: best.stationary_points,
            edge: best.edge,
        };
        return Ok(Solved {
            policy: best.policy,
            kl: best.kl,
            win_rate: best.win_rate,
            certificate: Some(certificate),
        });
    };
    let policy = outcomes.tilt(&Transform::at_beta(transform, beta)?, beta);
    let (kl, win_rate) = (outcomes.kl(&policy)?, outcomes.win_rate(&args.procedure, &policy)?);
    Ok(Solved { policy, kl, win_rate, certificate: None })
}
