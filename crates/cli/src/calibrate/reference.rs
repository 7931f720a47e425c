//! A reference policy with prompts and a reward, as commands that sample from it name them.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use infalign_backend::DeviceName;
use infalign_calibrate::CalibrationMeta;
use infalign_data::prompts;
use infalign_decode::{EncodedPrompt, Generator, Sampling};
use infalign_model::{CausalLm, LanguageModel, Tokenizer};
use infalign_reward::Reward;

use crate::encode::Encoder;
use crate::generate::{build_reward, reward_config};
use crate::sampling::{BatchArgs, SamplingArgs};
use crate::{encode, identity, interrupt, models};

/// Names the random streams of reference responses, as in `infalign train`.
const STAGE: &str = "calibration";

/// What reference rewards are made from.
#[derive(Args)]
pub(crate) struct ReferenceArgs {
    /// Hugging Face directory of the reference policy, or its name on the hub (org/name or org/name@revision, from the local cache).
    #[arg(long)]
    pub(crate) model: PathBuf,
    /// JSONL, CSV or Parquet with `prompt` (or `messages`), or a text file with a prompt a line.
    #[arg(long)]
    pub(crate) prompts: PathBuf,
    /// A TOML file like a recipe's reward table, or a reward model, by its directory or its name on the hub.
    #[arg(long)]
    pub(crate) reward: PathBuf,
    /// Seed of every random draw.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Device: cpu, cuda, wgpu, with :INDEX for another than the first.
    #[arg(long)]
    pub(crate) device: Option<DeviceName>,
}

/// How its responses are drawn.
#[derive(Args)]
pub(crate) struct DrawingArgs {
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    batch: BatchArgs,
}

/// The same, read.
pub(crate) struct Reference {
    pub(crate) meta: CalibrationMeta,
    pub(crate) prompts: Vec<EncodedPrompt>,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) reward: Box<dyn Reward>,
    pub(crate) batch: usize,
    model: Box<dyn LanguageModel>,
    sampling: Sampling,
    seed: u64,
}

impl Reference {
    /// Reads the model, the prompts and the reward.
    ///
    /// # Errors
    /// One sentence that names the file, the key or the prompt at fault.
    pub(crate) fn read(args: &ReferenceArgs, drawing: &DrawingArgs) -> Result<Self> {
        let device = infalign_backend::device(args.device.as_ref())?;
        let folder = models::folder(&args.model)?;
        let model = CausalLm::load(&folder, &device)?;
        let tokenizer = Tokenizer::load(&folder, model.config())?;
        let given = prompts::read(&args.prompts)?;
        let encoder = Encoder::new(&tokenizer).within(model.config().max_position_embeddings);
        let prompts = encoder.prompts(&given, &args.prompts)?;
        let config = reward_config(&args.reward)?;
        let sampling = drawing.sampling.sampling();
        models::warn_of_end(&tokenizer, model.config(), &sampling);
        let name = identity::given_reward(&config)?;
        let template = encoder.template_sha256(&given)?;
        let meta =
            identity::calibration(&folder, &tokenizer, name, template, &sampling, args.seed)?;
        let stop = interrupt::unwatched_flag();
        let reward = build_reward(&args.reward, &config, &device, Some(stop))?;
        let model = model.for_inference();
        let batch = drawing.batch.size(model.as_ref(), &prompts, &sampling);
        let mut reference =
            Self { meta, prompts, tokenizer, reward, batch, model, sampling, seed: args.seed };
        encode::check(&reference.generator(), &reference.prompts, &args.prompts)?;
        // A table knows a prompt by its text, whatever ids a file gives it.
        let mut seen = HashSet::new();
        reference.prompts.retain(|prompt| seen.insert(prompt.text.clone()));
        Ok(reference)
    }

    /// What draws its responses.
    pub(crate) fn generator(&self) -> Generator<'_> {
        let (model, stops) = (self.model.as_ref(), self.tokenizer.stops());
        Generator::new(model, stops, &self.sampling, self.seed, STAGE, self.batch)
    }
}

/// Id and text of each prompt, as a table knows them.
pub(crate) fn names(prompts: &[EncodedPrompt]) -> impl Iterator<Item = (&str, &str)> {
    prompts.iter().map(|prompt| (prompt.id.as_str(), prompt.text.as_str()))
}
