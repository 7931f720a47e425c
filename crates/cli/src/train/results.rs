//! The end of a run: results.json, the table, and the plot of win rate against KL.

use std::path::Path;

use anyhow::{Context, Result};
use infalign_evaluate::{
    Comparison, Curve, Figure, Judge, Label, Panel, Point, Row, Sampled, compare,
    predicted_win_rate, row, text_table,
};
use infalign_train::Objective;
use infalign_transform::{Procedure, Transform};
use serde::Serialize;

use super::inputs::objective;
use super::run_dir::RESULTS;
use super::stages::write_json;
use crate::figure::{KL_AND_WIN_RATE, write_figure};
use crate::recipe::{AlignRecipe, Method};

/// A method with its samples.
pub(crate) struct Measured {
    pub(crate) name: String,
    /// None for the reference itself.
    pub(crate) kind: Option<&'static str>,
    pub(crate) objective: Option<Objective>,
    pub(crate) sampled: Sampled,
}

impl Measured {
    /// The reference itself.
    pub(crate) fn base(sampled: Sampled) -> Self {
        Self { name: "base".into(), kind: None, objective: None, sampled }
    }

    /// A method's policy, in the run of a folder.
    ///
    /// # Errors
    /// When the table of its objective cannot be read.
    pub(crate) fn of(method: &Method, run: &Path, sampled: Sampled) -> Result<Self> {
        let (name, kind) = (method.name.clone(), Some(method.kind.name()));
        Ok(Self { name, kind, objective: objective(method, run)?, sampled })
    }

    fn transform(&self) -> Option<&Transform> {
        match &self.objective {
            Some(Objective::Calibrated(transform)) => Some(transform),
            _ => None,
        }
    }
}

/// `results.json`. It holds nothing that differs between two runs of the same recipe.
#[derive(Serialize)]
pub(crate) struct Results {
    recipe: String,
    seed: u64,
    rows: Vec<Row>,
    /// Each method against the recipe's baseline, on the same prompts.
    comparisons: Vec<Comparison>,
}

/// Computes the table, draws the plot, and writes both into a folder; results.json comes last, so that its presence means a finished run.
///
/// # Errors
/// When a statistic is not defined or a file cannot be written.
pub(crate) fn write(
    (recipe, folder): (&AlignRecipe, &Path),
    measured: &[Measured],
    reference: &Sampled,
) -> Result<Results> {
    let mut results = Results {
        recipe: recipe.name.clone(),
        seed: recipe.seed,
        rows: Vec::new(),
        comparisons: Vec::new(),
    };
    for judge in judges(recipe) {
        let (rows, comparisons) = judged(recipe, measured, reference, judge)?;
        let figure = figure(recipe, judge, measured, &rows)?;
        write_figure(folder, plot(judge), &figure)?;
        results.rows.extend(rows);
        results.comparisons.extend(comparisons);
    }
    write_json(&folder.join(RESULTS), &results)?;
    Ok(results)
}

/// The reward, and the recipe's other judge if it has one.
fn judges(recipe: &AlignRecipe) -> Vec<Judge> {
    let other = recipe.evaluation.judge.as_ref().map(|_| Judge::Judge);
    std::iter::once(Judge::Reward).chain(other).collect()
}

/// Name of the plot without its ending.
fn plot(judge: Judge) -> &'static str {
    match judge {
        Judge::Reward => "win-rate-kl",
        Judge::Judge => "win-rate-kl-judge",
    }
}

/// All rows and comparisons under one judge. The theory speaks of the reward that was trained on, and of no other.
fn judged(
    recipe: &AlignRecipe,
    measured: &[Measured],
    reference: &Sampled,
    judge: Judge,
) -> Result<(Vec<Row>, Vec<Comparison>)> {
    let baseline = measured
        .iter()
        .find(|m| m.name == recipe.evaluation.baseline)
        .context("the baseline was not measured")?;
    let (mut rows, mut comparisons) = (Vec::new(), Vec::new());
    for method in measured {
        let objective = method.objective.as_ref().map(ToString::to_string);
        let name = method.name.as_str();
        let label = Label {
            method: name,
            kind: method.kind,
            objective: objective.as_deref(),
            transform: method.transform().filter(|_| judge == Judge::Reward),
        };
        for procedure in &recipe.evaluation.procedures {
            rows.push(row(label, procedure, judge, &method.sampled, reference)?);
            if method.kind.is_some() && name != baseline.name {
                let (ours, theirs) = (&method.sampled, (baseline.name.as_str(), &baseline.sampled));
                comparisons.push(compare((name, ours), theirs, reference, procedure, judge)?);
            }
        }
    }
    Ok((rows, comparisons))
}

fn figure(
    recipe: &AlignRecipe,
    judge: Judge,
    measured: &[Measured],
    rows: &[Row],
) -> Result<Figure> {
    let farthest = rows.iter().map(|row| row.kl.estimate).fold(0.2, f64::max);
    let panel = |procedure: &Procedure| -> Result<Panel> {
        let of_procedure = rows.iter().filter(|row| row.procedure == *procedure);
        let points = of_procedure.map(|row| Point {
            name: row.method.clone(),
            x: row.kl.estimate,
            y: [row.win_rate.estimate, row.win_rate.low, row.win_rate.high],
            label: None,
        });
        let with_theory = measured
            .iter()
            .filter(|_| judge == Judge::Reward)
            .filter_map(|m| m.transform().map(|transform| (&m.name, transform)));
        let curves =
            with_theory.map(|(name, transform)| curve(name, transform, procedure, 1.3 * farthest));
        Ok(Panel {
            title: procedure.to_string(),
            points: points.collect(),
            curves: curves.collect::<Result<_>>()?,
        })
    };
    let panels = recipe.evaluation.procedures.iter().map(panel).collect::<Result<_>>()?;
    let (by, lines) = match judge {
        Judge::Reward => ("", "; lines: continuous limit"),
        Judge::Judge => (", by the judge", ""),
    };
    let name = &recipe.name;
    Ok(Figure {
        title: format!(
            "{name}: win rate against the reference, both sides under the same procedure{by}"
        ),
        legend: measured.iter().map(|method| method.name.clone()).collect(),
        note: format!("bars: 95 % intervals over prompts{lines}"),
        axes: KL_AND_WIN_RATE.map(str::to_owned),
        panels,
    })
}

/// The continuous limit's win rate from KL 0 to `farthest`.
fn curve(name: &str, transform: &Transform, procedure: &Procedure, farthest: f64) -> Result<Curve> {
    const STEPS: usize = 40;
    let mut points = vec![(0.0, 0.5)];
    for step in 1..=STEPS {
        // Closer together near 0, where the win rate rises with the root of the KL.
        let kl = farthest * (step as f64 / STEPS as f64).powi(2);
        points.push((kl, predicted_win_rate(transform, kl, procedure)?));
    }
    Ok(Curve { name: name.into(), points })
}

/// The table of one judge, and its comparisons.
fn table(results: &Results, judge: Judge) -> String {
    let rows: Vec<Row> = results.rows.iter().filter(|row| row.judge == judge).cloned().collect();
    let mut text = match judge {
        Judge::Reward => String::new(),
        Judge::Judge => "by the judge:\n".to_owned(),
    };
    text += &text_table(&rows);
    text += match judge {
        Judge::Reward => {
            "\nwin rates: [95 % interval over prompts] (theory at that KL, continuous limit)\n\n"
        }
        Judge::Judge => "\nwin rates: [95 % interval over prompts]\n\n",
    };
    let comparisons = results.comparisons.iter().filter(|comparison| comparison.judge == judge);
    for Comparison { method, baseline, procedure, difference: d, .. } in comparisons {
        let title = format!("{method} − {baseline}, {procedure}");
        text += &format!("{title:<30} {:+.3} [{:+.3}, {:+.3}]\n", d.estimate, d.low, d.high);
    }
    text
}

/// The results for a program, or for a person.
///
/// # Errors
/// When they cannot be written as JSON.
pub(crate) fn text(results: &Results, run: &Path, json: bool) -> Result<String> {
    if json {
        return Ok(serde_json::to_string_pretty(results)?);
    }
    let judges: Vec<Judge> = [Judge::Reward, Judge::Judge]
        .into_iter()
        .filter(|judge| results.rows.iter().any(|row| row.judge == *judge))
        .collect();
    let tables: Vec<String> = judges.into_iter().map(|judge| table(results, judge)).collect();
    let mut text = tables.join("\n");
    let run = run.display();
    text +=
        &format!("\n{run}/{RESULTS}, {run}/win-rate-kl.png, policies in {run}/methods/NAME/policy");
    Ok(text)
}
