//! Responses on stdout, prompt by prompt as they are finished, in the order of the prompts.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::Result;
use infalign_data::Prompt;
use infalign_decode::{Decoded, EncodedPrompt};

use super::live::Live;
use super::{GenerateArgs, reward_config};
use crate::failure::{Failure, OrFailure};
use crate::progress::{Progress, Stage};
use crate::{identity, output};

/// Prints texts, or the JSON document row by row.
pub(crate) struct Printing<'a, 'l> {
    args: &'a GenerateArgs,
    given: &'a [Prompt],
    prompts: &'a [EncodedPrompt],
    /// Has printed the prompt and a part of its response.
    live: Option<&'a Live<'l>>,
    /// Finished, but behind one that is not.
    waiting: BTreeMap<usize, Vec<Decoded>>,
    /// Prompts whose responses are printed.
    printed: usize,
    tokens: usize,
    values: usize,
    /// Responses, and those of them that rejection would have passed over, had it had more draws.
    responses: usize,
    unaccepted: usize,
    start: Instant,
    /// Only where stdout does not show the same.
    stage: Option<Stage>,
}

impl<'a, 'l> Printing<'a, 'l> {
    /// Begins, with the head of the document.
    ///
    /// # Errors
    /// [`Failure::Run`] when stdout cannot be written.
    pub(crate) fn begin(
        args: &'a GenerateArgs,
        given: &'a [Prompt],
        prompts: &'a [EncodedPrompt],
        live: Option<&'a Live<'l>>,
    ) -> Result<Self, Failure> {
        if args.json {
            let procedure = serde_json::json!(args.procedure);
            let (seed, reward) = (args.seed, reward(args).or_input()?);
            output::print(&format!(
                "{{\"procedure\": {procedure}, \"seed\": {seed}, {reward}\"responses\": ["
            ))?;
        }
        let shown = std::io::stdout().is_terminal() || prompts.len() < 2;
        let stage = (!shown).then(|| Progress::new(1).stage("generate", prompts.len()));
        let (waiting, start) = (BTreeMap::new(), Instant::now());
        Ok(Self {
            args,
            given,
            prompts,
            live,
            waiting,
            printed: 0,
            tokens: 0,
            values: 0,
            responses: 0,
            unaccepted: 0,
            start,
            stage,
        })
    }

    /// Takes the responses to a prompt, and prints what is next; Break where nobody reads any more.
    ///
    /// # Errors
    /// As [`Printing::begin`].
    pub(crate) fn take(
        &mut self,
        prompt: usize,
        decoded: Vec<Decoded>,
    ) -> Result<ControlFlow<()>, Failure> {
        self.tokens += decoded.iter().map(|one| one.cost.model_tokens).sum::<usize>();
        self.values += decoded.iter().map(|one| one.cost.scorer_calls).sum::<usize>();
        self.responses += decoded.len();
        self.unaccepted += decoded.iter().filter(|one| one.accepted == Some(false)).count();
        self.waiting.insert(prompt, decoded);
        if let Some(stage) = &self.stage {
            let rate = self.tokens as f64 / self.start.elapsed().as_secs_f64();
            stage.set(self.printed + self.waiting.len(), format!("{rate:.0} tokens/s"));
        }
        while let Some(decoded) = self.waiting.remove(&self.printed) {
            if self.print(self.printed, &decoded)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Prints what was finished but stood behind something that was not, and the end of the document. Returns the number of prompts
    /// whose responses are printed.
    ///
    /// # Errors
    /// As [`Printing::begin`].
    pub(crate) fn end(mut self) -> Result<usize, Failure> {
        for (prompt, decoded) in std::mem::take(&mut self.waiting) {
            if self.print(prompt, &decoded)?.is_break() {
                break;
            }
        }
        if self.args.json {
            let finished = self.printed == self.prompts.len();
            output::print(&format!("], \"finished\": {finished}}}"))?;
        }
        if let Some(stage) = self.stage {
            let seconds = self.start.elapsed().as_secs_f64();
            let (tokens, values) = (self.tokens, self.values);
            let rate = tokens as f64 / seconds;
            stage.finish(format!(
                "{tokens} tokens, {values} scores, {seconds:.1} s, {rate:.0} tokens a second"
            ));
        }
        if self.unaccepted > 0 {
            let (unaccepted, responses) = (self.unaccepted, self.responses);
            tell!(
                "note: {unaccepted} of {responses} responses are the last of their draws, none of which was accepted"
            );
        }
        Ok(self.printed)
    }

    fn print(&mut self, prompt: usize, decoded: &[Decoded]) -> Result<ControlFlow<()>, Failure> {
        let lines = if self.args.json {
            let comma = if self.printed > 0 { ", " } else { "  " };
            let rows: Vec<String> =
                decoded.iter().map(|one| row(&self.given[prompt], one).to_string()).collect();
            format!("{comma}{}", rows.join(",\n  "))
        } else if let (Some(live), [one]) = (self.live, decoded) {
            live.rest(&one.text).to_owned()
        } else {
            let text = &self.prompts[prompt].text;
            let texts: Vec<String> =
                decoded.iter().map(|one| format!("{text}{}", one.text)).collect();
            texts.join("\n")
        };
        self.printed += 1;
        output::print_on(&lines)
    }
}

/// The key of the document that says what scores the responses; empty where nothing does.
fn reward(args: &GenerateArgs) -> Result<String> {
    let Some(path) = &args.reward else { return Ok(String::new()) };
    let reward = identity::given_reward(&reward_config(path)?)?;
    Ok(format!("\"reward\": {}, ", serde_json::json!(reward)))
}

fn row(prompt: &Prompt, decoded: &Decoded) -> serde_json::Value {
    serde_json::json!({
        "id": prompt.id, "prompt": prompt.text, "response": decoded.text, "score": decoded.score,
        "tokens": decoded.response.tokens, "log_probs": decoded.response.log_probs,
        "finish": decoded.response.finish,
        "model_tokens": decoded.cost.model_tokens, "scorer_calls": decoded.cost.scorer_calls,
        "value": decoded.value, "kl": decoded.kl, "truncation": decoded.truncation, "accepted": decoded.accepted,
    })
}
