//! The result table: a row a method and procedure, and differences between methods on the same prompts.

use infalign_stats::{
    Interval, Selection, mean_and_standard_error, mean_interval, paired_difference, win_rate,
};
use infalign_transform::{Beta, Procedure, Tilt, Transform, beta_for_kl};
use serde::{Deserialize, Serialize};

use crate::{EvaluateError, Judge, Sampled};

/// Confidence level of every interval.
const LEVEL: f64 = 0.95;

/// KL(π‖π_ref) in nats per response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kl {
    /// The estimate.
    pub estimate: f64,
    /// Its standard error over prompts.
    pub standard_error: f64,
    /// `estimate`: exact at every token, over sampled responses.
    pub kind: String,
}

/// One method under one procedure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the method.
    pub method: String,
    /// How it was trained, as recipes call it; absent for the reference itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What it was trained on; absent for the reference itself, and where it is no reward.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objective: Option<String>,
    /// The procedure, on both sides.
    pub procedure: Procedure,
    /// By what responses were judged.
    pub judge: Judge,
    /// Inference-time win rate against the reference, ties ½.
    pub win_rate: Interval,
    /// What the integrals of the continuous limit give for this objective at this KL; absent where they give nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted_win_rate: Option<f64>,
    /// Divergence from the reference.
    pub kl: Kl,
    /// Prompts.
    pub n_prompts: usize,
    /// Responses a prompt and side.
    pub n_samples: usize,
}

/// Difference of two methods' win rates under one procedure, on the same prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The first method.
    pub method: String,
    /// The method that is subtracted.
    pub baseline: String,
    /// The procedure.
    pub procedure: Procedure,
    /// By what responses were judged.
    pub judge: Judge,
    /// Win rate of the first minus win rate of the second.
    pub difference: Interval,
}

/// The selection that a rank procedure makes among stored samples.
///
/// # Errors
/// [`EvaluateError::Procedure`] for a procedure that does more than select.
pub fn selection(procedure: &Procedure) -> Result<Selection, EvaluateError> {
    match procedure {
        Procedure::Sample => Ok(Selection::Sample),
        Procedure::BestOf(n) => Ok(Selection::Best(n.get())),
        Procedure::WorstOf(n) => Ok(Selection::Worst(n.get())),
        _ => Err(EvaluateError::Procedure { procedure: procedure.to_string() }),
    }
}

/// Win rate of each prompt.
fn per_prompt(
    policy: &Sampled,
    reference: &Sampled,
    procedure: &Procedure,
    judge: Judge,
) -> Result<Vec<f64>, EvaluateError> {
    let selection = selection(procedure)?;
    let pairs = policy.by(judge)?.iter().zip(reference.by(judge)?);
    Ok(pairs.map(|(ours, theirs)| win_rate(ours, theirs, selection)).collect::<Result<_, _>>()?)
}

/// What a row says of a method besides numbers.
#[derive(Clone, Copy, Debug)]
pub struct Label<'a> {
    /// Its name.
    pub method: &'a str,
    /// How it was trained, as recipes call it; none for the reference itself.
    pub kind: Option<&'a str>,
    /// What it was trained on, if that is a reward.
    pub objective: Option<&'a str>,
    /// The transform among objectives, by which the continuous limit predicts win rates.
    pub transform: Option<&'a Transform>,
}

/// One row of the table.
///
/// # Errors
/// [`EvaluateError`] when there are fewer samples than the procedure takes, fewer than two prompts, or no scores of that judge.
pub fn row(
    label: Label<'_>,
    procedure: &Procedure,
    judge: Judge,
    policy: &Sampled,
    reference: &Sampled,
) -> Result<Row, EvaluateError> {
    let Label { method, kind, objective, transform } = label;
    let win_rate = mean_interval(&per_prompt(policy, reference, procedure, judge)?, LEVEL)?;
    let (kl, standard_error) = mean_and_standard_error(&policy.kl)?;
    let predicted_win_rate =
        transform.map(|transform| predicted_win_rate(transform, kl, procedure)).transpose()?;
    Ok(Row {
        method: method.into(),
        kind: kind.map(Into::into),
        objective: objective.map(Into::into),
        procedure: *procedure,
        judge,
        win_rate,
        predicted_win_rate,
        kl: Kl { estimate: kl, standard_error, kind: "estimate".into() },
        n_prompts: policy.rewards.len(),
        n_samples: policy.rewards.first().map_or(0, Vec::len),
    })
}

/// The difference of two methods on the same prompts.
///
/// # Errors
/// As [`row`].
pub fn compare(
    (method, ours): (&str, &Sampled),
    (baseline, theirs): (&str, &Sampled),
    reference: &Sampled,
    procedure: &Procedure,
    judge: Judge,
) -> Result<Comparison, EvaluateError> {
    let wins = |sampled| per_prompt(sampled, reference, procedure, judge);
    let (a, b) = (wins(ours)?, wins(theirs)?);
    let difference = paired_difference(&a, &b, LEVEL)?;
    Ok(Comparison {
        method: method.into(),
        baseline: baseline.into(),
        procedure: *procedure,
        judge,
        difference,
    })
}

/// Win rate of the optimum for `transform` at `kl` nats, in the continuous limit.
///
/// # Errors
/// [`EvaluateError::Transform`] for a KL that the transform cannot reach.
pub fn predicted_win_rate(
    transform: &Transform,
    kl: f64,
    procedure: &Procedure,
) -> Result<f64, EvaluateError> {
    // Two equal policies differ from 0 by rounding alone.
    if kl < 1e-9 {
        return Ok(0.5);
    }
    let tilt = Tilt::new(transform, Beta::new(beta_for_kl(transform, kl)?)?)?;
    Ok(tilt.win_rate(procedure)?)
}

/// The rows as a table for people: a line a method, a column a procedure.
pub fn text_table(rows: &[Row]) -> String {
    let mut procedures: Vec<String> = Vec::new();
    let mut methods: Vec<&str> = Vec::new();
    for row in rows {
        if !procedures.contains(&row.procedure.to_string()) {
            procedures.push(row.procedure.to_string());
        }
        if !methods.contains(&row.method.as_str()) {
            methods.push(&row.method);
        }
    }
    let mut text = format!("{:<12} {:>14}", "method", "KL (nats)");
    for procedure in &procedures {
        text += &format!("  {procedure:>29}");
    }
    text.push('\n');
    for method in methods {
        let of_method: Vec<&Row> = rows.iter().filter(|row| row.method == method).collect();
        let Some(first) = of_method.first() else { continue };
        text += &format!(
            "{method:<12} {:>14}",
            format!("{:.3} ± {:.3}", first.kl.estimate, first.kl.standard_error)
        );
        for row in of_method {
            let predicted = row.predicted_win_rate.map_or(String::new(), |p| format!(" ({p:.3})"));
            let Interval { estimate, low, high, .. } = row.win_rate;
            text += &format!("  {:>29}", format!("{estimate:.3} [{low:.3}, {high:.3}]{predicted}"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two prompts, four samples: the second policy is the reference.
    fn samples(shift: f64) -> Sampled {
        let rewards = vec![
            vec![0.0 + shift, 1.0 + shift, 2.0 + shift, 3.0 + shift],
            vec![5.0, 5.0, 7.0, 9.0 + shift],
        ];
        Sampled { rewards, judged: None, kl: vec![0.4, 0.6], response_length: 3.0 }
    }

    /// A label of the reference, or of any other policy.
    fn unlabelled(method: &str) -> Label<'_> {
        Label { method, kind: None, objective: None, transform: None }
    }

    #[test]
    fn rows_hold_estimates_and_predictions() {
        let (policy, reference) = (samples(10.0), samples(0.0));
        let exp: Transform = "exp:10".parse().unwrap();
        let label = Label {
            method: "best",
            kind: Some("ctrl"),
            objective: Some("exp:10"),
            transform: Some(&exp),
        };
        let procedure = "best-of:2".parse().unwrap();
        let row = row(label, &procedure, Judge::Reward, &policy, &reference).unwrap();
        assert!(row.win_rate.estimate > 0.5 && row.win_rate.low < row.win_rate.estimate);
        assert!(
            (row.kl.estimate - 0.5).abs() < 1e-12 && (row.kl.standard_error - 0.1).abs() < 1e-12
        );
        let predicted = row.predicted_win_rate.unwrap();
        assert!(predicted > 0.7 && predicted < 0.9, "{predicted}");
        assert!(text_table(&[row]).contains("best-of:2"));
    }

    #[test]
    fn a_model_against_itself_wins_half() {
        let reference = samples(0.0);
        for procedure in ["sample", "best-of:3", "worst-of:2"] {
            let procedure = procedure.parse().unwrap();
            let row =
                row(unlabelled("base"), &procedure, Judge::Reward, &reference, &reference).unwrap();
            assert!((row.win_rate.estimate - 0.5).abs() < 1e-12);
        }
        let same = compare(
            ("a", &reference),
            ("b", &reference),
            &reference,
            &Procedure::Sample,
            Judge::Reward,
        )
        .unwrap();
        assert_eq!(same.difference.estimate, 0.0);
    }

    #[test]
    fn another_judge_may_see_it_the_other_way_round() {
        let judged =
            |shift: f64| Sampled { judged: Some(samples(-shift).rewards), ..samples(shift) };
        let win_rate = |judge| {
            row(unlabelled("a"), &Procedure::Sample, judge, &judged(10.0), &judged(0.0))
                .unwrap()
                .win_rate
                .estimate
        };
        let (reward, judge) = (win_rate(Judge::Reward), win_rate(Judge::Judge));
        assert!(reward > 0.6 && judge < 0.4, "{reward} {judge}");
        let pair = [("a", &samples(0.0)), ("b", &samples(0.0))];
        let error = compare(pair[0], pair[1], &samples(0.0), &Procedure::Sample, Judge::Judge);
        assert!(matches!(error, Err(EvaluateError::NotJudged)));
    }

    #[test]
    fn procedures_that_steer_are_refused() {
        let message = selection(&"cd-token:lambda=1".parse().unwrap()).unwrap_err().to_string();
        assert!(message.contains("cd-token"), "{message}");
    }
}
