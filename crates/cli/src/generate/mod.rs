//! `infalign generate`: continue prompts under a procedure.

mod live;
mod printing;
mod ranks;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use infalign_backend::{Device, DeviceName};
use infalign_data::{Prompt, prompts};
use infalign_decode::guided::GuidedGenerator;
use infalign_decode::{
    DecodeError, Decoded, EncodedPrompt, Event, Generator, ProcedureDecoder, RemoteGenerator,
    StopTexts,
};
use infalign_model::{CausalLm, Head, Tokenizer, TransformerConfig};
use infalign_record::env::hub_cache;
use infalign_reward::{Reads, Reward, RewardConfig, RewardError};
use infalign_transform::Composed;

use crate::dtype::Dtype;
use crate::encode::Encoder;
use crate::failure::{Failure, OrFailure};
use crate::recording::RunInputs;
use crate::sampling::{BatchArgs, SamplingArgs};
use crate::server::{ServerArgs, api_key};
use crate::{encode, exact, interrupt, models, scorers};
use live::Live;
use printing::Printing;

/// Names the random streams.
const STAGE: &str = "generate";
/// The most bytes of a file of settings.
pub(crate) const MOST_SETTINGS: u64 = 16 << 20;

/// Arguments of `infalign generate`.
#[derive(Args)]
pub(crate) struct GenerateArgs {
    /// Hugging Face directory of the model, its name on the hub (org/name or org/name@revision, from the local cache), or
    /// tabular:FILE.json with --exact. An adapter's directory or name will do; its base is found by what it says of it.
    #[arg(long)]
    pub(crate) model: PathBuf,
    /// JSONL, CSV or Parquet with `prompt`, or a text file with a prompt a line. A prompt of messages, also as `messages`, goes through the model's chat
    /// template. Needed unless --exact is given.
    #[arg(long)]
    prompts: Option<PathBuf>,
    /// sample, best-of:N, worst-of:N, soft-best-of:N,temperature=T or majority:N; with --calibration rejection:quantile=Q,draws=N; with --scorer also cd-token:lambda=L (with candidates=K: among
    /// the K most probable tokens), cd-block:length=M,samples=K, beam:width=W,branch=B,length=M and pruned-best-of:N,length=M,keep=Q, and one
    /// of the former over one of these, as in "best-of:4 over cd-block:length=16,samples=4".
    #[arg(long, default_value = "sample")]
    pub(crate) procedure: Composed,
    /// Compute the distribution over all responses of a tabular model instead of drawing from it. Its win rate is over single samples of
    /// the model.
    #[arg(long, conflicts_with_all = ["prompts", "reward", "seed", "max_tokens", "temperature", "top_k", "top_p", "stop_token_id", "batch", "memory", "stop", "samples", "device", "server_model", "api_key_env", "timeout"])]
    exact: bool,
    /// Prefix scorer that guides decoding: the folder DIR that `infalign scorer` made, or DIR#REWARD if it has several rewards, either with
    /// :WEIGHT; may be repeated, and the values are added. With --exact: values in place of the model's own, as tabular:FILE.json or tabular:FILE.json:WEIGHT.
    #[arg(long)]
    pub(crate) scorer: Vec<String>,
    /// What `rejection` accepts by: a calibration table of this model, reward and sampling that holds the prompts, as `infalign calibrate` makes it.
    #[arg(long, value_name = "FILE.parquet", conflicts_with_all = ["exact", "server"])]
    calibration: Option<PathBuf>,
    /// What selects: a TOML file like a recipe's reward table, or a reward model, by its directory or its name on the hub.
    #[arg(long)]
    reward: Option<PathBuf>,
    /// Seed of every random draw.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Text that ends a response, which it is not part of; may be repeated.
    #[arg(long, value_parser = stop_text)]
    stop: Vec<String>,
    /// Responses of the procedure to each prompt.
    #[arg(long, default_value_t = NonZeroUsize::MIN)]
    samples: NonZeroUsize,
    #[command(flatten)]
    batch: BatchArgs,
    /// Device: cpu, cuda, wgpu, with :INDEX for another than the first.
    #[arg(long)]
    device: Option<DeviceName>,
    /// Type of the model's weights: once loaded, bf16 takes half their memory, and it is faster on GPUs, where logits are rounded to bf16, too; on the CPU it only rounds the weights.
    #[arg(long, value_enum, default_value_t, conflicts_with_all = ["exact", "server", "calibration"])]
    dtype: Dtype,
    #[command(flatten)]
    remote: ServerArgs,
    /// Print a JSON document instead of texts.
    #[arg(long)]
    pub(crate) json: bool,
}

impl GenerateArgs {
    /// What is read.
    pub(crate) fn reads(&self) -> RunInputs {
        let reads = RunInputs::new(Some(self.seed), self.device.as_ref(), self.json)
            .computes_in(self.dtype);
        let reads = match exact::table(&self.model) {
            Some(file) => reads.file("--model", Path::new(file)),
            None => reads.model("--model", &self.model),
        };
        let reads = scorers::read_by(reads, &self.scorer);
        let files = [("--prompts", &self.prompts), ("--calibration", &self.calibration)];
        let files = files.into_iter().filter_map(|(option, path)| Some((option, path.as_ref()?)));
        files
            .fold(reads, |reads, (option, path)| reads.file(option, path))
            .reward("--reward", self.reward.as_deref())
    }
}

/// The prompts of a file.
struct Given<'a> {
    file: &'a Path,
    prompts: Vec<Prompt>,
}

/// Runs the command. Responses are printed as soon as they are finished; Ctrl-C stops it after those.
///
/// # Errors
/// [`Failure::Input`] before generation, [`Failure::Run`] and [`Failure::Stopped`] after.
pub(crate) fn run(args: &GenerateArgs) -> Result<(), Failure> {
    if args.exact {
        return exact::run(args);
    }
    if let Some(file) = exact::table(&args.model) {
        return Err(Failure::Input(anyhow!(
            "the model {file} is a table, which is enumerated, not sampled: add --exact and leave --prompts out"
        )));
    }
    let prompts = args.prompts.as_ref().ok_or_else(|| {
        Failure::Input(anyhow!("--prompts is missing: give a file of prompts, or --exact with --model tabular:FILE.json"))
    })?;
    check_needs(args).or_input()?;
    args.sampling.sampling().check_choice(args.procedure).or_input()?;
    ranks::check(args).or_input()?;
    let given = Given { file: prompts, prompts: prompts::read(prompts).or_input()? };
    interrupt::watch();
    match &args.remote.server {
        Some(url) => on_server(args, url, &given),
        None => in_process(args, &given),
    }
}

/// Refuses a procedure without the scorers, the model or the reward that it needs, and scorers that have nothing to say in it.
fn check_needs(args: &GenerateArgs) -> Result<()> {
    let procedure = args.procedure;
    check_scorers(&args.scorer, &[procedure])?;
    ensure!(
        !procedure.is_guided() || args.remote.server.is_none(),
        "{procedure} needs the model in this process, since a server does not tell its states: leave --server out"
    );
    ensure!(
        !procedure.needs_reward() || args.reward.is_some(),
        "{procedure} selects by a reward: give --reward FILE, a TOML file like a recipe's reward table, or a reward model"
    );
    Ok(())
}

/// Refuses procedures that scorers guide without a scorer, and scorers without such a procedure.
///
/// # Errors
/// One sentence that names a procedure.
pub(crate) fn check_scorers(scorers: &[String], procedures: &[Composed]) -> Result<()> {
    match (procedures.iter().find(|one| one.is_guided()), procedures) {
        (Some(procedure), _) => ensure!(
            !scorers.is_empty(),
            "{procedure} chooses among prefixes, which needs a prefix scorer: give --scorer DIR, which `infalign scorer` makes"
        ),
        (None, [procedure, ..]) => ensure!(
            scorers.is_empty(),
            "--scorer has nothing to say in {procedure}, which looks at whole responses: leave it out"
        ),
        (None, []) => {}
    }
    Ok(())
}

/// Generates with the model in this process.
fn in_process(args: &GenerateArgs, given: &Given<'_>) -> Result<(), Failure> {
    let device = infalign_backend::device(args.device.as_ref()).or_input()?;
    let folder = models::folder(&args.model).or_input()?;
    let model = CausalLm::load(&folder, &device).or_input()?;
    let tokenizer = Tokenizer::load(&folder, model.config()).or_input()?;
    models::warn_of_end(&tokenizer, model.config(), &args.sampling.sampling());
    let prompts = encode(&tokenizer, model.config(), given).or_input()?;
    check_samples(args, &prompts).or_input()?;
    let model = args.dtype.of(model).or_input()?.for_inference();
    let live = Live::new(args, &prompts, &tokenizer);
    let watch = |event: Event<'_>| {
        let shown = live.as_ref().map(|live| live.token(event.draw.token));
        shown.filter(ControlFlow::is_break).unwrap_or_else(interrupt::flow)
    };
    let (stops, sampling) = (tokenizer.stops(), args.sampling.sampling());
    let batch = args.batch.size(model.as_ref(), &prompts, &sampling);
    let generator = Generator {
        stop_texts: Some(StopTexts { tokenizer: &tokenizer, texts: &args.stop }),
        watch: Some(&watch),
        ..Generator::new(model.as_ref(), stops, &sampling, args.seed, STAGE, batch)
    };
    let reward = reward(args).or_input()?;
    let read = |path: &PathBuf| ranks::read(path, args, &folder, &tokenizer, given, &prompts);
    let table = args.calibration.as_ref().map(read).transpose().or_input()?;
    let rank = |prompt: &EncodedPrompt, reward: f32| {
        Some(table.as_ref()?.get(&prompt.text)?.raw_quantile(reward))
    };
    let Composed { selection, inner } = args.procedure;
    if args.scorer.is_empty() {
        encode::check(&generator, &prompts, given.file).or_input()?;
        let decoder = ProcedureDecoder::new(selection, &generator, &tokenizer, reward.as_deref());
        let decoder = decoder.or_input()?.with_seed(args.seed).with_ranks(&rank);
        return print_each(args, &decoder, given, &prompts, live.as_ref());
    }
    let scorers = scorers::load(&args.scorer, &folder, &tokenizer, &device);
    let scorers = scorers.or_input()?;
    let scorer = scorers.weighted(&scorers.weights()).or_input()?;
    let cancelled = Some(interrupt::flag());
    let guided = GuidedGenerator { generator, scorer: &scorer, procedure: inner, cancelled };
    guided.check(&prompts).map_err(|error| Failure::Input(encode::advised(error)))?;
    let decoder = ProcedureDecoder::guided(selection, guided, &tokenizer, reward.as_deref());
    let decoder = decoder.or_input()?;
    print_each(args, &decoder, given, &prompts, None)
}

/// Generates on a server; of the model, only its configuration and its tokenizer are read.
fn on_server(args: &GenerateArgs, url: &str, given: &Given<'_>) -> Result<(), Failure> {
    let folder = models::folder(&args.model).or_input()?;
    let config = folder.config(Head::CausalLm).or_input()?;
    let tokenizer = Tokenizer::load(&folder, &config).or_input()?;
    let prompts = encode(&tokenizer, &config, given).or_input()?;
    check_samples(args, &prompts).or_input()?;
    let (server, model) = args.remote.connect(url)?;
    let generator = RemoteGenerator {
        server: &server,
        model: &model,
        config: &config,
        tokenizer: &tokenizer,
        stop_texts: &args.stop,
        sampling: args.sampling.sampling(),
        seed: args.seed,
        stage: STAGE,
        batch: args.batch.batch,
        interrupted: Some(interrupt::flag()),
    };
    let reward = reward(args).or_input()?;
    encode::check(&generator, &prompts, given.file).or_input()?;
    let selection = args.procedure.selection;
    let decoder = ProcedureDecoder::new(selection, &generator, &tokenizer, reward.as_deref());
    let decoder = decoder.or_input()?.with_seed(args.seed);
    print_each(args, &decoder, given, &prompts, None)
}

/// A text that ends responses.
fn stop_text(text: &str) -> Result<String, String> {
    match text {
        "" => Err("an empty text is everywhere: leave --stop out, or give the text".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// Refuses more responses than could be kept, those included that the procedure chooses among.
fn check_samples(args: &GenerateArgs, prompts: &[EncodedPrompt]) -> Result<()> {
    let samples = args.samples.get();
    infalign_decode::check_samples(prompts, samples).context("--samples")?;
    let Composed { selection, inner } = args.procedure;
    // By ranks, it draws until one is accepted, and keeps no other.
    let candidates = if selection.needs_ranks() { 1 } else { selection.samples() };
    let all = samples.saturating_mul(candidates).saturating_mul(inner.samples());
    let drawn = infalign_decode::check_samples(prompts, all);
    drawn.with_context(|| format!("--procedure {} with --samples {samples}", args.procedure))
}

fn encode(
    tokenizer: &Tokenizer,
    config: &TransformerConfig,
    given: &Given<'_>,
) -> Result<Vec<EncodedPrompt>> {
    let encoder = Encoder::new(tokenizer);
    encoder.within(config.max_position_embeddings).prompts(&given.prompts, given.file)
}

/// Prints responses as they are finished.
fn print_each(
    args: &GenerateArgs,
    decoder: &ProcedureDecoder<'_>,
    given: &Given<'_>,
    prompts: &[EncodedPrompt],
    live: Option<&Live<'_>>,
) -> Result<(), Failure> {
    let mut printing = Printing::begin(args, &given.prompts, prompts, live)?;
    let mut failed = None;
    let mut done = |prompt, decoded: Vec<Decoded>| match printing.take(prompt, decoded) {
        Ok(ControlFlow::Continue(())) => interrupt::flow(),
        Ok(ControlFlow::Break(())) => ControlFlow::Break(()),
        Err(failure) => {
            failed = Some(failure);
            ControlFlow::Break(())
        }
    };
    let decoded = decoder.decode_each(prompts, args.samples.get(), &mut done);
    let printed = printing.end()?;
    failed.map_or(Ok(()), Err)?;
    // It is told below, as all that is stopped.
    if !matches!(decoded, Err(DecodeError::Reward(RewardError::Stopped))) {
        decoded.or_run()?;
    }
    if interrupt::asked() && printed < prompts.len() {
        let n = prompts.len();
        let told = anyhow!("interrupted: {printed} of {n} prompts have responses");
        return Err(Failure::Stopped(told));
    }
    Ok(())
}

fn reward(args: &GenerateArgs) -> Result<Option<Box<dyn Reward>>> {
    let Some(path) = &args.reward else { return Ok(None) };
    let device = infalign_backend::device(args.device.as_ref())?;
    let stop = Some(interrupt::flag());
    Ok(Some(build_reward(path, &reward_config(path)?, &device, stop)?))
}

/// What the reward of `--reward` computes with, which nothing stops.
///
/// # Errors
/// As [`reward_config`] and [`build_reward`].
pub(crate) fn reward_of(path: Option<&Path>, device: &Device) -> Result<Option<Box<dyn Reward>>> {
    path.map(|path| build_reward(path, &reward_config(path)?, device, None)).transpose()
}

/// The same from what was read, with the name of the file that it was read from where something is wrong with it.
///
/// - stop: once it is set, a server is not asked any more.
///
/// # Errors
/// For a setting out of range, and a model, a file or a key that is not there.
pub(crate) fn build_reward(
    path: &Path,
    config: &RewardConfig,
    device: &Device,
    stop: Option<&'static AtomicBool>,
) -> Result<Box<dyn Reward>> {
    let built = config.build_until(stop, device, &hub_cache(), &api_key);
    match path.is_file() {
        true => built.with_context(|| path.display().to_string()),
        false => Ok(built?),
    }
}

/// The reward of `--reward`: a TOML file like a recipe's reward table, or a reward model by its directory or its name on the hub.
///
/// # Errors
/// When the file cannot be read or is no reward, or the model is not in the hub's local cache.
pub(crate) fn reward_config(path: &Path) -> Result<RewardConfig> {
    let is_file = path.extension().is_some_and(|extension| extension == "toml");
    if path.is_dir() || !is_file && !path.exists() {
        let path = models::folder(path)?.path().to_path_buf();
        return Ok(RewardConfig::Model { path, reads: Reads::default() });
    }
    let text = settings_text(path)
        .with_context(|| format!("cannot read the reward {}", path.display()))?;
    let mut config: RewardConfig = toml::from_str(&text).map_err(|error| {
        let table = toml::from_str::<toml::Table>(&text).unwrap_or_default();
        match table.get("reward") {
            Some(toml::Value::Table(_)) => anyhow!(
                "{}: the file is the reward itself: take the heading [reward] out",
                path.display()
            ),
            _ => anyhow!("{}: {error}", path.display()),
        }
    })?;
    for model in config.models_mut() {
        *model = models::folder(model)?.path().to_path_buf();
    }
    Ok(config)
}

/// The text of a file with the settings of a reward or a judge. `replicate` looks such files through before it runs a stranger's command line, so
/// that none may be too large for that.
///
/// # Errors
/// When it cannot be read, or has more bytes than [`MOST_SETTINGS`].
pub(crate) fn settings_text(path: &Path) -> Result<String> {
    ensure!(
        path.metadata()?.len() <= MOST_SETTINGS,
        "it has more than {MOST_SETTINGS} bytes, too many for settings"
    );
    Ok(std::fs::read_to_string(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewards_too_large_for_settings_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reward.cfg");
        std::fs::File::create(&path).unwrap().set_len(MOST_SETTINGS + 1).unwrap();
        let error = format!("{:#}", reward_config(&path).unwrap_err());
        assert!(error.contains("reward.cfg: it has more than"), "{error}");
    }
}
