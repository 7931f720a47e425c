//! What a scorer recipe reads.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use infalign_backend::Device;
use infalign_decode::EncodedPrompt;
use infalign_model::{CausalLm, ModelFolder, Tokenizer};

use super::super::given::{GivenReader, GivenResponse};
use super::super::inputs::{check_names, check_responses, check_sampling, warn_of_warmup};
use super::super::prompts::{fitting, read_prompts};
use super::super::reward_model::RewardModelInputs;
use super::super::rewards::{self, Keyed};
use super::super::without_effect::warn_of_validation;
use super::completions::cut;
use super::models::Models;
use crate::recipe::{Head, Paths, ScorerEvaluation, ScorerRecipe};

/// Everything that a scorer recipe reads, loaded and checked.
pub(crate) struct ScorerInputs<'a> {
    pub(super) recipe: &'a ScorerRecipe,
    pub(super) run: &'a Path,
    pub(super) device: Device,
    pub(super) base: CausalLm,
    pub(super) base_folder: PathBuf,
    pub(super) tokenizer: Tokenizer,
    pub(super) trunk: Option<CausalLm>,
    pub(super) evaluation_base: Option<CausalLm>,
    /// The models of `recipe.policy`, which are loaded one at a time.
    pub(super) policies: Vec<ModelFolder>,
    pub(super) train: Vec<EncodedPrompt>,
    pub(super) test: Vec<EncodedPrompt>,
    pub(super) template_sha256: String,
    pub(super) completions: Vec<GivenResponse>,
    pub(super) reward_models: Vec<RewardModelInputs<'a>>,
}

impl<'a> ScorerInputs<'a> {
    /// Loads and checks.
    ///
    /// # Errors
    /// One sentence that names the file, the key or the prompt at fault.
    pub(crate) fn load(recipe: &'a ScorerRecipe, run: &'a Path, device: &Device) -> Result<Self> {
        let paths = Paths { run };
        recipe.check()?;
        check_sampling(&recipe.generation)?;
        let rewards = check_rewards(recipe)?;
        let models = Models::load(recipe, &paths, device)?;
        let Prompts { train, test, template_sha256 } = Prompts::read(recipe, &paths, &models)?;
        let longest = test.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(0)
            + recipe.generation.max_tokens;
        models.check_evaluation_base(longest)?;
        let policies = models.policies(recipe, &paths, longest)?;
        let (_, validation) = train.split_at(train.len() - recipe.rollouts.validation);
        let encoder = models.encoder();
        let reader =
            GivenReader::new(&paths, &encoder, &models.base, test.iter().chain(validation));
        let completions = reader.completions(&recipe.completions).context("completions")?;
        let completions = cut(completions, &recipe.generation, models.tokenizer.stops());
        let reward_models = RewardModelInputs::load_all(&recipe.reward_model, &paths, device)?;
        for (key, config) in rewards {
            if !rewards::is_own(config) {
                rewards::build(config, run, device).with_context(|| key)?;
            }
        }
        warn(recipe);
        let Models { base, base_folder, tokenizer, trunk, evaluation_base } = models;
        Ok(Self {
            recipe,
            run,
            device: device.clone(),
            base,
            base_folder,
            tokenizer,
            trunk,
            evaluation_base,
            policies,
            train,
            test,
            template_sha256,
            completions,
            reward_models,
        })
    }
}

/// The rewards of the heads and of the judge with what messages call them, once their names and kinds are checked.
fn check_rewards(recipe: &ScorerRecipe) -> Result<Vec<Keyed<'_>>> {
    check_names("head", recipe.head.iter().map(|head| head.name.as_str()))?;
    let mut keyed: Vec<_> = recipe.head.iter().map(|head| (key(head), &head.reward)).collect();
    keyed.extend(recipe.judge.iter().map(|judge| ("judge".to_owned(), judge)));
    rewards::check(&recipe.reward_model, recipe.seed, &keyed)?;
    Ok(keyed)
}

/// The prompts whose responses fit the base model, encoded.
struct Prompts {
    train: Vec<EncodedPrompt>,
    test: Vec<EncodedPrompt>,
    template_sha256: String,
}

impl Prompts {
    fn read(recipe: &ScorerRecipe, paths: &Paths<'_>, models: &Models) -> Result<Self> {
        let encoder = models.encoder();
        let [train, test] = read_prompts(&recipe.prompts, paths)?;
        let template_sha256 = encoder.template_sha256(&train)?;
        let most = recipe.generation.max_tokens;
        let sources = (&recipe.prompts, paths);
        let [train, test] = fitting([&train, &test], sources, &encoder, (&models.base, most))?;
        check_counts(recipe, &train, &test)?;
        Ok(Self { train, test, template_sha256 })
    }
}

fn warn(recipe: &ScorerRecipe) {
    let ScorerRecipe { train, rollouts, .. } = recipe;
    warn_of_warmup("train", &train.optimizer, train.steps);
    if rollouts.validation > 0 {
        let told = format!("rollouts.validation is {}", rollouts.validation);
        warn_of_validation(&told, train.steps, train.checkpoint_every);
    }
}

/// Refuses more responses to the prompts than could be kept, candidates included.
fn check_counts(
    recipe: &ScorerRecipe,
    train: &[EncodedPrompt],
    test: &[EncodedPrompt],
) -> Result<()> {
    check_responses("rollouts.samples", train, recipe.rollouts.samples)?;
    let validation = recipe.rollouts.validation;
    ensure!(
        validation < train.len(),
        "rollouts.validation is {validation}, but there are only {} prompts to train on",
        train.len()
    );
    let (learned, validation) = train.split_at(train.len() - validation);
    let learned: HashSet<&str> = learned.iter().map(|prompt| prompt.text.as_str()).collect();
    if let Some(both) = validation.iter().find(|prompt| learned.contains(prompt.text.as_str())) {
        bail!(
            "rollouts.validation: the prompt {} is among those that are learned from, too: remove one of its rows",
            serde_json::json!(both.text)
        );
    }
    check_responses("rollouts.held_out", test, recipe.rollouts.held_out)?;
    for (index, evaluation) in recipe.evaluation.iter().enumerate() {
        check_evaluation(&format!("evaluation[{index}].samples"), evaluation, test)?;
    }
    for policy in &recipe.policy {
        let key = format!("[[policy]] {:?}: samples", policy.name);
        check_evaluation(&key, &policy.evaluation(), test)?;
    }
    Ok(())
}

fn check_evaluation(
    key: &str,
    evaluation: &ScorerEvaluation,
    test: &[EncodedPrompt],
) -> Result<()> {
    check_responses(key, test, evaluation.samples)?;
    for procedure in &evaluation.procedures {
        let candidates = procedure.selection.samples().saturating_mul(procedure.inner.samples());
        let all = evaluation.samples.saturating_mul(candidates);
        check_responses(&format!("{key} · the candidates of {procedure}"), test, all)?;
    }
    Ok(())
}

/// What messages call a head.
pub(super) fn key(head: &Head) -> String {
    format!("[[head]] {:?}", head.name)
}
