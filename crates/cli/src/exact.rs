//! `infalign generate --exact`: the distribution of a procedure over the responses of a tabular model.

use std::path::Path;

use anyhow::anyhow;
use infalign_decode::exact::{ExactDecoder, ResponseDistribution, Values};
use infalign_decode::{DecodeError, best_of_kl_bound};
use infalign_model::TabularProblem;
use infalign_transform::{Composed, Procedure};
use serde_json::{Map, Value, json};

use crate::failure::{Failure, OrFailure};
use crate::generate::GenerateArgs;
use crate::output::{self, shown};

/// What marks a model that is a table.
const TABULAR: &str = "tabular:";

/// The file of a tabular model, or `None` for a directory.
pub(crate) fn table(model: &Path) -> Option<&str> {
    model.to_str()?.strip_prefix(TABULAR)
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Input`] for a model that is no table, a table that is malformed, or a procedure that cannot be enumerated.
pub(crate) fn run(args: &GenerateArgs) -> Result<(), Failure> {
    let file = table(&args.model).ok_or_else(|| {
        let model = args.model.display();
        Failure::Input(anyhow!(
            "--exact enumerates a table, but the model is {model}: give --model {TABULAR}FILE.json, or --prompts instead of --exact"
        ))
    })?;
    let Composed { selection, inner } = args.procedure;
    let guided = inner != Procedure::Sample;
    if !(args.scorer.is_empty() || guided) {
        return Err(Failure::Input(anyhow!(
            "--scorer guides cd-token and cd-block only, and the procedure is {}: leave it out",
            args.procedure
        )));
    }
    let problem = TabularProblem::read(Path::new(file)).or_input()?;
    let decoder = decoder(&problem, &args.scorer)?;
    let distribution = decoder
        .decode(inner)
        .and_then(|inner| match selection {
            Procedure::Sample => Ok(inner),
            _ => inner.select(&selection, problem.rewards()),
        })
        .or_input()?;
    let measures = measures(args.procedure, &problem, &distribution).or_input()?;
    if args.json {
        return print_json(args.procedure, measures, &distribution);
    }
    print_rows(args.procedure, measures, &distribution)
}

fn print_json(
    procedure: Composed,
    measures: Vec<(&str, f64)>,
    distribution: &ResponseDistribution,
) -> Result<(), Failure> {
    let mut document = Map::new();
    document.insert("procedure".into(), json!(procedure));
    document.extend(measures.into_iter().map(|(name, value)| (name.into(), json!(value))));
    let responses: Map<_, _> = distribution.responses().map(|(y, p)| (y, json!(p))).collect();
    document.insert("distribution".into(), Value::Object(responses));
    output::print(&format!("{:#}", Value::Object(document)))
}

fn print_rows(
    procedure: Composed,
    measures: Vec<(&str, f64)>,
    distribution: &ResponseDistribution,
) -> Result<(), Failure> {
    let title = |name: &str| match name {
        "kl" => "KL (nats)".to_owned(),
        other => other.replace('_', " ").replace("kl", "KL"),
    };
    let mut rows = vec![("procedure".to_owned(), procedure.to_string())];
    rows.extend(measures.into_iter().map(|(name, value)| (title(name), shown(value))));
    rows.push((String::new(), String::new()));
    rows.push(("response".to_owned(), "probability".to_owned()));
    rows.extend(distribution.responses().map(|(response, p)| (response, shown(p))));
    output::print_rows(&rows)
}

/// The decoder that the scorers guide, or the model's own values where there are none.
fn decoder<'a>(
    problem: &'a TabularProblem,
    scorers: &[String],
) -> Result<ExactDecoder<'a>, Failure> {
    let mut sum: Option<Values> = None;
    for scorer in scorers {
        let values = values(scorer)?;
        sum = Some(match sum {
            Some(sum) => sum.plus(&values).or_input()?,
            None => values,
        });
    }
    match sum {
        Some(values) => ExactDecoder::with_values(problem, values).or_input(),
        None => Ok(ExactDecoder::new(problem)),
    }
}

/// The values of `tabular:FILE.json` or `tabular:FILE.json:WEIGHT`, times the weight.
fn values(scorer: &str) -> Result<Values, Failure> {
    let Some(rest) = scorer.strip_prefix(TABULAR) else {
        return Err(Failure::Input(anyhow!(
            "the scorer {scorer} is not a table: with --exact, give --scorer {TABULAR}FILE.json or --scorer {TABULAR}FILE.json:WEIGHT"
        )));
    };
    let weighted =
        rest.rsplit_once(':').and_then(|(file, weight)| Some((file, weight.parse::<f64>().ok()?)));
    let (file, weight) = weighted.unwrap_or((rest, 1.0));
    if !weight.is_finite() {
        return Err(Failure::Input(anyhow!(
            "the weight of the scorer {scorer} is {weight}: give a finite number"
        )));
    }
    let problem = TabularProblem::read(Path::new(file)).or_input()?;
    Ok(Values::of(&problem).scaled(weight))
}

/// The numbers that sum a distribution up, with their names in JSON.
fn measures(
    procedure: Composed,
    problem: &TabularProblem,
    distribution: &ResponseDistribution,
) -> Result<Vec<(&'static str, f64)>, DecodeError> {
    let rewards = problem.rewards();
    let mut measures = vec![
        ("expected_reward", distribution.expected(rewards)),
        ("kl", distribution.kl()),
        ("win_rate", distribution.win_rate(rewards)?),
        ("expected_length", distribution.expected_length()),
    ];
    if let (Procedure::Sample, Procedure::CdBlock { length, samples }) =
        (procedure.selection, procedure.inner)
    {
        let blocks = distribution.expected_blocks(length);
        measures.push(("expected_blocks", blocks));
        measures.push(("kl_bound", blocks * best_of_kl_bound(samples)));
    }
    Ok(measures)
}
