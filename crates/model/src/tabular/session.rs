//! Generation from a tabular model.

use super::TabularLm;
use super::tree::{EOS, letter};
use crate::{LanguageModel, ModelError, Prompts, Sequence, Session};

impl LanguageModel for TabularLm {
    fn vocabulary(&self) -> usize {
        self.tree.letters() + 1
    }

    /// A prompt of one token and a response of D.
    fn context(&self) -> usize {
        self.tree.depth().saturating_add(1)
    }

    fn read(&self, prompts: &[&[u32]]) -> Result<Prompts, ModelError> {
        let limit = self.context();
        let prefix = |(index, prompt): (usize, &&[u32])| {
            let (length, prompt) = (prompt.len(), *prompt);
            if length > limit {
                return Err(ModelError::TooLong { length, limit });
            }
            Ok(ReadPrompt { prefix: self.read_prompt(index, prompt)?, length })
        };
        let read = prompts.iter().enumerate().map(prefix).collect::<Result<Vec<_>, _>>()?;
        let logits = self.logits(read.iter().map(|prompt| prompt.prefix));
        Ok(Prompts::new(prompts.len(), logits, read))
    }

    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(TabularSession { model: self, rows: Vec::new(), logits: Vec::new() })
    }

    fn log_probs(&self, sequences: &[Sequence]) -> Result<Vec<Vec<f32>>, ModelError> {
        let score = |(index, sequence): (usize, &Sequence)| {
            let (length, limit) = (sequence.tokens.len(), self.context());
            if length > limit {
                return Err(ModelError::TooLong { length, limit });
            }
            let (prompt, response) =
                sequence.tokens.split_at(sequence.prompt_length.min(sequence.tokens.len()));
            let mut prefix = self.read_prompt(index, prompt)?;
            let mut log_probs = Vec::with_capacity(response.len());
            for &token in response {
                let next = self.step(prefix, token)?;
                let row = self.next_probabilities(prefix).unwrap_or_default();
                log_probs.push(row[token as usize].ln() as f32);
                prefix = next;
            }
            Ok(log_probs)
        };
        sequences.iter().enumerate().map(score).collect()
    }

    fn rows_are_independent(&self) -> bool {
        true
    }

    fn cache_bytes(&self, _tokens: usize) -> usize {
        size_of::<Row>()
    }
}

/// Where a prompt has ended.
struct ReadPrompt {
    prefix: usize,
    /// In tokens.
    length: usize,
}

impl TabularLm {
    /// ln p of the next tokens, −∞ for 0: `[prefixes, vocabulary]`.
    fn logits(&self, prefixes: impl Iterator<Item = usize>) -> Vec<f32> {
        let rows = prefixes.flat_map(|prefix| self.next_probabilities(prefix));
        rows.flatten().map(|p| p.ln() as f32).collect()
    }

    /// The prefix in which a prompt ends. It begins with EOS; letters after it are the beginning of the response.
    fn read_prompt(&self, index: usize, prompt: &[u32]) -> Result<usize, ModelError> {
        let (first, rest) = prompt.split_first().ok_or(ModelError::Empty { index })?;
        if *first < self.tree.eos() {
            return Err(self.unreadable(0, *first, "a prompt begins with EOS, `$`"));
        }
        let start = self.step(0, *first)?;
        rest.iter().try_fold(start, |prefix, &token| self.step(prefix, token))
    }

    /// The prefix after one more token. EOS opens the next text. Wherever it leads, the table has a row.
    fn step(&self, prefix: usize, token: u32) -> Result<usize, ModelError> {
        let eos = self.tree.eos();
        if token > eos {
            return Err(ModelError::Token { id: token, vocabulary: self.vocabulary() });
        }
        if token == eos {
            return Ok(0);
        }
        let child = self.tree.children(prefix).nth(token as usize).ok_or_else(|| {
            self.unreadable(prefix, token, "no response is longer, only EOS can follow")
        })?;
        match self.next_probabilities(child) {
            Some(_) => Ok(child),
            None => Err(self.unreadable(
                prefix,
                token,
                "that has probability 0, and the table has no row for what follows",
            )),
        }
    }

    fn unreadable(&self, prefix: usize, token: u32, reason: &'static str) -> ModelError {
        let token = if token == self.tree.eos() { EOS } else { letter(token) };
        ModelError::Unreadable { token, prefix: self.tree.text(prefix), reason }
    }
}

/// A sequence in generation.
#[derive(Clone, Copy)]
struct Row {
    prefix: usize,
    /// Tokens that may still be pushed.
    left: usize,
}

/// A batch of sequences, of which only the prefix since the last EOS matters.
struct TabularSession<'a> {
    model: &'a TabularLm,
    rows: Vec<Row>,
    logits: Vec<f32>,
}

impl TabularSession<'_> {
    fn refresh(&mut self) {
        self.logits = self.model.logits(self.rows.iter().map(|row| row.prefix));
    }
}

impl Session for TabularSession<'_> {
    fn logits(&self) -> &[f32] {
        &self.logits
    }

    fn push(&mut self, tokens: &[u32]) -> Result<(), ModelError> {
        for (row, &token) in self.rows.iter_mut().zip(tokens) {
            if row.left == 0 {
                let limit = self.model.context();
                return Err(ModelError::TooLong { length: limit.saturating_add(1), limit });
            }
            *row = Row { prefix: self.model.step(row.prefix, token)?, left: row.left - 1 };
        }
        self.refresh();
        Ok(())
    }

    fn join(
        &mut self,
        prompts: &Prompts,
        chosen: &[usize],
        new_tokens: usize,
    ) -> Result<(), ModelError> {
        let (read, limit) = (prompts.state::<Vec<ReadPrompt>>()?, self.model.context());
        let row = |&chosen: &usize| {
            let ReadPrompt { prefix, length } = read[chosen];
            let length = length.saturating_add(new_tokens);
            if length > limit {
                return Err(ModelError::TooLong { length, limit });
            }
            Ok(Row { prefix, left: new_tokens })
        };
        let rows = chosen.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        self.rows.extend(rows);
        self.refresh();
        Ok(())
    }

    fn select(&mut self, rows: &[usize]) {
        self.rows = rows.iter().map(|&row| self.rows[row]).collect();
        self.refresh();
    }
}
