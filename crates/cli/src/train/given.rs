//! Responses that a method learns from and that files give, encoded.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use infalign_data::dataset::{self, PromptCompletion};
use infalign_data::{Message, Role, Text};
use infalign_model::{CausalLm, Sequence, Tokenizer};

use crate::encode::Encoder;
use crate::recipe::{Kind, Paths};

/// What the files of a method give.
pub(crate) enum Given {
    /// The method reads no files.
    Nothing,
    /// Responses to imitate.
    Completions(Vec<Sequence>),
    /// Pairs, the first of each preferred to the second.
    Preferences(Vec<[Sequence; 2]>),
}

/// Reads what methods learn from.
pub(super) struct GivenReader<'a> {
    pub(super) paths: &'a Paths<'a>,
    pub(super) encoder: &'a Encoder<'a>,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) model: &'a CausalLm,
}

impl GivenReader<'_> {
    /// Reads and encodes the files of a method.
    ///
    /// # Errors
    /// One sentence that names the file and the place in it.
    pub(super) fn read(&self, kind: &Kind) -> Result<Given> {
        Ok(match kind {
            Kind::Sft { completions, .. } => {
                Given::Completions(self.completions(completions).context("completions")?)
            }
            Kind::Dpo { preferences, .. } | Kind::Ipo { preferences, .. }
                if !preferences.is_empty() =>
            {
                Given::Preferences(self.preferences(preferences).context("preferences")?)
            }
            _ => Given::Nothing,
        })
    }

    /// Reads and encodes responses.
    ///
    /// # Errors
    /// As [`GivenReader::read`].
    pub(super) fn completions(&self, files: &[PathBuf]) -> Result<Vec<Sequence>> {
        let mut sequences = Vec::new();
        for file in files {
            let path = self.paths.resolve(file)?;
            for (index, row) in dataset::read::<PromptCompletion>(&path)?.iter().enumerate() {
                let place = || format!("{}, row {}", path.display(), index + 1);
                let sequence = self.sequence(&row.prompt, &row.completion);
                sequences.push(sequence.with_context(place)?);
            }
        }
        Ok(sequences)
    }

    fn preferences(&self, files: &[PathBuf]) -> Result<Vec<[Sequence; 2]>> {
        let mut pairs = Vec::new();
        for file in files {
            let path = self.paths.resolve(file)?;
            let (preferences, _) = dataset::read_strict_preferences(&path)?;
            for (index, row) in preferences.iter().enumerate() {
                let place =
                    || format!("{}, pair {} of different responses", path.display(), index + 1);
                let encode = |response| self.sequence(&row.prompt, response).with_context(place);
                pairs.push([encode(&row.chosen)?, encode(&row.rejected)?]);
            }
        }
        Ok(pairs)
    }

    /// A prompt with its response, whose end is marked as the model would mark it.
    fn sequence(&self, prompt: &Text, response: &Text) -> Result<Sequence> {
        let response = match (prompt, response) {
            (Text::Plain(_), Text::Plain(text)) => text,
            (Text::Messages(_), Text::Messages(messages)) => match &messages[..] {
                [Message { role: Role::Assistant, content }] => content,
                _ => bail!("a response of messages has to be one of the assistant"),
            },
            _ => bail!("one of prompt and response is text, the other a list of messages"),
        };
        let (_, mut tokens, prompt_length) = self.encoder.pair(prompt, response)?;
        tokens.extend(self.tokenizer.end());
        let sequence = Sequence { tokens, prompt_length };
        self.model.check(&sequence)?;
        anyhow::ensure!(!sequence.response().is_empty(), "the response is empty: remove the row");
        Ok(sequence)
    }
}
