//! Inference-time win rates from stored rewards: `cargo run -p infalign --example evaluate`
//!
//! Two policies against a reference, on the same prompts, where the best of two responses is shown, and where the worst is.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use infalign::evaluate::{
    Contest, Entry, Judge, Label, Plan, PromptText, Sampled, Statistics, table, text_comparisons,
    text_table,
};

/// Responses to three prompts, of which the rewards are all that matters here.
fn sampled(rewards: [[f64; 4]; 3]) -> Sampled {
    let prompt =
        |id: usize| PromptText { id: id.to_string(), text: format!("prompt {id}"), sha256: None };
    Sampled {
        prompts: (1..=3).map(prompt).collect(),
        responses: vec![vec![String::new(); 4]; 3],
        rewards: rewards.map(Vec::from).into(),
        ..Sampled::default()
    }
}

fn main() -> anyhow::Result<()> {
    let reference = sampled([[0.1, 0.4, 0.5, 0.6], [0.0, 0.2, 0.3, 0.9], [0.3, 0.3, 0.4, 0.8]]);
    let daring = sampled([[0.0, 0.3, 0.8, 0.9], [0.0, 0.1, 0.9, 1.0], [0.1, 0.3, 0.9, 0.9]]);
    let careful = sampled([[0.5, 0.5, 0.5, 0.6], [0.3, 0.4, 0.4, 0.4], [0.4, 0.4, 0.5, 0.5]]);
    let entry =
        |method, sampled| Entry { label: Label::named(method), sampled, reference: &reference };
    let contests = ["best-of:2".parse()?, "worst-of:2".parse()?].map(Contest::same);
    let plan = Plan { pairs: &[(0, 1)], ..Plan::new(&contests, Judge::Reward, Statistics::new(1)) };
    let table = table(&[entry("daring", &daring), entry("careful", &careful)], &plan)?;
    print!("{}", text_table(&table.rows));
    println!();
    print!("{}", text_comparisons(&table.comparisons, 0.95));
    let [best, worst] = [0, 1].map(|at| table.comparisons[at].difference.estimate);
    anyhow::ensure!(best > 0.0 && worst < 0.0, "the better policy depends on the decoder");
    Ok(())
}
