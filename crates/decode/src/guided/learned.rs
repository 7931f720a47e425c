//! A trained prefix scorer in decoding.

use infalign_model::{LanguageModel, PrefixValues, Session};

use super::prefill::Prefill;
use super::scorer::{PrefixScorer, ScorerSession, check_vocabulary, check_weight, of_trunk};
use crate::DecodeError;

/// Values that were learned, of one reward or of a weighted sum of several.
///
/// A scorer without a trunk reads the states of the model that generates, so it must be the base that it was trained on; any other model of
/// the same tokenizer is guided by giving that base as its trunk.
pub struct LearnedScorer<'a> {
    values: &'a PrefixValues,
    trunk: Option<&'a dyn LanguageModel>,
    /// Indices of the rewards that count, and their weights.
    weights: Vec<(usize, f64)>,
}

impl<'a> LearnedScorer<'a> {
    /// - `trunk`: where states come from; `None` for the model that generates.
    /// - `weights`: of each reward of the scorer, in its order.
    ///
    /// # Errors
    /// [`DecodeError::Scorer`] for another number of weights than rewards, and [`DecodeError::Setting`] for one that is not finite.
    pub fn new(
        values: &'a PrefixValues,
        trunk: Option<&'a dyn LanguageModel>,
        weights: &[f64],
    ) -> Result<Self, DecodeError> {
        let heads = values.spec().heads.len();
        if weights.len() != heads {
            let given = weights.len();
            let reason = format!("it has {heads} rewards, but {given} weights are given");
            return Err(DecodeError::Scorer { reason });
        }
        weights.iter().try_for_each(|weight| check_weight(*weight))?;
        let weights = weights.iter().copied().enumerate().filter(|(_, weight)| *weight != 0.0);
        Ok(Self { values, trunk, weights: weights.collect() })
    }
}

impl PrefixScorer for LearnedScorer<'_> {
    fn session(&self, new_tokens: usize) -> Box<dyn ScorerSession + '_> {
        let trunk =
            |model| Trunk { model, session: model.session(), new_tokens, read: Prefill::default() };
        let trunk = self.trunk.map(|model: &dyn LanguageModel| trunk(model));
        Box::new(LearnedSession { scorer: self, trunk })
    }

    fn check(&self, model: &dyn LanguageModel) -> Result<(), DecodeError> {
        check_vocabulary(self.values.spec().vocabulary, model)?;
        let (own, context) = (self.trunk.map(LanguageModel::context), model.context());
        match own {
            Some(own) if own < context => Err(DecodeError::Scorer {
                reason: format!(
                    "its trunk reads {own} tokens, but the model {context}: a scorer must read whatever the model can write"
                ),
            }),
            _ => Ok(()),
        }
    }

    fn greatest(&self) -> Option<f64> {
        let of = |&(head, weight): &(usize, f64)| {
            let reward = &self.values.spec().heads[head];
            (weight * reward.least).max(weight * reward.greatest)
        };
        Some(self.weights.iter().map(of).sum())
    }
}

/// A model of the scorer's own, which reads what the model that generates writes.
struct Trunk<'a> {
    model: &'a dyn LanguageModel,
    session: Box<dyn Session + 'a>,
    /// Tokens that a response may have.
    new_tokens: usize,
    read: Prefill,
}

struct LearnedSession<'a> {
    scorer: &'a LearnedScorer<'a>,
    trunk: Option<Trunk<'a>>,
}

impl ScorerSession for LearnedSession<'_> {
    fn join(&mut self, entering: &[(&[u32], usize)]) -> Result<(), DecodeError> {
        let Some(trunk) = &mut self.trunk else { return Ok(()) };
        let session = trunk.session.as_mut();
        trunk.read.join(trunk.model, session, entering, trunk.new_tokens).map_err(of_trunk)
    }

    fn push(&mut self, tokens: &[u32]) -> Result<(), DecodeError> {
        let push = |trunk: &mut Trunk<'_>| trunk.session.push(tokens).map_err(of_trunk);
        self.trunk.as_mut().map_or(Ok(()), push)
    }

    fn select(&mut self, rows: &[usize]) {
        if let Some(trunk) = &mut self.trunk {
            trunk.session.select(rows);
        }
    }

    fn values(&self, states: &[f32], next: &[&[u32]]) -> Result<Vec<f64>, DecodeError> {
        let LearnedScorer { values, weights, .. } = self.scorer;
        let own = self.trunk.as_ref().map(|trunk| trunk.session.states());
        let states = own.as_deref().unwrap_or(states);
        let hidden = values.spec().hidden;
        if states.len() != hidden * next.len() {
            let found = states.len() / next.len().max(1);
            let reason = format!(
                "it reads states of width {hidden}, but the model's have {found}: it was trained on another base, which has to be its trunk"
            );
            return Err(DecodeError::Scorer { reason });
        }
        let (mut found, mut features) = (Vec::new(), Vec::new());
        for (state, tokens) in states.chunks_exact(hidden).zip(next) {
            if tokens.is_empty() {
                continue;
            }
            values.read(state, &mut features);
            let value = |&token: &u32| {
                let part =
                    |&(head, weight): &(usize, f64)| weight * values.value(&features, token, head);
                weights.iter().map(part).sum::<f64>()
            };
            found.extend(tokens.iter().map(value));
        }
        Ok(found)
    }
}
