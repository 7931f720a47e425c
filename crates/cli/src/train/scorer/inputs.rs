//! What a scorer recipe reads.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use infalign_backend::Device;
use infalign_decode::EncodedPrompt;
use infalign_model::{CausalLm, Head as Output, ModelFolder, Tokenizer};
use infalign_transform::Composed;

use super::super::given::{GivenReader, GivenResponse};
use super::super::inputs::{
    check_names, check_responses, check_sampling, check_stops, fitting, read_prompts,
    warn_of_warmup,
};
use super::super::reward_model::RewardModelInputs;
use super::super::rewards;
use super::super::without_effect::warn_of_validation;
use super::completions::cut;
use crate::encode::Encoder;
use crate::models::check_vocabularies;
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
        check_names("head", recipe.head.iter().map(|head| head.name.as_str()))?;
        let mut keyed: Vec<_> = recipe.head.iter().map(|head| (key(head), &head.reward)).collect();
        keyed.extend(recipe.judge.iter().map(|judge| ("judge".to_owned(), judge)));
        rewards::check(&recipe.reward_model, recipe.seed, &keyed)?;
        let folder = paths.model(&recipe.model)?;
        let base = CausalLm::load(&folder, device).context("model")?;
        check_stops(&recipe.generation, &base)?;
        let tokenizer = Tokenizer::load(&folder, base.config())?;
        let other = |model: &Option<PathBuf>, key: &'static str| {
            let other = model.as_ref().map(|model| load_other(model, &paths, &base, &tokenizer));
            other.transpose().context(key)
        };
        let trunk = other(&recipe.trunk, "trunk")?;
        let read = trunk.as_ref().unwrap_or(&base);
        check_context(read, base.config().max_position_embeddings).context("trunk")?;
        let evaluation_base = other(&recipe.evaluation_base, "evaluation_base")?;
        let encoder = Encoder::new(&tokenizer).within(base.config().max_position_embeddings);
        let most = recipe.generation.max_tokens;
        let [train, test] = read_prompts(&recipe.prompts, &paths)?;
        let template_sha256 = encoder.template_sha256(&train)?;
        let [train, test] = [train, test].map(|all| fitting(&all, &encoder, &base, most));
        let (train, test) = (train?, test?);
        check_counts(recipe, &train, &test)?;
        let prompts = test.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(0);
        let longest = prompts + most;
        if let Some(other) = &evaluation_base {
            let context = other.config().max_position_embeddings;
            check_context(read, context)
                .and_then(|()| check_room(context, longest))
                .context("evaluation_base")?;
        }
        let policies = recipe.policy.iter().map(|policy| {
            let key = || format!("[[policy]] {:?}", policy.name);
            let folder =
                find_policy(&policy.model, &paths, &base, &tokenizer, longest).with_context(key)?;
            if policy.evaluation().procedures.iter().any(Composed::is_guided) {
                let writes = folder.config(Output::CausalLm)?.max_position_embeddings;
                check_context(read, writes).with_context(key)?;
            }
            Ok(folder)
        });
        let policies = policies.collect::<Result<Vec<_>>>()?;
        let (_, validation) = train.split_at(train.len() - recipe.rollouts.validation);
        let reader = GivenReader::new(&paths, &encoder, &base, test.iter().chain(validation));
        let completions = reader.completions(&recipe.completions).context("completions")?;
        let completions = cut(completions, &recipe.generation, tokenizer.stops());
        let reward_models = RewardModelInputs::load_all(&recipe.reward_model, &paths, device)?;
        for (key, config) in keyed {
            if !rewards::is_own(config) {
                rewards::build(config, run, device).with_context(|| key)?;
            }
        }
        warn_of_warmup("train", &recipe.train.optimizer, recipe.train.steps);
        if recipe.rollouts.validation > 0 {
            let told = format!("rollouts.validation is {}", recipe.rollouts.validation);
            warn_of_validation(&told, recipe.train.steps, recipe.train.checkpoint_every);
        }
        Ok(Self {
            recipe,
            run,
            device: device.clone(),
            base,
            base_folder: folder.path().to_path_buf(),
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

/// Loads another model that reads the base's tokens.
fn load_other(
    model: &Path,
    paths: &Paths<'_>,
    base: &CausalLm,
    tokenizer: &Tokenizer,
) -> Result<CausalLm> {
    let folder = paths.model(model)?;
    let model = CausalLm::load(&folder, &base.device())?.merge()?;
    let shown = folder.path().display().to_string();
    ensure!(
        tokenizer.has_tokens_of(&folder.tokenizer()?)?,
        "{shown} has another tokenizer than the base: a scorer reads the base's tokens"
    );
    let [size, of_base] = [&model, base].map(|one| one.config().vocab_size);
    check_vocabularies((&shown, size), ("the base", of_base))?;
    Ok(model)
}

/// Finds a policy that was trained from the base, and refuses what cannot be one.
///
/// - `longest`: tokens of the longest prompt with its response.
fn find_policy(
    model: &Path,
    paths: &Paths<'_>,
    base: &CausalLm,
    tokenizer: &Tokenizer,
    longest: usize,
) -> Result<ModelFolder> {
    let folder = paths.model(model)?;
    let config = folder.config(Output::CausalLm)?;
    let shown = folder.path().display().to_string();
    ensure!(
        tokenizer.has_tokens_of(&folder.tokenizer()?)?,
        "{shown} has another tokenizer than the base, so that it has no KL to it: a policy is trained from the base"
    );
    check_vocabularies((&shown, config.vocab_size), ("the base", base.config().vocab_size))?;
    check_room(config.max_position_embeddings, longest)?;
    Ok(folder)
}

/// Refuses a model that has no room for a response to every prompt.
///
/// - `context`: tokens of its context.
/// - `longest`: tokens of the longest prompt with its response.
fn check_room(context: usize, longest: usize) -> Result<()> {
    ensure!(
        longest <= context,
        "the model's context is {context} tokens, but a prompt with its response has up to {longest}: leave the model out, or lower generation.max_tokens"
    );
    Ok(())
}

/// Refuses a scorer that cannot read whatever a model can write.
///
/// - `context`: tokens of that model's context.
fn check_context(reads: &CausalLm, context: usize) -> Result<()> {
    let own = reads.config().max_position_embeddings;
    ensure!(
        own >= context,
        "the scorer's trunk reads {own} tokens, but the model {context}: a scorer must read whatever the model can write"
    );
    Ok(())
}
