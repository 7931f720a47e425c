//! Sides that are models: loaded and checked, then sampled, prompt by prompt.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use infalign_backend::Device;
use infalign_data::{Prompt, prompts};
use infalign_decode::guided::{PrefixScorer, ScorerSet};
use infalign_decode::{EncodedPrompt, Event, Generator, Sampling};
use infalign_evaluate::{Drawing, Drawn, Evaluator, PromptText, Sampled};
use infalign_model::{CausalLm, ModelFolder, Tokenizer};
use infalign_record::RecordError;
use infalign_record::hash::{sha256_bytes, sha256_file};
use infalign_transform::{Composed, Procedure};

use super::EvaluateArgs;
use super::folder::{Folder, Limits, Settings, by_prompt};
use super::guided::{self, Guided};
use super::sides::{Place, Rewards};
use crate::encode::{self, Encoder};
use crate::progress::{KL, Progress, Stage};
use crate::train::Lines;
use crate::{identity, interrupt, models, scorers};

/// A model with its tokenizer and the prompts as it reads them.
struct Side {
    model: CausalLm,
    folder: ModelFolder,
    tokenizer: Tokenizer,
    prompts: Vec<EncodedPrompt>,
    /// SHA-256 of their tokens.
    prompts_sha256: String,
    /// What tells the texts that were given.
    given_sha256: Vec<String>,
    /// What guides the responses among which procedures choose; none: plain samples.
    procedure: Option<Composed>,
    /// What guides it, where something does.
    scorers: ScorerSet,
}

impl Side {
    fn load(
        name: &Path,
        (given, file): (&[Prompt], &Path),
        procedure: Option<Composed>,
        scorers: &[String],
        device: &Device,
    ) -> Result<Self> {
        let folder = models::folder(name)?;
        let model = CausalLm::load(&folder, device)?;
        let tokenizer = Tokenizer::load(&folder, model.config())?;
        let encoder = Encoder::new(&tokenizer).within(model.config().max_position_embeddings);
        let prompts = encoder.prompts(given, file)?;
        // As they were read, and so with what chat template and tokenizer make of them.
        let read = prompts.iter().map(|prompt| &prompt.tokens).collect::<Vec<_>>();
        let prompts_sha256 = sha256_bytes(&serde_json::to_vec(&read)?);
        let given_sha256 = given.iter().map(Prompt::digest).collect();
        let scorers = scorers::load(scorers, &folder, &tokenizer, device)?;
        Ok(Self {
            model,
            folder,
            tokenizer,
            prompts,
            prompts_sha256,
            given_sha256,
            procedure,
            scorers,
        })
    }

    /// Refuses settings out of range, and prompts that do not fit the model.
    fn check_prompts(&self, args: &EvaluateArgs, file: &Path) -> Result<()> {
        let (stops, sampling) = (self.tokenizer.stops(), args.sampling.sampling());
        let generator = Generator::new(&self.model, stops, &sampling, args.seed, "", 1);
        encode::check(&generator, &self.prompts, file)
    }

    fn warn_of_end(&self, sampling: &Sampling) {
        models::warn_of_end(&self.tokenizer, self.model.config(), sampling);
    }

    /// Refuses scorers that do not go with the model that they are to guide.
    fn check_scorers(&self) -> Result<()> {
        if self.procedure.is_some() {
            self.scorers.weighted(&self.scorers.weights())?.check(&self.model)?;
        }
        Ok(())
    }

    /// What its samples depend on, how they are drawn aside.
    fn identity(&self) -> Result<String> {
        let model = identity::model(&self.folder)?;
        let tokenizer = identity::tokenizer(self.tokenizer.folder())?;
        let stops = serde_json::to_string(self.tokenizer.stops())?;
        Ok(format!("{model} {tokenizer} {stops} {}", self.prompts_sha256))
    }
}

/// Both models.
pub(super) struct Models {
    sides: [Side; 2],
    /// Why there is no KL of one from the other, where they do not read and write the same tokens.
    no_kl: Option<&'static str>,
    samples: usize,
}

impl Models {
    /// Reads everything and refuses what cannot be sampled.
    ///
    /// - `run`: what guides the responses of each side.
    ///
    /// # Errors
    /// One sentence that names the option, model or prompt.
    pub(super) fn load(
        args: &EvaluateArgs,
        rewards: &Rewards,
        run: [Option<Composed>; 2],
        device: &Device,
    ) -> Result<Self> {
        let file = args.prompts.as_ref().context("--prompts is missing: models need prompts")?;
        let samples =
            args.samples.context("--samples is missing: say how many responses to each prompt")?;
        ensure!(rewards.selects.is_some(), "--judge is missing: say who judges the responses");
        let given = prompts::read(file)?;
        let [policy, reference] = run;
        let load = |name: &Path, procedure| {
            Side::load(name, (&given, file), procedure, &args.scorer, device)
        };
        let sides = [load(&args.policy, policy)?, load(&args.reference, reference)?];
        let sampling = args.sampling.sampling();
        let [policy, reference] = &sides;
        policy.warn_of_end(&sampling);
        let ends = |side: &Side| (side.tokenizer.named_end(), side.tokenizer.stops().clone());
        if ends(reference) != ends(policy) {
            reference.warn_of_end(&sampling);
        }
        if let Some(trained) = models::trained_on(&args.policy).filter(|one| *one != sampling) {
            tell!(
                "warning: {} was trained on responses drawn by {}, and these are drawn by {}: their KL and win rates are others",
                args.policy.display(),
                serde_json::to_string(&trained)?,
                serde_json::to_string(&sampling)?
            );
        }
        let no_kl = no_kl(&sides, args)?;
        for (side, name) in sides.iter().zip(names(args)) {
            side.check_prompts(args, file)?;
            side.check_scorers().context(name)?;
        }
        Ok(Self { sides, no_kl, samples })
    }

    /// Why there is no KL of the policy from the reference, where that is the models' fault.
    pub(super) fn no_kl(&self) -> Option<&'static str> {
        self.no_kl
    }

    /// What will be sampled of a side.
    pub(super) fn outline(&self, place: Place) -> Sampled {
        let side = &self.sides[place as usize];
        let prompt = |(prompt, sha256): (&EncodedPrompt, &String)| PromptText {
            id: prompt.id.clone(),
            text: prompt.text.clone(),
            sha256: Some(sha256.clone()),
        };
        let prompts = side.prompts.iter().zip(&side.given_sha256).map(prompt).collect();
        Sampled::outline(prompts, self.samples, side.procedure)
    }

    /// What the samples depend on, rewards aside.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn settings(&self, args: &EvaluateArgs) -> Result<Settings> {
        let [policy, reference] = &self.sides;
        let run = |side: &Side| side.procedure.unwrap_or(Procedure::Sample.into()).to_string();
        Ok([
            ("--scorer", guided::settings(&args.scorer)?),
            ("--policy", policy.identity()?),
            ("--reference", reference.identity()?),
            ("--prompts", sha256_file(args.prompts.as_deref().unwrap_or(Path::new("")))?),
            ("--samples", self.samples.to_string()),
            ("--seed", args.seed.to_string()),
            ("way to sample", serde_json::to_string(&args.sampling.sampling())?),
            ("--procedure that is run", run(policy)),
            ("--reference-procedure that is run", run(reference)),
        ]
        .into())
    }

    /// Samples a side, goes on with what its folder holds of it, and scores it.
    ///
    /// # Errors
    /// When it was stopped, when generation or a reward fails, and when a file cannot be written.
    pub(super) fn sample(
        &self,
        args: &EvaluateArgs,
        rewards: &Rewards,
        place: Place,
        folder: Option<&Folder>,
        progress: &mut Progress,
    ) -> Result<Sampled> {
        let side = &self.sides[place as usize];
        let evaluator = self.evaluator(args, rewards, side)?;
        let (drawn, bar) = draw(&evaluator, side, place, folder, progress)?;
        let measuring = |prompts: usize| {
            bar.set(prompts, KL.to_owned());
            interrupt::flow()
        };
        let sampled = evaluator.measure(Some(&side.model), side.procedure, &drawn, &measuring)?;
        bar.finish(format!("{} prompts, {} responses each", drawn.len(), evaluator.samples));
        Ok(sampled)
    }

    fn evaluator<'e>(
        &'e self,
        args: &EvaluateArgs,
        rewards: &'e Rewards,
        side: &'e Side,
    ) -> Result<Evaluator<'e>> {
        let sampling = args.sampling.sampling();
        Ok(Evaluator {
            prompts: &side.prompts,
            prompts_sha256: &side.given_sha256,
            samples: self.samples,
            reference: self.no_kl.is_none().then_some(&self.sides[Place::Reference as usize].model),
            tokenizer: &side.tokenizer,
            reward: rewards.selects.as_deref().context("--judge is missing")?,
            judge: rewards.judges.as_deref(),
            batch: args.batch.size(&side.model, &side.prompts, &sampling),
            sampling,
            seed: args.seed,
        })
    }
}

/// What both sides are called.
fn names(args: &EvaluateArgs) -> [String; 2] {
    let name = |option, path: &Path| format!("{option} {}", path.display());
    [name("--policy", &args.policy), name("--reference", &args.reference)]
}

/// Why there is no KL of the policy from the reference, where they do not read and write the same tokens.
///
/// # Errors
/// Where they do, but have not as many logits, and the KL would be measured.
fn no_kl(sides: &[Side; 2], args: &EvaluateArgs) -> Result<Option<&'static str>> {
    let [policy, reference] = sides;
    if !policy.tokenizer.has_tokens_of(reference.tokenizer.folder())? {
        return Ok(Some("the tokenizers of the two models have different tokens"));
    }
    if policy.prompts_sha256 != reference.prompts_sha256 {
        return Ok(Some("the two models read different tokens of the same prompts"));
    }
    let sampling = args.sampling.sampling().of_vocabulary(policy.model.config().vocab_size);
    if sampling.is_of_the_model_itself() {
        let [ours, theirs] = names(args);
        let [size, others] = [policy, reference].map(|side| side.model.config().vocab_size);
        models::check_vocabularies((&ours, size), (&theirs, others))
            .context("there is no KL of the policy from the reference")?;
    }
    Ok(None)
}

/// What is drawn of a side, written down as it comes.
struct Keeping {
    drawn: Vec<Option<Drawn>>,
    done: usize,
    /// Tokens that were made since the beginning.
    tokens: usize,
    start: Instant,
    file: Option<Lines>,
    /// Why nothing more is written down, and so nothing more drawn.
    failed: Option<RecordError>,
    bar: Stage,
}

impl Keeping {
    fn take(&mut self, place: usize, drawn: Drawn) -> ControlFlow<()> {
        let kept = self.file.as_mut().map_or(Ok(()), |file| file.append(&drawn));
        if let Err(error) = kept {
            self.failed = Some(error);
            return ControlFlow::Break(());
        }
        self.tokens += drawn.made.iter().sum::<usize>();
        self.drawn[place] = Some(drawn);
        self.done += 1;
        let rate = self.tokens as f64 / self.start.elapsed().as_secs_f64();
        self.bar.set(self.done, format!("{rate:.0} tokens/s"));
        interrupt::flow()
    }
}

/// Draws what is not there yet, in a stage that is not ended.
fn draw(
    evaluator: &Evaluator<'_>,
    side: &Side,
    place: Place,
    folder: Option<&Folder>,
    progress: &mut Progress,
) -> Result<(Vec<Drawn>, Stage)> {
    let limits = Limits {
        samples: evaluator.samples,
        vocabulary: side.model.config().vocab_size,
        max_tokens: evaluator.sampling.max_tokens,
    };
    let (path, lines) = folder.map(|folder| folder.drawn(place, &limits)).transpose()?.unzip();
    let lines = lines.unwrap_or_default();
    let file = path.map(|path| Lines::open(&path)).transpose()?;
    let known: HashMap<String, Drawn> = by_prompt(lines);
    let drawn: Vec<Option<Drawn>> =
        side.prompts.iter().map(|prompt| known.get(&prompt.id).cloned()).collect();
    let missing: Vec<usize> = (0..drawn.len()).filter(|&place| drawn[place].is_none()).collect();
    let done = drawn.len() - missing.len();
    let bar = progress.resumed(place.name(), drawn.len(), done);
    let (start, failed) = (Instant::now(), None);
    let mut keeping = Keeping { drawn, done, tokens: 0, start, file, failed, bar };
    let result = draw_missing(evaluator, side, place.stage(), &missing, &mut keeping);
    let Keeping { drawn, failed, bar, .. } = keeping;
    failed.map_or(Ok(()), Err)?;
    result?;
    let n = drawn.len();
    let drawn: Vec<Drawn> = drawn.into_iter().flatten().collect();
    ensure!(drawn.len() == n, "stopped");
    Ok((drawn, bar))
}

/// Draws the responses to some prompts by what the side's procedure has to run.
fn draw_missing(
    evaluator: &Evaluator<'_>,
    side: &Side,
    stage: &str,
    missing: &[usize],
    keeping: &mut Keeping,
) -> Result<()> {
    let model = side.model.clone().for_inference();
    let Some(procedure) = side.procedure else {
        let watch = |_: Event<'_>| interrupt::flow();
        let drawing = Drawing { stage, watch: Some(&watch) };
        let mut take = |place, one| keeping.take(place, one);
        return Ok(evaluator.draw(model.as_ref(), &drawing, missing, &mut take)?);
    };
    let guided = Guided {
        scorers: &side.scorers,
        generator: evaluator.generator(model.as_ref(), stage),
        tokenizer: &side.tokenizer,
        selects: evaluator.reward,
        procedure,
    };
    let prompts: Vec<EncodedPrompt> =
        missing.iter().map(|place| side.prompts[*place].clone()).collect();
    guided.draw(&prompts, evaluator.samples, &mut |place, one| keeping.take(missing[place], one))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn nothing_more_is_drawn_once_a_prompt_cannot_be_written_down() {
        let mut keeping = Keeping {
            drawn: vec![None; 2],
            done: 0,
            tokens: 0,
            start: Instant::now(),
            file: Some(Lines::on_a_full_disk()),
            failed: None,
            bar: Progress::new(1).stage("policy", 2),
        };
        let drawn = Drawn { prompt: "p".into(), tokens: vec![vec![1]], made: vec![1], kl: vec![] };
        assert!(keeping.take(0, drawn).is_break());
        assert_eq!(keeping.done, 0);
        let error = keeping.failed.unwrap().to_string();
        assert!(error.contains("cannot write /dev/full"), "{error}");
    }
}
