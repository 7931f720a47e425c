//! Everything an align recipe reads, loaded and checked before any work is begun.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use infalign_backend::Device;
use infalign_data::Prompt;
use infalign_decode::{DecodeError, EncodedPrompt, Sampling, check_samples};
use infalign_evaluate::choice;
use infalign_model::{CausalLm, Tokenizer};
use infalign_record::folder::{LONGEST_NAME, can_be_named};
use infalign_reward::{Reward, RewardConfig};
use infalign_train::baselines::vbon;
use infalign_train::{Objective, OptimizerConfig};
use infalign_transform::Procedure;

use super::given::{Given, GivenReader};
use super::prompts::{fitting, read_prompts};
use super::reward_model::RewardModelInputs;
use super::without_effect::warn_of_kl;
use super::{calibration, optimum, rewards};
use crate::calibrate::names;
use crate::encode::Encoder;
use crate::models::warn_of_end;
use crate::recipe::{AlignRecipe, CalibrationConfig, Kind, Method, Paths};
use crate::values::twice;

/// The loaded inputs of an align recipe.
pub(crate) struct Inputs<'a> {
    pub(crate) recipe: &'a AlignRecipe,
    pub(crate) run: &'a Path,
    pub(crate) device: Device,
    pub(crate) reference: CausalLm,
    pub(crate) tokenizer: Tokenizer,
    /// Prompts to train on.
    pub(crate) train: Vec<EncodedPrompt>,
    /// Prompts held out.
    pub(crate) test: Vec<EncodedPrompt>,
    /// What tells their texts, as samples have it.
    pub(crate) test_sha256: Vec<String>,
    /// SHA-256 of the chat template; empty where no prompt needs it.
    pub(crate) template_sha256: String,
    /// What files give each method to learn from.
    pub(crate) given: Vec<Given>,
    /// Reward models that the run trains itself.
    pub(crate) reward_models: Vec<RewardModelInputs<'a>>,
}

impl<'a> Inputs<'a> {
    /// Loads and checks.
    ///
    /// # Errors
    /// One sentence that names the file, the key or the prompt at fault.
    pub(crate) fn load(recipe: &'a AlignRecipe, run: &'a Path, device: &Device) -> Result<Self> {
        let paths = Paths { run };
        check(recipe)?;
        rewards::check(&recipe.reward_model, recipe.seed, &rewards::configs(recipe))?;
        let folder = paths.model(&recipe.model)?;
        ensure!(
            folder.path().is_dir(),
            "the model {} is not a folder: it must hold config.json, model.safetensors and tokenizer.json, or an adapter in their place",
            folder.path().display()
        );
        let reference = CausalLm::load(&folder, device)?;
        check_stops(&recipe.generation, &reference)?;
        check_adapters(recipe, &reference)?;
        let tokenizer = Tokenizer::load(&folder, reference.config())?;
        let context = reference.config().max_position_embeddings;
        let encoder = Encoder::new(&tokenizer).within(context);
        let most = recipe.generation.max_tokens;
        let [train, test] = read_prompts(&recipe.prompts, &paths)?;
        let template_sha256 = encoder.template_sha256(&train)?;
        let test_sha256 = test.iter().map(Prompt::digest).collect();
        let sources = (&recipe.prompts, &paths);
        let [train, test] = fitting([&train, &test], sources, &encoder, (&reference, most))?;
        check_steps(recipe, &train)?;
        check_counts(recipe, &train, &test)?;
        let reader = GivenReader::new(&paths, &encoder, &reference, &test);
        let given = recipe.method.iter().map(|method| {
            reader.read(&method.kind).with_context(|| format!("[[method]] {:?}", method.name))
        });
        let given = given.collect::<Result<_>>()?;
        let inputs = Self {
            recipe,
            run,
            device: device.clone(),
            reference,
            tokenizer,
            train,
            test,
            test_sha256,
            template_sha256,
            given,
            reward_models: RewardModelInputs::load_all(&recipe.reward_model, &paths, device)?,
        };
        optimum::check(&inputs)?;
        inputs.check_betas()?;
        inputs.check_rewards()?;
        inputs.check_table(&paths)?;
        warn_of_warmups(recipe);
        calibration::warn_of_unreached(recipe, inputs.train.len());
        warn_of_kl(recipe);
        warn_of_end(&inputs.tokenizer, inputs.reference.config(), &recipe.generation);
        inputs.warn_of_votes()?;
        Ok(inputs)
    }

    /// Refuses objectives for which no β leads to the KL that is asked for.
    fn check_betas(&self) -> Result<()> {
        for method in &self.recipe.method {
            let train = self.recipe.ctrl(&method.kind);
            if let (Some(train), Some(objective)) = (train, self.objective(method)?) {
                let first_beta = train.first_beta(&objective);
                first_beta.with_context(|| format!("[train] with method {:?}", method.name))?;
            }
        }
        Ok(())
    }

    /// Warns of a majority where every text is an answer of its own.
    fn warn_of_votes(&self) -> Result<()> {
        let recipe = self.recipe;
        let is_vote = |procedure: &Procedure| matches!(procedure, Procedure::Majority(_));
        let mut votes = recipe.evaluation.procedures.iter().any(is_vote);
        for method in &recipe.method {
            votes |= matches!(self.objective(method)?, Some(Objective::Reward(of)) if is_vote(&of));
        }
        if votes && !matches!(recipe.reward, RewardConfig::Answer { pattern: Some(_), .. }) {
            tell!(
                "warning: under majority:N whole responses are the answers that are counted: a reward of kind \"answer\" with a `pattern` finds them within responses"
            );
        }
        Ok(())
    }

    /// Refuses rewards that cannot be built, but for those that the run trains itself, and those that do not know a prompt.
    fn check_rewards(&self) -> Result<()> {
        let configs = rewards::configs(self.recipe).into_iter();
        for (key, config) in configs.filter(|(_, config)| !rewards::is_own(config)) {
            self.build(config).with_context(|| format!("[{key}]"))?;
            for part in config.of_known_prompts() {
                // A judge sees the held-out prompts alone.
                let train = if key == "reward" { &self.train[..] } else { &[] };
                let prompts = train.iter().chain(&self.test);
                let pairs: Vec<(&str, &str)> = prompts.map(|p| (p.text.as_str(), "")).collect();
                let known = self.build(part)?.score(&pairs);
                known.with_context(|| format!("[{key}]"))?;
            }
        }
        Ok(())
    }

    /// Refuses a table that lacks a prompt, or was made from something else.
    fn check_table(&self, paths: &Paths<'_>) -> Result<()> {
        let calibration = self.recipe.calibration.as_ref();
        let Some(path) = calibration.and_then(|config| config.table.as_ref()) else {
            return Ok(());
        };
        let path = paths.resolve(path)?;
        let table = infalign_calibrate::store::read(&path)?;
        table.check_holds(names(&self.train)).context("calibration.table")?;
        for method in &self.recipe.method {
            if let Some(objective) = self.objective(method)? {
                let mut rows = self.train.iter().filter_map(|prompt| table.get(&prompt.text));
                let checked = rows.try_for_each(|row| objective.check_row(row));
                checked
                    .with_context(|| format!("calibration.table with method {:?}", method.name))?;
            }
        }
        let made = calibration::check_early(self, &table);
        made.with_context(|| format!("calibration.table {}", path.display()))
    }

    /// What a method that CTRL trains maximises, read from its file if it is a table.
    ///
    /// # Errors
    /// When the table cannot be read; the message names the method.
    pub(crate) fn objective(&self, method: &Method) -> Result<Option<Objective>> {
        objective(method, self.run)
    }

    /// Builds a reward of the recipe; one that the run trains itself is there only after that stage.
    ///
    /// # Errors
    /// When a rule is none, a model or a file cannot be read, or the key of a server is not there.
    fn build(&self, config: &RewardConfig) -> Result<Box<dyn Reward>> {
        rewards::build(config, self.run, &self.device)
    }
}

/// What a method that CTRL trains maximises, in the run of a folder.
///
/// # Errors
/// As [`Inputs::objective`].
pub(crate) fn objective(method: &Method, run: &Path) -> Result<Option<Objective>> {
    let objective = match &method.kind {
        Kind::Ctrl { objective, .. } => objective,
        Kind::Vbon { n } => return Ok(Some(vbon(*n).0)),
        _ => return Ok(None),
    };
    let resolved = objective.resolve(&Paths { run });
    resolved.map(Some).with_context(|| format!("the objective of method {:?}", method.name))
}

/// Refuses recipes that contradict themselves.
fn check(recipe: &AlignRecipe) -> Result<()> {
    recipe.generation.check().context("[generation]")?;
    check_sampling(&recipe.generation)?;
    recipe.calibration.as_ref().map_or(Ok(()), CalibrationConfig::check)?;
    ensure!(recipe.batch >= 1, "batch is 0: at least 1 response has to be generated at a time");
    recipe.check_methods()?;
    recipe.check_expect()?;
    ensure!(!recipe.method.is_empty(), "the recipe has no [[method]]");
    ensure!(!recipe.evaluation.procedures.is_empty(), "evaluation.procedures is empty");
    check_names("method", recipe.method.iter().map(|method| method.name.as_str()))?;
    ensure!(
        recipe.method.iter().all(|method| method.name != "base"),
        "method name \"base\" is taken by the reference"
    );
    let baseline = &recipe.evaluation.baseline;
    ensure!(
        recipe.method.iter().any(|m| m.name == *baseline),
        "evaluation.baseline is {baseline:?}, but no [[method]] has that name"
    );
    let procedures = &recipe.evaluation.procedures;
    if let Some(procedure) = twice(procedures) {
        bail!("evaluation.procedures names {procedure} twice");
    }
    for procedure in procedures {
        let needed = choice(procedure).context("evaluation.procedures")?.samples();
        let watched =
            recipe.evaluation.watch.map(|watch| ("evaluation.watch.samples", watch.samples));
        for (key, samples) in
            watched.into_iter().chain([("evaluation.samples", recipe.evaluation.samples)])
        {
            ensure!(
                samples >= needed,
                "{key} is {samples}, but {procedure} needs at least {needed}"
            );
        }
    }
    check_watch(recipe)
}

/// Refuses a watch that would never be kept.
fn check_watch(recipe: &AlignRecipe) -> Result<()> {
    let Some(watch) = recipe.evaluation.watch else { return Ok(()) };
    ensure!(watch.every > 0, "evaluation.watch.every is 0, but it must be at least 1");
    let steps =
        recipe.method.iter().filter_map(|method| recipe.ctrl(&method.kind)).map(|c| c.steps).max();
    let steps = steps.context("evaluation.watch has no effect: CTRL trains none of the methods")?;
    ensure!(
        watch.every <= steps,
        "evaluation.watch.every is {}, but training ends after {steps} steps",
        watch.every
    );
    Ok(())
}

/// Refuses to sample from anything but the models themselves, whose own responses every method is about.
pub(super) fn check_sampling(sampling: &Sampling) -> Result<()> {
    ensure!(
        sampling.is_of_the_model_itself(),
        "[generation] has to be at temperature 1, top_k 0 and top_p 1: what is trained needs responses of the models themselves"
    );
    Ok(())
}

/// Refuses tokens to stop at that the model has not.
pub(super) fn check_stops(sampling: &Sampling, model: &CausalLm) -> Result<()> {
    sampling.check_stops(model.config().vocab_size).context("[generation]")
}

/// Refuses adapters of modules that the model has not, before any work is begun.
fn check_adapters(recipe: &AlignRecipe, reference: &CausalLm) -> Result<()> {
    let shared = recipe.train.iter().filter_map(|train| train.lora.as_ref());
    let shared = shared.map(|lora| ("[train.lora]".to_owned(), lora));
    let own = recipe.method.iter().filter_map(|method| {
        Some((format!("[[method]] {:?}: train.lora", method.name), method.kind.lora()?))
    });
    for (key, lora) in shared.chain(own) {
        let adapted = reference.clone().with_new_adapter(lora.clone(), &mut || 0.0);
        adapted.context(key)?;
    }
    Ok(())
}

/// Refuses steps of more prompts than there are, or of more responses than could be kept.
fn check_steps(recipe: &AlignRecipe, prompts: &[EncodedPrompt]) -> Result<()> {
    let shared = recipe
        .train
        .iter()
        .map(|train| ("train".to_owned(), train.prompts_per_step, train.samples_per_prompt));
    let own = recipe.method.iter().filter_map(|method| match &method.kind {
        Kind::Bond { train } => {
            Some((own_train(method), train.prompts_per_step, train.samples_per_prompt))
        }
        _ => None,
    });
    for (key, per_step, samples) in shared.chain(own) {
        let step = prompts.get(..per_step).with_context(|| {
            let there = prompts.len();
            format!("{key}.prompts_per_step is {per_step}, but there are only {there} prompts to train on")
        })?;
        check_responses(&format!("{key}.samples_per_prompt"), step, samples)?;
    }
    Ok(())
}

/// The key of a method's own `train`.
fn own_train(method: &Method) -> String {
    format!("[[method]] {:?}: train", method.name)
}

/// Refuses more responses to the prompts than could be kept.
fn check_counts(
    recipe: &AlignRecipe,
    train: &[EncodedPrompt],
    test: &[EncodedPrompt],
) -> Result<()> {
    let AlignRecipe { calibration, rollouts, evaluation, .. } = recipe;
    if let Some(samples) = calibration.as_ref().and_then(|calibration| calibration.samples) {
        calibration::check_block(recipe.batch, train, samples)?;
    }
    for (key, prompts, samples) in [
        ("rollouts.samples", train, rollouts.map(|rollouts| rollouts.samples)),
        ("evaluation.samples", test, Some(evaluation.samples)),
        ("evaluation.watch.samples", test, evaluation.watch.map(|watch| watch.samples)),
    ] {
        check_responses(key, prompts, samples.unwrap_or(0))?;
    }
    Ok(())
}

/// Refuses more responses to each prompt than could be kept.
///
/// - `key`: what says how many.
pub(super) fn check_responses(key: &str, prompts: &[EncodedPrompt], samples: usize) -> Result<()> {
    match check_samples(prompts, samples) {
        Err(DecodeError::Setting { valid, .. }) => {
            let prompts = prompts.len();
            bail!("{key} is {samples} for each of {prompts} prompts, but it must be {valid}")
        }
        checked => Ok(checked?),
    }
}

/// Warns of every training of the recipe's methods whose learning rate does not get to its peak.
fn warn_of_warmups(recipe: &AlignRecipe) {
    if let Some(train) = &recipe.train {
        warn_of_warmup("train", &train.optimizer, train.steps);
    }
    for method in &recipe.method {
        match &method.kind {
            Kind::Bond { train } => {
                warn_of_warmup(&own_train(method), &train.optimizer, train.steps);
            }
            kind => {
                if let Some(train) = kind.offline() {
                    warn_of_warmup(&own_train(method), &train.optimizer, train.steps);
                }
            }
        }
    }
}

/// Warns of a learning rate that does not get to its peak.
///
/// - `key`: of the training.
pub(super) fn warn_of_warmup(key: &str, optimizer: &OptimizerConfig, steps: usize) {
    let warmup = optimizer.warmup_steps;
    if warmup >= steps {
        tell!(
            "warning: {key}.optimizer.warmup_steps is {warmup}, but training ends after {steps} steps: the learning rate does not reach its peak"
        );
    }
}

/// Refuses names that are no names of folders on every system, or occur twice: some do not tell upper from lower case.
pub(super) fn check_names<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = HashSet::new();
    for name in names {
        ensure!(
            can_be_named(name),
            "{what} name {name:?}: use letters, digits, - _ ., with no dot at an end, and not the name of a device, such as con"
        );
        ensure!(
            name.len() <= LONGEST_NAME,
            "{what} name {name:?} has {} characters: use at most {LONGEST_NAME}",
            name.len()
        );
        ensure!(
            seen.insert(name.to_ascii_lowercase()),
            "two {what}s are named {name:?}, upper and lower case being the same"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_share_a_folder_or_have_none_are_refused() {
        let error = |names: &[&str]| {
            let checked = check_names("method", names.iter().copied());
            checked.map_or_else(|error| error.to_string(), |()| String::new())
        };
        assert_eq!(error(&["exp10", "exp-10", "best-of.4", "a"]), "");
        assert!(error(&["a", "b", "A"]).starts_with("two methods are named \"A\""));
        for name in ["", "a/b", ".a", "a.", "nul", "Con.2"] {
            assert!(error(&[name]).contains("use letters, digits"), "{name}");
        }
        assert!(error(&["m".repeat(201).as_str()]).contains("at most 200"));
    }
}
