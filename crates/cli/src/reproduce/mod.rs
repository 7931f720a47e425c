//! `infalign reproduce`: one figure or table of a paper, from its plan in `recipes/reproduce/`.
//!
//! A plan names commands of infalign, which are run one after the other, and what the paper states of their results. Each step is a run with a
//! record of its own where its command keeps one; the whole is a run whose crate holds the steps.

mod check;
mod finding;
mod page;
mod plan;
mod step;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use infalign_record::Workflow;
use infalign_record::atomic::clear_top;
use infalign_record::folder::{RESULTS, record_if_there};
use serde::Serialize;
use serde_json::{Value, json};

use self::finding::Found;
use self::plan::Plan;
use self::step::{Done, Runner};
use crate::destination;
use crate::failure::{Failure, OrFailure};
use crate::files::{self, make_folder, write_json};
use crate::interrupt;
use crate::output;
use crate::progress::Progress;
use crate::recording::{RunInputs, begin_in, recorded};

/// As records call this command.
const COMMAND: &str = "reproduce";
/// The results for people, in the reproduction's folder.
const PAGE: &str = "README.md";
/// The plan there.
const PLAN: &str = "plan.toml";
/// The steps' folders there.
const STEPS: &str = "steps";
/// Every plan.
const ALL: &str = "all";

/// Arguments of `infalign reproduce`.
#[derive(Args)]
pub(crate) struct ReproduceArgs {
    /// Name of a plan, or all.
    #[arg(required_unless_present = "list")]
    name: Option<String>,
    /// Name every plan, and what it reproduces.
    #[arg(long, conflicts_with = "name")]
    list: bool,
    /// Only try whether everything runs, in minutes: nothing is judged.
    #[arg(long)]
    smoke: bool,
    /// Change a key of every recipe that is trained, as `train --set` does: for a model and data of one's own. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Folder of the plans.
    #[arg(long, value_name = "DIR", default_value = "recipes/reproduce")]
    plans: PathBuf,
    /// Where the folders of the reproductions are; one that is there is gone on with.
    #[arg(long, value_name = "DIR", default_value = "reproductions")]
    out: PathBuf,
    /// Print a JSON document instead of tables.
    #[arg(long)]
    json: bool,
}

/// What a reproduction came to.
#[derive(Serialize)]
struct Results<'a> {
    schema: &'static str,
    name: &'a str,
    title: &'a str,
    paper: &'a str,
    scale: &'a str,
    smoke: bool,
    steps: &'a [Done],
    findings: &'a [Found],
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] for a plan that is none, [`Failure::Run`] where a step fails and [`Failure::Stopped`] where it is stopped, after all the others where all are asked for, [`Failure::Check`] where a finding is not the one expected.
pub(crate) fn run(args: &ReproduceArgs) -> Result<(), Failure> {
    let plans = plan::read_all(&args.plans).or_input()?;
    let Some(name) = &args.name else {
        let lines = plans.iter().map(|plan| format!("{:24} {}", plan.name, plan.title));
        return output::print(&lines.collect::<Vec<_>>().join("\n"));
    };
    let chosen: Vec<&Plan> = match name.as_str() {
        ALL => plans.iter().collect(),
        name => vec![named(&plans, name).or_input()?],
    };
    let all = name == ALL;
    let mut pages = Vec::new();
    let mut documents = Vec::new();
    let (mut unexpected, mut failed) = (Vec::new(), Vec::new());
    for plan in &chosen {
        match plan.check_data().or_input().and_then(|()| reproduce(plan, args)) {
            Ok((page, document, wrong)) => {
                pages.push(page);
                documents.push(document);
                unexpected.extend(wrong);
            }
            // The others are not kept from running by it.
            Err(failure) if all && !interrupt::asked() => {
                let (name, error) = (&plan.name, failure.message());
                tell!("{name}: {error}");
                pages.push(format!("# {name}: {}\n\nIt failed: {error}\n", plan.title));
                documents.push(json!({ "name": name, "error": error }));
                failed.push(format!("{name}: {error}"));
            }
            Err(failure) => return Err(failure),
        }
    }
    if all {
        let file = format!("reproductions{}.md", suffix(args.smoke));
        files::write(&args.out.join(file), pages.join("\n")).or_run()?;
    }
    let document = if all { Value::Array(documents) } else { documents.remove(0) };
    output::print(&match args.json {
        true => serde_json::to_string_pretty(&document).or_run()?,
        false => pages.join("\n\n"),
    })?;
    verdict(failed, unexpected)
}

/// Whether every plan was run, and everything was found as it was expected.
fn verdict(failed: Vec<String>, unexpected: Vec<String>) -> Result<(), Failure> {
    if !failed.is_empty() {
        return Err(Failure::Run(anyhow!("{}", [failed, unexpected].concat().join("; "))));
    }
    match unexpected.is_empty() {
        true => Ok(()),
        false => Err(Failure::Check(anyhow!("{}", unexpected.join("; ")))),
    }
}

fn named<'a>(plans: &'a [Plan], name: &str) -> Result<&'a Plan> {
    plans.iter().find(|plan| plan.name == name).with_context(|| {
        let names: Vec<&str> = plans.iter().map(|plan| plan.name.as_str()).collect();
        format!("there is no plan {name:?}; there are {} and {ALL}", names.join(", "))
    })
}

fn suffix(smoke: bool) -> &'static str {
    if smoke { "-smoke" } else { "" }
}

/// One reproduction: its page, its JSON document, and what was found that was not expected.
fn reproduce(plan: &Plan, args: &ReproduceArgs) -> Result<(String, Value, Vec<String>), Failure> {
    let run = args.out.join(format!("{}{}", plan.name, suffix(args.smoke)));
    destination::folder(&args.out).or_input()?;
    check_command(&run).or_input()?;
    let _lock = begin_in(&run).or_input()?;
    // Another process may have begun one in the meantime.
    check_command(&run).or_input()?;
    let steps = run.join(STEPS);
    make_folder(&steps).or_run()?;
    // A step that outlived the process that began it may still be writing into its own folder.
    clear_top(&steps).or_run()?;
    let reads = RunInputs::new(None, None, true).file("plan", &plan.file);
    let (page, document, findings) = recorded(&run, reads, None, || {
        let done = steps_of(plan, args, &steps).or_run()?;
        let findings = judge(plan, args.smoke, &steps).or_run()?;
        let (page, document) = write(plan, args.smoke, &run, (&done, &findings)).or_run()?;
        Ok((page, document, findings))
    })?;
    // What is changed by --set is another question than the plan's.
    let own = args.sets.is_empty();
    let wrong = findings.iter().filter(|found| own && found.is_unexpected());
    let wrong = wrong.map(|found| format!("{}: {}", plan.name, found.surprise())).collect();
    Ok((page, document, wrong))
}

/// Refuses the run of another command.
fn check_command(run: &Path) -> Result<()> {
    let other = record_if_there(run)?.filter(|record| record.command != COMMAND);
    ensure!(
        other.is_none(),
        "{} holds a run of another command: give another --out",
        run.display()
    );
    Ok(())
}

/// Runs the steps that are not done.
fn steps_of(plan: &Plan, args: &ReproduceArgs, folder: &Path) -> Result<Vec<Done>> {
    let runner = Runner::new(plan, folder, args.smoke, &args.sets)?;
    interrupt::watch();
    let mut progress = Progress::new(plan.steps.len());
    plan.steps.iter().map(|step| runner.run(step, &mut progress)).collect()
}

fn judge(plan: &Plan, smoke: bool, steps: &Path) -> Result<Vec<Found>> {
    plan.findings.iter().map(|finding| finding.judge(smoke, steps)).collect()
}

/// Writes what was found, and returns it as the page and as the JSON document.
fn write(
    plan: &Plan,
    smoke: bool,
    folder: &Path,
    (steps, findings): (&[Done], &[Found]),
) -> Result<(String, Value)> {
    files::write(&folder.join(PLAN), &plan.text)?;
    let of_workflow = steps.iter().map(|done| done.of_workflow(STEPS)).collect();
    let workflow =
        Workflow { plan: PLAN.to_owned(), title: plan.title.clone(), steps: of_workflow };
    workflow.write(folder)?;
    let Plan { name, title, paper, scale, .. } = plan;
    let schema = "reproduction/1";
    let results = Results { schema, name, title, paper, scale, smoke, steps, findings };
    let page = page::text(&results);
    files::write(&folder.join(PAGE), &page)?;
    write_json(&folder.join(RESULTS), &results)?;
    Ok((page, serde_json::to_value(&results)?))
}

/// Refuses what is no name of a folder.
fn check_name(what: &str, name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    ensure!(
        !name.is_empty() && name.chars().all(plain),
        "the {what} {name:?}: use small letters, digits and -"
    );
    Ok(())
}
