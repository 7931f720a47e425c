//! How two procedures with a prefix scorer compare.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use infalign_decode::KlKind;
use infalign_evaluate::NEAREST;
use infalign_stats::{Interval, paired_difference};
use infalign_transform::Procedure;

use super::row::{LEVEL, Measure, Row};

/// The paired difference of a reward or a win rate under two procedures, the second subtracted; none where a front does not reach the KL, or begins much
/// farther away.
///
/// - `pair`: each a procedure as it was named, or, where several rows have it, as `PROCEDURE by REWARD:WEIGHT REWARD:WEIGHT`, rewards in
///   alphabetical order. With `kl`, above 0, in nats per response, each is a front as the figure's legend names it, or as `best-of (1 REWARD)`
///   and the like, and both are taken at that KL: between two points it is linear in √KL, and every front begins at plain sampling of what
///   it draws from. The interval takes the KLs for known.
///
/// # Errors
/// Where there is no such row, front or reward.
pub(crate) fn difference(
    rows: &[Row],
    pair: [&str; 2],
    measure: Measure<'_>,
    kl: Option<f64>,
) -> Result<Option<Difference>> {
    let of = |name: &str| match kl {
        None => Ok(Some((named(rows, name)?.by_prompt(measure)?.to_vec(), false))),
        Some(kl) => at(rows, name, measure, kl),
    };
    let [Some(first), Some(second)] = [of(pair[0])?, of(pair[1])?] else { return Ok(None) };
    let interval = paired_difference(&first.0, &second.0, LEVEL)?;
    Ok(Some(Difference { interval, bounded: [first.1, second.1] }))
}

/// A difference of rewards or win rates.
#[derive(Debug)]
pub(crate) struct Difference {
    /// Over prompts.
    pub(crate) interval: Interval,
    /// Whether the KL of the first, and that of the second, are bounds: what they have at the KL itself may be more.
    pub(crate) bounded: [bool; 2],
}

fn named<'a>(rows: &'a [Row], name: &str) -> Result<&'a Row> {
    let is = |row: &&Row| row.title() == name || row.name() == name;
    let mut found = rows.iter().filter(is);
    match (found.next(), found.next()) {
        (Some(row), None) => Ok(row),
        (Some(row), Some(_)) if row.policy.is_some() => {
            bail!("there are several of {name:?}, at several KLs: compare them at one, with `kl`")
        }
        (Some(_), Some(_)) => {
            bail!("{name:?} was run with several weights: add `by` and them")
        }
        _ => {
            let names: Vec<String> = rows.iter().map(Row::name).collect();
            bail!("there is no {name:?}; there are {names:?}")
        }
    }
}

/// The reward or win rate of every prompt on a front, at a KL that it reaches and that is not much nearer than every point of it, and whether that is a
/// bound.
fn at(
    rows: &[Row],
    series: &str,
    measure: Measure<'_>,
    kl: f64,
) -> Result<Option<(Vec<f64>, bool)>> {
    let is = |row: &&Row| row.front(rows) == series || row.series() == series;
    let mut front: Vec<&Row> = rows.iter().filter(is).collect();
    if front.is_empty() {
        let names: BTreeSet<String> = rows.iter().map(|row| row.front(rows)).collect();
        bail!("there is no front {series:?}; there are {names:?}")
    }
    let bounded = front.iter().any(|row| row.kl().kind == KlKind::Bound);
    let nearest = front.iter().map(|row| row.nats()).fold(f64::INFINITY, f64::min);
    if kl < NEAREST * nearest {
        return Ok(None);
    }
    // Plain sampling goes by no weights; a policy itself began at the base.
    let from = front[0].policy.as_ref().filter(|_| !front[0].is_policy_itself());
    let begins =
        |row: &&Row| row.policy.as_ref() == from && row.procedure == Procedure::Sample.into();
    front.extend(rows.iter().find(begins));
    front.sort_by(|a, b| a.nats().total_cmp(&b.nats()));
    let between = |pair: &&[&Row]| pair[0].nats() < kl && kl <= pair[1].nats();
    let Some([low, high]) = front.windows(2).find(between) else { return Ok(None) };
    let [from, to] = [low, high].map(|row| row.nats().max(0.0).sqrt());
    let share = (kl.sqrt() - from) / (to - from);
    let pairs = low.by_prompt(measure)?.iter().zip(high.by_prompt(measure)?);
    let values = pairs.map(|(low, high)| low + share * (high - low)).collect();
    Ok(Some((values, bounded)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use infalign_decode::Kl;

    use super::super::row::tests::{row, rows};
    use super::*;

    const LIKING: Measure<'_> = Measure::Reward("liking");

    #[test]
    fn a_difference_of_two_procedures_is_paired_by_prompt() {
        let of = |pair, kl| difference(&rows(), pair, LIKING, kl);
        let found = of(["best-of:4", "sample"], None).unwrap().unwrap().interval;
        let expected = paired_difference(&[2.0, 3.0, 5.0], &[0.0, 1.0, 2.0], LEVEL).unwrap();
        assert_eq!(found, expected);
        let named =
            of(["cd-token:lambda=1 by liking:0.5", "sample"], None).unwrap().unwrap().interval;
        assert!((named.estimate + 2.0 / 3.0).abs() < 1e-12);
        for (pair, told) in [
            (["cd-token:lambda=1", "sample"], "several weights"),
            (["best-of:5", "sample"], "best-of:4 by liking:1"),
        ] {
            let message = of(pair, None).unwrap_err().to_string();
            assert!(message.contains(told), "{message}");
        }
        let wins = Measure::WinRate("liking");
        let won = difference(&rows(), ["best-of:4", "sample"], wins, None).unwrap().unwrap();
        assert!((won.interval.estimate - expected.estimate / 8.0).abs() < 1e-12);
        let message = difference(&rows(), ["best-of:4", "sample"], Measure::Reward("wit"), None);
        assert!(message.unwrap_err().to_string().contains("liking"));
    }

    #[test]
    fn policies_have_fronts_of_their_own() {
        let policy = |name: &str, nats, by_prompt: &[f64]| Row {
            policy: Some(name.to_owned()),
            weights: BTreeMap::new(),
            kl: vec![Kl { nats, kind: KlKind::Exact }],
            ..row("sample", 1.0, nats, by_prompt)
        };
        let mut rows = rows();
        rows.push(policy("ppo", 1.0, &[1.0, 2.0, 3.5]));
        rows.push(policy("dpo", 0.25, &[0.0, 2.0, 2.0]));
        rows.push(policy("dpo", 1.0, &[1.0, 3.0, 3.0]));
        let of = |pair, kl| difference(&rows, pair, LIKING, kl);
        let plain = of(["policy ppo", "sample"], None).unwrap().unwrap().interval;
        assert_eq!(
            plain,
            paired_difference(&[1.0, 2.0, 3.5], &[0.0, 1.0, 2.0], LEVEL).unwrap(),
            "the base's samples are those without a policy"
        );
        let message = of(["policy dpo", "sample"], None).unwrap_err().to_string();
        assert!(message.contains("with `kl`"), "{message}");
        // √0.81 is nine tenths of the way from plain sampling to one nat, and eight of ten from a quarter of a nat.
        let both = of(["policy dpo", "policy ppo"], Some(0.81)).unwrap().unwrap();
        let expected = paired_difference(&[0.8, 2.8, 2.8], &[0.9, 1.9, 3.35], LEVEL).unwrap();
        assert!((both.interval.estimate - expected.estimate).abs() < 1e-12);
        assert_eq!(both.bounded, [false; 2]);
        let far = of(["policy dpo", "policy ppo"], Some(0.25)).unwrap();
        assert!(far.is_none(), "the only run of ppo is four times as far from the base");
    }

    #[test]
    fn procedures_on_a_policy_go_on_from_the_policy() {
        let of_dpo = |row: Row| Row { policy: Some("dpo".to_owned()), ..row };
        let mut rows = rows()[..3].to_vec();
        rows.push(of_dpo(Row {
            weights: BTreeMap::new(),
            kl: vec![Kl { nats: 0.25, kind: KlKind::Exact }],
            ..row("sample", 1.0, 0.25, &[1.0, 2.0, 2.0])
        }));
        rows.push(of_dpo(row("best-of:4", 1.0, 1.0, &[3.0, 4.0, 4.0])));
        let names: Vec<String> = rows[3..].iter().map(Row::title).collect();
        assert_eq!(names, ["policy dpo", "best-of:4 on dpo"]);
        let fronts: Vec<String> = rows[3..].iter().map(|row| row.front(&rows)).collect();
        assert_eq!(fronts, ["policy dpo", "best-of:N on dpo"]);
        let of = |pair, kl| difference(&rows, pair, LIKING, kl).unwrap().unwrap().interval;
        let expected = paired_difference(&[3.0, 4.0, 4.0], &[2.0, 3.0, 5.0], LEVEL).unwrap();
        assert_eq!(of(["best-of:4 on dpo", "best-of:4"], None), expected);
        // √0.81 is eight tenths of the way from the policy, a quarter of a nat from the base, to one nat.
        let hybrid = [1.0 + 0.8 * 2.0, 2.0 + 0.8 * 2.0, 2.0 + 0.8 * 2.0];
        let plain = [0.9 * 2.0, 1.0 + 0.9 * 2.0, 2.0 + 0.9 * 3.0];
        let expected = paired_difference(&hybrid, &plain, LEVEL).unwrap();
        let found = of(["best-of (1 liking)", "best-of on dpo (1 liking)"], Some(0.81));
        assert!((found.estimate + expected.estimate).abs() < 1e-12);
    }

    #[test]
    fn fronts_are_compared_at_a_common_kl() {
        let fronts = ["cd-token (1 liking)", "best-of (1 liking)"];
        // √1 is a third of the way from √0.25 to √4; the other front has a point there.
        let both = difference(&rows(), fronts, LIKING, Some(1.0)).unwrap().unwrap();
        let tokenwise = [2.0, 3.0, 4.5];
        let expected = paired_difference(&tokenwise, &[2.0, 3.0, 5.0], LEVEL).unwrap();
        assert!((both.interval.estimate - expected.estimate).abs() < 1e-12);
        assert_eq!(both.bounded, [true; 2]);
        let as_drawn = ["cd-token:lambda=λ by liking:1", "best-of:N by liking:1"];
        let same = difference(&rows(), as_drawn, LIKING, Some(1.0)).unwrap().unwrap();
        assert_eq!(same.interval, both.interval);
        assert!(difference(&rows(), fronts, LIKING, Some(2.0)).unwrap().is_none());
        let unknown = ["beam (1 liking)", "best-of (1 liking)"];
        let message = difference(&rows(), unknown, LIKING, Some(1.0)).unwrap_err();
        assert!(message.to_string().contains("no front"), "{message}");
    }
}
