//! `infalign calibrate report`: a page on a table.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use infalign_backend::DeviceName;
use infalign_calibrate::pit::{Group, Uniformity, uniformity};
use infalign_calibrate::summary::Summary;
use infalign_calibrate::{CalibrateError, Calibration};
use infalign_decode::{Sampler, Stream};
use infalign_evaluate::{Noise, draw_svg, noise, recommended_samples};
use infalign_record::Page;
use infalign_transform::{Procedure, Transform};
use serde_json::json;

use super::reference::{DrawingArgs, Reference, ReferenceArgs, names, table};
use super::tables;
use crate::failure::{Failure, OrFailure};
use crate::figure::write_figure;
use crate::files::{self, make_folder};
use crate::{destination, output};

mod figures;

/// Simulated tables that the p-value of uniformity comes from.
const REPLICATES: usize = 999;

/// Numbers of samples that the table of noise shows beside the table's own.
const SHOWN: [usize; 6] = [8, 16, 32, 64, 128, 256];

/// Arguments of `infalign calibrate report`.
#[derive(Args)]
pub(crate) struct ReportArgs {
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
    #[arg(long)]
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
    let table = table(&args.table).or_input()?;
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
    let mut samples = SHOWN.to_vec();
    samples.push(summary.least_samples);
    samples.sort_unstable();
    samples.dedup();
    let of = |k| noise(&args.transform, &args.procedure, args.kl, k);
    let rows = samples.into_iter().map(of).collect::<Result<Vec<_>, _>>()?;
    Ok((rows, recommended_samples(&args.transform, &args.procedure, args.kl)?))
}

/// The reference policy, if it is the one that the table was made of.
fn reference(args: &ReportArgs, table: &Calibration) -> Result<Option<Reference>> {
    let given = (&args.model, &args.prompts, &args.reward);
    let (Some(model), Some(prompts), Some(reward)) = given else { return Ok(None) };
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

/// Whether responses that the table has not seen are uniform under it.
fn fresh(
    args: &ReportArgs,
    table: &Calibration,
    summary: &Summary,
    reference: &Reference,
) -> Result<Uniformity> {
    let first = summary.most_samples;
    let numbers = first..first.saturating_add(args.fresh);
    let responses = reference.generator().generate(&reference.prompts, numbers)?;
    let (mut stream, mut positions) = (Stream::new(0, "uniformity", "", 0), 0..);
    let mut uniform = || positions.next().map_or(0.0, |position| stream.uniform(position));
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
    let page =
        Page::new("Calibration table").table(&[], &tables::cells(&report.table, &report.summary));
    let spread = figures::spread(&report.table);
    write_figure(&args.out, "spread", &spread)?;
    let page = page
        .heading("Rewards, prompt by prompt")
        .paragraph(
            "Reference rewards of each prompt, prompts in the order of their median. Where the lines are steep, the same reward is good for \
             one prompt and bad for another: that is what calibration takes out.",
        )
        .figure(&draw_svg(&spread)?);
    let page = with_noise(page, args, report)?;
    match &report.uniformity {
        Some(found) => with_uniformity(page, args, found),
        None => Ok(page.heading("Uniformity").paragraph(
            "Not tested: with --model, --prompts and --reward, fresh reference responses are drawn, whose calibrated rewards have to be uniform.",
        )),
    }
}

fn with_noise(page: Page, args: &ReportArgs, report: &Report) -> Result<Page> {
    let figure = figures::noise(&args.transform, report.summary.least_samples);
    write_figure(&args.out, "noise", &figure)?;
    let advice = match report.recommended {
        Some(k) if k <= report.summary.least_samples => {
            format!("K = {k} is enough: this table has that.")
        }
        Some(k) => format!("K = {k} is recommended: extend the table."),
        None => "No K up to 2000 is enough: take a transform that is less steep.".to_owned(),
    };
    let rows = report.noise.iter().map(|row| {
        vec![
            row.samples.to_string(),
            format!("{:.1} %", 100.0 * row.bias),
            row.loss.map_or("beyond the reach of K".to_owned(), |loss| format!("{loss:.4}")),
            format!("{:.4}", row.least_loss),
        ]
    });
    Ok(page
        .heading(&format!("What K leaves of {}", args.transform))
        .paragraph(&format!(
            "A policy is trained on Φ(Ĉ), with the Ĉ that a table of K rewards gives, not on Φ. Bias is the greatest distance of E Φ(Ĉ) from Φ \
             between u = 0.01 and 0.99, as a share of the range of Φ there. Loss is the win rate under {} that this costs at {} nats, in the \
             continuous limit: of a policy that has learned the table of every prompt, and at least, of one that cannot tell prompts apart and \
             sees the mean over their tables. {advice}",
            args.procedure, args.kl
        ))
        .table(&["K", "bias", "loss of win rate", "at least"], &rows.collect::<Vec<_>>())
        .figure(&draw_svg(&figure)?))
}

fn with_uniformity(page: Page, args: &ReportArgs, found: &Uniformity) -> Result<Page> {
    let figure = figures::uniformity(found);
    write_figure(&args.out, "uniformity", &figure)?;
    let verdict = if found.p_value < 0.01 {
        "That is too far: the table was made from something else, or the prompts have changed."
    } else {
        "That is as far as exact tables are."
    };
    Ok(page
        .heading("Uniformity of fresh reference responses")
        .paragraph(&format!(
            "Calibrated rewards of {} responses that the table has not seen, ties broken at random. Kolmogorov's distance from the uniform \
             distribution is {:.4}; exact tables are as far or farther with probability {:.3}. {verdict}",
            found.responses, found.distance, found.p_value
        ))
        .figure(&draw_svg(&figure)?))
}
