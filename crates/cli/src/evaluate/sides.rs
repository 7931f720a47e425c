//! The responses of both sides: sampled from models, or read from files.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use infalign_backend::Device;
use infalign_evaluate::{Contest, Judge, Sampled, answers, score};
use infalign_record::folder::SETTINGS_VERSION;
use infalign_record::hash::sha256_file;
use infalign_reward::{Reward, Stoppable};
use infalign_transform::Composed;

use super::folder::{self, Folder, Settings};
use super::models::Models;
use super::{EvaluateArgs, contests, guided};
use crate::generate::{build_reward, reward_config};
use crate::progress::Progress;
use crate::sampling::DRAWING;
use crate::sources::read_samples;
use crate::{identity, interrupt, models};

/// One of the two sides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    Policy,
    Reference,
}

impl Place {
    pub(super) const BOTH: [Self; 2] = [Self::Policy, Self::Reference];

    pub(super) fn name(self) -> &'static str {
        ["policy", "reference"][self as usize]
    }

    /// Names its random streams.
    pub(super) fn stage(self) -> &'static str {
        ["evaluate", "evaluate-reference"][self as usize]
    }
}

/// Samples of both.
pub(super) struct Sides {
    pub(super) policy: Sampled,
    pub(super) reference: Sampled,
    /// Why there is no KL, where the samples are not to blame.
    pub(super) no_kl: Option<&'static str>,
}

impl Sides {
    /// Whose scores decide.
    pub(super) fn judge(&self) -> Judge {
        let judged = [&self.policy, &self.reference].iter().all(|side| side.judged.is_some());
        if judged { Judge::Judge } else { Judge::Reward }
    }
}

/// What selects, and what judges besides.
pub(super) struct Rewards {
    pub(super) selects: Option<Box<dyn Reward>>,
    pub(super) judges: Option<Box<dyn Reward>>,
    /// What their values depend on, by their options.
    settings: Settings,
    /// Whether a model is among them, or in one of them.
    have_model: bool,
}

impl Rewards {
    fn build(args: &EvaluateArgs, device: &Device) -> Result<Self> {
        let (mut settings, mut have_model) = (Settings::new(), false);
        let mut build = |option, path: Option<&Path>| -> Result<Option<Box<dyn Reward>>> {
            let Some(path) = path else { return Ok(None) };
            let mut config = reward_config(path)?;
            have_model |= !config.models_mut().is_empty();
            if args.out.is_some() {
                settings.insert(option, identity::given_reward(&config)?);
            }
            if let Some(out) = &args.out {
                config.keep_answers_in(&folder::answers(out));
            }
            let stop = interrupt::flag();
            let reward = build_reward(path, &config, device, Some(stop))?;
            Ok(Some(Box::new(Stoppable::new(reward, stop))))
        };
        let judge = build("--judge", args.judge.as_deref())?;
        let reward = build("--reward", args.reward.as_deref())?;
        Ok(match reward {
            Some(reward) => Self { selects: Some(reward), judges: judge, settings, have_model },
            None => Self { selects: judge, judges: None, settings, have_model },
        })
    }
}

/// Where responses come from.
enum Given {
    Models(Box<Models>),
    /// Read, and not scored.
    Files(Box<Sides>),
}

/// Both sides before anything is sampled or scored.
pub(super) struct Prepared {
    given: Given,
    rewards: Rewards,
}

impl Prepared {
    /// Reads files, or loads models.
    ///
    /// # Errors
    /// One sentence that names the option or file.
    pub(super) fn read(args: &EvaluateArgs) -> Result<Self> {
        let device = infalign_backend::device(args.device.as_ref())?;
        for (option, path) in [("--policy", &args.policy), ("--reference", &args.reference)] {
            let is_there = path.exists() || may_be_on_the_hub(path);
            ensure!(is_there, "{option}: there is no file or folder {}", path.display());
        }
        let are_files = [args.policy.is_file(), args.reference.is_file()];
        ensure!(
            are_files[0] == are_files[1],
            "one of --policy and --reference is a file of responses and the other is not: give two files or two models"
        );
        let contests = contests(args);
        if !are_files[0] {
            guided::check(&args.scorer, &contests)?;
        }
        let run = if are_files[0] { [None, None] } else { to_run(&contests)? };
        let rewards = Rewards::build(args, &device)?;
        let given = if are_files[0] {
            ensure!(
                args.device.is_none() || rewards.have_model,
                "--device is for models: files hold their responses, and no model scores them"
            );
            let read = |path: &Path| read_samples(path, rewards.selects.is_some());
            let (policy, reference) = (read(&args.policy)?, read(&args.reference)?);
            Given::Files(Box::new(Sides { policy, reference, no_kl: None }))
        } else {
            Given::Models(Box::new(Models::load(args, &rewards, run, &device)?))
        };
        Ok(Self { given, rewards })
    }

    /// What is known of a side: all but the scores, and, of models, the responses.
    pub(super) fn outline(&self, place: Place) -> Sampled {
        match &self.given {
            Given::Models(models) => models.outline(place),
            Given::Files(sides) => match place {
                Place::Policy => sides.policy.clone(),
                Place::Reference => sides.reference.clone(),
            },
        }
    }

    /// What the samples depend on.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn settings(&self, args: &EvaluateArgs) -> Result<Settings> {
        let mut settings = self.rewards.settings.clone();
        settings.insert(SETTINGS_VERSION, folder::VERSION.to_owned());
        settings.insert("--name", args.name.clone());
        match &self.given {
            Given::Models(models) => settings.extend(models.settings(args)?),
            Given::Files(_) => {
                let digest = |path: &PathBuf| sha256_file(path);
                settings.insert("--policy", digest(&args.policy)?);
                settings.insert("--reference", digest(&args.reference)?);
            }
        }
        Ok(settings)
    }

    /// Samples and scores both sides, but for what the folder holds already.
    ///
    /// # Errors
    /// When it was stopped, or something fails; what was finished is in the folder.
    pub(super) fn sides(&self, args: &EvaluateArgs, folder: Option<&Folder>) -> Result<Sides> {
        let mut progress = Progress::new(Place::BOTH.len());
        let mut side = |place: Place| -> Result<Sampled> {
            let there = folder.map(|folder| folder.samples(place, &self.outline(place)));
            if let Some(sampled) = there.transpose()?.flatten() {
                progress.skip(place.name());
                return Ok(sampled);
            }
            ensure!(!interrupt::asked(), "stopped");
            let sampled = match &self.given {
                Given::Models(models) => {
                    models.sample(args, &self.rewards, place, folder, &mut progress)?
                }
                Given::Files(_) => self.scored(place)?,
            };
            folder.map_or(Ok(()), |folder| folder.keep(place, &sampled))?;
            Ok(sampled)
        };
        let no_kl = match &self.given {
            Given::Models(models) => models.no_kl(),
            Given::Files(sides) => sides.no_kl,
        };
        Ok(Sides { policy: side(Place::Policy)?, reference: side(Place::Reference)?, no_kl })
    }

    /// A file's responses with their scores.
    fn scored(&self, place: Place) -> Result<Sampled> {
        let mut sampled = self.outline(place);
        let by = |reward: &dyn Reward| {
            let prompts = sampled.prompts.iter().map(|prompt| prompt.text.as_str());
            score(reward, prompts, &sampled.responses)
        };
        let rewards = self.rewards.selects.as_deref().map(by).transpose()?;
        let judged = self.rewards.judges.as_deref().map(by).transpose()?;
        if let Some(reward) = self.rewards.selects.as_deref() {
            sampled.answers = answers(reward, &sampled.responses);
        }
        // A judge that the file holds has no say where another reward is asked for.
        sampled.judged = if rewards.is_some() { judged } else { judged.or(sampled.judged) };
        sampled.rewards = rewards.unwrap_or(sampled.rewards);
        sampled.check()?;
        Ok(sampled)
    }
}

/// Refuses what says how models are sampled where files hold what was.
///
/// # Errors
/// One sentence that names the option.
pub(super) fn check_options(args: &EvaluateArgs) -> Result<()> {
    if !(args.policy.is_file() && args.reference.is_file()) {
        return Ok(());
    }
    let of_models = ["prompts", "samples", "scorer", "seed"];
    match args.given.first_of(&[&of_models[..], &DRAWING].concat()) {
        Some(option) => bail!("{option} is for models: files hold their prompts and responses"),
        None => Ok(()),
    }
}

/// Whether what is no path may be the name of a model: that of one in the cache, or org/name, but for what ends like a file of responses.
fn may_be_on_the_hub(path: &Path) -> bool {
    let endings = ["jsonl", "csv", "parquet", "json"];
    let is_of_responses = path.extension().is_some_and(|e| endings.iter().any(|of| e == *of));
    !is_of_responses && !matches!(models::pinned(path), Ok(None))
}

/// What guides the responses on each side that all procedures choose among; nothing where these are plain samples.
fn to_run(contests: &[Contest]) -> Result<[Option<Composed>; 2]> {
    let run =
        |procedure: Composed| Some(Composed::from(procedure.inner)).filter(Composed::is_guided);
    let side = |of: fn(&Contest) -> Composed| {
        let runs: Vec<Option<Composed>> = contests.iter().map(|contest| run(of(contest))).collect();
        ensure!(
            runs.windows(2).all(|pair| pair[0] == pair[1]),
            "the procedures need responses that are drawn in different ways: give as many --procedure as select among the same, and evaluate others by themselves, for `compare --decoders`"
        );
        Ok(runs.into_iter().next().flatten())
    };
    Ok([side(|contest| contest.policy)?, side(|contest| contest.reference)?])
}
