//! How many prompts and samples it takes to see an effect, from a pilot of stored samples.

use infalign_stats::Spread;
use serde::Serialize;

use crate::contest::contributions;
use crate::{Contest, Entry, EvaluateError, Judge, Sampled, Statistics};

/// What is to be seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    /// The least effect that matters: a win rate's distance from ½, or a difference of two.
    pub size: f64,
    /// The probability with which it is to be found, such as 0.8.
    pub power: f64,
}

/// A number of samples a prompt with the prompts that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Need {
    /// Responses a prompt and side.
    pub samples: usize,
    /// Prompts.
    pub prompts: usize,
}

/// What a pilot says of the runs to come.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Planned {
    /// The method.
    pub method: String,
    /// What it is compared with; absent: the reference itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    /// The procedures.
    pub procedure: String,
    /// By what responses were judged.
    pub judge: Judge,
    /// The effect.
    pub effect: f64,
    /// The probability of finding it.
    pub power: f64,
    /// Standard deviation over prompts of what they truly contribute.
    pub between_prompts: f64,
    /// Standard deviation of the noise of the pilot's samples, all of them.
    pub within_prompts: f64,
    /// For several numbers of samples, twice what the procedure takes or more: with fewer its noise does not fall as their number grows. For
    /// more samples than the pilot's, prompts are rather too many, and for fewer too few, in simulations by a third at most.
    pub needs: Vec<Need>,
}

/// Plans a measurement of a method against the reference, or of its difference from a baseline.
///
/// # Errors
/// [`EvaluateError::Prompt`] where half of the pilot's samples are fewer than a procedure takes, and as for [`crate::table`].
pub fn plan(
    method: &Entry<'_>,
    baseline: Option<&Entry<'_>>,
    contest: &Contest,
    judge: Judge,
    effect: Effect,
    statistics: &Statistics,
) -> Result<Planned, EvaluateError> {
    let numbers = |part: Part| -> Result<Vec<f64>, EvaluateError> {
        let wins = |entry: &Entry<'_>| -> Result<Vec<f64>, EvaluateError> {
            let (policy, reference) = (part.of(entry.sampled), part.of(entry.reference));
            let policy = (entry.label.method, &policy);
            Ok(contributions(policy, ("the reference", &reference), contest, judge)?.wins)
        };
        let mut ours = wins(method)?;
        if let Some(baseline) = baseline {
            ours.iter_mut().zip(wins(baseline)?).for_each(|(ours, theirs)| *ours -= theirs);
        }
        Ok(ours)
    };
    let entries = || [Some(method), baseline].into_iter().flatten();
    let sides = entries().flat_map(|entry| [entry.sampled, entry.reference]);
    let counts = sides.flat_map(|side| side.rewards.iter().map(Vec::len));
    let samples = counts.min().unwrap_or(0);
    let (first, second) = (numbers(Part::First)?, numbers(Part::Second)?);
    let spread = Spread::of_halves(&numbers(Part::Whole)?, [&first, &second], samples)?;
    let taken = contest.policy.selection.samples().max(contest.reference.selection.samples());
    // With just the samples that a procedure takes, its noise is more than their number tells.
    let least = if taken > 1 { 2 * taken } else { 1 };
    let mut needs = Vec::new();
    for samples in [1, 2, 4, 8, 16, 32, 64, 128, 256].into_iter().filter(|n| *n >= least) {
        let prompts =
            spread.prompts_needed(effect.size, samples, statistics.level, effect.power)?;
        needs.push(Need { samples, prompts });
    }
    Ok(Planned {
        method: method.label.method.to_owned(),
        baseline: baseline.map(|entry| entry.label.method.to_owned()),
        procedure: contest.to_string(),
        judge,
        effect: effect.size,
        power: effect.power,
        between_prompts: spread.between.sqrt(),
        within_prompts: spread.within.sqrt(),
        needs,
    })
}

/// Which of the samples of each prompt.
#[derive(Clone, Copy)]
enum Part {
    Whole,
    First,
    Second,
}

impl Part {
    fn of(self, sampled: &Sampled) -> Sampled {
        Sampled {
            prompts: sampled.prompts.clone(),
            procedure: sampled.procedure,
            responses: self.of_each(&sampled.responses),
            answers: sampled.answers.as_deref().map(|answers| self.of_each(answers)),
            rewards: self.of_each(&sampled.rewards),
            judged: sampled.judged.as_deref().map(|judged| self.of_each(judged)),
            ..Sampled::default()
        }
    }

    fn of_each<T: Clone>(self, lists: &[Vec<T>]) -> Vec<Vec<T>> {
        let part = |all: &Vec<T>| {
            let middle = all.len() / 2;
            match self {
                Part::Whole => all.clone(),
                Part::First => all[..middle].to_vec(),
                Part::Second => all[middle..].to_vec(),
            }
        };
        lists.iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Label;
    use crate::test_samples::samples;

    #[test]
    fn more_samples_need_fewer_prompts_down_to_what_prompts_differ_by() {
        let (policy, reference) = (samples(0.7), samples(0.0));
        let label = Label::named("a");
        let entry = Entry { label, sampled: &policy, reference: &reference };
        let (contest, effect) =
            (Contest::same("best-of:2".parse().unwrap()), Effect { size: 0.05, power: 0.8 });
        let plan_of = |baseline, contest: &Contest| {
            plan(&entry, baseline, contest, Judge::Reward, effect, &Statistics::new(0))
        };
        let planned = plan_of(None, &contest).unwrap();
        assert_eq!(planned.needs[0].samples, 4);
        assert!(planned.needs.windows(2).all(|two| two[0].prompts >= two[1].prompts));
        assert!(planned.needs.last().unwrap().prompts > 2, "{planned:?}");
        // Of no difference there is no spread.
        let same = plan_of(Some(&entry), &contest).unwrap();
        assert!(same.needs.iter().all(|need| need.prompts == 2), "{same:?}");
        let half = plan_of(None, &Contest::same("best-of:3".parse().unwrap())).unwrap_err();
        assert!(half.to_string().contains("at least 3"), "{half}");
    }

    #[test]
    fn the_side_that_takes_more_samples_tells_how_few_there_may_be() {
        let (policy, reference) = (samples(0.7), samples(0.0));
        let label = Label::named("a");
        let entry = Entry { label, sampled: &policy, reference: &reference };
        let effect = Effect { size: 0.05, power: 0.8 };
        for [policy, reference] in [["sample", "best-of:2"], ["best-of:2", "sample"]] {
            let contest =
                Contest { policy: policy.parse().unwrap(), reference: reference.parse().unwrap() };
            let statistics = Statistics::new(0);
            let planned = plan(&entry, None, &contest, Judge::Reward, effect, &statistics).unwrap();
            assert_eq!(planned.needs[0].samples, 4, "{contest}");
        }
    }

    fn of(rewards: [[f64; 4]; 2]) -> Sampled {
        Sampled { rewards: rewards.map(|all| all.to_vec()).to_vec(), ..samples(0.0) }
    }

    /// A policy that wins ¾ and ¼ against rewards of 0, a variance of 1/8, of which all is noise.
    fn noisy() -> Sampled {
        let first = [1.0, 1.0, -1.0, 1.0];
        of([first, first.map(|reward: f64| -reward)])
    }

    /// Every response twice.
    fn twice(sampled: &Sampled) -> Sampled {
        fn each<T: Clone>(lists: &[Vec<T>]) -> Vec<Vec<T>> {
            let both =
                |all: &Vec<T>| all.iter().flat_map(|one| [one.clone(), one.clone()]).collect();
            lists.iter().map(both).collect()
        }
        let (responses, rewards) = (each(&sampled.responses), each(&sampled.rewards));
        Sampled { responses, rewards, ..sampled.clone() }
    }

    /// How many prompts a policy needs for an effect of 0.05.
    fn needed(policy: &Sampled, reference: &Sampled, power: f64, samples: usize) -> usize {
        let entry = Entry { label: Label::named("a"), sampled: policy, reference };
        let contest = Contest::same("sample".parse().unwrap());
        let (effect, statistics) = (Effect { size: 0.05, power }, Statistics::new(0));
        let planned = plan(&entry, None, &contest, Judge::Reward, effect, &statistics).unwrap();
        planned.needs.iter().find(|need| need.samples == samples).unwrap().prompts
    }

    #[test]
    fn prompts_are_those_of_the_tests_level_and_the_effects_power() {
        // By the equation of `Spread::prompts_needed` with a variance of 50 squared effects, and of a quarter of it.
        for (power, four, sixteen) in [(0.8, 395, 101), (0.9, 528, 134)] {
            for (samples, expected) in [(4, four), (16, sixteen)] {
                let found = needed(&noisy(), &of([[0.0; 4]; 2]), power, samples);
                assert!(found.abs_diff(expected) <= 2, "{found} of {samples} samples at {power}");
            }
        }
    }

    #[test]
    fn the_pilot_is_as_large_as_the_smaller_side() {
        let (policy, reference) = (noisy(), of([[0.0; 4]; 2]));
        for (policy, reference) in [(&policy, &twice(&reference)), (&twice(&policy), &reference)] {
            let found = needed(policy, reference, 0.8, 4);
            assert!(found.abs_diff(395) <= 2, "{found}");
        }
    }

    #[test]
    fn what_the_halves_do_not_agree_on_is_noise() {
        let reference = of([[0.0; 4]; 2]);
        let (contest, effect) =
            (Contest::same("sample".parse().unwrap()), Effect { size: 0.05, power: 0.8 });
        // The policy wins ¾ and ¼: a variance of 1/8. Of one half it wins 1 and 0, but of the other ½ and ½: no covariance.
        for first in [[1.0, 1.0, -1.0, 1.0], [1.0, -1.0, 1.0, 1.0]] {
            let policy = of([first, first.map(|reward: f64| -reward)]);
            let label = Label::named("a");
            let entry = Entry { label, sampled: &policy, reference: &reference };
            let statistics = Statistics::new(0);
            let planned = plan(&entry, None, &contest, Judge::Reward, effect, &statistics).unwrap();
            assert!(planned.between_prompts < 1e-6, "{planned:?}");
            assert!((planned.within_prompts - 0.125_f64.sqrt()).abs() < 1e-9, "{planned:?}");
        }
    }
}
