//! What each prompt contributes: who wins under a procedure, and what the kept response is worth.

use std::fmt;

use infalign_decode::Stream;
use infalign_stats::{Choice, Kept, Selection, StatsError, plurality_weights, selection_weights};
use infalign_transform::{Composed, Procedure};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{Entry, EvaluateError, Judge, Sampled};

/// The procedures of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Procedures", into = "Procedures")]
pub struct Contest {
    /// T of the policy.
    pub policy: Composed,
    /// T of the reference.
    pub reference: Composed,
}

impl Contest {
    /// The same procedure on both sides.
    pub fn same(procedure: Composed) -> Self {
        Self { policy: procedure, reference: procedure }
    }

    /// Of each procedure, against the same or, where it is given, that of the reference.
    pub fn all(
        policies: impl IntoIterator<Item = impl Into<Composed>>,
        reference: Option<Composed>,
    ) -> Vec<Self> {
        let policies = policies.into_iter().map(Into::<Composed>::into);
        policies.map(|policy| Self { policy, reference: reference.unwrap_or(policy) }).collect()
    }
}

/// A contest as files have it.
#[derive(Serialize, Deserialize)]
struct Procedures {
    procedure: Composed,
    /// That of the reference, where it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reference_procedure: Option<Composed>,
}

impl From<Procedures> for Contest {
    fn from(Procedures { procedure, reference_procedure }: Procedures) -> Self {
        Self { policy: procedure, reference: reference_procedure.unwrap_or(procedure) }
    }
}

impl From<Contest> for Procedures {
    fn from(Contest { policy, reference }: Contest) -> Self {
        let other = Some(reference).filter(|reference| *reference != policy);
        Self { procedure: policy, reference_procedure: other }
    }
}

impl fmt::Display for Contest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.policy == self.reference {
            return write!(f, "{}", self.policy);
        }
        write!(f, "{} against {}", self.policy, self.reference)
    }
}

/// What a procedure keeps of stored samples.
///
/// # Errors
/// [`EvaluateError::Procedure`] for a procedure that does more than choose among complete responses.
pub fn choice(procedure: &Procedure) -> Result<Choice, EvaluateError> {
    let refuse = || EvaluateError::Procedure { procedure: procedure.to_string() };
    procedure.choice().ok_or_else(refuse)
}

/// How likely each response to a prompt is to be kept of N of them, over all subsets of N.
///
/// - `prompt`: its place.
pub(crate) fn weights(
    choice: Choice,
    sampled: &Sampled,
    prompt: usize,
) -> Result<Vec<f64>, StatsError> {
    choice.weights(&sampled.rewards[prompt], || sampled.votes(prompt))
}

/// The place of the response that is kept of the `number`-th N to a prompt, which have to be there.
///
/// # Errors
/// As [`Choice::weights`].
pub(crate) fn kept_of(
    choice: Choice,
    (method, sampled): Named<'_>,
    prompt: usize,
    number: usize,
) -> Result<usize, StatsError> {
    let first = number * choice.samples();
    let group = first..first + choice.samples();
    let (rewards, selection) = match choice {
        Choice::Ranked(selection) => (sampled.rewards[prompt][group].to_vec(), selection),
        // Of the one subset that there is: the answers that tie weigh the same.
        Choice::Majority(n) => {
            (plurality_weights(&sampled.votes(prompt)[group], n)?, Selection::Best(n))
        }
    };
    let id = &sampled.prompts[prompt].id;
    Ok(first + selected(&rewards, selection, (method, id), number)?)
}

/// What the procedure chooses among these samples: nothing any more where it has made them itself.
pub(crate) fn choice_among(
    method: &str,
    sampled: &Sampled,
    procedure: &Composed,
) -> Result<Choice, EvaluateError> {
    let made = sampled.procedure.unwrap_or(Procedure::Sample.into());
    if made.selection == Procedure::Sample && made.inner == procedure.inner {
        return choice(&procedure.selection);
    }
    match sampled.procedure {
        Some(made) if made == *procedure => Ok(Choice::Ranked(Selection::Sample)),
        Some(made) => Err(EvaluateError::MadeByOther {
            method: method.to_owned(),
            made: made.to_string(),
            procedure: procedure.to_string(),
        }),
        None => Err(EvaluateError::Procedure { procedure: procedure.to_string() }),
    }
}

/// Which of a group of N responses the selection keeps: the first of equals, or one drawn by a stream of the prompt's.
///
/// - `rewards`: of the group; `method`: whose they are, so that two sides draw independently; `number`: the group's among those of the prompt.
///
/// # Errors
/// As [`selection_weights`].
fn selected(
    rewards: &[f64],
    selection: Selection,
    (method, prompt): (&str, &str),
    number: usize,
) -> Result<usize, StatsError> {
    let uniform = || Stream::new(0, &format!("kept {method}"), prompt, number as u64).uniform(0);
    let Selection::SoftBest { .. } = selection else {
        return Ok(selection.keep(rewards, uniform));
    };
    let (uniform, mut mass) = (uniform(), 0.0);
    let passes = |weight: &f64| {
        mass += weight;
        mass > uniform
    };
    // There is one subset of all of them.
    let place = selection_weights(rewards, selection)?.iter().position(passes);
    Ok(place.unwrap_or_else(|| Selection::Best(rewards.len()).keep(rewards, || uniform)))
}

/// A method's samples under a name for messages.
pub(crate) type Named<'a> = (&'a str, &'a Sampled);

/// `[prompts]` each.
#[derive(Clone, Debug)]
pub(crate) struct Contributions {
    /// Win rate of the policy over the reference.
    pub(crate) wins: Vec<f64>,
    /// Expected score of the response that the policy's procedure keeps.
    pub(crate) ours: Vec<f64>,
    /// The same of the reference.
    pub(crate) theirs: Vec<f64>,
}

impl Contributions {
    /// - `ours`, `theirs`: `[prompts]`, what each side keeps.
    pub(crate) fn between(ours: &[Kept], theirs: &[Kept]) -> Self {
        let wins = ours.iter().zip(theirs).map(|(ours, theirs)| ours.win_rate(theirs)).collect();
        let means = |kept: &[Kept]| kept.iter().map(Kept::mean).collect();
        Self { wins, ours: means(ours), theirs: means(theirs) }
    }
}

/// The win rate of a method over the reference on each prompt: `[prompts]`, whose mean is that of the table.
///
/// # Errors
/// [`EvaluateError`] as for [`crate::table()`].
pub fn win_rates(
    entry: &Entry<'_>,
    contest: &Contest,
    judge: Judge,
) -> Result<Vec<f64>, EvaluateError> {
    let policy = (entry.label.method, entry.sampled);
    Ok(contributions(policy, reference(entry), contest, judge)?.wins)
}

/// The reference of a method as messages name it.
pub(crate) fn reference<'a>(entry: &Entry<'a>) -> Named<'a> {
    ("the reference", entry.reference)
}

/// Win rates and expected scores of each prompt: the procedure goes by the reward, the judge decides.
pub(crate) fn contributions(
    policy: Named<'_>,
    reference: Named<'_>,
    contest: &Contest,
    judge: Judge,
) -> Result<Contributions, EvaluateError> {
    same_prompts(policy, reference)?;
    let ours = kept(policy, &contest.policy, judge)?;
    let theirs = kept(reference, &contest.reference, judge)?;
    Ok(Contributions::between(&ours, &theirs))
}

/// What a procedure keeps of the responses to each prompt: `[prompts]`.
pub(crate) fn kept(
    (method, sampled): Named<'_>,
    procedure: &Composed,
    judge: Judge,
) -> Result<Vec<Kept>, EvaluateError> {
    let choice = choice_among(method, sampled, procedure)?;
    let judged = sampled.by(judge)?;
    let prompts = sampled.prompts.par_iter().zip(judged).enumerate();
    let kept: Vec<_> = prompts
        .map(|(place, (prompt, scores))| {
            let weights = weights(choice, sampled, place);
            let kept = weights.and_then(|weights| Kept::weighted(scores, &weights));
            kept.map_err(|source| EvaluateError::Prompt {
                method: method.to_owned(),
                prompt: prompt.id.clone(),
                source,
            })
        })
        .collect();
    // Of several prompts at fault the first is told, whichever thread was the fastest.
    kept.into_iter().collect()
}

/// Refuses samples of other prompts, whatever their ids, or of the same in another order.
pub(crate) fn same_prompts(first: Named<'_>, second: Named<'_>) -> Result<(), EvaluateError> {
    let refuse = |problem: String| {
        let (first, second) = (first.0.to_owned(), second.0.to_owned());
        Err(EvaluateError::Prompts { first, second, problem })
    };
    let (ours, theirs) = (&first.1.prompts, &second.1.prompts);
    if ours.len() != theirs.len() {
        return refuse(format!("{} against {} of them", ours.len(), theirs.len()));
    }
    let mut pairs = ours.iter().zip(theirs).zip(1..);
    let problem = pairs.find_map(|((a, b), number)| {
        if a.id != b.id {
            return Some(format!("prompt {number} is `{}` and `{}`", a.id, b.id));
        }
        let told = || {
            let [ours, theirs] = pieces([&a.text, &b.text]);
            format!("prompt {number}, `{}`, is {ours:?} and {theirs:?}", a.id)
        };
        (!a.may_have(b.sha256.as_ref()) && a.text != b.text).then(told)
    });
    problem.map_or(Ok(()), refuse)
}

/// What tells one text from another in messages: a piece of each, from where they differ.
fn pieces(texts: [&str; 2]) -> [String; 2] {
    const SHOWN: usize = 60;
    let [a, b] = texts.map(str::chars);
    let same = a.zip(b).take_while(|(a, b)| a == b).count();
    texts.map(|text| {
        let mut rest = text.chars().skip(same);
        let piece: String = rest.by_ref().take(SHOWN).collect();
        let before = if same > 0 { "…" } else { "" };
        let after = if rest.next().is_some() { "…" } else { "" };
        format!("{before}{piece}{after}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_samples::samples;

    #[test]
    fn procedures_that_steer_are_refused() {
        let message = choice(&"cd-token:lambda=1".parse().unwrap()).unwrap_err().to_string();
        assert!(message.contains("cd-token"), "{message}");
    }

    #[test]
    fn a_group_keeps_the_first_of_equals_or_a_draw_by_its_weights() {
        let rewards = [1.0, 3.0, 3.0, 0.0];
        let kept = |selection, number| selected(&rewards, selection, ("m", "p"), number).unwrap();
        assert_eq!((kept(Selection::Best(4), 0), kept(Selection::Worst(4), 0)), (1, 3));
        let soft = Selection::SoftBest { samples: 4, temperature: 2.0 };
        let n = 4000;
        let mut shares = [0.0; 4];
        (0..n).for_each(|number| shares[kept(soft, number)] += 1.0 / n as f64);
        let total: f64 = rewards.iter().map(|reward| (reward / 2.0f64).exp()).sum();
        for (share, reward) in shares.iter().zip(rewards) {
            assert!((share - (reward / 2.0f64).exp() / total).abs() < 0.03, "{shares:?}");
        }
        assert_eq!(kept(soft, 7), kept(soft, 7));
    }

    #[test]
    fn a_majority_is_of_answers_and_the_first_to_give_it_is_kept() {
        let answers = |all: [&str; 4]| all.map(|one| Some(one.to_owned())).to_vec();
        let sampled = Sampled {
            answers: Some(vec![answers(["7", "8", "8", "7"]), answers(["1", "2", "3", "3"])]),
            ..samples(0.0)
        };
        let kept = |sampled: &Sampled, procedure: &str, prompt: usize, number: usize| {
            let choice = choice_among("a", sampled, &procedure.parse().unwrap()).unwrap();
            kept_of(choice, ("a", sampled), prompt, number).unwrap()
        };
        assert_eq!(kept(&sampled, "majority:4", 0, 0), 0);
        assert_eq!(kept(&sampled, "majority:4", 1, 0), 2);
        assert_eq!(kept(&sampled, "majority:2", 1, 1), 2);
        assert_eq!(kept(&samples(0.0), "majority:4", 1, 0), 0, "no text is there twice");
        // The rewards are 5, 5, 7 and 9; of three, "3" has two in half of the subsets, and else all tie.
        let contest = Contest::same("majority:3".parse().unwrap());
        let all = contributions(("a", &sampled), ("b", &sampled), &contest, Judge::Reward).unwrap();
        let expected = (2.0 * 8.0 + 2.0 * (5.0 + 5.0 + 8.0) / 3.0) / 4.0;
        assert!((all.ours[1] - expected).abs() < 1e-12, "{all:?}");
        assert!((all.wins[1] - 0.5).abs() < 1e-12, "{all:?}");
    }

    #[test]
    fn what_a_procedure_has_made_is_not_selected_from_again() {
        let made: Composed = "cd-block:length=4,samples=2".parse().unwrap();
        let decoded = Sampled { procedure: Some(made), ..samples(0.0) };
        let among = |procedure: &Composed| choice_among("a", &decoded, procedure);
        assert_eq!(among(&made).unwrap(), Choice::Ranked(Selection::Sample));
        // Among its responses others may select, and not among plain ones.
        let over: Composed = "best-of:3 over cd-block:length=4,samples=2".parse().unwrap();
        assert_eq!(among(&over).unwrap(), Choice::Ranked(Selection::Best(3)));
        let message = choice_among("a", &samples(0.0), &over).unwrap_err().to_string();
        assert!(message.contains("cannot be evaluated from plain samples"), "{message}");
        let message = among(&Procedure::Sample.into()).unwrap_err().to_string();
        assert!(message.contains("responses of a are those of `cd-block"), "{message}");
    }

    #[test]
    fn other_prompts_are_refused_where_they_differ() {
        let contest = Contest::same(Procedure::Sample.into());
        let (first, mut second) = (samples(0.0), samples(0.0));
        second.prompts[1].id = "other".into();
        let compare = |second: &Sampled| {
            contributions(("A", &first), ("B", second), &contest, Judge::Reward)
                .unwrap_err()
                .to_string()
        };
        let message = compare(&second);
        assert!(message.contains("A and B") && message.contains("prompt 2 is"), "{message}");
        second.prompts.pop();
        assert!(compare(&second).contains("2 against 1"));
    }

    #[test]
    fn other_texts_of_the_same_ids_are_refused_where_they_are_known() {
        let contest = Contest::same(Procedure::Sample.into());
        let of = |text: &str, sha256: Option<&str>| {
            let mut samples = samples(0.0);
            samples.prompts[1].text = text.into();
            samples.prompts[1].sha256 = sha256.map(str::to_owned);
            samples
        };
        let compare = |a: &Sampled, b: &Sampled| {
            contributions(("A", a), ("B", b), &contest, Judge::Reward).map(|all| all.wins)
        };
        let first = of("a cold saturday", Some("0a"));
        let message = compare(&first, &of("a foggy friday", Some("0b"))).unwrap_err().to_string();
        assert!(
            message.contains("prompt 2, `p1`, is \"…cold saturday\" and \"…foggy friday\""),
            "{message}"
        );
        // What chat templates make of a prompt may differ, and older samples do not tell.
        for other in [
            of("<user> a cold saturday", Some("0a")),
            of("a foggy friday", None),
            of("a cold saturday", Some("0b")),
        ] {
            assert!(compare(&first, &other).is_ok() && compare(&other, &first).is_ok());
        }
    }

    #[test]
    fn too_few_samples_name_the_method_and_the_prompt() {
        let contest = Contest::same("best-of:5".parse().unwrap());
        let all = samples(0.0);
        let message = contributions(("A", &all), ("B", &all), &contest, Judge::Reward);
        let message = message.unwrap_err().to_string();
        assert!(message.contains("A, prompt `p0`") && message.contains("at least 5"), "{message}");
    }
}
