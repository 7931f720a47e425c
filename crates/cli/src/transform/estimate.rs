//! `infalign transform estimate`: the transform for a decoder of which nothing is known but what it returns.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use infalign_calibrate::{pit, store};
use infalign_data::Text;
use infalign_data::responses::{self, StoredPrompt, StoredResponses};
use infalign_decode::Stream;
use infalign_transform::{Beta, EstimatedTransform, RankEstimate};
use serde_json::{Value, json};

use crate::failure::{Failure, OrFailure};
use crate::output::{self, shown};
use crate::recording::RunInputs;
use crate::{destination, files};

/// Arguments of `infalign transform estimate`.
#[derive(Args)]
pub(crate) struct EstimateArgs {
    /// Responses that the decoder has made of the reference policy, several to each prompt, with their rewards: what `generate --json` printed,
    /// under any procedure, or rows of `prompt`, `response` and `reward`.
    #[arg(long, value_name = "FILE")]
    responses: PathBuf,
    /// The reference policy's own rewards of the same prompts, as `infalign calibrate` makes them.
    #[arg(long, value_name = "FILE.parquet")]
    table: PathBuf,
    /// KL coefficient β, on the scale of the win rate, for which the transform is the best.
    #[arg(long, allow_negative_numbers = true)]
    beta: f64,
    /// Equal bins of ranks, which blur the transform; four responses a bin are the least.
    #[arg(long, default_value_t = 50)]
    bins: usize,
    /// Seed by which ties are broken.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// CSV file for the transform, which a recipe names as `table:FILE`.
    #[arg(long, value_name = "FILE.csv")]
    out: Option<PathBuf>,
    /// Print a JSON document.
    #[arg(long)]
    json: bool,
}

impl EstimateArgs {
    pub(super) fn reads(&self) -> RunInputs {
        let reads = RunInputs::new(Some(self.seed), None, self.json);
        reads.file("--responses", &self.responses).file("--table", &self.table)
    }
}

/// Estimates, prints, and writes.
///
/// # Errors
/// [`Failure::Input`] for files that do not belong together, [`Failure::Run`] when the table cannot be written.
pub(crate) fn run(args: &EstimateArgs) -> Result<(), Failure> {
    args.out.as_deref().map_or(Ok(()), destination::file).or_input()?;
    let stored = responses::read(&args.responses).or_input()?;
    let beta = Beta::new(args.beta).or_input()?;
    let ranks = ranks(args, &stored).or_input()?;
    let by_prompt: Vec<&[f64]> = ranks.iter().map(Vec::as_slice).collect();
    let found = RankEstimate::of_clusters(args.bins, &by_prompt)
        .and_then(|estimate| estimate.optimum(beta));
    let found = found.or_input()?;
    let table = found.table().or_input()?;
    if let Some(out) = &args.out {
        files::write(out, table.to_csv()).or_run()?;
    }
    let procedure = stored.procedure.as_deref();
    let n_ranks = ranks.iter().map(Vec::len).sum();
    if args.json {
        return print_json(args, procedure, n_ranks, &found);
    }
    let EstimatedTransform { optimum, u, phi, standard_error } = &found;
    let mut rows = vec![
        ("procedure".to_owned(), procedure.unwrap_or("–").to_owned()),
        ("ranks".to_owned(), n_ranks.to_string()),
        ("β".to_owned(), shown(args.beta)),
        ("KL (nats)".to_owned(), shown(optimum.kl)),
        ("win rate".to_owned(), shown(optimum.win_rate)),
        (String::new(), String::new()),
        ("u".to_owned(), "Φ".to_owned()),
    ];
    let curve = u.iter().zip(phi).zip(standard_error);
    rows.extend(
        curve.map(|((u, phi), error)| (format!("{u:.3}"), format!("{phi:.6} ± {error:.6}"))),
    );
    output::print_rows(&rows)
}

fn print_json(
    args: &EstimateArgs,
    procedure: Option<&str>,
    ranks: usize,
    found: &EstimatedTransform,
) -> Result<(), Failure> {
    let EstimatedTransform { optimum, u, phi, standard_error } = found;
    let document = json!({
        "procedure": procedure, "ranks": ranks, "bins": args.bins, "beta": args.beta, "kl": optimum.kl,
        "win_rate": optimum.win_rate, "curve": { "u": u, "phi": phi, "standard_error": standard_error },
    });
    output::print(&format!("{document:#}"))
}

/// Whether two rewards, as [`crate::identity`] tells them, are one, wherever the servers are that score.
fn is_same_reward(ours: &str, theirs: &str) -> bool {
    let anywhere = |reward: &str| {
        let mut reward: Value = serde_json::from_str(reward).ok()?;
        take_addresses(&mut reward);
        Some(reward)
    };
    ours == theirs || anywhere(ours).is_some_and(|ours| anywhere(theirs) == Some(ours))
}

fn take_addresses(reward: &mut Value) {
    match reward {
        Value::Object(keys) => {
            keys.remove("url");
            keys.values_mut().for_each(take_addresses);
        }
        Value::Array(parts) => parts.iter_mut().for_each(take_addresses),
        _ => {}
    }
}

/// The rank of every response to each prompt among the reference's own, ties broken at random.
fn ranks(args: &EstimateArgs, stored: &StoredResponses) -> Result<Vec<Vec<f64>>> {
    let table = store::read(&args.table)?;
    let (ours, theirs) = (&table.meta().reward, stored.reward.as_ref());
    if let Some(theirs) = theirs.filter(|theirs| !is_same_reward(ours, theirs)) {
        bail!(
            "{}: the rewards are those of {theirs}, and the table was made with {ours}: generate with the table's reward",
            args.responses.display()
        );
    }
    let mut ranks = Vec::new();
    for StoredPrompt { prompt, responses } in &stored.prompts {
        let Text::Plain(text) = &prompt.text else {
            bail!(
                "{}: the prompt `{}` is of messages: give it as the text that the model reads",
                args.responses.display(),
                prompt.id
            );
        };
        let row = table.row(text).with_context(|| args.table.display().to_string())?;
        let reward = |response: &responses::StoredResponse| {
            let reward = response.reward.map(|reward| reward as f32);
            reward.with_context(|| {
                format!(
                    "{}: a response to `{}` has no `reward`: generate with --reward",
                    args.responses.display(),
                    prompt.id
                )
            })
        };
        let rewards = responses.iter().map(reward).collect::<Result<Vec<f32>>>()?;
        let mut uniform = Stream::new(args.seed, "rank", &prompt.id, 0).uniforms(1);
        ranks.push(pit::Group::new(row, &rewards, &mut uniform)?.values().to_vec());
    }
    Ok(ranks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reward_is_the_same_wherever_its_server_is() {
        let of = |url: &str, batch: usize| {
            json!({ "kind": "sum", "parts": [{ "kind": "remote", "url": url, "batch": batch }] })
                .to_string()
        };
        assert!(is_same_reward(&of("http://a", 8), &of("http://b", 8)));
        assert!(!is_same_reward(&of("http://a", 8), &of("http://a", 9)));
        assert!(is_same_reward("a", "a") && !is_same_reward("a", "b"));
    }
}
