//! `infalign calibrate report`: a page on a table.

use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use infalign_backend::DeviceName;
use infalign_calibrate::pit::{Group, Uniformity, uniformity};
use infalign_calibrate::summary::Summary;
use infalign_calibrate::{CalibrateError, Calibration, store};
use infalign_decode::{Sampler, Stream};
use infalign_evaluate::{Noise, draw_svg, noise, recommended_samples};
use infalign_record::Page;
use infalign_transform::{Procedure, Transform};
use serde_json::json;

use super::reference::{DrawingArgs, Reference, ReferenceArgs, names};
use super::tables;
use crate::failure::{Failure, OrFailure};
use crate::figure::write_figure;
use crate::files::{self, make_folder};
use crate::given_options::GivenOptions;
use crate::sampling::DRAWING;
use crate::{destination, output};

mod figures;

/// Simulated tables that the p-value of uniformity comes from.
const REPLICATES: usize = 999;

/// The p-value below which a table is called wrong.
const REFUTED: f64 = 0.01;

/// Numbers of samples that the table of noise shows beside the table's own and the recommended one.
const SHOWN: [usize; 6] = [8, 16, 32, 64, 128, 256];

/// Arguments of `infalign calibrate report`.
#[derive(Args)]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    given: GivenOptions,
    /// The table.
    table: PathBuf,
    /// Folder of the page, its plots and report.json.
    #[arg(long)]
    out: PathBuf,
    /// Φ that a policy is to be trained on, as identity, log, exp:t, optimal:PROCEDURE,beta=B or table:FILE.
    #[arg(long, default_value = "exp:10")]
    transform: Transform,
    /// How the policy is to be decoded: sample, best-of:N or worst-of:N.
    #[arg(long, default_value = "best-of:4")]
    procedure: Procedure,
    /// KL(π‖π_ref) that the policy is to have, in nats.
    #[arg(long, default_value_t = 0.5)]
    kl: f64,
    /// Fresh reference responses to each prompt, whose calibrated rewards have to be uniform; with --model, --prompts and --reward.
    #[arg(long, requires = "model", default_value_t = 16)]
    fresh: usize,
    /// The reference policy of the table, to draw fresh responses from, as `calibrate` takes it.
    #[arg(long, requires_all = ["prompts", "reward"])]
    model: Option<PathBuf>,
    /// Prompts that are in the table.
    #[arg(long, requires = "model")]
    prompts: Option<PathBuf>,
    /// The reward of the table.
    #[arg(long, requires = "model")]
    reward: Option<PathBuf>,
    #[command(flatten)]
    drawing: DrawingArgs,
    /// Device: cpu, cuda, wgpu, with :INDEX for another than the first.
    #[arg(long, requires = "model")]
    device: Option<DeviceName>,
    /// Print report.json instead of a sentence.
    #[arg(long)]
    json: bool,
}

/// What the page shows.
struct Report {
    table: Calibration,
    summary: Summary,
    noise: Vec<Noise>,
    recommended: Option<usize>,
    uniformity: Option<Uniformity>,
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] before sampling, [`Failure::Run`] after.
pub(crate) fn run(args: &ReportArgs) -> Result<(), Failure> {
    destination::folder(&args.out).or_input()?;
    let table = store::read(&args.table).or_input()?;
    let summary = tables::summary(&args.table, &table).or_input()?;
    let (noise, recommended) = noises(args, &summary).or_input()?;
    let reference = reference(args, &table).or_input()?;
    let uniformity = reference.map(|reference| fresh(args, &table, &summary, &reference));
    let uniformity = uniformity.transpose().or_run()?;
    let report = Report { table, summary, noise, recommended, uniformity };
    let document = write(args, &report).or_run()?;
    if args.json {
        return output::print(&document);
    }
    output::print(&format!("{}", args.out.join("report.html").display()))
}

fn noises(args: &ReportArgs, summary: &Summary) -> Result<(Vec<Noise>, Option<usize>)> {
    let recommended = recommended_samples(&args.transform, &args.procedure, args.kl)?;
    let mut samples = SHOWN.to_vec();
    samples.push(summary.least_samples);
    samples.extend(recommended);
    samples.sort_unstable();
    samples.dedup();
    let of = |k| noise(&args.transform, &args.procedure, args.kl, k);
    let rows = samples.into_iter().map(of).collect::<Result<Vec<_>, _>>()?;
    Ok((rows, recommended))
}

/// The reference policy, if it is the one that the table was made of.
fn reference(args: &ReportArgs, table: &Calibration) -> Result<Option<Reference>> {
    let given = (&args.model, &args.prompts, &args.reward);
    let (Some(model), Some(prompts), Some(reward)) = given else {
        return match args.given.first_of(&DRAWING) {
            Some(option) => bail!(
                "{option} says how fresh responses are drawn: give --model, --prompts and --reward as well"
            ),
            None => Ok(None),
        };
    };
    ensure!(args.fresh > 0, "--fresh is 0: give 1 or more");
    if table.meta().quantiles.is_some() {
        return Err(CalibrateError::Compressed).with_context(|| args.table.display().to_string());
    }
    let given = ReferenceArgs {
        model: model.clone(),
        prompts: prompts.clone(),
        reward: reward.clone(),
        // Of other numbers than the table's, so that none of its responses is drawn again.
        seed: table.meta().seed,
        device: args.device.clone(),
    };
    let reference = Reference::read(&given, &args.drawing)?;
    table.check(&reference.meta)?;
    table.check_holds(names(&reference.prompts))?;
    Ok(Some(reference))
}

/// The numbers of so many responses that no prompt of the table has seen.
fn unseen(summary: &Summary, fresh: usize) -> Range<usize> {
    let first = summary.most_samples;
    first..first.saturating_add(fresh)
}

/// Whether responses that the table has not seen are uniform under it.
fn fresh(
    args: &ReportArgs,
    table: &Calibration,
    summary: &Summary,
    reference: &Reference,
) -> Result<Uniformity> {
    let numbers = unseen(summary, args.fresh);
    let responses = reference.generator().generate(&reference.prompts, numbers)?;
    let mut uniform = Stream::new(0, "uniformity", "", 0).uniforms(0);
    let mut groups = Vec::with_capacity(reference.prompts.len());
    for (prompt, responses) in reference.prompts.iter().zip(&responses) {
        let text = |response: &infalign_decode::Response| {
            reference.tokenizer.decode_response(&prompt.tokens, &response.tokens)
        };
        let texts = responses.iter().map(text).collect::<Result<Vec<String>, _>>()?;
        let pairs: Vec<(&str, &str)> =
            texts.iter().map(|text| (prompt.text.as_str(), text.as_str())).collect();
        let rewards = reference.reward.score(&pairs)?;
        groups.push(Group::new(table.row(&prompt.text)?, &rewards, &mut uniform)?);
    }
    Ok(uniformity(&groups, REPLICATES, &mut uniform)?)
}

/// Writes the page, the plots and the numbers; returns the numbers.
fn write(args: &ReportArgs, report: &Report) -> Result<String> {
    make_folder(&args.out)?;
    let document = json!({
        "table": args.table, "meta": report.table.meta(), "summary": report.summary,
        "transform": args.transform.to_string(), "procedure": args.procedure, "kl": args.kl,
        "noise": report.noise, "recommended_samples": report.recommended, "uniformity": report.uniformity,
    });
    let document = format!("{document:#}");
    let page = page(args, report)?.html();
    files::write(&args.out.join("report.html"), page)?;
    files::write(&args.out.join("report.json"), &document)?;
    Ok(document)
}

fn page(args: &ReportArgs, report: &Report) -> Result<Page> {
    let page = Page::new("Calibration table")
        .paragraph(&advice(args, report))
        .paragraph(&verdict(report.uniformity.as_ref()));
    let spread = figures::spread(&report.table);
    write_figure(&args.out, "spread", &spread)?;
    let page = page
        .heading("Rewards, prompt by prompt")
        .paragraph(
            "Reference rewards of each prompt, prompts in the order of their median. Where the lines are steep, the same reward is good for \
             one prompt and bad for another: that is what calibration takes out.",
        )
        .drawing(&draw_svg(&spread)?, &spread.title);
    let page = with_noise(page, args, report)?;
    let page = match &report.uniformity {
        Some(found) => with_uniformity(page, args, found)?,
        None => page,
    };
    let cells = tables::cells(&report.table, &report.summary);
    let held = "What it was made from, and what it holds";
    Ok(page.heading("The table").folded_table(held, &cells))
}

/// How many rewards a prompt are recommended, and whether the table has them.
fn advice(args: &ReportArgs, report: &Report) -> String {
    let wanted = format!("{} under {} at {} nats", args.transform, args.procedure, args.kl);
    let held = report.summary.least_samples;
    match report.recommended {
        Some(k) if k <= held => {
            format!("For {wanted}, K = {k} rewards a prompt are enough: this table has {held}.")
        }
        Some(k) => {
            format!(
                "For {wanted}, K = {k} rewards a prompt are recommended; this table has {held}: extend it."
            )
        }
        None => {
            format!("For {wanted}, no K up to 2000 is enough: take a transform that is less steep.")
        }
    }
}

/// Whether fresh responses were uniform.
fn verdict(uniformity: Option<&Uniformity>) -> String {
    match uniformity {
        None => "Whether fresh reference responses are uniform under this table was not tested: with --model, --prompts and --reward, some are \
                 drawn, whose calibrated rewards have to be uniform."
            .to_owned(),
        Some(found) if found.p_value < REFUTED => {
            format!(
                "Fresh reference responses are not uniform under this table (p = {:.3}): it was made from something else, or the prompts have changed.",
                found.p_value
            )
        }
        Some(found) => {
            format!(
                "Fresh reference responses are as uniform under this table as under exact ones (p = {:.3}).",
                found.p_value
            )
        }
    }
}

fn with_noise(page: Page, args: &ReportArgs, report: &Report) -> Result<Page> {
    let figure = figures::noise(&args.transform, report.summary.least_samples);
    write_figure(&args.out, "noise", &figure)?;
    let which = |samples: usize| {
        let is_own = (samples == report.summary.least_samples).then_some("this table");
        let is_wanted = (Some(samples) == report.recommended).then_some("recommended");
        is_own.into_iter().chain(is_wanted).collect::<Vec<_>>().join(", ")
    };
    let rows = report.noise.iter().map(|row| {
        let cells = [
            row.samples.to_string(),
            which(row.samples),
            format!("{:.1} %", 100.0 * row.bias),
            row.loss.map_or("beyond the reach of K".to_owned(), |loss| format!("{loss:.4}")),
            format!("{:.4}", row.least_loss),
        ];
        cells.map(|cell| Page::with_minus_signs(&cell)).to_vec()
    });
    Ok(page
        .heading(&format!("What K leaves of {}", args.transform))
        .paragraph(&format!(
            "A policy is trained on Φ(Ĉ), with the Ĉ that a table of K rewards gives, not on Φ. Bias is the greatest distance of E Φ(Ĉ) from Φ \
             between u = 0.01 and 0.99, as a share of the range of Φ there. Loss is the win rate under {} that this costs at {} nats, in the \
             continuous limit: most for a policy that has learned the table of every prompt, least for one that cannot tell prompts apart and \
             sees the mean over their tables. Training ends between the two.",
            args.procedure, args.kl
        ))
        .table(
            &["K", "", "bias", "loss, tables learned", "loss, prompts not told apart"],
            &rows.collect::<Vec<_>>(),
        )
        .drawing(&draw_svg(&figure)?, &figure.title))
}

fn with_uniformity(page: Page, args: &ReportArgs, found: &Uniformity) -> Result<Page> {
    let figure = figures::uniformity(found);
    write_figure(&args.out, "uniformity", &figure)?;
    Ok(page
        .heading("Uniformity of fresh reference responses")
        .paragraph(&format!(
            "Calibrated rewards of {} responses that the table has not seen, ties broken at random. Kolmogorov's distance from the uniform \
             distribution is {:.4}; exact tables are as far or farther with probability {:.3}.",
            found.responses, found.distance, found.p_value
        ))
        .drawing(&draw_svg(&figure)?, &figure.title))
}

#[cfg(test)]
mod tests {
    use infalign_calibrate::CalibrationMeta;

    use super::*;

    #[test]
    fn fresh_responses_are_those_behind_the_longest_row() {
        let mut table = Calibration::new(CalibrationMeta::default());
        table.insert("a", "first", vec![1.0, 2.0, 3.0]).unwrap();
        table.insert("b", "second", vec![1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let summary = Summary::of(&table).unwrap();
        assert_eq!(unseen(&summary, 4), 5..9);
    }

    #[test]
    fn a_table_is_judged_by_the_p_value() {
        let found =
            |p_value: f64| Uniformity { responses: 40, distance: 0.1, p_value, bins: Vec::new() };
        assert!(verdict(Some(&found(0.5))).contains("as uniform under this table"));
        assert!(verdict(Some(&found(0.002))).contains("not uniform under this table (p = 0.002)"));
        assert!(verdict(None).contains("was not tested"));
    }
}
