//! `infalign calibrate learn` and `predict`: quantiles of prompts that nothing was sampled for.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use infalign_backend::DeviceName;
use infalign_calibrate::{Calibration, CalibrationMeta, HeadReport, QuantileHead, Row, store};
use infalign_data::prompts;
use infalign_decode::EncodedPrompt;
use infalign_model::{CausalLm, Tokenizer};
use serde::{Deserialize, Serialize};

use super::saving::write;
use crate::encode::Encoder;
use crate::failure::{Failure, OrFailure};
use crate::{destination, files, identity, models, output};

/// Version of the calibrator's file and of what its metadata cover.
const SCHEMA_VERSION: u32 = 2;

/// A model that reads prompts.
#[derive(Args)]
struct ReaderArgs {
    /// The reference policy of the table: its Hugging Face directory, or its name on the hub.
    #[arg(long)]
    model: PathBuf,
    /// JSONL, CSV or Parquet with `prompt` (or `messages`), or a text file with a prompt a line.
    #[arg(long)]
    prompts: PathBuf,
    /// Device: cpu, cuda, wgpu, with :INDEX for another than the first.
    #[arg(long)]
    device: Option<DeviceName>,
}

/// Arguments of `infalign calibrate learn`.
#[derive(Args)]
pub(crate) struct LearnArgs {
    /// The table to learn from; it has to hold all rewards of the prompts.
    table: PathBuf,
    #[command(flatten)]
    reader: ReaderArgs,
    /// Quantiles of a prompt that are predicted.
    #[arg(long, default_value_t = 64)]
    quantiles: usize,
    /// The calibrator, as JSON: a new file.
    #[arg(long)]
    out: PathBuf,
    /// Print a JSON document instead of a sentence.
    #[arg(long)]
    json: bool,
}

/// Arguments of `infalign calibrate predict`.
#[derive(Args)]
pub(crate) struct PredictArgs {
    /// The calibrator, as `learn` wrote it.
    #[arg(long)]
    calibrator: PathBuf,
    #[command(flatten)]
    reader: ReaderArgs,
    /// The table of quantiles: a new file.
    #[arg(long)]
    out: PathBuf,
}

/// A calibrator's file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Calibrator {
    schema_version: u32,
    /// Of the table that it was learned from.
    meta: CalibrationMeta,
    /// K of that table.
    samples: usize,
    quantiles: usize,
    head: QuantileHead,
    report: HeadReport,
}

/// What calibrators of all versions have.
#[derive(Deserialize)]
struct Version {
    schema_version: u32,
}

/// Prompts, and what the model makes of them.
struct Reading {
    meta: CalibrationMeta,
    prompts: Vec<EncodedPrompt>,
    features: Vec<Vec<f32>>,
}

impl Reading {
    fn of(args: &ReaderArgs, meta: &CalibrationMeta) -> Result<Self> {
        let device = infalign_backend::device(args.device.as_ref())?;
        let folder = models::folder(&args.model)?;
        let model = CausalLm::load(&folder, &device)?;
        let tokenizer = Tokenizer::load(&folder, model.config())?;
        let own = identity::model(&folder)?;
        ensure!(
            own == meta.model_sha256,
            "{} is not the reference policy that rewards were calibrated under: its weights and settings have the SHA-256 {own}, not {}",
            args.model.display(),
            meta.model_sha256
        );
        let given = prompts::read(&args.prompts)?;
        let encoder = Encoder::new(&tokenizer).within(model.config().max_position_embeddings);
        let prompts = encoder.prompts(&given, &args.prompts)?;
        let texts: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.tokens.as_slice()).collect();
        let features = model.last_hidden(&texts)?;
        Ok(Self { meta: meta.clone(), prompts, features })
    }
}

/// Learns a calibrator.
///
/// # Errors
/// [`Failure::Input`] for a table that does not serve and for an `--out` that is there, [`Failure::Run`] when the calibrator cannot be written.
pub(crate) fn learn(args: &LearnArgs) -> Result<(), Failure> {
    destination::new_file(&args.out).or_input()?;
    let calibrator = learned(args).or_input()?;
    let report = calibrator.report;
    let text = serde_json::to_string(&calibrator).or_run()?;
    files::write(&args.out, text).or_run()?;
    if args.json {
        return output::print(&serde_json::to_string_pretty(&report).or_run()?);
    }
    output::print(&format!(
        "{}: learned from {} prompts; on {} others its calibrated rewards are off by {:.3} in the mean, those of one distribution for all by {:.3}",
        args.out.display(),
        report.prompts,
        report.held_out,
        report.error,
        report.error_without_features
    ))
}

fn learned(args: &LearnArgs) -> Result<Calibrator> {
    let table = store::read(&args.table)?;
    let reading = Reading::of(&args.reader, table.meta())?;
    let (mut rows, mut features): (Vec<&Row>, Vec<Vec<f32>>) = (Vec::new(), Vec::new());
    for (prompt, state) in reading.prompts.iter().zip(reading.features) {
        if let Some(row) = table.get(&prompt.text) {
            rows.push(row);
            features.push(state);
        }
    }
    let (head, report) = QuantileHead::fit(&features, &rows, args.quantiles)
        .with_context(|| format!("{} prompts are in the table and in --prompts", rows.len()))?;
    let samples = rows.iter().map(|row| row.samples()).min().unwrap_or(0);
    let (meta, quantiles) = (reading.meta, args.quantiles);
    Ok(Calibrator { schema_version: SCHEMA_VERSION, meta, samples, quantiles, head, report })
}

/// Predicts a table.
///
/// # Errors
/// [`Failure::Input`] for a calibrator that does not fit the model and for an `--out` that is there, [`Failure::Run`] when the table cannot be written.
pub(crate) fn predict(args: &PredictArgs) -> Result<(), Failure> {
    destination::new_file(&args.out).or_input()?;
    let table = predicted(args).or_input()?;
    write(&table, &args.out).or_run()?;
    output::print(&format!("{}: {} prompts", args.out.display(), table.len()))
}

fn predicted(args: &PredictArgs) -> Result<Calibration> {
    let calibrator = read(&args.calibrator)?;
    let reading = Reading::of(&args.reader, &calibrator.meta)?;
    let meta = CalibrationMeta { quantiles: Some(calibrator.quantiles), ..calibrator.meta };
    let mut table = Calibration::new(meta);
    for (prompt, state) in reading.prompts.iter().zip(&reading.features) {
        if table.get(&prompt.text).is_none() {
            let quantiles = calibrator.head.quantiles(state)?;
            table.insert_quantiles(&prompt.id, &prompt.text, calibrator.samples, quantiles)?;
        }
    }
    Ok(table)
}

fn read(path: &Path) -> Result<Calibrator> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the calibrator {}", path.display()))?;
    let unread =
        |error: serde_json::Error| anyhow!("{} is not a calibrator: {error}", path.display());
    // The version comes first: another has other fields.
    let Version { schema_version: version } = serde_json::from_str(&text).map_err(unread)?;
    let newer = version > SCHEMA_VERSION;
    let advice = if newer { "a newer infalign reads it" } else { "learn again" };
    ensure!(
        version == SCHEMA_VERSION,
        "{} is a calibrator of version {version}, not {SCHEMA_VERSION}: {advice}",
        path.display()
    );
    let calibrator: Calibrator = serde_json::from_str(&text).map_err(unread)?;
    ensure!(
        calibrator.samples >= 2 && calibrator.head.is_whole(calibrator.quantiles),
        "{} is damaged, its parts contradict each other: learn again",
        path.display()
    );
    Ok(calibrator)
}
