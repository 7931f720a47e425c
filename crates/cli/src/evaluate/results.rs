//! What an evaluation has found, as a file, a document and a text.

use anyhow::{Context, Result};
use infalign_evaluate::{
    Effect, Entry, Estimate, Judging, Label, Pairwise, Plan, Planned, Row, kl_text, pairwise, plan,
    score_with_interval, table, text_table, with_interval,
};
use infalign_record::env::without_home;
use infalign_reward::Preference;
use serde::Serialize;
use serde_json::json;

use super::sides::Sides;
use super::{EvaluateArgs, contests};
use crate::compare::plans;
use crate::train::SCHEMA;

/// `results.json` of an evaluation.
#[derive(Serialize)]
pub(super) struct Results {
    schema: &'static str,
    policy: String,
    reference: String,
    rows: Vec<Row>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pairwise: Vec<Pairwise>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    plans: Vec<Planned>,
    /// Why there is no KL, where the samples are not to blame.
    #[serde(skip)]
    no_kl: Option<&'static str>,
}

impl Results {
    /// As one JSON document: the first row's keys, and all rows where there are several.
    ///
    /// # Errors
    /// When there is no row.
    pub(super) fn json(&self) -> Result<String> {
        let first = self.rows.first().context("there is no row")?;
        let mut document = serde_json::to_value(first)?;
        document["policy"] = json!(self.policy);
        document["reference"] = json!(self.reference);
        if self.rows.len() > 1 {
            document["rows"] = json!(self.rows);
        }
        if !self.pairwise.is_empty() {
            document["pairwise"] = json!(self.pairwise);
        }
        if !self.plans.is_empty() {
            document["plans"] = json!(self.plans);
        }
        Ok(format!("{document:#}"))
    }

    /// As a table with what stands behind it.
    pub(super) fn text(&self) -> String {
        let mut text = text_table(&self.rows) + "\n";
        text.extend(self.rows.iter().map(line));
        if let Some(row) = self.rows.first() {
            text += &kl_line(row, self.no_kl.unwrap_or("these samples do not tell it"));
        }
        text.extend(self.pairwise.iter().map(pairwise_line));
        text + &plans(&self.plans)
    }
}

/// Measures both sides.
///
/// # Errors
/// When a statistic has no value, or the judge of pairs fails.
pub(super) fn results(
    args: &EvaluateArgs,
    sides: &Sides,
    preference: Option<&Preference>,
) -> Result<Results> {
    let label = Label::named(&args.name);
    let entry = Entry { label, sampled: &sides.policy, reference: &sides.reference };
    let (contests, statistics) = (contests(args), args.statistics.statistics(0));
    let judge = sides.judge();
    let length_controlled = args.length_controlled;
    let judging = Judging { judge, length_controlled, statistics };
    let of_judge = Plan { contests: &contests, pairs: &[], judging };
    let rows = table(&[entry], &of_judge)?.rows;
    let effect = args.plan.plan.map(|size| Effect { size, power: args.plan.power });
    let plans = effect.map(|effect| {
        let of = |contest| plan(&entry, None, contest, judge, effect, &statistics);
        contests.iter().map(of).collect::<Result<Vec<_>, _>>()
    });
    let pairwise = preference.map(|judge| pairwise_rows(args, sides, judge)).transpose()?;
    Ok(Results {
        schema: SCHEMA,
        policy: without_home(&args.policy.to_string_lossy()),
        reference: without_home(&args.reference.to_string_lossy()),
        rows,
        pairwise: pairwise.unwrap_or_default(),
        plans: plans.transpose()?.unwrap_or_default(),
        no_kl: sides.no_kl,
    })
}

fn pairwise_rows(args: &EvaluateArgs, sides: &Sides, judge: &Preference) -> Result<Vec<Pairwise>> {
    let label = Label::named(&args.name);
    let entry = Entry { label, sampled: &sides.policy, reference: &sides.reference };
    let statistics = args.statistics.statistics(0);
    let judged = contests(args)
        .iter()
        .map(|contest| pairwise(&entry, contest, judge, args.pairs.get(), &statistics))
        .collect::<Result<_, _>>()?;
    Ok(judged)
}

/// What procedures have come to.
fn line(row: &Row) -> String {
    let mut text = format!("{}: win rate {}", row.contest, with_interval(&row.win_rate));
    if let Some(controlled) = &row.length_controlled_win_rate {
        text += &format!(", at equal length {}", with_interval(controlled));
    }
    if let Some(test) = &row.equivalence {
        let shown = if test.is_shown(row.win_rate.level) { "" } else { "not shown to be " };
        text += &format!(", {shown}equivalent to ½ within ±{}", test.margin);
    }
    text += &format!(
        "; score {} against {}",
        score_with_interval(&row.score),
        score_with_interval(&row.reference_score)
    );
    if let Some(tokens) = row.tokens {
        text += &format!("; {tokens:.1} tokens made for a response");
    }
    if let Some(kl) = row.procedure_kl {
        text += &format!("; what is kept is {:.3} nats from the policy", kl.estimate);
        if let Some(kl) = row.kl_to_reference {
            text += &format!(" and {:.3} from the reference", kl.estimate);
        }
        text += &format!(" ({})", kl.kind);
    }
    text + "\n"
}

/// What is the same of all rows.
///
/// - `no_kl`: why the KL is not told, where it is not.
fn kl_line(row: &Row, no_kl: &str) -> String {
    let other = |name: &str, part: Option<Estimate>| {
        part.map_or(String::new(), |part| {
            format!(", {name} {:.3} ± {:.3}", part.estimate, part.standard_error)
        })
    };
    let others = match row.kl {
        Some(kl) => other("k1", kl.k1) + &other("k3", kl.k3),
        None => format!(": {no_kl}"),
    };
    format!(
        "KL {} nats{others}; {} prompts, {} responses or more to each\n",
        kl_text(row),
        row.n_prompts,
        row.n_samples
    )
}

fn pairwise_line(judged: &Pairwise) -> String {
    let kappa = judged.agreement.kappa.as_ref().map_or("–".to_owned(), with_interval);
    format!(
        "{} by the pairwise judge: win rate {}, the first shown is preferred {}, κ with the reward {kappa}; {} pairs in both orders, {:.1} % of the answers are no verdict and count as ties\n",
        judged.contest.policy,
        with_interval(&judged.win_rate),
        with_interval(&judged.first_preferred),
        judged.n_pairs,
        100.0 * judged.unusable_share
    )
}
