//! The end of a run: results.json, the table, and the plot of win rate against KL.

use std::path::Path;

use anyhow::{Context, Result};
use infalign_evaluate::{
    Comparison, Contest, Entry, Figure, Judge, Label, Plan, Row, Sampled, Statistics, Table, table,
    text_comparisons, text_table, win_rate_against_kl,
};
use infalign_train::{ExactWinRate, Nearness, Objective};
use infalign_transform::Theory;
use serde::Serialize;

use super::inputs::objective;
use super::optimum::OPTIMUM;
use super::run_dir::RESULTS;
use crate::figure::write_figure;
use crate::files::{read_json, write_json};
use crate::recipe::{AlignRecipe, Method};
use crate::sources::METHODS;

/// The form of `results.json`.
pub(crate) const SCHEMA: &str = "results/1";

/// A method with its samples.
pub(crate) struct Measured {
    pub(crate) name: String,
    /// None for the reference itself.
    pub(crate) kind: Option<&'static str>,
    pub(crate) objective: Option<Objective>,
    pub(crate) sampled: Sampled,
    /// How near its policy is to the exact optimum, where the recipe asks for it.
    optimum: Option<Nearness>,
}

impl Measured {
    /// The reference itself.
    pub(crate) fn base(sampled: Sampled) -> Self {
        Self { name: "base".into(), kind: None, objective: None, sampled, optimum: None }
    }

    /// A method's policy, in the run of a folder.
    ///
    /// # Errors
    /// When the table of its objective or its optimum cannot be read.
    pub(crate) fn of(method: &Method, run: &Path, sampled: Sampled) -> Result<Self> {
        let (name, kind) = (method.name.clone(), Some(method.kind.name()));
        let optimum = run.join(METHODS).join(&name).join(OPTIMUM);
        let optimum = optimum.exists().then(|| read_json(&optimum)).transpose()?;
        Ok(Self { name, kind, objective: objective(method, run)?, sampled, optimum })
    }

    fn theory(&self) -> Option<Theory> {
        self.objective.as_ref().and_then(Objective::theory)
    }
}

/// `results.json`. It holds nothing that differs between two runs of the same recipe.
#[derive(Serialize)]
pub(crate) struct Results {
    schema: &'static str,
    recipe: String,
    seed: u64,
    rows: Vec<Row>,
    /// Each method against the recipe's baseline, on the same prompts.
    comparisons: Vec<Comparison>,
    /// Each method that CTRL trained beside its exact optimum, where the recipe asks for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    optima: Vec<Optimum>,
}

/// A method beside the exact optimum of what it was trained on.
#[derive(Serialize)]
struct Optimum {
    method: String,
    #[serde(flatten)]
    nearness: Nearness,
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
        schema: SCHEMA,
        recipe: recipe.name.clone(),
        seed: recipe.seed,
        rows: Vec::new(),
        comparisons: Vec::new(),
        optima: measured.iter().filter_map(optimum).collect(),
    };
    for judge in judges(recipe) {
        let Table { rows, comparisons } = judged(recipe, measured, reference, judge)?;
        let figure = figure(recipe, judge, measured, &rows)?;
        write_figure(folder, plot(judge), &figure)?;
        results.rows.extend(rows);
        results.comparisons.extend(comparisons);
    }
    write_json(&folder.join(RESULTS), &results)?;
    Ok(results)
}

fn optimum(measured: &Measured) -> Option<Optimum> {
    let nearness = measured.optimum.clone()?;
    Some(Optimum { method: measured.name.clone(), nearness })
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

/// All rows and comparisons under one judge.
fn judged(
    recipe: &AlignRecipe,
    measured: &[Measured],
    reference: &Sampled,
    judge: Judge,
) -> Result<Table> {
    let baseline = measured.iter().position(|m| m.name == recipe.evaluation.baseline);
    let baseline = baseline.context("the baseline was not measured")?;
    let objectives: Vec<Option<String>> =
        measured.iter().map(|m| m.objective.as_ref().map(ToString::to_string)).collect();
    let theories: Vec<Option<Theory>> = measured.iter().map(Measured::theory).collect();
    let entries: Vec<Entry<'_>> = measured
        .iter()
        .zip(objectives.iter().zip(&theories))
        .map(|(method, (objective, theory))| Entry {
            label: Label {
                method: &method.name,
                kind: method.kind,
                objective: objective.as_deref(),
                theory: theory.as_ref(),
            },
            sampled: &method.sampled,
            reference,
        })
        .collect();
    let pairs: Vec<(usize, usize)> = (0..measured.len())
        .filter(|&method| method != baseline && measured[method].kind.is_some())
        .map(|method| (method, baseline))
        .collect();
    let contests = Contest::all(recipe.evaluation.procedures.iter().copied(), None);
    let plan = Plan { pairs: &pairs, ..Plan::new(&contests, judge, Statistics::new(recipe.seed)) };
    Ok(table(&entries, &plan)?)
}

fn figure(
    recipe: &AlignRecipe,
    judge: Judge,
    measured: &[Measured],
    rows: &[Row],
) -> Result<Figure> {
    let theories: Vec<(String, Theory)> =
        measured.iter().filter_map(|m| Some((m.name.clone(), m.theory()?))).collect();
    let by = match judge {
        Judge::Reward => "",
        Judge::Judge => ", by the judge",
    };
    let name = &recipe.name;
    let title =
        format!("{name}: win rate against the reference, both sides under the same procedure{by}");
    Ok(win_rate_against_kl(&title, rows, &theories, &[])?)
}

/// The table of one judge, and its comparisons.
fn text_of(results: &Results, judge: Judge) -> String {
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
    text + &text_comparisons(&comparisons.cloned().collect::<Vec<_>>(), 0.95)
}

/// Every method beside its optimum.
fn optima_text(optima: &[Optimum]) -> String {
    let mut text = "\nbeside the exact optimum of what was trained on, over all responses to the training prompts:\n".to_owned();
    for Optimum { method, nearness } in optima {
        let Nearness { beta, kl, start, value, optimum, lacking, distance, win_rates } = nearness;
        let lacking = 100.0 * lacking;
        text += &format!(
            "{method}: E[Φ] − β·KL from {start:.4} to {value:.4} of {optimum:.4} ({lacking:.2} % of the gain lacking) at β {beta:.4}; KL {kl:.3} nats, {distance:.4} to the best policy\n"
        );
        for ExactWinRate { procedure, policy, optimum } in win_rates {
            text +=
                &format!("  {procedure}: win rate {policy:.4}, of the best policy {optimum:.4}\n");
        }
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
    let tables: Vec<String> = judges.into_iter().map(|judge| text_of(results, judge)).collect();
    let mut text = tables.join("\n");
    if !results.optima.is_empty() {
        text += &optima_text(&results.optima);
    }
    let run = run.display();
    text +=
        &format!("\n{run}/{RESULTS}, {run}/win-rate-kl.png, policies in {run}/methods/NAME/policy");
    Ok(text)
}
