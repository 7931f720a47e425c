//! `infalign serve`: a model behind OpenAI's protocol.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use infalign_backend::DeviceName;
use infalign_decode::{Engine, Sampling};
use infalign_model::{CausalLm, Tokenizer};
use infalign_serve::{Limits, Service};

use crate::dtype::Dtype;
use crate::failure::{Failure, OrFailure};
use crate::generate::reward_of;
use crate::sampling::BatchArgs;
use crate::server::needed_key;
use crate::values::at_least_one;
use crate::{exact, interrupt, models, scorers};

/// Arguments of `infalign serve`.
#[derive(Args)]
pub(crate) struct ServeArgs {
    /// Hugging Face directory of the model, or its name on the hub (org/name or org/name@revision, from the local cache). An adapter's will
    /// do, too.
    #[arg(long)]
    model: PathBuf,
    /// What procedures choose by: a TOML file like a recipe's reward table, or a reward model, by its directory or its name on the hub.
    #[arg(long)]
    reward: Option<PathBuf>,
    /// What guides, as for `generate`: the folder of a prefix scorer, DIR, or DIR#REWARD where it has several, either with :WEIGHT. May be
    /// repeated; requests name the rewards of those that count for them, with weights of their own.
    #[arg(long)]
    scorer: Vec<String>,
    /// Name of the model in requests; without it, the last part of its path, or its name on the hub.
    #[arg(long, value_parser = model_name)]
    name: Option<String>,
    /// Address to listen at, or a name of it, such as localhost.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen at; 0: any that is free.
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Environment variable that holds the key that clients have to send; without it, everybody is answered.
    #[arg(long, value_name = "NAME")]
    api_key_env: Option<String>,
    #[command(flatten)]
    batch: BatchArgs,
    /// Responses that may wait for a place in the batch; a request for which there is no room is answered with 429.
    #[arg(long, default_value_t = 256)]
    queue: usize,
    /// Longest response that may be asked for, in tokens; without it, what the model's context has room for.
    #[arg(long, value_parser = at_least_one)]
    max_tokens: Option<usize>,
    /// Largest body of a request, in bytes; larger ones are answered with 413.
    #[arg(long, default_value_t = 4 << 20, value_parser = at_least_one, value_name = "BYTES")]
    max_body: usize,
    /// Seconds that a request may take, its time in the queue included, and that a connection may wait for its client.
    #[arg(long, default_value = "600", value_parser = some_seconds, value_name = "SECONDS", allow_negative_numbers = true)]
    timeout: Duration,
    /// Seconds that running requests have to end, and clients to read their answers, after Ctrl-C or SIGTERM.
    #[arg(long, default_value = "30", value_parser = seconds, value_name = "SECONDS", allow_negative_numbers = true)]
    grace: Duration,
    /// Seed that requests without a seed of their own have theirs from; without it, another one at every start.
    #[arg(long)]
    seed: Option<u64>,
    /// Device: cpu, cuda, wgpu, with :INDEX for another than the first.
    #[arg(long)]
    device: Option<DeviceName>,
    /// Type of the model's weights, as for `generate`.
    #[arg(long, value_enum, default_value_t)]
    dtype: Dtype,
}

/// Runs the command, until Ctrl-C or SIGTERM.
///
/// # Errors
/// [`Failure::Input`] before the first request, [`Failure::Run`] after.
pub(crate) fn run(args: &ServeArgs) -> Result<(), Failure> {
    if let Some(file) = exact::table(&args.model) {
        return Err(Failure::Input(anyhow!(
            "the model {file} is a table, which is enumerated, not served"
        )));
    }
    interrupt::watch();
    // Before the model is loaded, which may take long.
    let listener = listen(args).or_input()?;
    let address = listener.local_addr().or_run()?;
    let service = service(args).or_input()?;
    service.check().or_input()?;
    if service.api_key.is_none() && !address.ip().is_loopback() {
        tell!("warning: whoever reaches {address} is answered: set a key with --api-key-env");
    }
    tell!("serving {} at http://{address}/v1", service.name);
    infalign_serve::run(listener, service, interrupt::asked).or_run()?;
    tell!("stopped");
    Ok(())
}

fn listen(args: &ServeArgs) -> Result<TcpListener> {
    let ServeArgs { host, port, .. } = args;
    let unknown = || format!("--host {host} is neither an address nor a name of one");
    // As an address of IPv6 stands in a URL.
    let plain = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let addresses = (plain, *port).to_socket_addrs().with_context(unknown)?;
    let addresses: Vec<SocketAddr> = addresses.collect();
    TcpListener::bind(&addresses[..])
        .with_context(|| format!("cannot listen at {host}, port {port}"))
}

fn service(args: &ServeArgs) -> Result<Service> {
    let secret = args.api_key_env.as_deref().map(needed_key).transpose()?;
    let device = infalign_backend::device(args.device.as_ref())?;
    let folder = models::folder(&args.model)?;
    let model = CausalLm::load(&folder, &device)?;
    let tokenizer = Tokenizer::load(&folder, model.config())?;
    models::warn_of_end(&tokenizer, model.config(), &Sampling::default());
    let reward = reward_of(args.reward.as_deref(), &device)?;
    let scorers = scorers::load(&args.scorer, &folder, &tokenizer, &device)?;
    let model = args.dtype.of(model)?.for_inference();
    let context = model.context();
    let longest = Sampling { max_tokens: context, ..Sampling::default() };
    let batch = args.batch.size(model.as_ref(), &[], &longest);
    let limits = Limits {
        queue: args.queue,
        body: args.max_body,
        max_tokens: args.max_tokens.unwrap_or(context),
        timeout: args.timeout,
        grace: args.grace,
    };
    let name = args.name.clone().unwrap_or_else(|| name(&args.model));
    let service = Service::new(name, Engine::start(model.into(), batch)?, Arc::new(tokenizer));
    Ok(Service {
        reward: reward.map(Arc::from),
        scorers,
        api_key: secret,
        seed: args.seed.unwrap_or(service.seed),
        limits,
        tell: Arc::new(|line: &str| tell!("{line}")),
        ..service
    })
}

/// The last part of a path, or a name on the hub as it is.
fn name(model: &Path) -> String {
    let path = model.is_dir().then(|| model.canonicalize().ok()).flatten();
    let last = path.as_deref().and_then(Path::file_name).map(Path::new);
    last.unwrap_or(model).display().to_string()
}

/// Far below what an instant of the clock can be put off by.
const LONGEST: f64 = 1e9;

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=LONGEST).contains(seconds));
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or_else(|| "give a number of seconds, 0 or more and at most 1e9".to_owned())
}

fn some_seconds(text: &str) -> Result<Duration, String> {
    let some = seconds(text).ok().filter(|duration| !duration.is_zero());
    some.ok_or_else(|| "give a number of seconds, above 0 and at most 1e9".to_owned())
}

fn model_name(text: &str) -> Result<String, String> {
    let name = Some(text.to_owned()).filter(|name| !name.trim().is_empty());
    name.ok_or_else(|| "give a name that requests can have as `model`".to_owned())
}
