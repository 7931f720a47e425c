//! `infalign compare`: differences between evaluated methods, on the same prompts.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use infalign_evaluate::{
    Comparison, Effect, Entry, Judge, Plan, Planned, Row, percent, plan, table, text_comparisons,
    text_table,
};
use infalign_transform::Composed;
use serde::Serialize;

use crate::failure::{Failure, OrFailure};
use crate::recording::RunInputs;
use crate::sources::{Source, contests, judges, read_all, read_by, recipe_seed};
use crate::statistics::{PlanArgs, StatisticsArgs};
use crate::{measures, output};

/// Arguments of `infalign compare`.
#[derive(Args)]
pub(crate) struct CompareArgs {
    /// One or two of: the folder of a run or an evaluation, a method of one (RUN/methods/NAME), or a file of samples with --reference. Of
    /// one, every two methods are compared; of two, methods of the same name, or all with the only one.
    #[arg(required = true, num_args = 1..=2)]
    paths: Vec<PathBuf>,
    /// File of the reference's samples, for files.
    #[arg(long)]
    reference: Option<PathBuf>,
    /// Procedure on both sides; may be repeated. Without any: those that the first was evaluated under.
    #[arg(long)]
    procedure: Vec<Composed>,
    /// Procedure of the reference, where it is another.
    #[arg(long)]
    reference_procedure: Option<Composed>,
    /// Add win rates at equal lengths.
    #[arg(long)]
    length_controlled: bool,
    #[command(flatten)]
    statistics: StatisticsArgs,
    #[command(flatten)]
    plan: PlanArgs,
    /// Print a JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Default, Serialize)]
struct Document {
    schema: &'static str,
    /// What speaks against comparing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    rows: Vec<Row>,
    comparisons: Vec<Comparison>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    plans: Vec<Planned>,
}

impl CompareArgs {
    /// What the command reads.
    pub(crate) fn reads(&self) -> RunInputs {
        let reads =
            RunInputs::new(Some(self.statistics.seed(recipe_seed(&self.paths))), None, self.json);
        read_by(reads, &self.paths, self.reference.as_deref())
    }
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] for what cannot be read or compared.
pub(crate) fn run(args: &CompareArgs) -> Result<(), Failure> {
    let document = compare(args).or_input()?;
    if args.json {
        return output::print(&serde_json::to_string_pretty(&document).or_run()?);
    }
    output::print(text(&document, args.statistics.level).trim_end())
}

fn compare(args: &CompareArgs) -> Result<Document> {
    let sources = read_all(&args.paths, args.reference.as_deref())?;
    let entries: Vec<Entry<'_>> =
        sources.iter().flat_map(|source| source.entries().map(|(_, entry)| entry)).collect();
    let pairs = pairs(&sources)?;
    let contests = contests(&sources, &args.procedure, args.reference_procedure);
    let statistics = args.statistics.statistics(recipe_seed(&args.paths));
    let warnings = measures::warnings(&sources);
    warnings.iter().for_each(|warning| tell!("warning: {warning}"));
    let mut document = Document { schema: "comparison/1", warnings, ..Document::default() };
    for judge in judges(&sources) {
        let of_judge = Plan {
            pairs: &pairs,
            length_controlled: args.length_controlled,
            ..Plan::new(&contests, judge, statistics)
        };
        let found = table(&entries, &of_judge)?;
        document.rows.extend(found.rows);
        document.comparisons.extend(found.comparisons);
    }
    if let Some(size) = args.plan.plan {
        let effect = Effect { size, power: args.plan.power };
        for contest in &contests {
            for &(a, b) in &pairs {
                let baseline = Some(&entries[b]);
                let of = plan(&entries[a], baseline, contest, Judge::Reward, effect, &statistics)?;
                document.plans.push(of);
            }
        }
    }
    Ok(document)
}

/// Which methods are compared, by their places among all; the second is subtracted.
fn pairs(sources: &[Source]) -> Result<Vec<(usize, usize)>> {
    let methods = |source: &Source, from: usize| -> Vec<(usize, String)> {
        let compared = source.methods.iter().enumerate().filter(|(_, method)| !method.is_base);
        compared.map(|(place, method)| (from + place, method.name.clone())).collect()
    };
    let Some(first) = sources.first() else { return Ok(Vec::new()) };
    let ours = methods(first, 0);
    let pairs: Vec<(usize, usize)> = match sources.get(1) {
        None => {
            let later = |(k, (a, _)): (usize, &(usize, String))| {
                ours[k + 1..].iter().map(|(b, _)| (*b, *a)).collect::<Vec<_>>()
            };
            ours.iter().enumerate().flat_map(later).collect()
        }
        Some(second) => {
            let theirs = methods(second, first.methods.len());
            let any = ours.len() == 1 || theirs.len() == 1;
            ours.iter()
                .flat_map(|a| theirs.iter().map(move |b| (a, b)))
                .filter(|((_, ours), (_, theirs))| any || ours == theirs)
                .map(|((a, _), (b, _))| (*a, *b))
                .collect()
        }
    };
    ensure!(
        !pairs.is_empty(),
        "there are no two methods to compare: give two runs with methods of the same names, one with several, or RUN/methods/NAME twice"
    );
    Ok(pairs)
}

fn text(document: &Document, level: f64) -> String {
    let mut text = String::new();
    for (judge, title) in [(Judge::Reward, "by the reward"), (Judge::Judge, "by the judge")] {
        let rows: Vec<Row> =
            document.rows.iter().filter(|row| row.judge == judge).cloned().collect();
        if rows.is_empty() {
            continue;
        }
        let comparisons: Vec<Comparison> =
            document.comparisons.iter().filter(|one| one.judge == judge).cloned().collect();
        let lines = text_comparisons(&comparisons, level);
        text += &format!("{title}:\n{}\n{lines}\n", text_table(&rows));
    }
    let percent = percent(level);
    text += &format!(
        "[{percent} intervals over prompts]; verdicts adjusted for all {} comparisons of a judge (Holm)\n",
        document.comparisons.iter().filter(|one| one.judge == Judge::Reward).count()
    );
    text + &plans(&document.plans)
}

/// What plans say, a line each.
pub(crate) fn plans(plans: &[Planned]) -> String {
    let line = |planned: &Planned| {
        let Planned { method, baseline, procedure, effect, power, .. } = planned;
        let what = match baseline {
            Some(baseline) => {
                format!("{method} − {baseline}, {procedure}: a difference of {effect}")
            }
            None => format!("{method}, {procedure}: a win rate {effect} from ½"),
        };
        let needs: Vec<String> = planned
            .needs
            .iter()
            .map(|need| format!("{} prompts × {} samples", need.prompts, need.samples))
            .collect();
        format!("\n{what} is seen with probability {power} from {}", needs.join(", "))
    };
    plans.iter().map(line).collect()
}
