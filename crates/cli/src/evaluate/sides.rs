//! The responses of both sides: sampled from models, or read from files.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use infalign_backend::Device;
use infalign_data::{Prompt, prompts};
use infalign_decode::guided::ScorerSet;
use infalign_decode::{EncodedPrompt, Sampler};
use infalign_evaluate::{Contest, Evaluator, Judge, Kl, Sampled, score, selection};
use infalign_model::{CausalLm, ModelFolder, Tokenizer};
use infalign_record::hash::sha256_file;
use infalign_record::{clock, env::hub_cache};
use infalign_reward::Reward;
use infalign_transform::Procedure;

use super::guided::{self, Guided};
use super::{EvaluateArgs, contests};
use crate::encode::Encoder;
use crate::failure::Failure;
use crate::generate::reward_config;
use crate::progress::Progress;
use crate::server::api_key;
use crate::sources::read_samples;
use crate::{models, scorers};

/// Names the random streams of the policy and of the reference.
const STAGES: [&str; 2] = ["evaluate", "evaluate-reference"];

/// Samples of both.
pub(super) struct Sides {
    pub(super) policy: Sampled,
    pub(super) reference: Sampled,
    /// KL that the policy's procedure adds, where scorers guide it.
    pub(super) guided_kl: Option<Kl>,
}

impl Sides {
    /// Reads or samples them.
    pub(super) fn of(args: &EvaluateArgs) -> Result<Self, Failure> {
        let device = infalign_backend::device(args.device.as_ref()).map_err(Failure::input)?;
        let rewards = Rewards::build(args, &device).map_err(Failure::Input)?;
        match (args.policy.is_file(), args.reference.is_file()) {
            (true, true) => Self::read(args, &rewards).map_err(Failure::Input),
            (false, false) => {
                let models = Models::load(args, &rewards, &device).map_err(Failure::Input)?;
                models.sample(args).map_err(Failure::Run)
            }
            _ => Err(Failure::Input(anyhow!(
                "one of --policy and --reference is a file of responses and the other is not: give two files or two models"
            ))),
        }
    }

    /// Whose scores decide.
    pub(super) fn judge(&self) -> Judge {
        let judged = [&self.policy, &self.reference].iter().all(|side| side.judged.is_some());
        if judged { Judge::Judge } else { Judge::Reward }
    }

    fn read(args: &EvaluateArgs, rewards: &Rewards) -> Result<Self> {
        for (given, name) in [
            (args.prompts.is_some(), "--prompts"),
            (args.samples.is_some(), "--samples"),
            (!args.scorer.is_empty(), "--scorer"),
        ] {
            ensure!(!given, "{name} is for models: files hold their prompts and responses");
        }
        let side = |path: &Path| -> Result<Sampled> {
            let mut sampled = read_samples(path, rewards.selects.as_deref())?;
            if let Some(judge) = &rewards.judges {
                let prompts = sampled.prompts.iter().map(|prompt| prompt.text.as_str());
                sampled.judged = Some(score(judge.as_ref(), prompts, &sampled.responses)?);
            }
            Ok(sampled)
        };
        let (policy, reference) = (side(&args.policy)?, side(&args.reference)?);
        Ok(Self { policy, reference, guided_kl: None })
    }
}

/// What selects, and what judges besides.
struct Rewards {
    selects: Option<Box<dyn Reward>>,
    judges: Option<Box<dyn Reward>>,
}

impl Rewards {
    fn build(args: &EvaluateArgs, device: &Device) -> Result<Self> {
        let build = |path: Option<&Path>| -> Result<Option<Box<dyn Reward>>> {
            let config = reward_config(path)?;
            Ok(config.map(|config| config.build(device, &hub_cache(), &api_key)).transpose()?)
        };
        let (judge, reward) = (build(args.judge.as_deref())?, build(args.reward.as_deref())?);
        Ok(match reward {
            Some(reward) => Self { selects: Some(reward), judges: judge },
            None => Self { selects: judge, judges: None },
        })
    }
}

/// A model with its tokenizer and the prompts as it reads them.
struct Side {
    model: CausalLm,
    tokenizer: Tokenizer,
    prompts: Vec<EncodedPrompt>,
    /// What guides it.
    scorers: ScorerSet,
}

impl Side {
    fn load(
        folder: &ModelFolder,
        given: &[Prompt],
        scorers: &[String],
        device: &Device,
    ) -> Result<Self> {
        let model = CausalLm::load(folder, device)?;
        let tokenizer = Tokenizer::load(folder, model.config())?;
        let encoder = Encoder::new(&tokenizer, Some(clock::now()));
        let prompts = given.iter().map(|prompt| encoder.prompt(prompt)).collect::<Result<_>>()?;
        let scorers = scorers::load(scorers, folder, &tokenizer, device)?;
        Ok(Self { model, tokenizer, prompts, scorers })
    }
}

struct Models<'a> {
    policy: Side,
    reference: Side,
    /// Whether both read and write the same tokens, without which there is no KL of one from the other.
    same_tokens: bool,
    samples: usize,
    selects: &'a dyn Reward,
    judges: Option<&'a dyn Reward>,
    /// What has to be run, on the policy's side and on the reference's; none: plain samples, among which procedures select.
    run: [Option<Procedure>; 2],
}

impl<'a> Models<'a> {
    /// Reads everything and refuses what cannot be sampled.
    fn load(args: &EvaluateArgs, rewards: &'a Rewards, device: &Device) -> Result<Self> {
        let prompts = args.prompts.as_ref().context("--prompts is missing: models need prompts")?;
        let samples =
            args.samples.context("--samples is missing: say how many responses to each prompt")?;
        let selects = rewards
            .selects
            .as_deref()
            .context("--judge is missing: say who judges the responses")?;
        let contests = contests(args);
        let run = to_run(&contests)?;
        guided::check(&args.scorer, &contests)?;
        let least = contests.iter().flat_map(|contest| [contest.policy, contest.reference]);
        let least = least.filter(|p| selection(p).is_ok()).map(|p| p.samples()).max().unwrap_or(1);
        ensure!(
            samples >= least,
            "--samples is {samples}, but the procedures look at {least} responses: give {least} or more"
        );
        let given = prompts::read(prompts)?;
        ensure!(
            given.len() > 1,
            "{} holds one prompt: an interval over prompts needs 2 or more",
            prompts.display()
        );
        let folders = [models::folder(&args.policy)?, models::folder(&args.reference)?];
        let tokens = |folder: &ModelFolder| -> Result<String> {
            Ok(sha256_file(&folder.tokenizer()?.join("tokenizer.json"))?)
        };
        let models = Self {
            policy: Side::load(&folders[0], &given, &args.scorer, device)?,
            reference: Side::load(&folders[1], &given, &args.scorer, device)?,
            same_tokens: tokens(&folders[0])? == tokens(&folders[1])?,
            samples,
            selects,
            judges: rewards.judges.as_deref(),
            run,
        };
        for side in [&models.policy, &models.reference] {
            let evaluator = models.evaluator(args, side);
            evaluator.generator(&side.model, "").check(&side.prompts)?;
        }
        Ok(models)
    }

    fn sample(&self, args: &EvaluateArgs) -> Result<Sides> {
        let mut progress = Progress::new(2);
        let mut sampled = |side: &Side,
                           place: usize,
                           name: &str|
         -> Result<(Sampled, Option<Kl>)> {
            let bar = progress.stage(name, 1);
            let evaluator = self.evaluator(args, side);
            let sampled = match self.run[place] {
                Some(procedure) if procedure.is_guided() => {
                    let model = side.model.clone().for_inference();
                    let guided = Guided {
                        scorers: &side.scorers,
                        generator: evaluator.generator(model.as_ref(), STAGES[place]),
                        tokenizer: &side.tokenizer,
                        selects: self.selects,
                        judges: self.judges,
                    };
                    guided.sample(procedure, &side.prompts, self.samples)?
                }
                Some(procedure) => (evaluator.decode(&side.model, STAGES[place], procedure)?, None),
                None => (evaluator.sample(&side.model, STAGES[place])?, None),
            };
            bar.finish(format!("{} prompts, {} responses each", side.prompts.len(), self.samples));
            Ok(sampled)
        };
        let (policy, guided_kl) = sampled(&self.policy, 0, "policy")?;
        let (reference, _) = sampled(&self.reference, 1, "reference")?;
        Ok(Sides { policy, reference, guided_kl })
    }

    fn evaluator<'e>(&'e self, args: &EvaluateArgs, side: &'e Side) -> Evaluator<'e> {
        let sampling = args.sampling.sampling();
        Evaluator {
            prompts: &side.prompts,
            samples: self.samples,
            reference: self.same_tokens.then_some(&self.reference.model),
            tokenizer: &side.tokenizer,
            reward: self.selects,
            judge: self.judges,
            sampling,
            batch: args.batch.size(&side.model, &side.prompts, &sampling),
            seed: args.seed,
        }
    }
}

/// What has to be run on each side: nothing where all procedures select among samples, and else the only one.
fn to_run(contests: &[Contest]) -> Result<[Option<Procedure>; 2]> {
    let steers = |procedure: &Procedure| selection(procedure).is_err();
    let any = contests.iter().any(|contest| steers(&contest.policy) || steers(&contest.reference));
    match contests {
        [one] => Ok([one.policy, one.reference].map(|p| Some(p).filter(steers))),
        _ if any => Err(anyhow!(
            "a procedure that does more than select among samples is evaluated by itself: give one --procedure"
        )),
        _ => Ok([None, None]),
    }
}
