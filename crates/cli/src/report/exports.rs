//! What other tools read: AlpacaEval's outputs, and lm-evaluation-harness's results.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ValueEnum;
use infalign_evaluate::report::Report;
use infalign_evaluate::{Judge, Row, Sampled};
use serde_json::{Map, Value, json};

use crate::files;
use crate::sources::Source;

/// A form of another tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Export {
    /// The first response of each method, and of the reference, as AlpacaEval's model outputs.
    AlpacaEval,
    /// Win rates with standard errors, as lm-evaluation-harness's results.
    LmEval,
}

impl Export {
    /// Writes it and returns its files.
    pub(super) fn write(
        self,
        out: &Path,
        sources: &[Source],
        report: &Report,
    ) -> Result<Vec<PathBuf>> {
        let documents = match self {
            Self::AlpacaEval => alpaca_eval(sources),
            Self::LmEval => vec![("lm-eval.json".to_owned(), lm_eval(report))],
        };
        documents
            .into_iter()
            .map(|(name, document)| {
                let path = out.join(name);
                files::write(&path, format!("{document:#}\n"))?;
                Ok(path)
            })
            .collect()
    }
}

fn alpaca_eval(sources: &[Source]) -> Vec<(String, Value)> {
    let mut all: Vec<(String, Value)> = Vec::new();
    if let Some(first) = sources.first() {
        all.push(("reference".to_owned(), outputs("reference", &first.reference)));
    }
    for (_, entry) in sources.iter().flat_map(Source::entries) {
        let name = entry.label.method;
        all.push((name.replace(['/', ' '], "-"), outputs(name, entry.sampled)));
    }
    all.into_iter().map(|(name, outputs)| (format!("alpaca-eval-{name}.json"), outputs)).collect()
}

/// `[{"instruction", "output", "generator"}]`.
fn outputs(generator: &str, sampled: &Sampled) -> Value {
    let rows = sampled.prompts.iter().zip(&sampled.responses).filter_map(|(prompt, responses)| {
        let output = responses.first()?;
        Some(json!({ "instruction": prompt.text, "output": output, "generator": generator }))
    });
    rows.collect()
}

/// A task a procedure and judge, a metric a method.
fn lm_eval(report: &Report) -> Value {
    let (mut results, mut samples, mut versions) = (Map::new(), Map::new(), Map::new());
    for row in report.judged.iter().flat_map(|judged| &judged.table.rows) {
        let by = if row.judge == Judge::Judge { "_judge" } else { "" };
        let task = format!("infalign_{}{by}_{}", name_of(row), row.method);
        let (estimate, error) = (row.win_rate.estimate, row.win_rate_error);
        results.insert(
            task.clone(),
            json!({ "alias": task, "win_rate,none": estimate, "win_rate_stderr,none": error }),
        );
        let n = row.n_prompts;
        samples.insert(task.clone(), json!({ "original": n, "effective": n }));
        versions.insert(task, json!(1));
    }
    json!({ "results": results, "n-samples": samples, "versions": versions, "n-shot": {}, "configs": {} })
}

/// The procedure in letters that names of tasks have.
fn name_of(row: &Row) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    row.contest.to_string().chars().map(plain).collect()
}
