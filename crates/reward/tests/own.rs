//! A reward of one's own: its failures arrive as they are, and it may stand in several places.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::error::Error;
use std::num::{NonZeroUsize, ParseFloatError};
use std::sync::Arc;

use infalign_reward::{Cached, Reward, RewardError, WeightedSum};

#[derive(Debug, thiserror::Error)]
#[error("the response is no number")]
struct NoNumber(#[source] ParseFloatError);

/// The number that a response is.
struct Number;

impl Reward for Number {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        let number = |(_, response): &(&str, &str)| {
            response.parse::<f32>().map_err(|error| RewardError::other(NoNumber(error)))
        };
        pairs.iter().map(number).collect()
    }

    fn answer<'t>(&self, response: &'t str) -> Option<&'t str> {
        response.split_whitespace().next()
    }
}

#[test]
fn a_failure_keeps_its_type_and_its_source() {
    let cached: Box<dyn Reward> =
        Box::new(Cached::new(Box::new(Number), "number", NonZeroUsize::MIN));
    let sum = WeightedSum::new(vec![(2.0, cached)]).unwrap();
    let error = sum.score(&[("", "1.5"), ("", "x")]).unwrap_err();
    assert_eq!(error.to_string(), "the response is no number");
    assert!(error.source().unwrap().is::<ParseFloatError>());
    assert!(matches!(error, RewardError::Other(own) if own.is::<NoNumber>()));
}

#[test]
fn what_points_to_a_reward_is_one() {
    fn asked(reward: impl Reward) -> (Vec<f32>, Option<&'static str>) {
        (reward.score(&[("", "1.5")]).unwrap(), reward.answer("7 apples"))
    }
    let judge: Arc<dyn Reward> = Arc::new(Number);
    let part: Box<dyn Reward> = Box::new(Arc::clone(&judge));
    let sum = WeightedSum::new(vec![(2.0, part)]).unwrap();
    assert_eq!(sum.score(&[("", "1.5")]).unwrap(), [3.0]);
    let referred: &dyn Reward = &Number;
    let boxed: Box<dyn Reward> = Box::new(Number);
    let expected = (vec![1.5], Some("7"));
    assert_eq!(asked(referred), expected);
    assert_eq!(asked(boxed), expected);
    assert_eq!(asked(judge), expected);
}

#[test]
fn what_is_made_of_rewards_can_be_shown() {
    let cached = Cached::new(Box::new(Number), "number", NonZeroUsize::MIN);
    assert!(format!("{cached:?}").starts_with(r#"Cached { identity: "number", batch: 1,"#));
    let sum = WeightedSum::new(vec![(2.0, Box::new(cached) as Box<dyn Reward>)]).unwrap();
    assert_eq!(format!("{sum:?}"), "WeightedSum { weights: [2.0], parts: 1 rewards }");
}
