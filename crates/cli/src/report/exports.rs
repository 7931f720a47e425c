//! What other tools read: AlpacaEval's outputs, and lm-evaluation-harness's results.

use std::collections::HashSet;
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
    let reference = sources.first().map(|first| ("reference", &first.reference));
    let entries = sources.iter().flat_map(Source::entries);
    let methods = entries.map(|(_, entry)| (entry.label.method, entry.sampled));
    let mut taken = HashSet::new();
    let document = |(name, sampled): (&str, &Sampled)| {
        let own = not_taken(name.replace(['/', ' '], "-"), '-', &mut taken);
        // A method may be called as the reference is.
        let generator = if name == "reference" { own.as_str() } else { name };
        (format!("alpaca-eval-{own}.json"), outputs(generator, sampled))
    };
    reference.into_iter().chain(methods).map(document).collect()
}

/// A name, or with a number behind it where it is taken; some file systems do not tell upper from lower case.
fn not_taken(name: String, before: char, taken: &mut HashSet<String>) -> String {
    let numbered = (2..).map(|number| format!("{name}{before}{number}"));
    let mut names = std::iter::once(name.clone()).chain(numbered);
    names.find(|name| taken.insert(name.to_ascii_lowercase())).unwrap_or_default()
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
    let mut taken = HashSet::new();
    for row in report.judged.iter().flat_map(|judged| &judged.table.rows) {
        let by = if row.judge == Judge::Judge { "_judge" } else { "" };
        let task = format!("infalign_{}{by}_{}", name_of(row), row.method);
        let task = not_taken(task, '_', &mut taken);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_given_twice() {
        let mut taken = HashSet::new();
        let mut name = |name: &str| not_taken(name.to_owned(), '-', &mut taken);
        assert_eq!(
            ["reference", "reference", "Reference", "a"].map(&mut name),
            ["reference", "reference-2", "Reference-3", "a"]
        );
    }
}
