//! The result table: a row a method and procedure, and differences between methods, or between decoders, on the same prompts.

use infalign_stats::{
    Interval, Lengths, StatsError, equivalence_test, holm, length_controlled, t_test,
};
use infalign_transform::{Composed, Theory};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::contest::{Contributions, Named, choice_among, kept, reference, same_prompts, weights};
use crate::divergence::{Kl, of_policy, of_procedure, to_reference};
use crate::statistics::{Series, Statistics};
use crate::{Contest, EvaluateError, Judge, Sampled, predicted_win_rate};

/// One method under one procedure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the method.
    pub method: String,
    /// How it was trained, as recipes call it; absent for the reference itself, and where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What it was trained on; absent for the reference itself, and where it is no reward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<String>,
    /// The procedures.
    #[serde(flatten)]
    pub contest: Contest,
    /// By what responses were judged.
    pub judge: Judge,
    /// Inference-time win rate against the reference, ties ½.
    pub win_rate: Interval,
    /// Its standard error over prompts.
    pub win_rate_error: f64,
    /// Whether it is as good as ½, where a margin was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equivalence: Option<Equivalence>,
    /// The same if both sides wrote at the same length, where it was asked for and has an estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length_controlled_win_rate: Option<Interval>,
    /// What the integrals of the continuous limit give for this objective at this KL; absent where they give nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_win_rate: Option<f64>,
    /// Expected score of the response that is kept.
    pub score: Interval,
    /// The same of the reference.
    pub reference_score: Interval,
    /// Divergence of the policy from the reference; null where the samples do not tell it.
    pub kl: Option<Kl>,
    /// Divergence of what the procedure keeps from the policy; absent where nothing is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub procedure_kl: Option<Kl>,
    /// Divergence of what the procedure keeps from the reference, which is not the sum of the two above; absent where the samples do not tell
    /// it, and of plain sampling, of which it is `kl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl_to_reference: Option<Kl>,
    /// Tokens made for a response that is kept, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<f64>,
    /// Prompts.
    pub n_prompts: usize,
    /// Responses a prompt, at least, of either side.
    pub n_samples: usize,
}

/// Two one-sided tests of whether a difference of win rates, or of one from ½, is too small to matter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Equivalence {
    /// The greatest difference that does not matter.
    pub margin: f64,
    /// p-value of a difference that does: small where the two are equivalent.
    pub p_value: f64,
    /// The same, adjusted for all rows, or all comparisons, of the table by this judge (Holm).
    pub p_adjusted: f64,
}

impl Equivalence {
    /// Whether the two are shown to be equivalent at a level such as 0.95.
    pub fn is_shown(&self, level: f64) -> bool {
        self.p_adjusted < 1.0 - level
    }
}

/// Difference of two win rates against one reference on the same prompts: of two methods under one procedure, or of two decoders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The first method.
    pub method: String,
    /// The method that is subtracted.
    pub baseline: String,
    /// The procedures.
    #[serde(flatten)]
    pub contest: Contest,
    /// That of the method that is subtracted, where it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_procedure: Option<Composed>,
    /// By what responses were judged.
    pub judge: Judge,
    /// Win rate of the first minus win rate of the second.
    pub difference: Interval,
    /// Two-sided p-value of no difference, by Student's test of the paired differences.
    pub p_value: f64,
    /// The same, adjusted for all comparisons of the table by this judge (Holm).
    pub p_adjusted: f64,
    /// Whether the two are as good as equal, where a margin was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equivalence: Option<Equivalence>,
}

impl Comparison {
    /// What follows at a level such as 0.95, in a word or two.
    pub fn verdict(&self, level: f64) -> &'static str {
        let alpha = 1.0 - level;
        let equivalent = self.equivalence.is_some_and(|test| test.is_shown(level));
        match (self.p_adjusted < alpha, equivalent) {
            (true, true) => "different, and equivalent",
            (true, false) if self.difference.estimate > 0.0 => "better",
            (true, false) => "worse",
            (false, true) => "equivalent",
            (false, false) => "undecided",
        }
    }
}

/// What a row says of a method besides numbers.
#[derive(Clone, Copy, Debug)]
pub struct Label<'a> {
    /// Its name.
    pub method: &'a str,
    /// How it was trained, as recipes call it; none for the reference itself.
    pub kind: Option<&'a str>,
    /// What it was trained on, if that is a reward.
    pub objective: Option<&'a str>,
    /// What the continuous limit predicts win rates by.
    pub theory: Option<&'a Theory>,
}

impl<'a> Label<'a> {
    /// Of a method of which nothing but its name is known, or of the reference itself.
    pub fn named(method: &'a str) -> Self {
        Self { method, kind: None, objective: None, theory: None }
    }
}

/// A method with its samples, and those of the reference that it is measured against.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// What rows say of it.
    pub label: Label<'a>,
    /// Its responses.
    pub sampled: &'a Sampled,
    /// The reference's.
    pub reference: &'a Sampled,
}

/// How every row is judged.
#[derive(Clone, Copy, Debug)]
pub struct Judging {
    /// Who decides.
    pub judge: Judge,
    /// Whether rows have win rates at equal lengths, too.
    pub length_controlled: bool,
    /// How intervals are made.
    pub statistics: Statistics,
}

/// What is measured of the methods of a table.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// The procedures; rows and comparisons for each.
    pub contests: &'a [Contest],
    /// Which methods are compared, by their places: the second is subtracted.
    pub pairs: &'a [(usize, usize)],
    /// How.
    pub judging: Judging,
}

impl<'a> Plan<'a> {
    /// Rows alone, without win rates at equal lengths.
    pub fn new(contests: &'a [Contest], judge: Judge, statistics: Statistics) -> Self {
        let judging = Judging { judge, length_controlled: false, statistics };
        Self { contests, pairs: &[], judging }
    }
}

/// Rows and comparisons.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// A row a method and contest, methods in their order.
    pub rows: Vec<Row>,
    /// A comparison a pair and contest, pairs in their order.
    pub comparisons: Vec<Comparison>,
}

/// A method under a contest: what a row is of.
type Cell<'a> = (Entry<'a>, Contest);

/// Measures methods and compares them, all on the same resamples of the prompts.
///
/// # Errors
/// [`EvaluateError`] when there are fewer samples than a procedure takes, other prompts in one method than in another, fewer than two
/// prompts, or no scores of that judge.
pub fn table(entries: &[Entry<'_>], plan: &Plan<'_>) -> Result<Table, EvaluateError> {
    let n = plan.contests.len();
    let of_entry = |entry| plan.contests.iter().map(move |contest| (entry, *contest));
    let cells: Vec<Cell<'_>> = entries.iter().flat_map(|entry| of_entry(*entry)).collect();
    let of_pair = |&(a, b): &(usize, usize)| (0..n).map(move |of| (a * n + of, b * n + of));
    let pairs: Vec<(usize, usize)> = plan.pairs.iter().flat_map(of_pair).collect();
    measured(&cells, &pairs, &plan.judging)
}

/// Measures decoders, each a method under a procedure of its own, against one procedure of the reference, and compares every two of them:
/// which procedure, with how many responses, is worth its price.
///
/// - `decoders`: from each, those before it are subtracted.
///
/// # Errors
/// As [`table`].
pub fn decoders(
    decoders: &[(Entry<'_>, Composed)],
    reference: Composed,
    judging: &Judging,
) -> Result<Table, EvaluateError> {
    let cell = |&(entry, policy)| (entry, Contest { policy, reference });
    let cells: Vec<Cell<'_>> = decoders.iter().map(cell).collect();
    let pairs: Vec<(usize, usize)> = (0..cells.len())
        .flat_map(|later| (0..later).map(move |earlier| (later, earlier)))
        .collect();
    measured(&cells, &pairs, judging)
}

/// Series of each cell, one after the other.
const SERIES: usize = 3;

fn named<'a>((entry, _): &Cell<'a>) -> Named<'a> {
    (entry.label.method, entry.sampled)
}

/// Places of cells, those against the same procedure of the same reference together.
fn by_reference(cells: &[Cell<'_>]) -> Vec<Vec<usize>> {
    let is_same = |(entry, contest): &Cell<'_>, (other, others): &Cell<'_>| {
        std::ptr::eq(entry.reference, other.reference) && contest.reference == others.reference
    };
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (place, cell) in cells.iter().enumerate() {
        match groups.iter_mut().find(|group| is_same(&cells[group[0]], cell)) {
            Some(group) => group.push(place),
            None => groups.push(vec![place]),
        }
    }
    groups
}

/// The series of every cell; what a reference keeps is found once for all cells that are against it.
fn values(cells: &[Cell<'_>], judge: Judge) -> Result<Vec<Vec<f64>>, EvaluateError> {
    for cell in cells {
        same_prompts(named(cell), reference(&cell.0))?;
    }
    let mut values = vec![Vec::new(); SERIES * cells.len()];
    for group in by_reference(cells) {
        let (entry, contest) = &cells[group[0]];
        let theirs = kept(reference(entry), &contest.reference, judge)?;
        for place in group {
            let ours = kept(named(&cells[place]), &cells[place].1.policy, judge)?;
            let Contributions { wins, ours, theirs } = Contributions::between(&ours, &theirs);
            let of_cell = &mut values[SERIES * place..SERIES * (place + 1)];
            of_cell.clone_from_slice(&[wins, ours, theirs]);
        }
    }
    Ok(values)
}

/// - `pairs`: of cells, whose reference has the same procedure.
fn measured(
    cells: &[Cell<'_>],
    pairs: &[(usize, usize)],
    judging: &Judging,
) -> Result<Table, EvaluateError> {
    for pair in cells.windows(2) {
        same_prompts(named(&pair[0]), named(&pair[1]))?;
    }
    let values = values(cells, judging.judge)?;
    let series = Series::new(&values, &judging.statistics)?;
    let mut rows: Vec<Row> = cells
        .par_iter()
        .enumerate()
        .map(|(place, cell)| row(cell, judging, &series, SERIES * place))
        .collect::<Result<_, _>>()?;
    let mut comparisons = pairs
        .par_iter()
        .map(|&(a, b)| {
            let differences: Vec<f64> =
                values[SERIES * a].iter().zip(&values[SERIES * b]).map(|(a, b)| a - b).collect();
            let interval = series.difference(SERIES * a, SERIES * b)?;
            comparison((&cells[a], &cells[b]), judging, &differences, interval)
        })
        .collect::<Result<Vec<Comparison>, EvaluateError>>()?;
    adjust(&mut rows, &mut comparisons);
    Ok(Table { rows, comparisons })
}

/// Adjusts the p-values of differences, and those of equivalence, for how many rows and comparisons there are.
fn adjust(rows: &mut [Row], comparisons: &mut [Comparison]) {
    let p_values: Vec<f64> = comparisons.iter().map(|one| one.p_value).collect();
    for (comparison, adjusted) in comparisons.iter_mut().zip(holm(&p_values)) {
        comparison.p_adjusted = adjusted;
    }
    adjust_equivalences(rows.iter_mut().filter_map(|row| row.equivalence.as_mut()));
    adjust_equivalences(comparisons.iter_mut().filter_map(|one| one.equivalence.as_mut()));
}

fn adjust_equivalences<'a>(tests: impl Iterator<Item = &'a mut Equivalence>) {
    let tests: Vec<&mut Equivalence> = tests.collect();
    let p_values: Vec<f64> = tests.iter().map(|test| test.p_value).collect();
    for (test, adjusted) in tests.into_iter().zip(holm(&p_values)) {
        test.p_adjusted = adjusted;
    }
}

fn row(
    (entry, contest): &Cell<'_>,
    judging: &Judging,
    series: &Series<'_>,
    place: usize,
) -> Result<Row, EvaluateError> {
    let Entry { label: Label { method, kind, objective, theory }, sampled, reference } = *entry;
    let kl = of_policy(sampled)?;
    let procedure_kl = of_procedure((method, sampled), &contest.policy)?;
    let of_ranks = contest.policy.of_ranks().filter(|_| contest.policy == contest.reference);
    // It speaks of the reward that was trained on, and of no other judge.
    let theory = theory.filter(|_| judging.judge == Judge::Reward);
    let predicted_win_rate = match (theory, kl, of_ranks) {
        (Some(theory), Some(kl), Some(procedure)) => {
            predicted_win_rate(theory, kl.estimate, &procedure)?
        }
        _ => None,
    };
    let fewest = |sampled: &Sampled| sampled.rewards.iter().map(Vec::len).min().unwrap_or(0);
    let controlled =
        if judging.length_controlled { at_equal_length(entry, contest, judging)? } else { None };
    Ok(Row {
        method: method.into(),
        kind: kind.map(Into::into),
        objective: objective.map(Into::into),
        contest: *contest,
        judge: judging.judge,
        win_rate: series.share(place)?,
        win_rate_error: series.standard_error(place)?,
        equivalence: equivalence(&series.less(place, 0.5), &judging.statistics)?,
        length_controlled_win_rate: controlled,
        predicted_win_rate,
        score: series.mean(place + 1)?,
        reference_score: series.mean(place + 2)?,
        kl,
        procedure_kl,
        kl_to_reference: to_reference((method, sampled), &contest.policy, procedure_kl)?,
        tokens: sampled.cost(&contest.policy),
        n_prompts: sampled.prompts.len(),
        n_samples: fewest(sampled).min(fewest(reference)),
    })
}

/// Win rate at equal lengths, in characters; none where it has no estimate.
fn at_equal_length(
    entry: &Entry<'_>,
    contest: &Contest,
    judging: &Judging,
) -> Result<Option<Interval>, EvaluateError> {
    type Side = Vec<(Vec<f64>, Vec<f64>)>;
    let side = |sampled: &Sampled, procedure: &Composed| -> Result<Side, EvaluateError> {
        let choice = choice_among(entry.label.method, sampled, procedure)?;
        let prompts = sampled.responses.iter().enumerate();
        prompts
            .map(|(prompt, responses)| {
                let lengths = responses.iter().map(|text| text.chars().count() as f64).collect();
                Ok((lengths, weights(choice, sampled, prompt)?))
            })
            .collect()
    };
    let ours = side(entry.sampled, &contest.policy)?;
    let theirs = side(entry.reference, &contest.reference)?;
    let scores = entry.sampled.by(judging.judge)?.iter().zip(entry.reference.by(judging.judge)?);
    let prompts: Vec<(Lengths<'_>, Lengths<'_>)> = scores
        .zip(ours.iter().zip(&theirs))
        .map(|((ours, theirs), (a, b))| {
            let lengths = |scores, (lengths, weights)| Lengths { scores, lengths, weights };
            (lengths(ours.as_slice(), (&a.0, &a.1)), lengths(theirs.as_slice(), (&b.0, &b.1)))
        })
        .collect();
    match length_controlled(&prompts, judging.statistics.level) {
        Err(StatsError::Separated) => Ok(None),
        found => Ok(Some(found?)),
    }
}

/// - `differences`: of the win rates, or of one from ½, prompt by prompt.
fn equivalence(
    differences: &[f64],
    statistics: &Statistics,
) -> Result<Option<Equivalence>, EvaluateError> {
    let test = |margin| -> Result<Equivalence, EvaluateError> {
        let p_value = equivalence_test(differences, margin)?;
        Ok(Equivalence { margin, p_value, p_adjusted: 1.0 })
    };
    statistics.margin.map(test).transpose()
}

/// - `differences`: of the win rates, prompt by prompt; `interval`: of their mean.
fn comparison(
    ((first, contest), (second, other)): (&Cell<'_>, &Cell<'_>),
    judging: &Judging,
    differences: &[f64],
    interval: Interval,
) -> Result<Comparison, EvaluateError> {
    Ok(Comparison {
        method: first.label.method.into(),
        baseline: second.label.method.into(),
        contest: *contest,
        baseline_procedure: Some(other.policy).filter(|procedure| *procedure != contest.policy),
        judge: judging.judge,
        difference: interval,
        p_value: t_test(differences, 0.0)?,
        p_adjusted: 1.0,
        equivalence: equivalence(differences, &judging.statistics)?,
    })
}

#[cfg(test)]
mod tests;
