//! `infalign transform plot`: the figures of the theory.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Subcommand};
use infalign_evaluate::{Curve, Figure, KL_AND_WIN_RATE, OPTIMUM, Panel, Point};
use infalign_transform::{
    FrontierPoint, Optimum, Procedure, RankDensity, Transform, TransformError, best_of_n, frontier,
    optimal_frontier,
};
use serde_json::{Value, json};

use super::with_table;
use crate::destination;
use crate::failure::{Failure, OrFailure};
use crate::figure::write_figure;
use crate::output::{self, kept_place};
use crate::recording::RunInputs;

/// Figures of `infalign transform plot`.
#[derive(Subcommand)]
pub(crate) enum PlotCommand {
    /// Win rate against KL: a panel a procedure, a curve a transform, the optimum, and best-of-n itself as points.
    Frontiers(FrontierArgs),
    /// The optimal transform, scaled to [0, 1]: a panel a procedure, a curve a KL, and transforms to compare it with.
    Transforms(TransformsArgs),
}

impl PlotCommand {
    /// What the command reads.
    pub(super) fn reads(&self) -> RunInputs {
        let transforms = match self {
            Self::Frontiers(args) => &args.transform,
            Self::Transforms(args) => &args.transform,
        };
        let exact = RunInputs::new(None, None, self.shared().json);
        transforms.iter().fold(exact, |reads, transform| with_table(reads, &transform.to_string()))
    }

    fn shared(&self) -> &Shared {
        match self {
            Self::Frontiers(args) => &args.shared,
            Self::Transforms(args) => &args.shared,
        }
    }
}

/// Arguments of `infalign transform plot frontiers`.
#[derive(Args)]
pub(crate) struct FrontierArgs {
    /// Procedures on both sides.
    #[arg(long, num_args = 1.., default_values = ["sample", "best-of:4", "worst-of:4"])]
    procedure: Vec<Procedure>,
    /// Transforms, an exponential's t being positive for best-of-N.
    #[arg(
        long,
        num_args = 1..,
        default_values = ["identity", "log", "exp:5", "exp:10", "exp:20", "exp:-5", "exp:-10", "exp:-20"]
    )]
    transform: Vec<Transform>,
    /// Greatest KL, in nats.
    #[arg(long, default_value_t = 3.0, allow_negative_numbers = true)]
    max_kl: f64,
    #[command(flatten)]
    shared: Shared,
}

/// Arguments of `infalign transform plot transforms`.
#[derive(Args)]
pub(crate) struct TransformsArgs {
    /// Procedures on both sides.
    #[arg(long, num_args = 1.., default_values = ["best-of:2", "best-of:4", "worst-of:4"])]
    procedure: Vec<Procedure>,
    /// KLs, in nats, for each of which the optimum is drawn.
    #[arg(long, num_args = 1.., default_values = ["0.1", "0.5", "2"], allow_negative_numbers = true)]
    kl: Vec<f64>,
    /// Transforms to compare them with.
    #[arg(long, num_args = 1.., default_values = ["identity", "exp:5", "exp:10", "exp:-5", "exp:-10"])]
    transform: Vec<Transform>,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Args)]
struct Shared {
    /// Folder for the SVG and the PNG.
    #[arg(long, default_value = ".")]
    out: PathBuf,
    /// Print the plotted numbers as a JSON document.
    #[arg(long)]
    json: bool,
}

/// Name of the points in the legend.
const BEST_OF_N: &str = "best-of-n";
/// Least KL of a frontier, as a share of the greatest.
const LEAST_KL: f64 = 1e-4;
/// Points of a curve.
const POINTS: usize = 100;
/// Responses n of the points for best-of-n.
const BEST_OF: [usize; 8] = [2, 3, 4, 6, 8, 16, 32, 64];

/// Draws the figure.
///
/// # Errors
/// [`Failure::Input`] for what cannot be computed, [`Failure::Run`] when a file cannot be written.
pub(crate) fn run(command: &PlotCommand) -> Result<(), Failure> {
    let shared = command.shared();
    destination::folder(&shared.out).or_input()?;
    let (name, figure) = match command {
        PlotCommand::Frontiers(args) => ("frontiers", frontiers(args)),
        PlotCommand::Transforms(args) => ("transforms", transforms(args)),
    };
    let figure = figure.or_input()?;
    let files = write_figure(&shared.out, name, &figure).or_run()?;
    if shared.json {
        let told = |place: fn(&Path) -> String| {
            format!("{:#}", document(&figure, &files.each_ref().map(|file| place(file))))
        };
        return output::print_as(&told(|file| file.display().to_string()), &told(kept_place));
    }
    output::print_places("", &files)
}

fn frontiers(args: &FrontierArgs) -> Result<Figure, TransformError> {
    let range = (LEAST_KL * args.max_kl, args.max_kl);
    let ranks = args.procedure.iter().map(RankDensity::of).collect::<Result<Vec<_>, _>>()?;
    let curves = args
        .transform
        .iter()
        .map(|transform| Ok((transform.to_string(), frontier(transform, &ranks, range, POINTS)?)))
        .collect::<Result<Vec<_>, TransformError>>()?;
    let panels = args.procedure.iter().enumerate().map(|(index, procedure)| {
        let optimum = optimal_frontier(procedure, range, POINTS)?;
        let best = Curve { name: OPTIMUM.to_owned(), points: line(&optimum, 0) };
        let other = |(name, points): &(String, Vec<FrontierPoint>)| Curve {
            name: name.clone(),
            points: line(points, index),
        };
        Ok(Panel {
            title: procedure.to_string(),
            points: best_of_points(&ranks[index..=index], args.max_kl)?,
            curves: std::iter::once(best).chain(curves.iter().map(other)).collect(),
            ..Panel::default()
        })
    });
    let names = curves.iter().map(|(name, _)| name.clone());
    let (first, last) = (OPTIMUM.to_owned(), BEST_OF_N.to_owned());
    Ok(Figure {
        legend: std::iter::once(first).chain(names).chain([last]).collect(),
        title: "Win rate against KL, both sides under the procedure of the panel".to_owned(),
        note: "in the continuous limit; numbers: n of best-of-n".to_owned(),
        axes: KL_AND_WIN_RATE.map(str::to_owned),
        panels: panels.collect::<Result<_, TransformError>>()?,
    })
}

/// A frontier as a line that begins at π_ref.
fn line(points: &[FrontierPoint], index: usize) -> Vec<(f64, f64)> {
    std::iter::once((0.0, 0.5))
        .chain(points.iter().map(|point| (point.kl, point.win_rates[index])))
        .collect()
}

fn best_of_points(rank: &[RankDensity], max_kl: f64) -> Result<Vec<Point>, TransformError> {
    let mut points = Vec::new();
    for n in BEST_OF {
        let FrontierPoint { kl, win_rates, .. } = best_of_n(n, rank)?;
        if kl <= max_kl {
            let (name, label) = (BEST_OF_N.to_owned(), Some(n.to_string()));
            points.push(Point { name, x: kl, y: [win_rates[0]; 3], label });
        }
    }
    Ok(points)
}

fn transforms(args: &TransformsArgs) -> Result<Figure, TransformError> {
    let u: Vec<f64> = (0..=200).map(|k| f64::from(k) / 200.0).collect();
    let drawn = |name: String, apply: &dyn Fn(f64) -> f64| Curve {
        name,
        points: u.iter().map(|&u| (u, apply(u))).filter(|(_, phi)| phi.is_finite()).collect(),
    };
    let optimal = |procedure: &Procedure, kl: f64| {
        let optimum = Optimum::for_kl(procedure, kl)?;
        let scaled = |u: f64| 1.0 - optimum.phi(u) / optimum.phi(0.0);
        Ok(drawn(optimum_at(kl), &scaled))
    };
    let panel = |procedure: &Procedure| {
        let optima = args.kl.iter().map(|&kl| optimal(procedure, kl));
        let mut curves = optima.collect::<Result<Vec<_>, TransformError>>()?;
        curves.extend(args.transform.iter().map(|t| drawn(t.to_string(), &|u| t.apply(u))));
        Ok(Panel { title: procedure.to_string(), curves, ..Panel::default() })
    };
    let panels = args.procedure.iter().map(panel);
    let others = args.transform.iter().map(Transform::to_string);
    Ok(Figure {
        legend: args.kl.iter().copied().map(optimum_at).chain(others).collect(),
        title: "Transforms of the calibrated reward, scaled to [0, 1]".to_owned(),
        note: "optimum: in the continuous limit".to_owned(),
        axes: ["calibrated reward u".to_owned(), "Φ(u)".to_owned()],
        panels: panels.collect::<Result<_, TransformError>>()?,
    })
}

fn optimum_at(kl: f64) -> String {
    format!("optimum at {kl} nats")
}

/// What was plotted, and where.
fn document(figure: &Figure, files: &[String]) -> Value {
    let curve = |curve: &Curve| json!({ "name": curve.name, "points": curve.points });
    let point = |p: &Point| json!({ "name": p.name, "label": p.label, "x": p.x, "y": p.y[0] });
    let panel = |panel: &Panel| {
        let curves: Vec<Value> = panel.curves.iter().map(curve).collect();
        let points: Vec<Value> = panel.points.iter().map(point).collect();
        json!({ "procedure": panel.title, "curves": curves, "points": points })
    };
    let panels: Vec<Value> = figure.panels.iter().map(panel).collect();
    json!({ "files": files, "axes": figure.axes, "panels": panels })
}
