//! What guides decoding: values of prefixes, batch by batch.

use std::sync::Arc;

use infalign_model::{LanguageModel, ModelError, PrefixTree};

use crate::DecodeError;
use crate::exact::Values;

/// Gives prefixes of responses a value V, by which controlled decoding chooses (arXiv 2310.17022, §2). V is that of the prefix with the token
/// that is in question, EOS included.
pub trait PrefixScorer: Send + Sync {
    /// An empty batch, whose rows may each take `new_tokens` tokens after their prompts.
    fn session(&self, new_tokens: usize) -> Box<dyn ScorerSession + '_>;

    /// Refuses a model that it cannot guide.
    ///
    /// # Errors
    /// [`DecodeError`] says what does not fit; a scorer of one's own fails by [`DecodeError::other`].
    fn check(&self, model: &dyn LanguageModel) -> Result<(), DecodeError>;

    /// The greatest value there is, as far as it is known: what a truncation can leave out is bounded by it.
    fn greatest(&self) -> Option<f64>;
}

/// The prefixes of a batch in generation, row by row the same as those of the model's session.
pub trait ScorerSession: Send {
    /// Appends rows.
    ///
    /// - `entering`: prompts, each with how many rows continue it.
    ///
    /// # Errors
    /// [`DecodeError`] for a prompt that the scorer cannot read, and [`DecodeError::Other`].
    fn join(&mut self, entering: &[(&[u32], usize)]) -> Result<(), DecodeError>;

    /// Appends one token to every row.
    ///
    /// # Errors
    /// [`DecodeError`] for a token that the scorer cannot read, and [`DecodeError::Other`].
    fn push(&mut self, tokens: &[u32]) -> Result<(), DecodeError>;

    /// Keeps the given rows in the given order. A row may be repeated.
    fn select(&mut self, rows: &[usize]);

    /// V of every row's prefix with each of the tokens that may follow it, row after row: as many as `next` has tokens. A value depends on its
    /// own row alone.
    ///
    /// - `next`: the tokens of each row, which may be none.
    /// - `states`: the model's hidden states at the last tokens, `[rows, hidden]`, as [`Session::states`](infalign_model::Session::states).
    ///
    /// # Errors
    /// [`DecodeError`] where there is no value, and [`DecodeError::Other`].
    fn values(&self, states: &[f32], next: &[&[u32]]) -> Result<Vec<f64>, DecodeError>;
}

/// The values of [`ScorerSession::values`], by whichever scorer: as many as were asked for.
///
/// # Errors
/// Those of the scorer, and [`DecodeError::Scorer`] for another number of values.
pub(super) fn values_of(
    session: &dyn ScorerSession,
    states: &[f32],
    next: &[&[u32]],
) -> Result<Vec<f64>, DecodeError> {
    let values = session.values(states, next)?;
    let (found, expected) = (values.len(), next.iter().map(|next| next.len()).sum::<usize>());
    if found == expected {
        return Ok(values);
    }
    let reason = format!(
        "it gives {found} values, but {expected} are asked for: it has to give one for each token of `next`"
    );
    Err(DecodeError::Scorer { reason })
}

/// The values of a tabular model's prefixes, exactly.
#[derive(Clone, Debug)]
pub struct TabularScorer {
    values: Values,
}

impl TabularScorer {
    /// A scorer that gives these values.
    pub fn new(values: Values) -> Self {
        Self { values }
    }
}

impl PrefixScorer for TabularScorer {
    fn session(&self, _new_tokens: usize) -> Box<dyn ScorerSession + '_> {
        Box::new(TabularSession { values: &self.values, prefixes: Vec::new() })
    }

    fn check(&self, model: &dyn LanguageModel) -> Result<(), DecodeError> {
        check_vocabulary(self.values.tree().letters() + 1, model)
    }

    fn greatest(&self) -> Option<f64> {
        Some(self.values.greatest())
    }
}

/// Refuses a model of another vocabulary.
pub(super) fn check_vocabulary(
    scorer: usize,
    model: &dyn LanguageModel,
) -> Result<(), DecodeError> {
    let vocabulary = model.vocabulary();
    if scorer == vocabulary {
        return Ok(());
    }
    Err(DecodeError::Scorer {
        reason: format!(
            "it scores a vocabulary of {scorer} tokens, but the model's has {vocabulary}: a scorer can guide only models with its own tokenizer"
        ),
    })
}

struct TabularSession<'a> {
    values: &'a Values,
    /// The prefix that each row has come to.
    prefixes: Vec<usize>,
}

/// The prefix after one more token; EOS opens the next text.
fn step(tree: PrefixTree, prefix: usize, token: u32) -> Result<usize, DecodeError> {
    if token == tree.eos() {
        return Ok(0);
    }
    tree.children(prefix)
        .nth(token as usize)
        .ok_or_else(|| DecodeError::NoValue { prefix: format!("{}…", tree.text(prefix)) })
}

impl ScorerSession for TabularSession<'_> {
    fn join(&mut self, entering: &[(&[u32], usize)]) -> Result<(), DecodeError> {
        for (prompt, rows) in entering {
            let tree = self.values.tree();
            let read = |prefix, token: &u32| step(tree, prefix, *token);
            let prefix = prompt.iter().try_fold(0, read)?;
            self.prefixes.extend(std::iter::repeat_n(prefix, *rows));
        }
        Ok(())
    }

    fn push(&mut self, tokens: &[u32]) -> Result<(), DecodeError> {
        for (prefix, token) in self.prefixes.iter_mut().zip(tokens) {
            *prefix = step(self.values.tree(), *prefix, *token)?;
        }
        Ok(())
    }

    fn select(&mut self, rows: &[usize]) {
        self.prefixes = rows.iter().map(|&row| self.prefixes[row]).collect();
    }

    fn values(&self, _states: &[f32], next: &[&[u32]]) -> Result<Vec<f64>, DecodeError> {
        let rows = self.prefixes.iter().zip(next);
        rows.flat_map(|(&prefix, next)| next.iter().map(move |token| (prefix, *token)))
            .map(|(prefix, token)| self.values.after(prefix, token))
            .collect()
    }
}

/// Σ wᵢ·Vᵢ of several scorers. Values are linear in the reward, so this is the value of the weighted sum of the rewards.
pub struct WeightedScorers<'a> {
    parts: Vec<(f64, Box<dyn PrefixScorer + 'a>)>,
}

impl<'a> WeightedScorers<'a> {
    /// The sum of scorers times their weights.
    ///
    /// # Errors
    /// [`DecodeError::Setting`] for a weight that is not finite, [`DecodeError::Scorer`] for no scorer at all.
    pub fn new(parts: Vec<(f64, Box<dyn PrefixScorer + 'a>)>) -> Result<Self, DecodeError> {
        if parts.is_empty() {
            let reason = "none has a weight that is not 0: give one of them such a weight";
            return Err(DecodeError::Scorer { reason: reason.into() });
        }
        parts.iter().try_for_each(|(weight, _)| check_weight(*weight))?;
        Ok(Self { parts })
    }
}

/// Refuses a weight that is not finite.
pub(super) fn check_weight(weight: f64) -> Result<(), DecodeError> {
    if weight.is_finite() {
        return Ok(());
    }
    let (key, valid) = ("the weight of a scorer", "a finite number");
    Err(DecodeError::Setting { key, value: weight, valid })
}

impl PrefixScorer for WeightedScorers<'_> {
    fn session(&self, new_tokens: usize) -> Box<dyn ScorerSession + '_> {
        let parts = self.parts.iter().map(|(weight, part)| (*weight, part.session(new_tokens)));
        Box::new(WeightedSessions { parts: parts.collect() })
    }

    fn check(&self, model: &dyn LanguageModel) -> Result<(), DecodeError> {
        self.parts.iter().try_for_each(|(_, part)| part.check(model))
    }

    /// Known where no weight is negative: the least values are not asked for.
    fn greatest(&self) -> Option<f64> {
        let parts = self.parts.iter().map(|(weight, part)| {
            part.greatest().filter(|_| *weight >= 0.0).map(|greatest| weight * greatest)
        });
        parts.sum()
    }
}

struct WeightedSessions<'a> {
    parts: Vec<(f64, Box<dyn ScorerSession + 'a>)>,
}

impl ScorerSession for WeightedSessions<'_> {
    fn join(&mut self, entering: &[(&[u32], usize)]) -> Result<(), DecodeError> {
        self.parts.iter_mut().try_for_each(|(_, part)| part.join(entering))
    }

    fn push(&mut self, tokens: &[u32]) -> Result<(), DecodeError> {
        self.parts.iter_mut().try_for_each(|(_, part)| part.push(tokens))
    }

    fn select(&mut self, rows: &[usize]) {
        self.parts.iter_mut().for_each(|(_, part)| part.select(rows));
    }

    fn values(&self, states: &[f32], next: &[&[u32]]) -> Result<Vec<f64>, DecodeError> {
        let count = next.iter().map(|next| next.len()).sum();
        let mut sum = vec![0.0; count];
        for (weight, part) in &self.parts {
            let values = values_of(part.as_ref(), states, next)?;
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
        }
        Ok(sum)
    }
}

/// The error of a model that a scorer runs.
pub(super) fn of_trunk(source: ModelError) -> DecodeError {
    DecodeError::Scorer { reason: source.to_string() }
}

/// What points to a scorer is one, so that one may be part of several sums.
macro_rules! forward {
    ($($pointer:ty),+) => {$(
        impl<P: PrefixScorer + ?Sized> PrefixScorer for $pointer {
            fn session(&self, new_tokens: usize) -> Box<dyn ScorerSession + '_> {
                (**self).session(new_tokens)
            }

            fn check(&self, model: &dyn LanguageModel) -> Result<(), DecodeError> {
                (**self).check(model)
            }

            fn greatest(&self) -> Option<f64> {
                (**self).greatest()
            }
        }
    )+};
}

forward!(&P, Box<P>, Arc<P>);

#[cfg(test)]
mod tests {
    use infalign_model::TabularProblem;

    use super::*;

    /// V of `a` and of the empty response.
    fn values(scorer: impl PrefixScorer, problem: &TabularProblem) -> (Vec<f64>, Option<f64>) {
        scorer.check(problem.model()).unwrap();
        let (mut session, prompt): (_, &[u32]) = (scorer.session(2), &[]);
        session.join(&[(prompt, 1)]).unwrap();
        (session.values(&[], &[&[0, 2]]).unwrap(), scorer.greatest())
    }

    #[test]
    fn what_points_to_a_scorer_is_one() {
        let text = r#"{"D": 2, "p": {"": [0.5, 0, 0.5]}, "r": {"$": 1, "a$": 2}}"#;
        let problem = TabularProblem::parse(text, "one.json".as_ref()).unwrap();
        let scorer = TabularScorer::new(Values::of(&problem));
        let referred: &dyn PrefixScorer = &scorer;
        let boxed: Box<dyn PrefixScorer> = Box::new(scorer.clone());
        let expected = (vec![2.0, 1.0], Some(2.0));
        assert_eq!(values(referred, &problem), expected);
        assert_eq!(values(boxed, &problem), expected);
        assert_eq!(values(Arc::new(scorer), &problem), expected);
    }
}
