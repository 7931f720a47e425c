//! Where two trainings part: the first step at which each of their numbers differs.
//!
//! Numbers are written as the shortest decimals that read back as the same bits, so that equal text means equal bits.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// What differs between any two runs and says nothing of results.
pub(crate) const TIMING: [&str; 2] = ["tokens_per_second", "seconds"];

/// How two files of steps compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// Steps that both have.
    pub steps: usize,
    /// Whether one has more steps.
    pub lengths_differ: bool,
    /// By field, the first step, from 1, at which it differs; absent where it never does.
    pub first: BTreeMap<String, usize>,
}

impl Divergence {
    /// Whether they are the same, times aside.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.first.is_empty() && !self.lengths_differ
    }

    /// Such as: `the same to step 36; first to differ at step 37: grad_norm, kl; at step 41: rollout`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut by_step: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        for (field, step) in &self.first {
            by_step.entry(*step).or_default().push(field);
        }
        let Some(first) = by_step.keys().next() else {
            let fewer = if self.lengths_differ { ", of which one run has fewer" } else { "" };
            return format!("the same in all {} steps{fewer}", self.steps);
        };
        let shown = by_step
            .iter()
            .take(4)
            .map(|(step, fields)| format!("at step {step}: {}", fields.join(", ")));
        format!(
            "the same to step {}; first to differ {}",
            first - 1,
            shown.collect::<Vec<_>>().join("; ")
        )
    }
}

/// Compares two `metrics.jsonl`, line by line. A line that is no JSON object differs from any other.
#[must_use]
pub fn divergence(original: &str, replica: &str) -> Divergence {
    let (a, b): (Vec<&str>, Vec<&str>) = (original.lines().collect(), replica.lines().collect());
    let mut first = BTreeMap::new();
    for (index, (a, b)) in a.iter().zip(&b).enumerate() {
        for field in differing(a, b) {
            first.entry(field).or_insert(index + 1);
        }
    }
    Divergence { steps: a.len().min(b.len()), lengths_differ: a.len() != b.len(), first }
}

fn differing(a: &str, b: &str) -> Vec<String> {
    let parse = |line: &str| serde_json::from_str::<Map<String, Value>>(line);
    match (parse(a), parse(b)) {
        (Ok(a), Ok(b)) => {
            let names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
            let counts = names.filter(|name| !TIMING.contains(&name.as_str()));
            counts.filter(|name| a.get(*name) != b.get(*name)).cloned().collect()
        }
        _ if a == b => Vec::new(),
        _ => vec!["the line".to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_of_every_field_is_found_and_times_do_not_count() {
        let a = "{\"kl\":0.1,\"rollout\":\"x\",\"tokens_per_second\":1}\n{\"kl\":0.2,\"rollout\":\"y\"}\n{\"kl\":0.3,\"rollout\":\"z\"}\n";
        let b = a.replace("_second\":1", "_second\":2");
        assert!(divergence(a, &b).is_none());
        let c = b.replace("0.2", "0.20000000000000004").replace("\"z\"", "\"q\"");
        let found = divergence(a, &c);
        assert_eq!(found.first["kl"], 2);
        assert_eq!(
            found.describe(),
            "the same to step 1; first to differ at step 2: kl; at step 3: rollout"
        );
    }

    #[test]
    fn a_run_with_fewer_steps_is_not_the_same() {
        let found = divergence("{\"kl\":1}\n{\"kl\":2}\n", "{\"kl\":1}\n");
        assert!(!found.is_none() && found.first.is_empty());
        assert_eq!(found.describe(), "the same in all 1 steps, of which one run has fewer");
        assert_eq!(divergence("nonsense", "{\"kl\":1}").first["the line"], 1);
    }
}
