//! `infalign compare`: differences between evaluated methods, or between decoders (`decoders.rs`), on the same prompts.

mod decoders;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use infalign_evaluate::{
    Comparison, Effect, Entry, Judge, Judging, Plan, Planned, Row, Table, distinct, percent, plan,
    table, text_comparisons, text_decoders, text_table,
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
    /// one, every two methods are compared; of two, methods of the same name, or all with the only one. With --decoders as many as there are.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// File of the reference's samples, for files.
    #[arg(long)]
    reference: Option<PathBuf>,
    /// Procedure on both sides, with --decoders of the methods alone; may be repeated. Without any: those that the first was evaluated under,
    /// with --decoders those of each.
    #[arg(long)]
    procedure: Vec<Composed>,
    /// Procedure of the reference, where it is another.
    #[arg(long)]
    reference_procedure: Option<Composed>,
    /// Compare decoders: every two of all methods under all procedures, the reference's own row among them, against one procedure of the
    /// reference, by default that which made its responses, mostly sample.
    #[arg(long, conflicts_with = "plan")]
    decoders: bool,
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
    output::print(text(&document, args).trim_end())
}

fn compare(args: &CompareArgs) -> Result<Document> {
    ensure!(
        args.decoders || args.paths.len() <= 2,
        "methods of one or two runs are compared, not of {}: give two, or --decoders",
        args.paths.len()
    );
    let sources = read_all(&args.paths, args.reference.as_deref())?;
    let warnings = measures::warnings(&sources);
    warnings.iter().for_each(|warning| tell!("warning: {warning}"));
    let statistics = args.statistics.statistics(recipe_seed(&args.paths));
    let length_controlled = args.length_controlled;
    let judging = |judge| Judging { judge, length_controlled, statistics };
    let judgings: Vec<Judging> = judges(&sources).into_iter().map(judging).collect();
    let mut document = Document { schema: "comparison/1", warnings, ..Document::default() };
    let tables = if args.decoders {
        judgings.iter().map(|judging| decoders::table(args, &sources, judging)).collect()
    } else {
        methods(args, &sources, &judgings, &mut document.plans)
    };
    for Table { rows, comparisons } in tables? {
        document.rows.extend(rows);
        document.comparisons.extend(comparisons);
    }
    Ok(document)
}

/// Methods under the same procedures: a table a judge, and what is planned by each.
fn methods(
    args: &CompareArgs,
    sources: &[Source],
    judgings: &[Judging],
    plans: &mut Vec<Planned>,
) -> Result<Vec<Table>> {
    let entries: Vec<Entry<'_>> =
        sources.iter().flat_map(|source| source.entries().map(|(_, entry)| entry)).collect();
    let pairs = &pairs(sources)?;
    let contests = &contests(sources, &args.procedure, args.reference_procedure);
    let judged = |&judging| Ok(table(&entries, &Plan { contests, pairs, judging })?);
    let tables = judgings.iter().map(judged).collect::<Result<_>>()?;
    if let Some(size) = args.plan.plan {
        let effect = Effect { size, power: args.plan.power };
        for Judging { judge, statistics, .. } in judgings {
            for contest in contests {
                for &(a, b) in pairs {
                    let (method, baseline) = (&entries[a], Some(&entries[b]));
                    plans.push(plan(method, baseline, contest, *judge, effect, statistics)?);
                }
            }
        }
    }
    Ok(tables)
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

fn text(document: &Document, args: &CompareArgs) -> String {
    let level = args.statistics.level;
    let mut text = String::new();
    for judge in [Judge::Reward, Judge::Judge] {
        let rows: Vec<Row> =
            document.rows.iter().filter(|row| row.judge == judge).cloned().collect();
        if rows.is_empty() {
            continue;
        }
        let comparisons: Vec<Comparison> =
            document.comparisons.iter().filter(|one| one.judge == judge).cloned().collect();
        let found = if args.decoders {
            text_decoders(&rows, &comparisons, level)
        } else {
            format!("{}\n{}", text_table(&rows), text_comparisons(&comparisons, level))
        };
        text += &format!("{}:\n{found}\n", by(judge));
    }
    let percent = percent(level);
    let adjusted =
        match document.comparisons.iter().filter(|one| one.judge == Judge::Reward).count() {
            1 => "one comparison of a judge, whose verdict needs no adjustment".to_owned(),
            several => format!("verdicts adjusted for all {several} comparisons of a judge (Holm)"),
        };
    text += &format!("[{percent} intervals over prompts]; {adjusted}\n");
    text + &plans(&document.plans)
}

/// Who judges, as titles and lines say it.
fn by(judge: Judge) -> &'static str {
    match judge {
        Judge::Reward => "by the reward",
        Judge::Judge => "by the judge",
    }
}

/// What plans say, a line each, and by whom where not all are by the same.
pub(crate) fn plans(plans: &[Planned]) -> String {
    let are_by_several = distinct(plans.iter().map(|planned| planned.judge)).len() > 1;
    let line = |planned: &Planned| {
        let Planned { method, baseline, procedure, judge, effect, power, .. } = planned;
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
        let judged = if are_by_several { format!(" {}", by(*judge)) } else { String::new() };
        format!("\n{what}{judged} is seen with probability {power} from {}", needs.join(", "))
    };
    plans.iter().map(line).collect()
}
