//! Rows and comparisons of two prompts, whose numbers can be worked out by hand.

use super::*;
use crate::test_samples::samples;
use crate::{Intervals, text_table};

fn entry<'a>(method: &'a str, sampled: &'a Sampled, reference: &'a Sampled) -> Entry<'a> {
    Entry { label: Label::named(method), sampled, reference }
}

fn plan<'a>(contests: &'a [Contest], pairs: &'a [(usize, usize)], judge: Judge) -> Plan<'a> {
    let statistics = Statistics { margin: Some(0.3), ..Statistics::new(1) };
    Plan { pairs, ..Plan::new(contests, judge, statistics) }
}

fn contests<const N: usize>(procedures: [&str; N]) -> [Contest; N] {
    procedures.map(|procedure| Contest::same(procedure.parse().unwrap()))
}

#[test]
fn rows_hold_estimates_and_predictions() {
    let (policy, reference) = (samples(10.0), samples(0.0));
    let exp = Theory::Transform("exp:10".parse().unwrap());
    let label =
        Label { method: "best", kind: Some("ctrl"), objective: Some("exp:10"), theory: Some(&exp) };
    let entries = [Entry { label, sampled: &policy, reference: &reference }];
    let contests = contests(["best-of:2"]);
    let found = table(&entries, &plan(&contests, &[], Judge::Reward)).unwrap();
    let row = &found.rows[0];
    assert!(row.win_rate.estimate > 0.5 && row.win_rate.low < row.win_rate.estimate);
    assert!((row.kl.unwrap().estimate - 0.5).abs() < 1e-12);
    assert_eq!((row.tokens, row.n_samples, row.n_prompts), (Some(6.0), 4, 2));
    assert!(row.score.estimate > row.reference_score.estimate);
    let predicted = row.predicted_win_rate.unwrap();
    assert!(predicted > 0.7 && predicted < 0.9, "{predicted}");
    assert!(text_table(&found.rows).contains("best-of:2"));
    let json = serde_json::to_string(row).unwrap();
    assert_eq!(&serde_json::from_str::<Row>(&json).unwrap(), row);
}

#[test]
fn a_model_against_itself_wins_half() {
    let reference = samples(0.0);
    let entries = [entry("a", &reference, &reference), entry("b", &reference, &reference)];
    let contests = contests(["sample", "best-of:3", "worst-of:2"]);
    let found = table(&entries, &plan(&contests, &[(0, 1)], Judge::Reward)).unwrap();
    assert!(found.rows.iter().all(|row| (row.win_rate.estimate - 0.5).abs() < 1e-12));
    assert_eq!((found.rows.len(), found.comparisons.len()), (6, 3));
    for row in &found.rows {
        // 2⁻² of two prompts, and six times as much of six rows, which is above 1.
        let equivalence = row.equivalence.unwrap();
        assert_eq!((equivalence.p_value, equivalence.p_adjusted), (0.25, 1.0));
    }
    for one in &found.comparisons {
        assert_eq!((one.difference.estimate, one.p_value, one.p_adjusted), (0.0, 1.0, 1.0));
        // 2⁻² of two prompts, and three times as much of three comparisons.
        let equivalence = one.equivalence.unwrap();
        assert_eq!((equivalence.p_value, equivalence.p_adjusted), (0.25, 0.75));
        // Two prompts, whatever they say, do not show that no others differ.
        assert_eq!(one.verdict(0.95), "undecided");
    }
}

#[test]
fn the_sides_may_have_other_procedures() {
    let reference = samples(0.0);
    let contest =
        Contest { policy: "best-of:4".parse().unwrap(), reference: "worst-of:4".parse().unwrap() };
    let entries = [entry("a", &reference, &reference)];
    let found = table(&entries, &plan(&[contest], &[], Judge::Reward)).unwrap();
    assert_eq!(found.rows[0].win_rate.estimate, 1.0);
    assert_eq!(found.rows[0].contest, contest);
    assert_eq!(contest.to_string(), "best-of:4 against worst-of:4");
    let json = serde_json::to_string(&found.rows[0]).unwrap();
    let procedures = r#""procedure":"best-of:4","reference_procedure":"worst-of:4""#;
    assert!(json.starts_with(&format!(r#"{{"method":"a",{procedures},"judge":"#)), "{json}");
    assert_eq!(serde_json::from_str::<Row>(&json).unwrap(), found.rows[0]);
}

#[test]
fn what_a_reference_keeps_is_found_once_for_all_against_it() {
    let (a, b, reference, other) = (samples(1.0), samples(2.0), samples(0.0), samples(4.0));
    let [best, worst] = contests(["best-of:2", "worst-of:2"]);
    let against_worst = Contest { policy: best.policy, reference: worst.reference };
    let cells = [
        (entry("a", &a, &reference), best),
        (entry("a", &a, &reference), worst),
        (entry("b", &b, &reference), best),
        (entry("b", &b, &other), best),
        (entry("b", &b, &reference), against_worst),
    ];
    assert_eq!(by_reference(&cells), [vec![0, 2], vec![1, 4], vec![3]]);
    // With a shift s the best of two is worth s + 7/3 and s/2 + 23/3, the worst s + 2/3 and 16/3.
    let expected = [(5.75, 5.0), (3.5, 3.0), (6.5, 5.0), (6.5, 8.0), (6.5, 3.0)];
    let values = values(&cells, Judge::Reward).unwrap();
    assert_eq!(values.len(), SERIES * cells.len());
    for (series, (ours, theirs)) in values.chunks(SERIES).zip(expected) {
        let [_, score, reference_score] = series else { panic!("{series:?}") };
        assert!((score.iter().sum::<f64>() / 2.0 - ours).abs() < 1e-12, "{series:?}");
        assert!((reference_score.iter().sum::<f64>() / 2.0 - theirs).abs() < 1e-12, "{series:?}");
    }
}

#[test]
fn another_judge_may_see_it_the_other_way_round() {
    let judged = |shift: f64| Sampled { judged: Some(samples(-shift).rewards), ..samples(shift) };
    let (policy, reference) = (judged(10.0), judged(0.0));
    let win_rate = |judge, procedure| {
        let contests = contests([procedure]);
        let entries = [entry("a", &policy, &reference)];
        table(&entries, &plan(&contests, &[], judge)).unwrap().rows[0].win_rate.estimate
    };
    assert!(win_rate(Judge::Reward, "sample") > 0.6 && win_rate(Judge::Judge, "sample") < 0.4);
    // Selected by the reward, the judge's worst responses are kept.
    let (one, best) = (win_rate(Judge::Judge, "sample"), win_rate(Judge::Judge, "best-of:2"));
    assert!(best < one, "{best} {one}");
    let plain = samples(0.0);
    let contests = contests(["sample"]);
    let error = table(&[entry("a", &plain, &plain)], &plan(&contests, &[], Judge::Judge));
    assert!(matches!(error, Err(EvaluateError::NotJudged)));
}

#[test]
fn closed_forms_and_resamples_agree_on_the_estimates() {
    let (a, b, reference) = (samples(1.0), samples(2.5), samples(0.0));
    let entries = [entry("a", &a, &reference), entry("b", &b, &reference)];
    let contests = contests(["sample", "best-of:2"]);
    let of = |intervals| {
        let plan = plan(&contests, &[(1, 0)], Judge::Reward);
        let statistics = Statistics { intervals, ..plan.judging.statistics };
        let judging = Judging { statistics, length_controlled: true, ..plan.judging };
        table(&entries, &Plan { judging, ..plan }).unwrap()
    };
    let bootstrap = of(Intervals::Bca { replicates: 500, seed: 3 });
    let student = of(Intervals::StudentT { replicates: 500, seed: 3 });
    for (first, second) in bootstrap.rows.iter().zip(&student.rows) {
        assert!((first.win_rate.estimate - second.win_rate.estimate).abs() < 1e-12);
        assert!(first.length_controlled_win_rate.is_some());
    }
    for (first, second) in bootstrap.comparisons.iter().zip(&student.comparisons) {
        assert!((first.difference.estimate - second.difference.estimate).abs() < 1e-12);
        assert_eq!(first.p_value, second.p_value);
    }
}

#[test]
fn one_prompt_is_too_few() {
    let mut one = samples(0.0);
    one.prompts.pop();
    one.rewards.pop();
    one.responses.pop();
    one.kl = None;
    let contests = contests(["sample"]);
    let error = table(&[entry("a", &one, &one)], &plan(&contests, &[], Judge::Reward));
    assert!(error.unwrap_err().to_string().contains("at least 2"));
}

#[test]
fn differences_are_of_the_first_method_less_the_second() {
    let (base, strong) = (samples(0.0), samples(40.0));
    let entries = [entry("base", &base, &base), entry("strong", &strong, &base)];
    let contests = contests(["sample"]);
    let plan = plan(&contests, &[(1, 0)], Judge::Reward);
    let intervals = Intervals::StudentT { replicates: 100, seed: 0 };
    let statistics = Statistics { intervals, ..plan.judging.statistics };
    let judging = Judging { statistics, ..plan.judging };
    let found = table(&entries, &Plan { judging, ..plan }).unwrap();
    let one = &found.comparisons[0];
    assert_eq!((one.method.as_str(), one.baseline.as_str()), ("strong", "base"));
    // All of the first prompt are won, and of the second, by 5, 5, 7 and 49 against 5, 5, 7 and 9, (1 + 1 + 2.5 + 4)/16: ½ and 1/32 more than ½.
    assert!((one.difference.estimate - 0.265_625).abs() < 1e-12, "{one:?}");
}

#[test]
fn p_values_are_adjusted_for_all_comparisons_of_the_table() {
    let (base, strong) = (samples(0.0), samples(40.0));
    let rewards = vec![vec![40.0; 4], vec![9.0, 49.0, 49.0, 49.0]];
    let sure = Sampled { rewards, ..samples(0.0) };
    let entries =
        [entry("base", &base, &base), entry("strong", &strong, &base), entry("sure", &sure, &base)];
    let contests = contests(["sample", "best-of:2"]);
    let found = table(&entries, &plan(&contests, &[(1, 0), (2, 0)], Judge::Reward)).unwrap();
    // Of two differences: P(|T| > t) = 1 − (2/π)·atan t, with t = (a + b)/|a − b| at the one degree of freedom.
    let p = |a: f64, b: f64| 1.0 - std::f64::consts::FRAC_2_PI * ((a + b) / (a - b)).atan();
    // `strong` wins all of the first prompt, ½ more than the base, and 1/32 more of the second, or with the best of two, which are 5, 7 and 49
    // with 1/6, 1/3 and 1/2, 1/8 more; `sure` loses half a pair of 16, and with the best of two none: ½ twice, of which the signs alone tell.
    let p_values = [p(0.5, 0.031_25), p(0.5, 0.125), p(0.5, 0.468_75), 0.5];
    // They are 0.46, 0.34, 0.02 and 0.5: three times the second is above 1.
    let adjusted = [1.0, 1.0, 4.0 * p_values[2], 1.0];
    assert_eq!(found.comparisons.len(), 4);
    for (one, (p_value, adjusted)) in found.comparisons.iter().zip(p_values.iter().zip(adjusted)) {
        assert!((one.p_value - p_value).abs() < 1e-9, "{one:?} and not {p_value}");
        assert!((one.p_adjusted - adjusted).abs() < 1e-9, "{one:?} and not {adjusted}");
    }
}

#[test]
fn a_verdict_is_by_the_adjusted_p_values_and_the_sign() {
    let compared = |p_adjusted: f64, estimate: f64, equivalent: Option<f64>| Comparison {
        method: "a".into(),
        baseline: "b".into(),
        contest: Contest::same("sample".parse().unwrap()),
        baseline_procedure: None,
        judge: Judge::Reward,
        difference: Interval { estimate, low: estimate - 0.05, high: estimate + 0.05, level: 0.95 },
        p_value: 0.01,
        p_adjusted,
        equivalence: equivalent.map(|adjusted| Equivalence {
            margin: 0.2,
            p_value: 0.01,
            p_adjusted: adjusted,
        }),
    };
    for (p_adjusted, estimate, equivalent, verdict) in [
        (0.2, 0.1, None, "undecided"),
        (0.2, 0.1, Some(0.06), "undecided"),
        (0.2, 0.1, Some(0.01), "equivalent"),
        (0.01, 0.1, None, "better"),
        (0.01, -0.1, Some(0.06), "worse"),
        (0.01, 0.1, Some(0.01), "different, and equivalent"),
    ] {
        let one = compared(p_adjusted, estimate, equivalent);
        assert_eq!(one.verdict(0.95), verdict, "{one:?}");
    }
}

#[test]
fn where_all_are_equally_long_the_win_rate_at_equal_lengths_is_the_plain_one() {
    let judged =
        |shift: f64, by: f64| Sampled { judged: Some(samples(by).rewards), ..samples(shift) };
    let (policy, reference) = (judged(1.0, -1.0), judged(0.0, 1.0));
    let entries = [entry("a", &policy, &reference)];
    let contests =
        [Contest { policy: "best-of:2".parse().unwrap(), reference: "sample".parse().unwrap() }];
    // The policy's four are kept with 0, 1/6, 1/3 and 1/2, or the first two with 1/12 each where they tie. By the reward 2, 3, 4 against 0 to 3
    // win (5 + 14 + 24)/48, and 5, 7, 10 against 5, 5, 7, 9 (2 + 10 + 24)/48; by the judge 0, 1, 2 against 1 to 4 (0 + 2 + 9)/48, and 5, 7, 8
    // against 5, 5, 7, 10 (2 + 10 + 18)/48.
    for (judge, expected) in [(Judge::Reward, 79.0 / 96.0), (Judge::Judge, 41.0 / 96.0)] {
        let mut plan = plan(&contests, &[], judge);
        plan.judging.length_controlled = true;
        let row = table(&entries, &plan).unwrap().rows.remove(0);
        assert!((row.win_rate.estimate - expected).abs() < 1e-12, "{row:?}");
        let controlled = row.length_controlled_win_rate.unwrap();
        assert!((controlled.estimate - expected).abs() < 1e-9, "{row:?}");
    }
}

#[test]
fn lengths_are_in_characters_and_both_sides_count() {
    let texts = ["éé", "éé", "éééé", "éééé"].map(String::from).to_vec();
    let policy = Sampled { responses: vec![texts; 2], ..samples(1.0) };
    let reference = Sampled { responses: vec![vec!["ee".to_owned(); 4]; 2], ..samples(0.0) };
    let entries = [entry("a", &policy, &reference)];
    let contests = contests(["sample"]);
    let mut plan = plan(&contests, &[], Judge::Reward);
    plan.judging.length_controlled = true;
    let row = table(&entries, &plan).unwrap().rows.remove(0);
    // Two differences of length, 0 and 2, which two parameters fit without a rest: at 0 it is what the short ones win, 1 and 2 against 0 to 3 and
    // 5 and 5 against 5, 5, 7, 9: (0.375 + 0.625 + 0.25 + 0.25)/4. The long ones win 0.875.
    assert!((row.win_rate.estimate - 0.625).abs() < 1e-12, "{row:?}");
    let controlled = row.length_controlled_win_rate.unwrap();
    assert!((controlled.estimate - 0.375).abs() < 1e-9, "{row:?}");
}

#[test]
fn decoders_are_compared_with_each_other_against_one_procedure_of_the_reference() {
    let (base, strong) = (samples(0.0), samples(1.0));
    let [sample, best, worst] = ["sample", "best-of:2", "worst-of:4"].map(|of| of.parse().unwrap());
    let all = [
        (entry("base", &base, &base), sample),
        (entry("base", &base, &base), best),
        (entry("strong", &strong, &base), sample),
    ];
    let intervals = Intervals::StudentT { replicates: 100, seed: 0 };
    let statistics = Statistics { intervals, ..Statistics::new(1) };
    let judging = Judging { judge: Judge::Reward, length_controlled: false, statistics };
    let Table { rows, comparisons } = decoders(&all, worst, &judging).unwrap();
    // As the same contests are in a table of methods.
    for (row, (entry, policy)) in rows.iter().zip(all) {
        let contest = Contest { policy, reference: worst };
        let alone = table(&[entry], &Plan::new(&[contest], Judge::Reward, statistics)).unwrap();
        assert_eq!(row, &alone.rows[0]);
    }
    let names: Vec<(&str, &str, Composed, Option<Composed>)> = comparisons
        .iter()
        .map(|one| (&*one.method, &*one.baseline, one.contest.policy, one.baseline_procedure))
        .collect();
    let expected = [
        ("base", "base", best, Some(sample)),
        ("strong", "base", sample, None),
        ("strong", "base", sample, Some(best)),
    ];
    assert_eq!(names, expected);
    for (one, (later, earlier)) in comparisons.iter().zip([(1, 0), (2, 0), (2, 1)]) {
        let difference = rows[later].win_rate.estimate - rows[earlier].win_rate.estimate;
        assert!((one.difference.estimate - difference).abs() < 1e-12, "{one:?}");
        assert_eq!(one.contest.reference, worst);
    }
    // Three of three: the least of the p-values counts three times.
    let least = comparisons.iter().min_by(|a, b| a.p_value.total_cmp(&b.p_value)).unwrap();
    assert!((least.p_adjusted - (3.0 * least.p_value).min(1.0)).abs() < 1e-12, "{least:?}");
}
