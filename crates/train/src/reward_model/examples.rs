//! What a reward model learns from, and the loss that it minimises.

use burn::tensor::{Tensor, activation::log_sigmoid};
use infalign_model::SequenceClassifier;

use super::RewardModelConfig;
use crate::TrainError;
use crate::passes::{column, mean_loss};

/// What a reward model learns from, or is measured on; texts are tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum Examples {
    /// Texts with their ratings: minimises (score − rating)².
    Rated(Vec<(Vec<u32>, f32)>),
    /// Pairs: minimises −log σ(Δ − m) + c·(s_better + s_worse)², with Δ = s_better − s_worse, m the margin and c the centring.
    Paired(Vec<Pair>),
}

/// Two texts of which one was preferred.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// Tokens of the text that was preferred.
    pub better: Vec<u32>,
    /// Tokens of the other.
    pub worse: Vec<u32>,
    /// By how many nats at least it should be; added to [`RewardModelConfig::margin`].
    pub margin: f32,
    /// Number of the prompt that both answer; other pairs of the prompt have the same.
    pub prompt: usize,
}

impl Examples {
    /// Number of texts or pairs.
    pub fn len(&self) -> usize {
        match self {
            Self::Rated(texts) => texts.len(),
            Self::Paired(pairs) => pairs.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of an example: those of the text, or twice those of the pair's longer one.
    pub(super) fn tokens(&self, index: usize) -> usize {
        match self {
            Self::Rated(texts) => texts[index].0.len(),
            Self::Paired(pairs) => 2 * pairs[index].better.len().max(pairs[index].worse.len()),
        }
    }

    /// The mean loss of all examples.
    pub(super) fn mean_loss(
        &self,
        model: &SequenceClassifier,
        config: &RewardModelConfig,
    ) -> Result<f64, TrainError> {
        let loss = |pass: &[usize]| self.loss(model, pass, config);
        mean_loss(&model.device(), self.len(), |index| self.tokens(index), loss)
    }

    /// The mean loss of the examples with the given indices.
    pub(super) fn loss(
        &self,
        model: &SequenceClassifier,
        indices: &[usize],
        config: &RewardModelConfig,
    ) -> Result<Tensor<1>, TrainError> {
        let n = indices.len();
        match self {
            Self::Rated(examples) => {
                let (texts, ratings): (Vec<&[u32]>, Vec<f32>) = indices
                    .iter()
                    .map(|&index| (examples[index].0.as_slice(), examples[index].1))
                    .unzip();
                let scores = model.forward(&texts)?;
                let ratings = column(ratings, &scores.device());
                Ok((scores - ratings).square().mean())
            }
            Self::Paired(pairs) => {
                let of = |pick: fn(&Pair) -> &[u32]| indices.iter().map(move |&i| pick(&pairs[i]));
                let texts: Vec<&[u32]> =
                    of(|pair| &pair.better).chain(of(|pair| &pair.worse)).collect();
                let scores = model.forward(&texts)?;
                let margins = indices.iter().map(|&i| config.margin as f32 + pairs[i].margin);
                let margins = column(margins.collect(), &scores.device());
                let (better, worse) = (scores.clone().narrow(0, 0, n), scores.narrow(0, n, n));
                Ok(pair_loss(better, worse, margins, config.centring))
            }
        }
    }
}

/// The mean of −log σ(b − w − m) + c·(b + w)² over pairs; b, w, m: `[pairs, 1]`.
fn pair_loss(better: Tensor<2>, worse: Tensor<2>, margins: Tensor<2>, centring: f64) -> Tensor<1> {
    let likelihood = log_sigmoid(better.clone() - worse.clone() - margins).mean().neg();
    likelihood + (better + worse).square().mean().mul_scalar(centring)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loss of pairs of scores with their margins.
    fn loss(pairs: &[[f32; 3]], centring: f64) -> f64 {
        let device = infalign_backend::device(None).unwrap();
        let part = |index: usize| column(pairs.iter().map(|pair| pair[index]).collect(), &device);
        pair_loss(part(0), part(1), part(2), centring).into_scalar::<f64>()
    }

    #[test]
    fn losses_are_those_worked_by_hand() {
        // −log σ(x) = log(1 + e^−x): at 0 log 2, at 1 0.313262, at −2 2.126928.
        let close = |loss: f64, expected: f64| assert!((loss - expected).abs() < 1e-5, "{loss}");
        close(loss(&[[0.0, 0.0, 0.0]], 0.0), std::f64::consts::LN_2);
        close(loss(&[[1.5, 0.5, 0.0]], 0.0), 0.313_262);
        // A margin moves the difference: 3 − 1 − 1 = 1, and 0.5 − 1.5 − 1 = −2.
        close(loss(&[[3.0, 1.0, 1.0], [0.5, 1.5, 1.0]], 0.0), (0.313_262 + 2.126_928) / 2.0);
        // Centring adds c·(1.5 + 0.5)² to the first and nothing to the second, whose scores are opposite.
        close(loss(&[[1.5, 0.5, 0.0]], 0.01), 0.313_262 + 0.04);
        close(loss(&[[0.5, -0.5, 0.0]], 0.01), 0.313_262);
    }
}
