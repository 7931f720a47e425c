//! Win rates by a judge that compares two responses, in both orders.

use infalign_reward::{Preference, Shown, Verdict};
use infalign_stats::{Agreement, Interval, Outcome, StatsError, agreement};
use infalign_transform::Composed;
use serde::{Deserialize, Serialize};

use crate::contest::{Named, choice_among, kept_of, same_prompts};
use crate::statistics::Series;
use crate::{Contest, Entry, EvaluateError, Statistics};

/// What a pairwise judge says of a policy against the reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pairwise {
    /// The procedures.
    #[serde(flatten)]
    pub contest: Contest,
    /// Win rate of the policy: the mean over both orders, ties ½.
    pub win_rate: Interval,
    /// How often the judge prefers whichever response is shown first, ties ½: ½ where the order does not matter.
    pub first_preferred: Interval,
    /// Agreement with the reward that the procedures select by, about the same pairs.
    pub agreement: Agreement,
    /// Share of the judge's answers that are no verdict, and count as ties in all of the above: from 0 to 1.
    #[serde(default)]
    pub unusable_share: f64,
    /// Pairs of responses, each shown in both orders.
    pub n_pairs: usize,
}

/// Judges what the procedures keep: the k-th N responses of a prompt give the k-th that is kept, on either side, and they are compared.
///
/// - `most_pairs`: of a prompt; there are at most as many as groups of N.
///
/// # Errors
/// [`EvaluateError`] for samples of other prompts or too few of them, and [`EvaluateError::Reward`] where the judge fails or gives no verdict
/// at all.
pub fn pairwise(
    entry: &Entry<'_>,
    contest: &Contest,
    judge: &Preference,
    most_pairs: usize,
    statistics: &Statistics,
) -> Result<Pairwise, EvaluateError> {
    let policy = (entry.label.method, entry.sampled);
    let reference = ("the reference", entry.reference);
    same_prompts(policy, reference)?;
    let ours = kept(policy, &contest.policy)?;
    let theirs = kept(reference, &contest.reference)?;
    let mut shown: Vec<Shown<'_>> = Vec::new();
    let mut by_reward: Vec<Vec<Outcome>> = Vec::new();
    for (prompt, (ours, theirs)) in policy.1.prompts.iter().zip(ours.iter().zip(&theirs)) {
        let mut outcomes = Vec::new();
        for (y, z) in ours.iter().zip(theirs).take(most_pairs) {
            shown.push((&prompt.text, y.0, z.0));
            shown.push((&prompt.text, z.0, y.0));
            outcomes.push(Outcome::of(y.1, z.1));
        }
        by_reward.push(outcomes);
    }
    let verdicts = judge.verdicts(&shown)?;
    let (values, outcomes) = judged(&by_reward, &verdicts);
    let series = Series::new(&values, statistics)?;
    Ok(Pairwise {
        contest: *contest,
        win_rate: series.share(0)?,
        first_preferred: series.share(1)?,
        agreement: agreement(&outcomes, statistics.level)?,
        unusable_share: unusable_share(&verdicts),
        n_pairs: shown.len() / 2,
    })
}

/// Each pair of a prompt as the reward and as the judge sees it.
type Outcomes = Vec<(Outcome, Outcome)>;

/// Of each prompt how often the policy wins and how often the first shown is preferred, `[series][prompts]`, and its pairs' outcomes.
///
/// - `verdicts`: two a pair, with the policy's response first and second.
fn judged(by_reward: &[Vec<Outcome>], verdicts: &[Verdict]) -> ([Vec<f64>; 2], Vec<Outcomes>) {
    let mut preferred = verdicts.iter().map(|verdict| verdict.of_first());
    let (mut wins, mut firsts, mut outcomes) = (Vec::new(), Vec::new(), Vec::new());
    for by_reward in by_reward {
        let (mut won, mut first) = (0.0, 0.0);
        let mut pairs = Vec::new();
        for outcome in by_reward {
            let (Some(forth), Some(back)) = (preferred.next(), preferred.next()) else { break };
            let win = 0.5 * (forth + 1.0 - back);
            (won, first) = (won + win, first + 0.5 * (forth + back));
            pairs.push((*outcome, Outcome::of(win, 0.5)));
        }
        wins.push(won / by_reward.len() as f64);
        firsts.push(first / by_reward.len() as f64);
        outcomes.push(pairs);
    }
    ([wins, firsts], outcomes)
}

/// Share of the answers that are no verdict.
fn unusable_share(verdicts: &[Verdict]) -> f64 {
    let unusable = verdicts.iter().filter(|verdict| **verdict == Verdict::Unusable).count();
    unusable as f64 / verdicts.len() as f64
}

/// What is kept of each group of N responses to each prompt, with its reward.
fn kept<'a>(
    (method, sampled): Named<'a>,
    procedure: &Composed,
) -> Result<Vec<Vec<(&'a str, f64)>>, EvaluateError> {
    let choice = choice_among(method, sampled, procedure)?;
    let n = choice.samples();
    let prompts = sampled.prompts.iter().zip(sampled.responses.iter().zip(&sampled.rewards));
    prompts
        .enumerate()
        .map(|(place, (prompt, (texts, rewards)))| {
            if rewards.len() < n {
                let (needed, found) = (n, rewards.len());
                return Err(EvaluateError::Prompt {
                    method: method.to_owned(),
                    prompt: prompt.id.clone(),
                    source: StatsError::TooFew { what: "rewards", needed, found },
                });
            }
            (0..rewards.len() / n)
                .map(|number| {
                    let kept = kept_of(choice, (method, sampled), place, number)?;
                    Ok((texts[kept].as_str(), rewards[kept]))
                })
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_are_no_verdict_are_ties_and_are_counted() {
        use Verdict::{First, Second, Tie, Unusable};
        let by_reward = [vec![Outcome::Win, Outcome::Tie], vec![Outcome::Loss]];
        // Won in both orders, judged in neither, and won in the one that was judged.
        let verdicts = [First, Second, Unusable, Tie, Unusable, Second];
        let ([wins, firsts], outcomes) = judged(&by_reward, &verdicts);
        assert_eq!((wins, firsts), (vec![0.75, 0.75], vec![0.5, 0.25]));
        let [win, tie, loss] = [Outcome::Win, Outcome::Tie, Outcome::Loss];
        assert_eq!(outcomes, [vec![(win, win), (tie, tie)], vec![(loss, win)]]);
        assert_eq!(unusable_share(&verdicts), 1.0 / 3.0);
    }
}
