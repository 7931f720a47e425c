//! `infalign score`: log-probabilities and rewards of given responses.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use infalign_backend::DeviceName;
use infalign_data::given::{self, Given};
use infalign_model::{CausalLm, Sequence, Tokenizer};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::generate::reward_config;
use crate::output;

/// Arguments of `infalign score`.
#[derive(Args)]
pub(crate) struct ScoreArgs {
    /// Hugging Face directory of the model.
    #[arg(long)]
    model: PathBuf,
    /// JSONL: {"prompt": text, "response": text} or {"ids": [token ids]} a line.
    #[arg(long)]
    input: PathBuf,
    /// Scores texts too: a TOML file like a recipe's reward table, or the directory of a reward model.
    #[arg(long)]
    reward: Option<PathBuf>,
    /// Device: cpu, cuda, wgpu, with :INDEX for another than the first.
    #[arg(long)]
    device: Option<DeviceName>,
    /// Print a JSON document instead of a table.
    #[arg(long)]
    json: bool,
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
    let device = infalign_backend::device(args.device.as_ref()).map_err(Failure::input)?;
    let model = CausalLm::load(&args.model, &device).map_err(Failure::input)?;
    let given = given::read(&args.input).map_err(Failure::input)?;
    let sequences = sequences(&args.model, &model, &given)
        .with_context(|| args.input.display().to_string())
        .map_err(Failure::Input)?;
    let reward = reward_config(args.reward.as_deref())
        .and_then(|config| Ok(config.map(|config| config.build(&device)).transpose()?))
        .map_err(Failure::Input)?;
    let texts: Vec<(&str, &str)> = given.iter().filter_map(|(_, given)| pair(given)).collect();
    let rewards = reward.map(|reward| reward.score(&texts)).transpose().map_err(Failure::run)?;
    let log_probs = model.log_probs(&sequences).map_err(Failure::run)?;
    let mut rewards = rewards.into_iter().flatten();
    let rows = given.iter().zip(sequences).zip(log_probs);
    let scored: Vec<Scored> = rows
        .map(|(((line, given), sequence), log_probs)| {
            let reward = pair(given).and_then(|_| rewards.next());
            Scored { line: *line, sequence, log_probs, reward }
        })
        .collect();
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

fn document(row: &Scored) -> Value {
    json!({
        "line": row.line, "ids": row.sequence.tokens, "prompt_length": row.sequence.prompt_length,
        "log_probs": row.log_probs, "log_prob": total(&row.log_probs), "reward": row.reward,
    })
}

fn total(log_probs: &[f32]) -> f64 {
    log_probs.iter().map(|&log_prob| f64::from(log_prob)).sum()
}

/// Prompt and response of a line that has texts.
fn pair(given: &Given) -> Option<(&str, &str)> {
    match given {
        Given::Text { prompt, response } => Some((prompt, response)),
        Given::Ids { .. } => None,
    }
}

/// Token ids of every line; the tokenizer is only read where a line has texts.
fn sequences(
    dir: &Path,
    model: &CausalLm,
    given: &[(usize, Given)],
) -> anyhow::Result<Vec<Sequence>> {
    let texts = given.iter().any(|(_, given)| pair(given).is_some());
    let tokenizer = texts.then(|| Tokenizer::load(dir, model.config())).transpose()?;
    let sequence = |(line, given): &(usize, Given)| {
        let sequence = match (given, &tokenizer) {
            (Given::Text { prompt, response }, Some(tokenizer)) => {
                let (tokens, prompt_length) = tokenizer.encode_pair(prompt, response)?;
                Sequence { tokens, prompt_length }
            }
            (Given::Ids { ids }, _) => Sequence { tokens: ids.clone(), prompt_length: 1 },
            (Given::Text { .. }, None) => anyhow::bail!("there is no tokenizer"),
        };
        model.check(&sequence).with_context(|| format!("line {line}"))?;
        Ok(sequence)
    };
    given.iter().map(sequence).collect()
}
