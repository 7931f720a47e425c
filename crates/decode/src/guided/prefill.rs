//! Reading prompts for the rows of a session.

use infalign_model::{LanguageModel, ModelError, Prompts, Session, TOKENS_PER_PASS, runs};

/// Reads prompts together, and remembers the last one, of which more rows may enter later.
#[derive(Default)]
pub(super) struct Prefill {
    last: Option<Read>,
}

/// A prompt that was read, perhaps with others.
struct Read {
    tokens: Vec<u32>,
    prompts: Prompts,
    index: usize,
}

impl Prefill {
    /// Appends rows to a session.
    ///
    /// - `entering`: prompts, each with how many rows continue it.
    /// - `new_tokens`: how many tokens a row may have after its prompt.
    ///
    /// # Errors
    /// [`ModelError`] when the model refuses a prompt.
    pub(super) fn join(
        &mut self,
        model: &dyn LanguageModel,
        session: &mut (dyn Session + '_),
        entering: &[(&[u32], usize)],
        new_tokens: usize,
    ) -> Result<(), ModelError> {
        let mut unread = entering;
        if let (Some(last), Some(((tokens, rows), rest))) = (&self.last, entering.split_first())
            && last.tokens == *tokens
        {
            session.join(&last.prompts, &vec![last.index; *rows], new_tokens)?;
            unread = rest;
        }
        for together in runs(unread, |(tokens, _)| tokens.len(), TOKENS_PER_PASS) {
            let texts: Vec<&[u32]> = together.iter().map(|(tokens, _)| *tokens).collect();
            let prompts = model.read(&texts)?;
            let numbers = together.iter().map(|(_, rows)| *rows).enumerate();
            let chosen: Vec<usize> =
                numbers.flat_map(|(index, rows)| std::iter::repeat_n(index, rows)).collect();
            session.join(&prompts, &chosen, new_tokens)?;
            let index = together.len() - 1;
            self.last = texts.last().map(|tokens| Read { tokens: tokens.to_vec(), prompts, index });
        }
        Ok(())
    }
}
