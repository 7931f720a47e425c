//! One response at a terminal, token by token.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use infalign_decode::{EncodedPrompt, TextStream};
use infalign_model::Tokenizer;
use infalign_transform::Procedure;

use super::GenerateArgs;
use crate::output;

/// A response that is printed while it is drawn.
pub(crate) struct Live<'a> {
    /// The prompt, until it is printed.
    shown: Mutex<(Option<&'a str>, TextStream<'a>)>,
}

impl<'a> Live<'a> {
    /// None where there is more than one response to print, a choice to be made first, or nobody who watches.
    pub(crate) fn new(
        args: &'a GenerateArgs,
        prompts: &'a [EncodedPrompt],
        tokenizer: &'a Tokenizer,
    ) -> Option<Self> {
        let plain =
            args.procedure == Procedure::Sample.into() && args.reward.is_none() && !args.json;
        match prompts {
            [prompt] if plain && args.samples.get() == 1 && std::io::stdout().is_terminal() => {
                let text = TextStream::new(tokenizer, &args.stop, prompt);
                Some(Self { shown: Mutex::new((Some(&prompt.text), text)) })
            }
            _ => None,
        }
    }

    /// Prints what is sure with one more token; Break where nobody reads any more.
    pub(crate) fn token(&self, token: u32) -> ControlFlow<()> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let (prompt, text) = &mut *shown;
        // Whatever else goes wrong is told by those who print the whole.
        let new = text.push(&[token]).unwrap_or_default();
        let new = format!("{}{new}", prompt.take().unwrap_or_default());
        output::print_part(&new).unwrap_or(ControlFlow::Continue(()))
    }

    /// What is still missing of the response.
    pub(crate) fn rest<'t>(&self, whole: &'t str) -> &'t str {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).1.rest(whole)
    }
}
