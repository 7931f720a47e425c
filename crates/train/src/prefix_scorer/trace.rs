//! What a base has to say at every token of given responses: its states and its next-token probabilities.

use infalign_model::{LanguageModel, Sequence};
use rayon::prelude::*;

use crate::TrainError;

/// Sequences that go through the base together.
const ROWS: usize = 32;

/// What is recorded of one response, token by token.
pub(super) type Trace = Vec<f32>;

/// What is to be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The states that stand before the response tokens, `[tokens, hidden]`.
    States,
    /// The distributions of the response tokens, `[tokens, vocabulary]`: of the so many most probable tokens, whose probabilities are made to
    /// add up to 1, or of all.
    Probabilities(Option<usize>),
}

/// Reads responses, none of them empty, with a base, as it would generate them, so that what is recorded is what decoding will see.
pub(super) fn trace(
    base: &dyn LanguageModel,
    sequences: &[&Sequence],
    wanted: Wanted,
) -> Result<Vec<Trace>, TrainError> {
    let read = |rows: &[&Sequence]| trace_rows(base, rows, wanted);
    let rows = groups(base, sequences);
    let traces = if base.rows_are_independent() {
        rows.into_par_iter().map(read).collect::<Result<Vec<_>, TrainError>>()?
    } else {
        rows.into_iter().map(read).collect::<Result<Vec<_>, TrainError>>()?
    };
    Ok(traces.into_iter().flatten().collect())
}

/// Runs of sequences in which every prompt leaves room for the longest response.
fn groups<'a, 's>(
    base: &dyn LanguageModel,
    sequences: &'a [&'s Sequence],
) -> Vec<&'a [&'s Sequence]> {
    let (mut groups, mut start) = (Vec::new(), 0);
    let (mut prompt, mut response) = (0, 0);
    for (index, sequence) in sequences.iter().enumerate() {
        let longest = (prompt.max(sequence.prompt_length), response.max(sequence.response().len()));
        let fits = longest.0 + longest.1 <= base.context() && index - start < ROWS;
        if index > start && !fits {
            groups.push(&sequences[start..index]);
            start = index;
            (prompt, response) = (sequence.prompt_length, sequence.response().len());
        } else {
            (prompt, response) = longest;
        }
    }
    if start < sequences.len() {
        groups.push(&sequences[start..]);
    }
    groups
}

fn trace_rows(
    base: &dyn LanguageModel,
    sequences: &[&Sequence],
    wanted: Wanted,
) -> Result<Vec<Trace>, TrainError> {
    let prompts: Vec<&[u32]> =
        sequences.iter().map(|sequence| &sequence.tokens[..sequence.prompt_length]).collect();
    let longest = sequences.iter().map(|sequence| sequence.response().len()).max().unwrap_or(0);
    let mut traces = vec![Trace::default(); sequences.len()];
    let mut session = base.start(&prompts, longest)?;
    let mut rows: Vec<usize> = (0..sequences.len()).collect();
    let mut weights = Vec::new();
    for token in 0..longest {
        match wanted {
            Wanted::States => {
                let states = session.states();
                let width = states.len() / rows.len().max(1);
                for (row, state) in rows.iter().zip(states.chunks(width.max(1))) {
                    traces[*row].extend_from_slice(state);
                }
            }
            Wanted::Probabilities(most) => {
                let logits = session.logits().chunks(base.vocabulary());
                for (row, logits) in rows.iter().zip(logits) {
                    push_probabilities(&mut traces[*row], logits, most, &mut weights);
                }
            }
        }
        let next: Vec<usize> =
            (0..rows.len()).filter(|&r| token + 1 < sequences[rows[r]].response().len()).collect();
        if next.is_empty() {
            break;
        }
        if next.len() < rows.len() {
            session.select(&next);
            rows = next.into_iter().map(|r| rows[r]).collect();
        }
        let tokens: Vec<u32> = rows.iter().map(|&row| sequences[row].response()[token]).collect();
        session.push(&tokens)?;
    }
    Ok(traces)
}

/// Adds a token's distribution, as [`Wanted::Probabilities`] has it.
///
/// - weights: memory to work in.
fn push_probabilities(
    trace: &mut Trace,
    logits: &[f32],
    most: Option<usize>,
    weights: &mut Vec<f32>,
) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    weights.clear();
    weights.extend(logits.iter().map(|logit| (logit - largest).exp()));
    keep_most(weights, most.unwrap_or(usize::MAX));
    let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    trace.extend(weights.iter().map(|weight| (f64::from(*weight) / total) as f32));
}

/// Sets all but the greatest weights to 0, of equals the last ones.
fn keep_most(weights: &mut [f32], most: usize) {
    if most >= weights.len() {
        return;
    }
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.select_nth_unstable_by(most, |&a, &b| weights[b].total_cmp(&weights[a]).then(a.cmp(&b)));
    order[most..].iter().for_each(|&token| weights[token] = 0.0);
}

#[cfg(test)]
mod tests {
    use infalign_model::TabularProblem;

    use super::*;

    #[test]
    fn a_table_says_its_own_probabilities() {
        let text = r#"{"D": 3, "p": {"": [0.5, 0.3, 0.2], "a": [0.1, 0.6, 0.3], "b": [0.4, 0.4, 0.2],
            "aa": [0, 0, 1], "ab": [0, 0, 1], "ba": [0, 0, 1], "bb": [0, 0, 1]},
            "r": {"$": 0, "a$": 1, "b$": 2, "aa$": 3, "ab$": 4, "ba$": 5, "bb$": 6}}"#;
        let problem = TabularProblem::parse(text, "t.json".as_ref()).unwrap();
        let sequence =
            |response: &[u32]| Sequence { tokens: [&[2], response].concat(), prompt_length: 1 };
        let sequences = [sequence(&[0, 1, 2]), sequence(&[2]), sequence(&[1, 2])];
        let given: Vec<&Sequence> = sequences.iter().collect();
        let traces = trace(problem.model(), &given, Wanted::Probabilities(None)).unwrap();
        let close = |found: &[f32], expected: &[f32]| {
            found.len() == expected.len()
                && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6)
        };
        let first = [0.5, 0.3, 0.2, 0.1, 0.6, 0.3, 0.0, 0.0, 1.0];
        assert!(close(&traces[0], &first), "{:?}", traces[0]);
        assert!(close(&traces[1], &first[..3]));
        assert!(close(&traces[2], &[0.5, 0.3, 0.2, 0.4, 0.4, 0.2]));
        let two = trace(problem.model(), &given[1..2], Wanted::Probabilities(Some(2))).unwrap();
        assert!(close(&two[0], &[0.625, 0.375, 0.0]), "{:?}", two[0]);
    }
}
