//! The plots of a table: win rate against KL, reward against KL, and reward against what decoding costs.

use infalign_stats::Interval;
use infalign_transform::{Composed, Procedure, Theory, optimal_frontier};

use crate::plot::{BY_JUDGE, OPTIMUM};
use crate::predicted::Trained;
use crate::text::{distinct, percent};
use crate::{Band, Curve, EvaluateError, Figure, FrontierBand, Judge, Panel, Point, Row};

/// Axes of a plot of win rate against KL.
pub const KL_AND_WIN_RATE: [&str; 2] =
    ["KL from the reference, nats per response", "win rate against the reference"];

/// What a note says of bands.
const SHADED: &str = "; shaded: interpolated from the reference through a method's runs";

/// A method in the continuous limit: its name, and what training leads to at each KL.
type Limit<'a> = (&'a str, Vec<(f64, Trained)>);

/// Win rate against KL, a panel a procedure: methods with their intervals, what the continuous limit has for what they were trained on, the optimum,
/// and the frontiers of methods that were run at several KLs.
///
/// - `rows`: those of one judge; rows without a KL have no place and are left out.
/// - `theories`: of methods, by their names.
///
/// # Errors
/// [`EvaluateError::Transform`] where theory fails.
pub fn win_rate_against_kl(
    title: &str,
    rows: &[Row],
    theories: &[(String, Theory)],
    bands: &[FrontierBand],
) -> Result<Figure, EvaluateError> {
    let by_reward = rows.iter().all(|row| row.judge == Judge::Reward);
    let farthest = kls(rows).fold(0.2, f64::max);
    let named = |row: &Row| method(row, bands);
    let same = |row: &&Row| row.contest.policy == row.contest.reference;
    let all = procedures(rows.iter().filter(same));
    let limits = limits(if by_reward { theories } else { &[] }, &all, 1.3 * farthest)?;
    let panel = |procedure: &Composed| -> Result<Panel, EvaluateError> {
        let mut curves = Vec::new();
        if let Some(procedure) = procedure.of_ranks().filter(|_| by_reward) {
            for limit in &limits {
                curves.extend(theory(limit, &procedure)?);
            }
            curves.extend(optimum_curve(&procedure, 1.3 * farthest));
        }
        let measured: Vec<&FrontierBand> =
            bands.iter().filter(|band| band.procedure == *procedure).collect();
        Ok(Panel {
            title: procedure.to_string(),
            bands: measured
                .iter()
                .map(|band| Band {
                    name: band.method.clone(),
                    points: band.points.iter().map(|(kl, w)| (*kl, w.low, w.high)).collect(),
                })
                .collect(),
            points: against_kl(rows, procedure, bands, |row| &row.win_rate),
            curves,
        })
    };
    let panels = all.iter().map(panel).collect::<Result<Vec<Panel>, EvaluateError>>()?;
    let lines = if by_reward { "; lines: continuous limit" } else { "" };
    let shades = if bands.is_empty() { "" } else { SHADED };
    Ok(Figure {
        title: title.to_owned(),
        legend: legend(rows.iter().map(named), &panels),
        note: format!("bars: {} intervals over prompts{shades}{lines}", level(rows)),
        axes: KL_AND_WIN_RATE.map(str::to_owned),
        panels,
    })
}

/// Expected score of the kept response against KL, a panel a procedure.
///
/// - `bands`: of methods that were run at several KLs, whose runs go by their names, here and below.
pub(crate) fn score_against_kl(title: &str, rows: &[Row], bands: &[FrontierBand]) -> Figure {
    let panel = |procedure: &Composed| Panel {
        title: procedure.to_string(),
        points: against_kl(rows, procedure, bands, |row| &row.score),
        ..Panel::default()
    };
    let panels = procedures(rows.iter()).iter().map(panel).collect();
    scores(title, (rows, bands), KL_AND_WIN_RATE[0], panels)
}

/// Expected score of the kept response against the tokens that are made for it, all procedures in one panel; none where all methods
/// cost about the same under each procedure.
pub(crate) fn score_against_cost(
    title: &str,
    rows: &[Row],
    bands: &[FrontierBand],
) -> Option<Figure> {
    if !procedures(rows.iter()).iter().any(|procedure| costs_differ(rows, procedure)) {
        return None;
    }
    let points = rows.iter().filter_map(|row| {
        let label = Some(row.contest.policy.to_string());
        Some(Point { label, ..point(method(row, bands), row.tokens?, &row.score) })
    });
    let panel = Panel { points: points.collect(), ..Panel::default() };
    Some(scores(title, (rows, bands), "tokens made for a response", vec![panel]))
}

/// Whether some method's responses cost more than another's by over a tenth, under a procedure.
fn costs_differ(rows: &[Row], procedure: &Composed) -> bool {
    let rows = rows.iter().filter(|row| row.contest.policy == *procedure);
    let (low, high) = rows
        .filter_map(|row| row.tokens)
        .fold((f64::INFINITY, 0.0_f64), |(low, high), cost| (low.min(cost), high.max(cost)));
    high > 1.1 * low
}

/// Win rate against KL by the reward and by the judge: where the first goes on rising and the second does not, the reward is over-optimised.
/// A method has a colour and a marker, which is filled for the reward and hollow for the judge.
///
/// - `bands`: of methods that were run at several KLs, whose runs go by their names.
pub(crate) fn over_optimisation(
    title: &str,
    [by_reward, by_judge]: [&[Row]; 2],
    bands: &[FrontierBand],
) -> Figure {
    let panel = |procedure: &Composed| {
        let of = |rows| against_kl(rows, procedure, bands, |row| &row.win_rate);
        let hollow = |point: Point| Point { name: point.name + BY_JUDGE, ..point };
        let points = of(by_reward).into_iter().chain(of(by_judge).into_iter().map(hollow));
        let points = points.collect();
        Panel { title: procedure.to_string(), points, ..Panel::default() }
    };
    let bars = level(by_reward);
    Figure {
        title: title.to_owned(),
        legend: legend(by_reward.iter().map(|row| method(row, bands)), &[]),
        note: format!("filled: by the reward; hollow: by the judge; bars: {bars} intervals"),
        axes: KL_AND_WIN_RATE.map(str::to_owned),
        panels: procedures(by_reward.iter()).iter().map(panel).collect(),
    }
}

fn scores(
    title: &str,
    (rows, bands): (&[Row], &[FrontierBand]),
    horizontal: &str,
    panels: Vec<Panel>,
) -> Figure {
    Figure {
        title: title.to_owned(),
        legend: legend(rows.iter().map(|row| method(row, bands)), &panels),
        note: format!("bars: {} intervals over prompts", level(rows)),
        axes: [horizontal.to_owned(), "expected score of the response kept".to_owned()],
        panels,
    }
}

/// The name that a method's points go by: where methods have several runs, what follows that of the run.
fn method(row: &Row, bands: &[FrontierBand]) -> String {
    match bands.is_empty() {
        true => row.method.clone(),
        false => row.method.rsplit('/').next().unwrap_or_default().to_owned(),
    }
}

fn level(rows: &[Row]) -> String {
    percent(rows.first().map_or(0.95, |row| row.win_rate.level))
}

fn point(name: String, x: f64, y: &Interval) -> Point {
    Point { name, x, y: [y.estimate, y.low, y.high], label: None }
}

/// Those rows of a procedure that have a KL.
///
/// - `shown`: what stands against it.
fn against_kl(
    rows: &[Row],
    procedure: &Composed,
    bands: &[FrontierBand],
    shown: fn(&Row) -> &Interval,
) -> Vec<Point> {
    let rows = rows.iter().filter(|row| row.contest.policy == *procedure);
    rows.filter_map(|row| Some(point(method(row, bands), row.kl?.estimate, shown(row)))).collect()
}

fn kls(rows: &[Row]) -> impl Iterator<Item = f64> {
    rows.iter().filter_map(|row| row.kl.map(|kl| kl.estimate))
}

/// Each once, in the order of the rows.
fn procedures<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<Composed> {
    distinct(rows.map(|row| row.contest.policy))
}

/// Methods in the order of the rows, then what else is drawn.
fn legend(methods: impl Iterator<Item = String>, panels: &[Panel]) -> Vec<String> {
    let curves = panels.iter().flat_map(|panel| &panel.curves);
    distinct(methods.chain(curves.map(|curve| curve.name.clone())))
}

/// Methods in the continuous limit, up to the KL `farthest` or to the greatest that a transform leads to; none where it has no win rate for any of
/// the procedures.
fn limits<'a>(
    theories: &'a [(String, Theory)],
    procedures: &[Composed],
    farthest: f64,
) -> Result<Vec<Limit<'a>>, EvaluateError> {
    const STEPS: usize = 40;
    if !procedures.iter().filter_map(Composed::of_ranks).any(|one| one.has_rank_density()) {
        return Ok(Vec::new());
    }
    let limit = |(name, theory): &'a (String, Theory)| -> Result<Limit<'a>, EvaluateError> {
        let mut policies = Vec::new();
        for step in 1..=STEPS {
            // Closer together near 0, where the win rate rises with the root of the KL.
            let kl = farthest * (step as f64 / STEPS as f64).powi(2);
            let Some(trained) = Trained::at_kl(theory, kl)? else { break };
            policies.push((kl, trained));
        }
        Ok((name.as_str(), policies))
    };
    theories.iter().map(limit).collect()
}

/// A method's win rate in the continuous limit, from KL 0; none for a procedure that it has none for.
fn theory(
    (name, policies): &Limit<'_>,
    procedure: &Procedure,
) -> Result<Option<Curve>, EvaluateError> {
    if policies.is_empty() || !procedure.has_rank_density() {
        return Ok(None);
    }
    let mut points = vec![(0.0, 0.5)];
    for (kl, trained) in policies {
        points.push((*kl, trained.win_rate(procedure)?));
    }
    Ok(Some(Curve { name: (*name).to_owned(), points }))
}

/// Win rate under a procedure, on both sides, that no policy exceeds at its KL in the continuous limit; none for a procedure that has no such theory.
///
/// - `farthest`: KL to which the curve goes, nats per response, above 0.
pub fn optimum_curve(procedure: &Procedure, farthest: f64) -> Option<Curve> {
    let best = optimal_frontier(procedure, (1e-3 * farthest, farthest), 40).ok()?;
    let points = best.iter().filter_map(|at| Some((at.kl, *at.win_rates.first()?)));
    Some(Curve {
        name: OPTIMUM.to_owned(),
        points: std::iter::once((0.0, 0.5)).chain(points).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::table;
    use crate::test_samples::samples;
    use crate::{Contest, Entry, Label, Plan, Statistics, draw_svg, predicted_win_rate};

    fn row() -> Row {
        let (policy, reference) = (samples(10.0), samples(0.0));
        let label = Label::named("raw");
        let entries = [Entry { label, sampled: &policy, reference: &reference }];
        let contests = [Contest::same("best-of:2".parse().unwrap())];
        let plan = Plan::new(&contests, Judge::Reward, Statistics::new(1));
        table(&entries, &plan).unwrap().rows.remove(0)
    }

    #[test]
    fn curves_are_what_is_predicted_at_their_kls() {
        let row = row();
        let contest = Contest::same("soft-best-of:2,temperature=1".parse().unwrap());
        let rows = [row.clone(), Row { contest, ..row }];
        let theories = [("raw".to_owned(), Theory::Transform("exp:10".parse().unwrap()))];
        let figure = win_rate_against_kl("", &rows, &theories, &[]).unwrap();
        let curve = &figure.panels[0].curves[0];
        assert_eq!((curve.name.as_str(), curve.points.len()), ("raw", 41));
        let best_of_2 = "best-of:2".parse().unwrap();
        for &(kl, win_rate) in &curve.points {
            let predicted = predicted_win_rate(&theories[0].1, kl, &best_of_2).unwrap();
            assert_eq!(predicted, Some(win_rate), "at {kl} nats");
        }
        assert!(figure.panels[1].curves.is_empty(), "τ is in units that the limit does not know");
    }

    #[test]
    fn runs_of_a_method_share_a_name_and_those_of_the_judge_are_hollow() {
        let row = row();
        let named = |name: &str| Row { method: name.to_owned(), ..row.clone() };
        let rows = ["x/raw", "x/best", "y/raw", "y/best"].map(named);
        let (method, procedure) = ("raw".to_owned(), row.contest.policy);
        let bands = [FrontierBand { method, procedure, points: Vec::new() }];
        let figure = over_optimisation("", [&rows, &rows], &bands);
        let legend = ["raw", "best"].map(str::to_owned);
        assert_eq!(figure.legend, legend);
        let points = &figure.panels[0].points;
        let names: Vec<&str> = points.iter().map(|point| point.name.as_str()).collect();
        assert_eq!(names[..4], ["raw", "best", "raw", "best"]);
        assert_eq!(names[4..6], ["raw, by the judge", "best, by the judge"]);
        assert!(points.iter().all(|point| point.label.is_none()), "the legend names them");
        let figure = score_against_kl("", &rows, &bands);
        let names: Vec<&str> = figure.panels[0].points.iter().map(|p| p.name.as_str()).collect();
        assert_eq!((names, &figure.legend[..]), (vec!["raw", "best", "raw", "best"], &legend[..]));
        // Of one run each, whatever precedes them belongs to the names of methods.
        let figure = over_optimisation("", [&rows, &rows], &[]);
        assert_eq!(figure.legend, ["x/raw", "x/best", "y/raw", "y/best"]);
    }

    #[test]
    fn costs_are_drawn_where_methods_differ_in_them() {
        let row = row();
        let costing = |tokens| Row { tokens, ..row.clone() };
        let drawn = |rows: &[Row]| score_against_cost("", rows, &[]).is_some();
        assert!(!drawn(&[costing(Some(84.0)), costing(Some(80.5)), costing(None)]));
        assert!(drawn(&[costing(Some(84.0)), costing(Some(60.0))]));
        assert!(!drawn(&[costing(None)]));
    }

    #[test]
    fn the_optimum_and_nothing_else_is_yellow() {
        let row = row();
        for methods in [1, 3, 8] {
            let named = |method: i32| Row { method: method.to_string(), ..row.clone() };
            let rows: Vec<Row> = (0..methods).map(named).collect();
            let figure = win_rate_against_kl("", &rows, &[], &[]).unwrap();
            assert_eq!(figure.legend.last().unwrap(), OPTIMUM);
            let svg = draw_svg(&figure).unwrap();
            // Lines, and no markers.
            assert!(svg.contains("stroke=\"#E69F00\""), "{methods} methods");
            assert!(!svg.contains("fill=\"#E69F00\""), "{methods} methods");
        }
    }
}
