//! Blockwise controlled decoding: the best of K blocks, again and again.

use std::num::NonZeroUsize;

use infalign_model::TabularLm;
use infalign_transform::{Outcomes, Procedure};

use super::{ResponseDistribution, Values};
use crate::DecodeError;

/// Values that differ by less than this share of the largest are ties.
const TIE: f64 = 1e-12;

/// Where a block may end.
#[derive(Clone, Copy)]
enum End {
    /// In the middle of a response: the next block begins here.
    Prefix(usize),
    /// With EOS.
    Response(usize),
}

/// Draws K blocks of at most M tokens from the model, keeps the one of greatest value, ties broken evenly, and goes on until EOS.
pub(super) fn decode(
    model: &TabularLm,
    values: &Values,
    length: NonZeroUsize,
    samples: NonZeroUsize,
) -> Result<ResponseDistribution, DecodeError> {
    let tree = model.tree();
    let mut probabilities = vec![0.0; tree.size()];
    // The probability that a block begins at each prefix. Blocks lead to greater numbers only.
    let mut begins = vec![0.0; tree.size()];
    begins[0] = 1.0;
    for start in 0..tree.size() {
        if begins[start] == 0.0 {
            continue;
        }
        let (ends, drawn) = block(model, start, length.get());
        for (end, p) in ends.iter().zip(select(&ends, drawn, values, samples)?) {
            match *end {
                End::Prefix(prefix) => begins[prefix] += begins[start] * p,
                End::Response(response) => probabilities[response] += begins[start] * p,
            }
        }
    }
    Ok(ResponseDistribution::new(model, probabilities))
}

/// The possible ends of one block from a prefix, with their probabilities under the model.
fn block(model: &TabularLm, start: usize, length: usize) -> (Vec<End>, Vec<f64>) {
    let tree = model.tree();
    let (mut ends, mut probabilities) = (Vec::new(), Vec::new());
    let mut layer = vec![(start, 1.0)];
    for _ in 0..length {
        let mut longer = Vec::new();
        for &(prefix, reach) in &layer {
            let row = model.next_probabilities(prefix).unwrap_or_default();
            let children = tree.children(prefix).zip(row).map(|(child, p)| (child, reach * p));
            longer.extend(children.filter(|(_, p)| *p > 0.0));
            if let Some(p) = row.last().map(|p| reach * p).filter(|p| *p > 0.0) {
                ends.push(End::Response(prefix));
                probabilities.push(p);
            }
        }
        layer = longer;
        if layer.is_empty() {
            break;
        }
    }
    for (prefix, p) in layer {
        ends.push(End::Prefix(prefix));
        probabilities.push(p);
    }
    (ends, probabilities)
}

/// The probability that each end is the one kept among K.
fn select(
    ends: &[End],
    drawn: Vec<f64>,
    values: &Values,
    samples: NonZeroUsize,
) -> Result<Vec<f64>, DecodeError> {
    let value = |end: &End| match *end {
        End::Prefix(prefix) => values.known_prefix(prefix),
        End::Response(response) => values.known_response(response),
    };
    let mut scores = ends.iter().map(value).collect::<Result<Vec<_>, _>>()?;
    tie(&mut scores);
    Ok(Outcomes::new(drawn, scores)?.under(&Procedure::BestOf(samples))?)
}

/// Makes scores that differ by rounding alone equal.
fn tie(scores: &mut [f64]) {
    let largest = scores.iter().fold(0.0_f64, |largest, score| largest.max(score.abs()));
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    for pair in order.windows(2) {
        if scores[pair[1]] - scores[pair[0]] <= TIE * largest {
            scores[pair[1]] = scores[pair[0]];
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn rounding_does_not_break_ties() {
        let mut scores = [0.3, 1.0, 0.1 + 0.2, -1.0, 0.3 + 1e-9];
        super::tie(&mut scores);
        assert_eq!(scores, [0.3, 1.0, 0.3, -1.0, 0.3 + 1e-9]);
    }
}
