//! `infalign calibrate --model …`: sample reference responses, score them, keep their rewards.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use infalign_calibrate::{Calibration, store};
use infalign_train::{Filled, ReferenceRewards};
use serde_json::json;

use super::reference::{DrawingArgs, Reference, ReferenceArgs};
use super::saving::{InHand, fill_table, filled};
use crate::failure::{Failure, OrFailure};
use crate::progress::Progress;
use crate::recording::RunInputs;
use crate::{destination, interrupt, output};

/// Batches of responses that are sampled and scored from one look at Ctrl-C to the next.
const BATCHES_PER_BLOCK: usize = 8;

/// Arguments that make a table.
#[derive(Args)]
pub(crate) struct MakeArgs {
    #[command(flatten)]
    reference: ReferenceArgs,
    #[command(flatten)]
    drawing: DrawingArgs,
    /// K: reference responses to each prompt.
    #[arg(long)]
    samples: usize,
    /// The table, as Parquet. One that is there already is extended: prompts that it lacks get K samples, others what they have less.
    #[arg(long)]
    out: PathBuf,
    /// Take the i-th of n parts of the prompts, from 1/n to n/n, into a table of its own, to be merged.
    #[arg(long, value_name = "i/n", value_parser = shard)]
    shard: Option<(usize, usize)>,
    /// Print a JSON document instead of a sentence.
    #[arg(long)]
    json: bool,
}

impl MakeArgs {
    /// What is read.
    pub(crate) fn reads(&self) -> RunInputs {
        let of = &self.reference;
        let reads = RunInputs::new(Some(of.seed), of.device.as_ref(), self.json);
        reads
            .model("--model", &of.model)
            .file("--prompts", &of.prompts)
            .reward("--reward", Some(&of.reward))
    }
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] before sampling, [`Failure::Run`] and [`Failure::Stopped`] after; what was finished is in the table.
pub(crate) fn run(args: &MakeArgs) -> Result<(), Failure> {
    let in_hand = take_in_hand(args).or_input()?;
    let (mut reference, mut calibration) = prepare(args).or_input()?;
    if let Some((part, parts)) = args.shard {
        // Runs of neighbours, so that parts merged in order are the whole.
        let count = reference.prompts.len() as u128;
        let end = |part: usize| (part as u128 * count / parts as u128) as usize;
        reference.prompts = reference.prompts[end(part - 1)..end(part)].to_vec();
    }
    let start = Instant::now();
    let filled = fill(args, &reference, &mut calibration).or_run()?;
    drop(in_hand);
    if interrupt::asked() {
        let on = match output::in_record(&args.out) {
            Some(_) => "a copy of it elsewhere, given by --out, is gone on with",
            None => "the same command goes on",
        };
        return Err(Failure::Stopped(anyhow!(
            "stopped; {} holds what was finished, and {on}",
            args.out.display()
        )));
    }
    report(args, &calibration, &filled, start.elapsed())
}

/// Refuses what cannot be made, and takes hold of the table: what another process adds to it meanwhile would be lost.
fn take_in_hand(args: &MakeArgs) -> Result<InHand> {
    ensure!(args.samples >= 2, "--samples is {}: a quantile needs 2 or more", args.samples);
    destination::file(&args.out)?;
    InHand::take(&args.out)
}

/// Reads everything, and the table that is there.
fn prepare(args: &MakeArgs) -> Result<(Reference, Calibration)> {
    let reference = Reference::read(&args.reference, &args.drawing)?;
    let calibration = if args.out.exists() {
        let calibration = store::read(&args.out)?;
        let other = || format!("{} is there already; give another --out", args.out.display());
        calibration.check(&reference.meta).with_context(other)?;
        calibration
    } else {
        Calibration::new(reference.meta.clone())
    };
    Ok((reference, calibration))
}

fn fill(args: &MakeArgs, reference: &Reference, table: &mut Calibration) -> Result<Filled> {
    interrupt::watch();
    let sampler = reference.generator();
    let rewards = ReferenceRewards {
        sampler: &sampler,
        tokenizer: &reference.tokenizer,
        reward: reference.reward.as_ref(),
        samples: args.samples,
        block: BATCHES_PER_BLOCK * reference.batch,
    };
    let (done, all) = filled(table, &reference.prompts, args.samples);
    let bar = Progress::new(1).resumed("calibration", all, done);
    let show = |filled: &Filled| bar.set(filled.prompts, describe(filled));
    let filled = fill_table(&rewards, &reference.prompts, (table, &args.out), show)?;
    bar.finish(describe(&filled));
    Ok(filled)
}

fn describe(filled: &Filled) -> String {
    let seconds = (filled.sampling + filled.scoring).as_secs_f64().max(1e-9);
    format!("{:.0} responses/s", filled.responses as f64 / seconds)
}

fn report(
    args: &MakeArgs,
    table: &Calibration,
    filled: &Filled,
    elapsed: Duration,
) -> Result<(), Failure> {
    let Filled { responses, sampling, scoring, .. } = *filled;
    let [all, sampling, scoring] = [elapsed, sampling, scoring].map(|time| time.as_secs_f64());
    let (shown, kept) = (args.out.display().to_string(), output::kept_place(&args.out));
    if args.json {
        let prompts = table.len();
        let document = |place: String| json!({ "table": place, "prompts": prompts, "samples": args.samples, "new_responses": responses });
        let mut timed = document(shown);
        timed["seconds"] = json!({ "sampling": sampling, "scoring": scoring, "all": all });
        return output::print_as(&format!("{timed:#}"), &format!("{:#}", document(kept)));
    }
    let what = format!("{} prompts, {responses} new responses", table.len());
    let times = format!("in {all:.1} s (sampling {sampling:.1} s, scoring {scoring:.1} s)");
    output::print_as(&format!("{shown}: {what} {times}"), &format!("{kept}: {what}"))
}

/// `i/n` with 1 ≤ i ≤ n.
fn shard(text: &str) -> Result<(usize, usize), String> {
    let pair = text
        .split_once('/')
        .and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
    pair.filter(|(part, parts)| (1..=*parts).contains(part))
        .ok_or_else(|| "give i/n with i from 1 to n, such as 1/4".to_owned())
}
