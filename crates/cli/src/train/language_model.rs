//! `task = "language-model"`: draw a corpus from a grammar, train a model on it, write prompts.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use infalign_backend::Device;
use infalign_data::Grammar;
use infalign_decode::Stream;
use infalign_model::{CausalLm, Sequence, Tokenizer, TransformerConfig, write_word_tokenizer};
use infalign_record::atomic::{write_atomic, write_dir_atomic};
use infalign_train::{FitMetrics, train_language_model};

use super::inputs::warn_of_warmup;
use super::made_by::MadeBy;
use super::memory_check::gib;
use super::metrics::CHECKPOINTS;
use super::run_dir::RESULTS;
use crate::files::write_json;
use crate::interrupt;
use crate::progress::Progress;
use crate::recipe::{LanguageModelRecipe, ModelSize, Paths};

/// What a language model is trained on, drawn from a grammar.
pub(crate) struct Corpus {
    /// Prompts, each with its continuation.
    texts: Vec<(String, String)>,
    /// Distinct prompts, to train on and held out.
    prompts: [Vec<String>; 2],
}

/// Refuses what cannot be run, and draws the corpus.
///
/// - there: bytes of memory, where that is known.
///
/// # Errors
/// One sentence that names the key or the line at fault.
pub(crate) fn check(
    recipe: &LanguageModelRecipe,
    run: &Path,
    there: Option<u64>,
) -> Result<Corpus> {
    let path = Paths { run }.resolve(&recipe.grammar)?;
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read the grammar {}", path.display()))?;
    check_counts(recipe)?;
    recipe.train.check().context("[train]")?;
    check_sizes(&recipe.model)?;
    check_memory(&recipe.model, there)?;
    let grammar: Grammar = text.parse().with_context(|| path.display().to_string())?;
    let texts = draw_texts(recipe, &grammar);
    let prompts = distinct_prompts(recipe, &texts)?;
    warn_of_warmup("train", &recipe.train.optimizer, recipe.train.steps);
    Ok(Corpus { texts, prompts })
}

/// Refuses no texts and too many, and more prompts than they could have.
fn check_counts(recipe: &LanguageModelRecipe) -> Result<()> {
    let (texts, train, test) = (recipe.texts, recipe.prompts.train, recipe.prompts.test);
    ensure!(texts > 0, "texts is 0: there is nothing to train on");
    ensure!(texts <= 10_000_000, "texts is {texts}, but it must be at most 10 million");
    ensure!(
        train.saturating_add(test) <= texts,
        "prompts.train is {train} and prompts.test is {test}, but {texts} texts have no more prompts than that: raise texts, or lower these"
    );
    Ok(())
}

/// Refuses sizes that no model can have.
fn check_sizes(size: &ModelSize) -> Result<()> {
    // What a configuration may say of a model that is read.
    const WIDEST: usize = 1 << 24;
    const DEEPEST: usize = 1 << 14;
    let ModelSize { hidden, intermediate, layers, heads, context } = *size;
    for (key, value, most) in [
        ("hidden", hidden, WIDEST),
        ("intermediate", intermediate, WIDEST),
        ("layers", layers, DEEPEST),
        ("heads", heads, WIDEST),
        ("context", context, WIDEST),
    ] {
        ensure!(value <= most, "[model] {key} is {value}, but it must be at most {most}");
    }
    ensure!(
        intermediate > 0 && layers > 0 && context > 1,
        "[model] intermediate and layers must be at least 1, and context at least 2"
    );
    let even_heads = heads > 0 && hidden > 0 && hidden.is_multiple_of(2 * heads);
    ensure!(
        even_heads,
        "[model] hidden is {hidden} and heads {heads}: hidden must be a multiple of 2 · heads"
    );
    Ok(())
}

/// Refuses a model whose training needs more memory than there is, its embedding not counted.
fn check_memory(size: &ModelSize, there: Option<u64>) -> Result<()> {
    let Some(there) = there else { return Ok(()) };
    let ModelSize { hidden, intermediate, layers, heads, context } = *size;
    let [width, wide, blocks] = [hidden, intermediate, layers].map(|size| size as f64);
    let weights = blocks * width * (4.0 * width + 3.0 * wide);
    let angles = context as f64 * width / heads as f64;
    // A weight with its gradient and two means of the optimiser.
    let needed = (4.0 * (4.0 * weights + angles)) as u64;
    ensure!(
        needed <= there,
        "[model] hidden = {hidden}, intermediate = {intermediate}, layers = {layers} and context = {context} need at least {} of memory, and there are {}: lower them",
        gib(needed),
        gib(there)
    );
    Ok(())
}

/// Makes `RUN/model`, `RUN/train.jsonl`, `RUN/test.jsonl` and `RUN/results.json`; returns the results for a program, or a sentence about them.
///
/// # Errors
/// When the model cannot be trained or a file cannot be written.
pub(crate) fn execute(
    recipe: &LanguageModelRecipe,
    corpus: &Corpus,
    run: &Path,
    device: &Device,
    json: bool,
) -> Result<String> {
    MadeBy::of(run)?.check_checkpoints(&run.join(CHECKPOINTS))?;
    write_prompts(run, &corpus.prompts)?;
    let dir = run.join("model");
    let (mut vocabulary, mut loss) = (0, 0.0);
    write_dir_atomic::<anyhow::Error>(&dir, |folder| {
        (vocabulary, loss) = train(recipe, &corpus.texts, run, device, folder)?;
        Ok(())
    })?;
    let results = serde_json::json!({ "recipe": recipe.name, "seed": recipe.seed, "loss": loss });
    write_json(&run.join(RESULTS), &results)?;
    Ok(match json {
        true => serde_json::to_string_pretty(&results)?,
        false => format!(
            "{} (vocabulary {vocabulary}, last loss {loss:.3} nats per token)",
            dir.display()
        ),
    })
}

/// Trains the model into a folder; returns the size of its vocabulary, and the loss of the last step.
fn train(
    recipe: &LanguageModelRecipe,
    texts: &[(String, String)],
    run: &Path,
    device: &Device,
    folder: &Path,
) -> Result<(usize, f64)> {
    let vocabulary =
        write_word_tokenizer(folder, texts.iter().flat_map(|(a, b)| [a.as_str(), b.as_str()]))?;
    let config = config(&recipe.model, vocabulary);
    let tokenizer = Tokenizer::load(folder, &config)?;
    let sequences =
        texts.iter().map(|text| sequence(text, &tokenizer)).collect::<Result<Vec<_>>>()?;
    check_lengths(&sequences, recipe.model.context)?;
    let mut normal = Stream::new(recipe.seed, "weights", "", 0).normals(1);
    let model = CausalLm::random(config, &mut normal, device)?;
    let checkpoints = run.join(CHECKPOINTS);
    // Of a damaged checkpoint, training tells.
    let done = infalign_train::fitted_steps(&checkpoints).unwrap_or(0);
    let bar = Progress::new(1).resumed("language model", recipe.train.steps, done);
    let mut observe = |step: &FitMetrics| bar.set(step.step, format!("loss {:.3}", step.loss));
    let (trained, last) = train_language_model(
        model,
        &sequences,
        &recipe.train,
        recipe.seed,
        &checkpoints,
        &mut observe,
        interrupt::flag(),
    )?;
    bar.finish(format!("loss {:.3} nats per token", last.loss));
    trained.save(folder)?;
    Ok((vocabulary, last.loss))
}

/// The corpus: each text from a stream of its own.
fn draw_texts(recipe: &LanguageModelRecipe, grammar: &Grammar) -> Vec<(String, String)> {
    let draw = |index: usize| {
        grammar.sample(&mut Stream::new(recipe.seed, "corpus", "", index as u64).uniforms(1))
    };
    (0..recipe.texts).map(draw).collect()
}

/// A prompt and its continuation; only the continuation is learned.
fn sequence((prompt, rest): &(String, String), tokenizer: &Tokenizer) -> Result<Sequence> {
    let prompt = tokenizer.encode(prompt)?;
    let prompt_length = prompt.len();
    let rest = tokenizer.encode(rest)?;
    // The continuation's own beginning-of-text token is left out, and its end is marked.
    let tokens =
        prompt.into_iter().chain(rest.into_iter().skip(1)).chain(tokenizer.end()).collect();
    Ok(Sequence { tokens, prompt_length })
}

/// Refuses texts that the model could not read whole.
fn check_lengths(sequences: &[Sequence], context: usize) -> Result<()> {
    let longest = sequences.iter().map(|sequence| sequence.tokens.len()).max().unwrap_or(0);
    ensure!(
        longest <= context,
        "[model] context is {context}, but the longest text of the grammar has {longest} tokens: set context to {longest} or more"
    );
    Ok(())
}

/// The distinct prompts of the corpus in the order in which they first occur: first those to train on, then those held out.
fn distinct_prompts(
    recipe: &LanguageModelRecipe,
    texts: &[(String, String)],
) -> Result<[Vec<String>; 2]> {
    let mut seen = BTreeSet::new();
    let prompts = texts.iter().map(|(prompt, _)| prompt);
    let mut distinct: Vec<String> =
        prompts.filter(|prompt| seen.insert(*prompt)).cloned().collect();
    let (train, test) = (recipe.prompts.train, recipe.prompts.test);
    ensure!(
        distinct.len() >= train.saturating_add(test),
        "the corpus has {} distinct prompts, but prompts.train is {train} and prompts.test is {test}: lower these, or give the grammar more",
        distinct.len()
    );
    distinct.truncate(train + test);
    let held_out = distinct.split_off(train);
    Ok([distinct, held_out])
}

fn write_prompts(run: &Path, [train, test]: &[Vec<String>; 2]) -> Result<()> {
    for (name, prompts) in [("train.jsonl", train), ("test.jsonl", test)] {
        write_atomic(&run.join(name), |file| {
            prompts.iter().try_for_each(|prompt| {
                writeln!(file, "{}", serde_json::json!({ "prompt": prompt }))
            })
        })?;
    }
    Ok(())
}

fn config(size: &ModelSize, vocabulary: usize) -> TransformerConfig {
    TransformerConfig::llama(
        vocabulary,
        size.hidden,
        size.intermediate,
        size.layers,
        size.heads,
        size.context,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_compared_with_the_memory_that_is_known() {
        let size = ModelSize { hidden: 64, intermediate: 128, layers: 2, heads: 4, context: 32 };
        // Weights of two blocks with all that training keeps of each, and the angles.
        let needed = 4 * (4 * 2 * 64 * (4 * 64 + 3 * 128) + 32 * 16);
        assert!(check_memory(&size, None).is_ok() && check_memory(&size, Some(needed)).is_ok());
        let message = check_memory(&size, Some(needed - 1)).unwrap_err().to_string();
        assert!(message.contains("[model] hidden = 64"), "{message}");
    }

    #[test]
    fn a_context_that_is_too_small_is_told_with_what_the_texts_need() {
        let sequence = |length: usize| Sequence { tokens: vec![3; length], prompt_length: 1 };
        let sequences = [sequence(4), sequence(9)];
        assert!(check_lengths(&sequences, 9).is_ok() && check_lengths(&[], 2).is_ok());
        let message = check_lengths(&sequences, 8).unwrap_err().to_string();
        assert!(message.contains("[model] context is 8"), "{message}");
        assert!(message.contains("set context to 9 or more"), "{message}");
    }
}
