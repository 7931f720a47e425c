//! Rows of the table against the exact values of a tabular model, for many N and M.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use infalign_decode::Stream;
use infalign_evaluate::{
    Contest, Entry, Intervals, Judge, Label, Plan, PromptText, Sampled, Statistics, table,
};
use infalign_model::{TabularLm, TabularProblem};
use infalign_stats::{Interval, mean_and_standard_error};
use infalign_transform::{Outcomes, Procedure};

/// Two letters, at most three tokens; rewards tie.
const TABLE: &str = r#"{"D": 3,
    "p": {"": [0.3, 0.5, 0.2], "a": [0.5, 0.25, 0.25], "b": ["1/3", "1/3", "1/3"]},
    "r": {"$": 0.25, "a$": 0, "aa$": 0.1, "ab$": 1, "b$": 0.1, "ba$": 0.7, "bb$": 0.1}}"#;

fn problem() -> TabularProblem {
    TabularProblem::parse(TABLE, "test.json".as_ref()).unwrap()
}

/// Samples of one distribution over responses: the same for each of many prompts, which are draws of their own.
fn samples(name: &str, probabilities: &[f64], rewards: &[f64], shape: [usize; 2]) -> Sampled {
    let mut sampled = Sampled::default();
    for prompt in 0..shape[0] {
        let mut stream = Stream::new(11, name, &prompt.to_string(), shape[1] as u64);
        let responses: Vec<usize> = (0..shape[1])
            .map(|sample| {
                let mut left = stream.uniform(sample as u64);
                let place = probabilities.iter().position(|p| {
                    left -= p;
                    left < 0.0
                });
                place.unwrap_or(0)
            })
            .collect();
        sampled.prompts.push(PromptText {
            id: prompt.to_string(),
            text: String::new(),
            sha256: None,
        });
        sampled.rewards.push(responses.iter().map(|&response| rewards[response]).collect());
        // The judge has a mind of its own.
        let judged = responses.iter().map(|&response| (7 * response % 5) as f64).collect();
        sampled.judged.get_or_insert_default().push(judged);
        sampled.responses.push(responses.iter().map(|&r| "x".repeat(r)).collect());
    }
    sampled
}

struct Model {
    base: Vec<f64>,
    policy: Vec<f64>,
    rewards: Vec<f64>,
}

fn model() -> Model {
    let problem = problem();
    let base: &TabularLm = problem.model();
    let tilted = base.tilted(|_, token| Ok::<f64, ()>(0.6 * f64::from(token))).unwrap();
    Model {
        base: base.response_probabilities(),
        policy: tilted.response_probabilities(),
        rewards: problem.rewards().to_vec(),
    }
}

impl Model {
    /// P(ours > theirs) + ½·P(equal) by the judge, and the expected score of ours, of what the procedure keeps by reward.
    fn exact(&self, procedure: &Procedure, judge: Judge) -> (f64, f64) {
        let possible: Vec<usize> = (0..self.base.len()).filter(|&y| self.base[y] > 0.0).collect();
        let kept = |probabilities: &[f64]| {
            let p = possible.iter().map(|&y| probabilities[y]).collect();
            let r = possible.iter().map(|&y| self.rewards[y]).collect();
            Outcomes::new(p, r).unwrap().under(procedure).unwrap()
        };
        let (ours, theirs) = (kept(&self.policy), kept(&self.base));
        let score = |k: usize| match judge {
            Judge::Reward => self.rewards[possible[k]],
            Judge::Judge => (7 * possible[k] % 5) as f64,
        };
        let (mut won, mut mean) = (0.0, 0.0);
        for (k, p) in ours.iter().enumerate() {
            mean += p * score(k);
            for (j, q) in theirs.iter().enumerate() {
                won += p
                    * q
                    * (f64::from(score(k) > score(j)) + 0.5 * f64::from(score(k) == score(j)));
            }
        }
        (won, mean)
    }
}

#[test]
fn rows_are_unbiased_on_a_tabular_model() {
    let model = model();
    let mut looks = Vec::new();
    for n in [1, 4, 32] {
        for samples_a_prompt in [n, 64, 256] {
            let shape = [250, samples_a_prompt];
            let policy = samples("policy", &model.policy, &model.rewards, shape);
            let reference = samples("reference", &model.base, &model.rewards, shape);
            let label = Label::named("tilted");
            let entries = [Entry { label, sampled: &policy, reference: &reference }];
            let soft = format!("soft-best-of:{n},temperature=0.3");
            let procedures = [format!("best-of:{n}"), format!("worst-of:{n}"), soft];
            let contests = procedures.map(|text| Contest::same(text.parse().unwrap()));
            for judge in [Judge::Reward, Judge::Judge] {
                let intervals = Intervals::StudentT { replicates: 100, seed: 0 };
                let statistics = Statistics { level: 0.95, intervals, margin: None };
                for row in table(&entries, &Plan::new(&contests, judge, statistics)).unwrap().rows {
                    let (win_rate, score) = model.exact(&row.contest.policy.selection, judge);
                    let error = |interval: Interval| (interval.high - interval.low) / 2.0 / 1.97;
                    let far = (row.win_rate.estimate - win_rate) / row.win_rate_error.max(1e-9);
                    let of_score = (row.score.estimate - score) / error(row.score).max(1e-9);
                    assert!(
                        far.abs() < 4.0,
                        "{} of {samples_a_prompt}, {judge:?}: {far}",
                        row.contest.policy
                    );
                    assert!(
                        of_score.abs() < 4.0,
                        "{}: {of_score} of the score",
                        row.contest.policy
                    );
                    looks.push(far);
                }
            }
        }
    }
    // Taken together the distances have no mean, either; looks at one set of samples go together, so this is no sharp test.
    let (mean, _) = mean_and_standard_error(&looks).unwrap();
    assert!(mean.abs() < 1.0, "{mean} over {} looks", looks.len());
}
