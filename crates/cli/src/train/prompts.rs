//! Prompts to train on and held out, read and encoded.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use infalign_data::{Prompt, Text, prompts, stories};
use infalign_decode::EncodedPrompt;
use infalign_model::CausalLm;
use rayon::prelude::*;
use serde_json::json;

use super::given::first_of;
use crate::encode::Encoder;
use crate::recipe::{Paths, PromptsConfig};

/// Prompts to train on, and held out.
pub(super) fn read_prompts(config: &PromptsConfig, paths: &Paths<'_>) -> Result<[Vec<Prompt>; 2]> {
    let [train, test] = match config {
        PromptsConfig::Files { train, test } => {
            [prompts::read(&paths.resolve(train)?)?, prompts::read(&paths.resolve(test)?)?]
        }
        PromptsConfig::StoryOpenings { words: 0, .. }
        | PromptsConfig::ParagraphOpenings { words: 0, .. } => {
            bail!("prompts.words is 0, but it must be at least 1")
        }
        PromptsConfig::StoryOpenings { file, words, test } => {
            without_last(*test, stories::openings(&paths.resolve(file)?, *words)?)?
        }
        PromptsConfig::ParagraphOpenings { file, words, test } => {
            without_last(*test, stories::paragraph_openings(&paths.resolve(file)?, *words)?)?
        }
        PromptsConfig::Preferences { files, characters, test } => {
            ensure!(!files.is_empty(), "prompts.files is empty: name a file of preferences");
            let files: Vec<_> =
                files.iter().map(|file| paths.resolve(file)).collect::<Result<_>>()?;
            without_last(*test, prompts::of_preferences(&files, *characters)?)?
        }
    };
    let trained: HashSet<&Text> = train.iter().map(|prompt| &prompt.text).collect();
    if let Some(both) = test.iter().find(|prompt| trained.contains(&prompt.text)) {
        bail!("the prompt {} is both trained on and held out", json!(both.text));
    }
    ensure!(
        test.len() >= 2,
        "{} prompt is held out: an interval over prompts needs at least 2",
        test.len()
    );
    Ok([train, test])
}

/// Prompts to train on, and the last `n_held_out` of all.
fn without_last(n_held_out: usize, mut all: Vec<Prompt>) -> Result<[Vec<Prompt>; 2]> {
    ensure!(
        n_held_out < all.len(),
        "prompts.test is {n_held_out}, but there are only {} prompts",
        all.len()
    );
    let held_out = all.split_off(all.len() - n_held_out);
    Ok([all, held_out])
}

/// Prompts as the model reads them, which leave room for the longest response: those to train on, and those held out.
///
/// - `config`: what they were read by.
/// - `max_tokens`: of a response.
///
/// # Errors
/// The first prompt that cannot be encoded, or all that leave no room.
pub(super) fn fitting(
    [train, test]: [&[Prompt]; 2],
    (config, paths): (&PromptsConfig, &Paths<'_>),
    encoder: &Encoder<'_>,
    (model, max_tokens): (&CausalLm, usize),
) -> Result<[Vec<EncodedPrompt>; 2]> {
    let context = model.config().max_position_embeddings;
    let encoded = |given: &[Prompt]| -> Result<Vec<EncodedPrompt>> {
        let all: Vec<_> = given.par_iter().map(|prompt| encoder.prompt(prompt)).collect();
        // Of several errors, the first in order.
        all.into_iter().collect()
    };
    let (encoded_train, encoded_test) = (encoded(train)?, encoded(test)?);
    let (train, test) = match config {
        PromptsConfig::Files { train, test } => {
            (Some(paths.resolve(train)?), Some(paths.resolve(test)?))
        }
        _ => (None, None),
    };
    refuse_long(&encoded_train, train.as_deref(), max_tokens, context)?;
    refuse_long(&encoded_test, test.as_deref(), max_tokens, context)?;
    Ok([encoded_train, encoded_test])
}

/// Refuses prompts that leave no room for the longest response.
///
/// - `file`: where they stand in this order, if there is one.
/// - `context`: tokens that the model reads.
fn refuse_long(
    encoded: &[EncodedPrompt],
    file: Option<&Path>,
    max_tokens: usize,
    context: usize,
) -> Result<()> {
    let length = |index: usize| encoded[index].tokens.len();
    let is_long = |index: &usize| length(*index).saturating_add(max_tokens) > context;
    let long: Vec<usize> = (0..encoded.len()).filter(is_long).collect();
    let Some(longest) = long.iter().map(|index| length(*index)).max() else { return Ok(()) };
    let places = file.and_then(|file| prompts::places(file).ok()).unwrap_or_default();
    let place = |index: &usize| match places.get(*index) {
        Some(place) => place.to_string(),
        None => encoded[*index].name(),
    };
    let refused: Result<()> = Err(anyhow!(
        "the model's context of {context} tokens has no room for generation.max_tokens = {max_tokens} behind {} of {} prompts, of which the longest has {longest} tokens ({}): shorten these prompts, leave them out, or lower generation.max_tokens",
        long.len(),
        encoded.len(),
        first_of(&long, |indices| indices.iter().map(place).collect())
    ));
    match file {
        Some(file) => refused.with_context(|| file.display().to_string()),
        None => refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_prompts_are_held_out() {
        let all: Vec<Prompt> = ["a", "b", "c", "d", "e"].map(Prompt::new).into();
        let [train, test] = without_last(2, all.clone()).unwrap();
        assert_eq!((&train[..], &test[..]), (&all[..3], &all[3..]));
        assert!(without_last(5, all).is_err(), "nothing would be left to train on");
    }

    /// What is said of prompts of so many tokens where responses have up to 4 and the model reads 10.
    fn refused(lengths: &[usize], file: Option<&Path>) -> String {
        let encoded = lengths.iter().map(|length| EncodedPrompt {
            id: "x".into(),
            text: "the soup".into(),
            tokens: vec![1; *length],
        });
        let refused = refuse_long(&encoded.collect::<Vec<_>>(), file, 4, 10);
        refused.map_or_else(|error| format!("{error:#}"), |()| String::new())
    }

    #[test]
    fn prompts_that_do_not_fit_are_told_together_by_their_lines() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("long.txt");
        std::fs::write(&file, "a\nb\nc\nd\ne\nf\ng\n").unwrap();
        assert_eq!(refused(&[6, 1, 6], Some(&file)), "");
        let message = refused(&[6, 7, 6, 9, 7, 1, 6], Some(&file));
        let told = "long.txt: the model's context of 10 tokens has no room for generation.max_tokens = 4 behind 3 of 7 prompts, of which the longest has 9 tokens (line 2, line 4, line 5): ";
        assert!(message.contains(told), "{message}");
        let message = refused(&[6, 7, 7, 7, 8, 7, 7], Some(&file));
        let told = "6 of 7 prompts, of which the longest has 8 tokens (line 2, line 3, line 4, line 5, line 6, …): ";
        assert!(message.contains(told), "{message}");
    }

    #[test]
    fn prompts_without_a_line_are_told_by_id_and_text() {
        let message = refused(&[6, 7, 6], None);
        assert!(message.starts_with("the model's context of 10 tokens"), "{message}");
        let told = "1 of 3 prompts, of which the longest has 7 tokens (`x` (\"the soup\")): ";
        assert!(message.contains(told), "{message}");
    }
}
