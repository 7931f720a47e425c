//! How a decoder responds to rank on a tabular model: exactly from its distribution, or from what it returns.

use infalign_model::TabularProblem;
use infalign_transform::{RankDensity, RankEstimate};

use super::ResponseDistribution;
use crate::{DecodeError, Decoder, EncodedPrompt, Stream};

/// The rank density of a decoder, estimated from `draws` responses that it gives.
///
/// A response takes up the ranks between the share of the model's responses below it and the share of those that are not above it, and gets
/// one of them at random.
///
/// - `bins`: equal bins of ranks, see [`RankEstimate`].
/// - `seed`: of the random ranks and, by way of the prompts' ids `0`, `1`, …, of nothing else.
///
/// # Errors
/// Those of the decoder, [`DecodeError::NoValue`] for a response that the model does not give, and those of [`RankEstimate::new`].
pub fn rank_estimate(
    decoder: &dyn Decoder,
    problem: &TabularProblem,
    bins: usize,
    draws: usize,
    seed: u64,
) -> Result<RankEstimate, DecodeError> {
    let tree = problem.model().tree();
    let prompt = |id: usize| EncodedPrompt {
        id: id.to_string(),
        text: String::new(),
        tokens: vec![tree.eos()],
    };
    let prompts: Vec<EncodedPrompt> = (0..draws).map(prompt).collect();
    let atoms = atoms(problem.rewards(), &problem.model().response_probabilities());
    let rank = |(prompt, tokens): (&EncodedPrompt, &[u32])| {
        let letters: Vec<u32> = tokens.iter().copied().filter(|&t| t != tree.eos()).collect();
        let atom = tree.number(&letters).map(|response| atoms[response]);
        let (below, mass) = atom.filter(|(_, mass)| *mass > 0.0).ok_or_else(|| {
            DecodeError::NoValue { prefix: format!("{tokens:?}, which the model does not give,") }
        })?;
        let place = Stream::new(seed, "rank", &prompt.id, 0).uniform(0);
        Ok((below + place * mass).min(1.0))
    };
    let decoded = decoder.decode(&prompts)?;
    let returned = prompts.iter().zip(decoded.iter().map(|d| d.response.tokens.as_slice()));
    let ranks = returned.map(rank).collect::<Result<Vec<f64>, DecodeError>>()?;
    Ok(RankEstimate::new(bins, &ranks)?)
}

impl ResponseDistribution {
    /// The rank density of this distribution over that of the base policy, a step for each reward.
    ///
    /// Equation: g = T(p)(y)/p(y) over the ranks of the responses whose reward is r(y).
    ///
    /// # Errors
    /// [`DecodeError::Transform`] where all of the base policy's probability is 0.
    pub fn rank_density(&self, rewards: &[f64]) -> Result<RankDensity, DecodeError> {
        let order = ascending(rewards, self.base());
        let sum = |group: &[usize], p: &[f64]| group.iter().map(|&y| p[y]).sum::<f64>();
        let groups: Vec<&[usize]> = order.chunk_by(|&a, &b| rewards[a] == rewards[b]).collect();
        let whole = sum(&order, self.base());
        let mut edges = vec![0.0];
        edges.extend(groups.iter().scan(0.0, |below, group| {
            *below += sum(group, self.base()) / whole;
            Some(*below)
        }));
        if let Some(end) = edges.last_mut() {
            *end = 1.0;
        }
        let height = |group: &&[usize]| sum(group, self.probabilities()) / sum(group, self.base());
        Ok(RankDensity::steps(&edges, &groups.iter().map(height).collect::<Vec<_>>())?)
    }
}

/// The possible responses, by ascending reward.
fn ascending(rewards: &[f64], probabilities: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rewards.len()).filter(|&y| probabilities[y] > 0.0).collect();
    order.sort_by(|&a, &b| rewards[a].total_cmp(&rewards[b]));
    order
}

/// For each response, the probability of a lesser reward and that of its own; 0 for what is impossible.
fn atoms(rewards: &[f64], probabilities: &[f64]) -> Vec<(f64, f64)> {
    let mut atoms = vec![(0.0, 0.0); rewards.len()];
    let mut below = 0.0;
    for group in ascending(rewards, probabilities).chunk_by(|&a, &b| rewards[a] == rewards[b]) {
        let mass: f64 = group.iter().map(|&y| probabilities[y]).sum();
        group.iter().for_each(|&y| atoms[y] = (below, mass));
        below += mass;
    }
    atoms
}
