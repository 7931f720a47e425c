//! `infalign score`: log-probabilities and rewards of given responses.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use infalign_backend::DeviceName;
use infalign_data::given::{self, Given, GivenResponses};
use infalign_model::{CausalLm, LanguageModel, ModelError, ModelFolder, Sequence, Tokenizer};
use infalign_reward::Reward;
use serde_json::{Value, json};

use crate::encode::Encoder;
use crate::failure::{Failure, OrFailure};
use crate::generate::reward_of;
use crate::recording::RunInputs;
use crate::{models, output};

/// Arguments of `infalign score`.
#[derive(Args)]
pub(crate) struct ScoreArgs {
    /// Hugging Face directory of the model, or its name on the hub (org/name or org/name@revision, from the local cache).
    #[arg(long)]
    model: PathBuf,
    /// JSONL: {"prompt": text, "response": text} (also as `completion`) or {"ids": [token ids]} a line; or what `generate --json` prints, as
    /// .json. A prompt of messages, also as `messages`, goes through the model's chat template. Where a row has the response's `tokens`, those
    /// are scored as they are.
    #[arg(long)]
    input: PathBuf,
    /// Scores texts too: a TOML file like a recipe's reward table, or a reward model, by its directory or its name on the hub.
    #[arg(long)]
    reward: Option<PathBuf>,
    /// Device: cpu, cuda, wgpu, with :INDEX for another than the first.
    #[arg(long)]
    device: Option<DeviceName>,
    /// Print a JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

impl ScoreArgs {
    /// What is read.
    pub(crate) fn reads(&self) -> RunInputs {
        let reads =
            RunInputs::new(None, self.device.as_ref(), self.json).model("--model", &self.model);
        reads.file("--input", &self.input).reward("--reward", self.reward.as_deref())
    }
}

/// One line of the input as the model reads it.
struct Line {
    number: usize,
    sequence: Sequence,
    /// Prompt and response, where the line has texts.
    texts: Option<(String, String)>,
}

/// One line of the input with its numbers.
struct Scored {
    line: usize,
    sequence: Sequence,
    log_probs: Vec<f32>,
    reward: Option<f32>,
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] before the model runs, [`Failure::Run`] after.
pub(crate) fn run(args: &ScoreArgs) -> Result<(), Failure> {
    let device = infalign_backend::device(args.device.as_ref()).or_input()?;
    let folder = models::folder(&args.model).or_input()?;
    let model = CausalLm::load(&folder, &device).or_input()?;
    let GivenResponses { rows, finished } = given::read(&args.input).or_input()?;
    if !finished {
        tell!(
            "warning: {} says that it is not `finished`: the responses that take longest are missing, so that its rows are no fair sample of all",
            args.input.display()
        );
    }
    let lines = lines(&folder, &model, rows)
        .with_context(|| args.input.display().to_string())
        .or_input()?;
    let reward = reward_of(args.reward.as_deref(), &device).or_input()?;
    if reward.is_some() {
        tell_unrewarded(&lines);
    }
    let scored = scored(model.for_inference().as_ref(), reward.as_deref(), lines).or_run()?;
    if args.json {
        let rows: Vec<Value> = scored.iter().map(document).collect();
        return output::print(&format!("{:#}", json!({ "scores": rows })));
    }
    let lines = scored.iter().map(|row| {
        let reward = row.reward.map_or(String::new(), |reward| format!("{reward:.6}"));
        let (tokens, sum) = (row.log_probs.len(), total(&row.log_probs));
        format!("{:<8}{tokens:<8}{sum:<18.6}{reward}", row.line).trim_end().to_owned()
    });
    let head = format!("{:<8}{:<8}{:<18}reward", "line", "tokens", "log-probability");
    output::print(&std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n"))
}

/// Says how many lines a reward has nothing to read in.
fn tell_unrewarded(lines: &[Line]) {
    let (all, n) = (lines.len(), lines.iter().filter(|line| line.texts.is_none()).count());
    if n > 0 {
        tell!("note: {n} of {all} lines are ids, which have no prompt and response to reward");
    }
}

fn document(row: &Scored) -> Value {
    json!({
        "line": row.line, "ids": row.sequence.tokens, "prompt_length": row.sequence.prompt_length,
        "log_probs": row.log_probs, "log_prob": total(&row.log_probs), "reward": row.reward,
    })
}

fn total(log_probs: &[f32]) -> f64 {
    log_probs.iter().map(|&log_prob| f64::from(log_prob)).sum()
}

/// Scores every line, and its texts by the reward.
fn scored(
    model: &dyn LanguageModel,
    reward: Option<&dyn Reward>,
    lines: Vec<Line>,
) -> Result<Vec<Scored>> {
    let texts = lines.iter().filter_map(|line| line.texts.as_ref());
    let texts: Vec<_> =
        texts.map(|(prompt, response)| (prompt.as_str(), response.as_str())).collect();
    let rewards = reward.map(|reward| reward.score(&texts)).transpose()?;
    let mut rewards = rewards.into_iter().flatten();
    let rewards: Vec<_> =
        lines.iter().map(|line| line.texts.as_ref().and_then(|_| rewards.next())).collect();
    let (numbers, sequences): (Vec<_>, Vec<_>) =
        lines.into_iter().map(|line| (line.number, line.sequence)).unzip();
    let log_probs = model.log_probs(&sequences)?;
    let rows = numbers.into_iter().zip(sequences).zip(log_probs).zip(rewards);
    let scored = rows.map(|(((line, sequence), log_probs), reward)| Scored {
        line,
        sequence,
        log_probs,
        reward,
    });
    Ok(scored.collect())
}

/// Token ids of every line; the tokenizer is only read where a line has texts.
fn lines(folder: &ModelFolder, model: &CausalLm, given: Vec<(usize, Given)>) -> Result<Vec<Line>> {
    let texts = given.iter().any(|(_, given)| matches!(given, Given::Text { .. }));
    let tokenizer = texts.then(|| Tokenizer::load(folder, model.config())).transpose()?;
    let encoder = tokenizer.as_ref().map(Encoder::new);
    let line = |(number, given): (usize, Given)| {
        let line = line(encoder.as_ref(), number, given);
        let line = line.and_then(|line| {
            check(model, &line.sequence)?;
            Ok(line)
        });
        line.with_context(|| format!("line {number}"))
    };
    given.into_iter().map(line).collect()
}

/// Refuses what the model cannot read. Nothing is generated here, so that no limit of responses could be lowered.
fn check(model: &CausalLm, sequence: &Sequence) -> Result<()> {
    match model.check(sequence) {
        Err(ModelError::TooLong { length, limit }) => bail!(
            "it has {length} tokens, but the model's context has room for {limit}: shorten its prompt or its response, or leave it out"
        ),
        checked => Ok(checked?),
    }
}

fn line(encoder: Option<&Encoder<'_>>, number: usize, given: Given) -> Result<Line> {
    match (given, encoder) {
        (Given::Text { prompt, response, tokens: known }, Some(encoder)) => {
            let (prompt, mut tokens, prompt_length) = encoder.pair(&prompt, &response)?;
            if let Some(known) = known {
                tokens.truncate(prompt_length);
                // A text may have been cut before what ended it.
                ensure!(
                    encoder.response(&tokens, &known)?.starts_with(&response),
                    "its tokens are not those of its response by this model's tokenizer: take `tokens` out to have the text read"
                );
                tokens.extend(known);
            }
            let sequence = Sequence { tokens, prompt_length };
            Ok(Line { number, sequence, texts: Some((prompt, response)) })
        }
        (Given::Ids { ids }, _) => {
            let sequence = Sequence { tokens: ids, prompt_length: 1 };
            Ok(Line { number, sequence, texts: None })
        }
        (Given::Text { .. }, None) => bail!("there is no tokenizer"),
    }
}
