//! Distributions of searches on a table by adding up every joint draw, and the test of draws against a distribution.

use std::collections::{BTreeMap, HashMap};

use infalign_decode::exact::Values;
use infalign_model::TabularProblem;

/// A table with everything that enumeration asks of it.
pub(crate) struct Enumerated<'a> {
    problem: &'a TabularProblem,
    values: Values,
}

/// Where a candidate has come to: a prefix, and whether it has ended there.
type Place = (usize, bool);

impl<'a> Enumerated<'a> {
    pub(crate) fn new(problem: &'a TabularProblem) -> Self {
        Self { problem, values: Values::of(problem) }
    }

    fn text(&self, (response, _): Place) -> String {
        self.problem.model().tree().response_text(response)
    }

    fn value(&self, (prefix, ended): Place) -> f64 {
        if ended { self.values.response(prefix) } else { self.values.prefix(prefix) }
    }

    /// Where a block of at most `length` tokens may lead from a prefix, with the probability.
    fn block(&self, start: usize, length: usize) -> Vec<(Place, f64)> {
        let (model, mut ends) = (self.problem.model(), Vec::new());
        let mut open = vec![(start, 1.0)];
        for _ in 0..length {
            let mut longer = Vec::new();
            for (prefix, p) in open {
                let row = model.next_probabilities(prefix).unwrap();
                let (eos, letters) = row.split_last().unwrap();
                ends.push(((prefix, true), p * eos));
                longer.extend(model.tree().children(prefix).zip(letters).map(|(c, q)| (c, p * q)));
            }
            longer.retain(|(_, p)| *p > 0.0);
            open = longer;
        }
        ends.extend(open.into_iter().map(|(prefix, p)| ((prefix, false), p)));
        ends.retain(|(_, p)| *p > 0.0);
        ends
    }

    /// Every joint draw of a block from each of some prefixes: where each of them leads, and the probability.
    fn joint(&self, starts: &[usize], length: usize) -> Vec<(Vec<Place>, f64)> {
        let mut draws = vec![(Vec::new(), 1.0)];
        for &start in starts {
            let block = self.block(start, length);
            let extended = draws.iter().flat_map(|(drawn, p): &(Vec<Place>, f64)| {
                block.iter().map(move |&(place, q)| ([drawn.as_slice(), &[place]].concat(), p * q))
            });
            draws = extended.collect();
        }
        draws
    }
}

/// The best `most`, the first of equals first.
fn best<T: Copy>(mut places: Vec<T>, most: usize, value: impl Fn(T) -> f64) -> Vec<T> {
    let mut kept = Vec::new();
    while kept.len() < most && !places.is_empty() {
        let better = |a: usize, b: usize| value(places[a]) > value(places[b]) + 1e-12;
        let first = (1..places.len()).fold(0, |best, i| if better(i, best) { i } else { best });
        kept.push(places.remove(first));
    }
    kept
}

type Distribution = BTreeMap<String, f64>;

fn add(all: &mut Distribution, part: &Distribution, p: f64) {
    part.iter().for_each(|(y, q)| *all.entry(y.clone()).or_default() += p * q);
}

/// Beam search. Of equals the first is kept: candidates stand as those that they go on from did, and what has ended keeps its place.
pub(crate) fn beam(
    table: &Enumerated<'_>,
    width: usize,
    branch: usize,
    length: usize,
) -> Distribution {
    fn go_on(
        table: &Enumerated<'_>,
        kept: &[Place],
        (width, branch, length): (usize, usize, usize),
        known: &mut HashMap<Vec<Place>, Distribution>,
    ) -> Distribution {
        let alive = kept.iter().filter(|(_, ended)| !ended);
        let starts: Vec<usize> =
            alive.flat_map(|(prefix, _)| std::iter::repeat_n(*prefix, branch)).collect();
        let mut all = Distribution::new();
        for (drawn, p) in table.joint(&starts, length) {
            let mut drawn = drawn.into_iter();
            let pool = kept.iter().flat_map(|&(prefix, ended)| -> Vec<Place> {
                if ended { vec![(prefix, ended)] } else { drawn.by_ref().take(branch).collect() }
            });
            let pool: Vec<Place> = pool.collect();
            let mut chosen =
                best((0..pool.len()).collect(), width, |i: usize| table.value(pool[i]));
            let greatest = pool[chosen[0]];
            chosen.sort_unstable();
            let next: Vec<Place> = chosen.into_iter().map(|i| pool[i]).collect();
            if next.iter().all(|(_, ended)| *ended) {
                *all.entry(table.text(greatest)).or_default() += p;
                continue;
            }
            if !known.contains_key(&next) {
                let found = go_on(table, &next, (width, branch, length), known);
                known.insert(next.clone(), found);
            }
            add(&mut all, &known[&next], p);
        }
        all
    }
    let roots = vec![(0, false); width];
    go_on(table, &roots, (width, branch, length), &mut HashMap::new())
}

/// Best-of-N by the reward; after every block, the fewest candidates that are a share `keep` of those that run go on. Candidates keep their
/// numbers, by which equals are told apart.
pub(crate) fn pruned(table: &Enumerated<'_>, n: usize, length: usize, keep: f64) -> Distribution {
    type Numbered = (usize, Place);
    fn go_on(
        table: &Enumerated<'_>,
        ended: &[Numbered],
        alive: &[Numbered],
        (length, keep): (usize, f64),
    ) -> Distribution {
        let mut all = Distribution::new();
        let starts: Vec<usize> = alive.iter().map(|(_, (prefix, _))| *prefix).collect();
        for (drawn, p) in table.joint(&starts, length) {
            let numbers = alive.iter().map(|(number, _)| *number);
            let (more, alive): (Vec<Numbered>, Vec<Numbered>) =
                numbers.zip(drawn).partition(|(_, (_, ended))| *ended);
            let mut ended = [ended, &more].concat();
            if alive.is_empty() {
                ended.sort_unstable();
                let places = ended.into_iter().map(|(_, place)| place).collect();
                let reward = |(response, _): Place| table.problem.rewards()[response];
                *all.entry(table.text(best(places, 1, reward)[0])).or_default() += p;
                continue;
            }
            let share = alive.len() as f64 * keep;
            let most = (1..=alive.len()).find(|&k| k as f64 >= share - 1e-9).unwrap();
            let mut kept = best(alive, most, |(_, place)| table.value(place));
            kept.sort_unstable();
            add(&mut all, &go_on(table, &ended, &kept, (length, keep)), p);
        }
        all
    }
    let alive: Vec<Numbered> = (0..n).map(|number| (number, (0, false))).collect();
    go_on(table, &[], &alive, (length, keep))
}

/// The most frequent of three, the first of equals: the first of all unless the second and the third agree on another.
pub(crate) fn majority(table: &Enumerated<'_>) -> Distribution {
    let p = table.problem.model().response_probabilities();
    let agree = |other: usize| {
        p.iter().enumerate().filter(|(y, _)| *y != other).map(|(_, p)| p * p).sum::<f64>()
    };
    let of = |y: usize| p[y] * (1.0 - agree(y)) + (1.0 - p[y]) * p[y] * p[y];
    (0..p.len()).filter(|&y| p[y] > 0.0).map(|y| (table.text((y, true)), of(y))).collect()
}

/// χ² of counts and its degrees of freedom, rare responses taken together; refuses responses of probability 0.
pub(crate) fn chi_square(what: &str, expected: &Distribution, counts: &Distribution) -> (f64, f64) {
    let total: f64 = expected.values().sum();
    assert!((total - 1.0).abs() < 1e-9, "{what}: the probabilities add up to {total}");
    let draws: f64 = counts.values().sum();
    let unknown = counts.keys().find(|y| expected.get(*y).is_none_or(|p| *p < 1e-15));
    assert_eq!(unknown, None, "{what}: drawn, and impossible");
    let (mut cells, mut rare) = (Vec::new(), (0.0, 0.0));
    for (response, p) in expected {
        let cell = (draws * p, counts.get(response).copied().unwrap_or(0.0));
        if cell.0 < 5.0 { rare = (rare.0 + cell.0, rare.1 + cell.1) } else { cells.push(cell) }
    }
    if rare.0 >= 5.0 {
        cells.push(rare);
    }
    let statistic: f64 = cells.iter().map(|(mean, count)| (count - mean).powi(2) / mean).sum();
    (statistic, (cells.len() - 1).max(1) as f64)
}

/// Refuses a χ² of k degrees of freedom at the level of 0.001, whose quantile is Wilson's and Hilferty's.
pub(crate) fn assert_chance(what: &str, statistic: f64, k: f64) {
    let spread = 2.0 / (9.0 * k);
    let limit = k * (1.0 - spread + 3.0902 * spread.sqrt()).powi(3);
    assert!(statistic < limit, "{what}: χ² = {statistic:.1}, at most {limit:.1} allowed");
}
