//! The candidates of one response, and which of them go on.

use std::num::NonZeroUsize;

use infalign_transform::Procedure;

use super::Candidate;
use super::tilt::Tilted;
use crate::kl::{Kl, best_of_kl_bound, best_of_kl_estimate};
use crate::{Cost, Draw, Finish, Response, Stream};

/// Numbers that differ by less than this share are equal: as sums and products, equal numbers differ in their last digits.
const TIE: f64 = 1e-12;

/// How a procedure goes through the candidates of a response.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Plan {
    /// One candidate, every token of which is tilted by the values.
    Tokenwise { lambda: f64, candidates: Option<usize> },
    /// Blocks of `length` tokens; after each, the `width` candidates of greatest value are kept, and each of them goes on in `branch` ways.
    Blocks { length: usize, width: usize, branch: NonZeroUsize },
    /// Independent candidates, `n` at first. After every `length` tokens, of k that have not ended, the ⌈k·keep⌉ of greatest value go on; of
    /// equals the first.
    Pruned { n: NonZeroUsize, length: usize, keep: f64 },
}

impl Plan {
    /// The plan of a procedure; none where it does not look at prefixes.
    pub(super) fn of(procedure: Procedure) -> Option<Self> {
        Some(match procedure {
            Procedure::CdToken { lambda, candidates } => {
                Self::Tokenwise { lambda, candidates: candidates.map(|k| k.get()) }
            }
            Procedure::CdBlock { length, samples } => {
                Self::Blocks { length: length.get(), width: 1, branch: samples }
            }
            Procedure::Beam { width, branch, length } => {
                Self::Blocks { length: length.get(), width: width.get(), branch }
            }
            Procedure::PrunedBestOf { n, length, keep } => {
                Self::Pruned { n, length: length.get(), keep }
            }
            _ => return None,
        })
    }

    /// The most candidates that one response has at a time.
    pub(super) fn rows(self) -> usize {
        match self {
            Self::Tokenwise { .. } => 1,
            Self::Blocks { width, branch, .. } => width.saturating_mul(branch.get()),
            Self::Pruned { n, .. } => n.get(),
        }
    }

    /// Tokens of a block.
    fn length(self) -> usize {
        match self {
            Self::Tokenwise { .. } => 1,
            Self::Blocks { length, .. } | Self::Pruned { length, .. } => length,
        }
    }
}

/// A candidate in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Path {
    pub(super) tokens: Vec<u32>,
    log_probs: Vec<f32>,
    finish: Option<Finish>,
    /// Its number among those that run with it, by which it draws.
    number: usize,
    /// Its place among equals: by the order of those that it goes on from, then by its own among them.
    rank: usize,
    /// V, once it has been asked for.
    value: Option<f64>,
}

impl Path {
    fn new(number: usize) -> Self {
        Self { number, rank: number, ..Self::default() }
    }

    pub(super) fn add(&mut self, draw: Draw) {
        self.tokens.push(draw.token);
        self.log_probs.push(draw.log_prob);
        self.value = None;
    }

    pub(super) fn set_finish(&mut self, finish: Option<Finish>) {
        self.finish = finish;
    }

    pub(super) fn ended(&self) -> bool {
        self.finish.is_some()
    }

    /// KL of blocks, of which each was kept of some, by the chain rule: the sum of what [`best_of_kl_estimate`] says of every block.
    fn kl_estimate(&self, length: usize, samples: NonZeroUsize) -> Kl {
        let of_block = |log_probs: &[f32]| {
            best_of_kl_estimate(samples, log_probs.iter().map(|&p| f64::from(p)).sum())
        };
        Kl::estimate(self.log_probs.chunks(length).map(of_block).sum())
    }
}

/// One response in the making.
pub(super) struct Search {
    pub(super) prompt: usize,
    pub(super) sample: usize,
    stream: Stream,
    plan: Plan,
    /// Candidates that go on: a row of the session each, in order.
    pub(super) running: Vec<Path>,
    /// Those that have ended.
    ended: Vec<Path>,
    cost: Cost,
    /// Blocks so far.
    blocks: usize,
    /// Tokens that have been told to whoever watches.
    told: usize,
    kl: f64,
    log_ratio: f64,
    truncation: f64,
}

impl Search {
    pub(super) fn new(prompt: usize, sample: usize, stream: Stream, plan: Plan) -> Self {
        Self {
            prompt,
            sample,
            stream,
            plan,
            running: (0..plan.rows()).map(Path::new).collect(),
            ended: Vec::new(),
            cost: Cost::default(),
            blocks: 0,
            told: 0,
            kl: 0.0,
            log_ratio: 0.0,
            truncation: 0.0,
        }
    }

    /// The uniform number of the next token of a running candidate. Candidates have numbers of their own, and one alone those of a plain
    /// sample.
    pub(super) fn uniform(&mut self, running: usize) -> f64 {
        let path = &self.running[running];
        let (position, number) = (path.tokens.len() as u64, path.number as u64);
        let rows = self.plan.rows() as u64;
        self.stream.uniform(position.saturating_mul(rows).saturating_add(number))
    }

    /// Counts the tilt of a token.
    pub(super) fn tilted(&mut self, tilted: Tilted, values: usize) {
        self.kl += tilted.kl;
        self.log_ratio += tilted.log_ratio;
        self.truncation += tilted.truncation;
        self.cost.scorer_calls += values;
    }

    /// Counts a token that was drawn for a candidate.
    pub(super) fn drawn(&mut self) {
        self.cost.model_tokens += 1;
    }

    /// Whether a running candidate has come to where its value decides.
    pub(super) fn needs_value(&self, running: usize) -> bool {
        let path = &self.running[running];
        match self.plan {
            _ if self.plan.rows() == 1 => false,
            Plan::Tokenwise { .. } => false,
            Plan::Blocks { length, .. } => path.ended() || path.tokens.len().is_multiple_of(length),
            Plan::Pruned { length, keep, .. } => {
                keep < 1.0 && !path.ended() && path.tokens.len().is_multiple_of(length)
            }
        }
    }

    pub(super) fn set_value(&mut self, running: usize, value: f64) {
        self.running[running].value = Some(value);
        self.cost.scorer_calls += 1;
    }

    /// Takes out the candidates that have ended and, at the end of a block, decides which go on.
    ///
    /// Returns, for each candidate that runs from here on, its place among those that ran before; a place occurs as often as it is continued.
    pub(super) fn decide(&mut self) -> Vec<usize> {
        let block_ends = self
            .running
            .iter()
            .all(|path| path.ended() || path.tokens.len().is_multiple_of(self.plan.length()));
        let ran = std::mem::take(&mut self.running);
        let mut alive: Vec<(usize, Path)> = Vec::new();
        for (place, path) in ran.into_iter().enumerate() {
            if path.ended() {
                self.ended.push(path);
            } else {
                alive.push((place, path));
            }
        }
        if block_ends {
            self.blocks += 1;
            alive = self.keep(alive);
        }
        let (places, running) = alive.into_iter().unzip();
        self.running = running;
        places
    }

    fn keep(&mut self, alive: Vec<(usize, Path)>) -> Vec<(usize, Path)> {
        match self.plan {
            Plan::Tokenwise { .. } => alive,
            Plan::Pruned { keep, .. } => {
                let most = kept(alive.len(), keep);
                let mut kept = best(alive, most, |(_, path)| path.value);
                kept.sort_by_key(|(place, _)| *place);
                kept
            }
            Plan::Blocks { width, branch, .. } => {
                let ended = self.ended.drain(..).map(|path| (None, path));
                let alive = alive.into_iter().map(|(place, path)| (Some(place), path));
                let mut pool: Vec<(Option<usize>, Path)> = ended.chain(alive).collect();
                // Equals stand as those that they go on from did, and what has ended keeps its place: where all are equal, a plain sample is left.
                pool.sort_by_key(|(_, path)| path.rank);
                for (rank, (_, path)) in pool.iter_mut().enumerate() {
                    path.rank = rank * branch.get();
                }
                let mut going: Vec<(usize, Path)> = Vec::new();
                for (place, path) in best(pool, width, |(_, path)| path.value) {
                    match place {
                        Some(place) => {
                            going.extend(std::iter::repeat_n((place, path), branch.get()));
                        }
                        None => self.ended.push(path),
                    }
                }
                for (number, (_, path)) in going.iter_mut().enumerate() {
                    path.number = number;
                    path.rank += number % branch.get();
                }
                going
            }
        }
    }

    /// Whether there is nothing left to draw.
    pub(super) fn complete(&self) -> bool {
        self.running.is_empty()
    }

    /// Tokens that are certain to be part of the response and have not been told yet.
    pub(super) fn news(&mut self) -> Vec<Draw> {
        let single = match self.plan {
            Plan::Tokenwise { .. } => true,
            Plan::Blocks { width, .. } => width == 1,
            Plan::Pruned { n, .. } => n.get() == 1,
        };
        // At the end of a block, those that go on from one candidate are still equal.
        let at_end = |path: &&Path| single && path.tokens.len().is_multiple_of(self.plan.length());
        let certain = match self.running.first() {
            Some(running) => Some(running).filter(at_end),
            None => {
                self.ended.first().filter(|_| single || !matches!(self.plan, Plan::Pruned { .. }))
            }
        };
        let Some(path) = certain else { return Vec::new() };
        let draws = path.tokens.iter().zip(&path.log_probs).skip(self.told);
        let draws: Vec<Draw> = draws.map(|(&token, &log_prob)| Draw { token, log_prob }).collect();
        self.told += draws.len();
        draws
    }

    /// Breaks the response off: what is there of its first candidate is all there will be.
    pub(super) fn cancel(&mut self) {
        let path = self.ended.drain(..).chain(self.running.drain(..)).next();
        self.ended =
            path.map(|path| Path { finish: Some(Finish::Cancelled), ..path }).into_iter().collect();
    }

    /// The response, or those between which the reward decides.
    ///
    /// - own: whether tokens are drawn from the model's own distribution, so that their log-probabilities say how likely a draw was.
    pub(super) fn finish(mut self, own: bool) -> Vec<Candidate> {
        let mut finalists = std::mem::take(&mut self.ended);
        match self.plan {
            Plan::Pruned { .. } => finalists.sort_by_key(|path| path.rank),
            // Those that were kept last are in the order of their values.
            Plan::Tokenwise { .. } | Plan::Blocks { .. } => finalists.truncate(1),
        }
        let (kl, log_ratio) = match self.plan {
            Plan::Tokenwise { .. } => (vec![Kl::exact(self.kl)], self.log_ratio),
            Plan::Blocks { width, branch, length } => {
                let (kl, log_ratio) = self.of_blocks(width, branch);
                // One candidate is a plain sample, of which the KL is known.
                let is_best_of = own && width == 1 && branch > NonZeroUsize::MIN;
                let estimate = finalists.first().filter(|_| is_best_of);
                let estimate = estimate.map(|kept| kept.kl_estimate(length, branch));
                (std::iter::once(kl).chain(estimate).collect(), log_ratio)
            }
            // Those given up are draws as well: one of N is kept.
            Plan::Pruned { n, .. } => (vec![Kl::bound(best_of_kl_bound(n))], (n.get() as f64).ln()),
        };
        let candidate = |(number, path): (usize, Path)| Candidate {
            response: Response {
                tokens: path.tokens,
                log_probs: path.log_probs,
                finish: path.finish.unwrap_or(Finish::Cancelled),
            },
            value: path.value,
            // All candidates together are one response.
            cost: if number == 0 { self.cost } else { Cost::default() },
            kl: kl.clone(),
            log_ratio,
            truncation: self.truncation.min(1.0),
        };
        finalists.into_iter().enumerate().map(candidate).collect()
    }

    /// KL and log-ratio of blockwise decoding. The kept path is one of at most W·Bᵇ that are drawn in b blocks, each of which is as probable
    /// as the model has it.
    fn of_blocks(&self, width: usize, branch: NonZeroUsize) -> (Kl, f64) {
        let blocks = self.blocks as f64;
        let most = (width as f64).ln() + blocks * (branch.get() as f64).ln();
        let bound = if width == 1 { blocks * best_of_kl_bound(branch) } else { most };
        let kl = if most == 0.0 { Kl::exact(0.0) } else { Kl::bound(bound) };
        (kl, most)
    }
}

/// ⌈n·keep⌉, and at least 1: how many of n candidates go on where a share `keep` does. 50·0.14 is 7, though as a product of binary numbers it
/// is more.
fn kept(n: usize, keep: f64) -> usize {
    ((n as f64 * keep * (1.0 - TIE)).ceil() as usize).max(1)
}

/// The `most` items of greatest value, the greatest first; of equals the first ones.
fn best<T>(items: Vec<T>, most: usize, value: impl Fn(&T) -> Option<f64>) -> Vec<T> {
    let of = |item: &T| value(item).unwrap_or(f64::NEG_INFINITY);
    let scale = items.iter().map(of).filter(|v| v.is_finite()).fold(0.0_f64, |s, v| s.max(v.abs()));
    let mut rest = items;
    let mut kept = Vec::new();
    while kept.len() < most && !rest.is_empty() {
        let better = |a: f64, b: f64| a > b && (a - b > TIE * scale || !(a - b).is_finite());
        let first = (1..rest.len()).fold(0, |best, place| {
            if better(of(&rest[place]), of(&rest[best])) { place } else { best }
        });
        kept.push(rest.remove(first));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KlKind;

    #[test]
    fn a_share_is_rounded_up_where_it_is_no_whole_number() {
        for (n, keep, expected) in [
            // Binary numbers multiply to a little more than the whole number.
            (50, 0.14, 7),
            (100, 0.07, 7),
            (25, 0.28, 7),
            (100, 0.55, 55),
            (3, 0.7, 3),
            (4, 0.5, 2),
            (8, 1.0, 8),
            (3, 0.34, 2),
        ] {
            assert_eq!(kept(n, keep), expected, "{keep} of {n}");
        }
    }

    #[test]
    fn the_best_are_kept_and_the_first_of_equals() {
        let values = [0.3, 1.0, 0.1 + 0.2, f64::NEG_INFINITY, 1.0];
        let places = |most| best((0..5).collect(), most, |&place: &usize| Some(values[place]));
        assert_eq!(places(1), [1]);
        assert_eq!(places(9), [1, 4, 0, 2, 3]);
        // 0.1 + 0.2 is greater than 0.3 by rounding alone.
        assert_eq!(best(vec![0.3, 0.1 + 0.2], 1, |value| Some(*value)), [0.3]);
    }

    fn beam(width: usize, branch: usize) -> Search {
        let plan = Plan::Blocks { length: 1, width, branch: branch.try_into().unwrap() };
        Search::new(0, 0, Stream::new(1, "beam", "p", 0), plan)
    }

    /// Adds a token to every candidate, its place, with a value; returns the places that go on.
    fn block(search: &mut Search, values: &[f64], ended: &[usize]) -> Vec<usize> {
        assert_eq!(search.running.len(), values.len());
        for (place, value) in values.iter().enumerate() {
            search.running[place].add(Draw { token: place as u32, log_prob: -1.0 });
            search.running[place].set_finish(ended.contains(&place).then_some(Finish::Stop));
            search.set_value(place, *value);
        }
        search.decide()
    }

    #[test]
    fn equals_keep_their_order_whether_they_have_ended_or_not() {
        let mut search = beam(2, 2);
        assert_eq!(block(&mut search, &[0.5; 4], &[1]), [0, 0]);
        // What has ended stands behind both that go on from the first.
        assert_eq!(block(&mut search, &[0.5; 2], &[]), [0, 0, 1, 1]);
        assert!(block(&mut search, &[0.5; 4], &[0, 1, 2, 3]).is_empty());
        assert_eq!(search.finish(true)[0].response.tokens, [0, 0, 0]);

        let mut search = beam(2, 2);
        assert_eq!(block(&mut search, &[0.5; 4], &[0]), [1, 1]);
        // It keeps its place until something better comes.
        assert_eq!(block(&mut search, &[0.5; 2], &[]), [0, 0]);
        assert!(block(&mut search, &[0.5, 0.6], &[0, 1]).is_empty());
        assert_eq!(search.finish(true)[0].response.tokens, [1, 0, 1]);
    }

    /// What is left of two blocks, the second of which ends every candidate.
    fn after_two_blocks(width: usize, branch: usize) -> Candidate {
        let mut search = beam(width, branch);
        let places: Vec<usize> = (0..width * branch).collect();
        let values = vec![0.5; places.len()];
        assert_eq!(block(&mut search, &values, &[]).len(), places.len());
        assert!(block(&mut search, &values, &places).is_empty());
        search.finish(true).remove(0)
    }

    #[test]
    fn every_block_adds_to_what_a_search_may_cost() {
        let near = |found: f64, expected: f64| (found - expected).abs() < 1e-6;
        // One of 2·3² paths: log 2 + 2·log 3.
        let beams = after_two_blocks(2, 3);
        let [Kl { nats, kind }] = beams.kl[..] else { panic!("{:?}", beams.kl) };
        assert!(kind == KlKind::Bound && near(nats, 2.890372), "{nats}, {kind}");
        assert!(near(beams.log_ratio, 2.890372), "{}", beams.log_ratio);
        // One of 2² paths: 2·log 2.
        let blocks = after_two_blocks(1, 2);
        assert!(near(blocks.log_ratio, 1.386294), "{}", blocks.log_ratio);
    }

    #[test]
    fn those_that_go_on_draw_by_numbers_in_the_order_of_their_values() {
        let mut search = beam(2, 2);
        let mut stream = search.stream.clone();
        assert_eq!(block(&mut search, &[0.1, 0.7, 0.3, 0.9], &[]), [3, 3, 1, 1]);
        for number in 0..4 {
            assert_eq!(search.uniform(number), stream.uniform(4 + number as u64));
        }
        assert_eq!(block(&mut search, &[0.2, 0.5, 0.4, 0.8], &[3]), [1, 1]);
        for number in 0..2 {
            assert_eq!(search.uniform(number), stream.uniform(8 + number as u64));
        }
    }
}
