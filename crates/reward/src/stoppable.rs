//! A reward that can be told to stop.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Reward, RewardError};

/// Pairs that are scored from one look at the flag to the next.
const PAIRS: usize = 256;

/// A reward that scores no further once a flag is set. What the reward keeps of what it has scored, it keeps.
pub struct Stoppable<'f> {
    reward: Box<dyn Reward>,
    stop: &'f AtomicBool,
}

impl<'f> Stoppable<'f> {
    /// - `stop`: looked at before every 256 pairs.
    pub fn new(reward: Box<dyn Reward>, stop: &'f AtomicBool) -> Self {
        Self { reward, stop }
    }
}

impl fmt::Debug for Stoppable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stoppable").field("stop", self.stop).finish_non_exhaustive()
    }
}

impl Reward for Stoppable<'_> {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        let mut rewards = Vec::with_capacity(pairs.len());
        for some in pairs.chunks(PAIRS) {
            refuse_if(self.stop)?;
            rewards.extend(self.reward.score(some)?);
        }
        Ok(rewards)
    }

    fn answer<'t>(&self, response: &'t str) -> Option<&'t str> {
        self.reward.answer(response)
    }
}

/// Stops where the flag is set.
pub(crate) fn refuse_if(stop: &AtomicBool) -> Result<(), RewardError> {
    if stop.load(Ordering::Relaxed) { Err(RewardError::Stopped) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rewards a response by its length, and sets the flag once it has scored.
    struct Once(&'static AtomicBool);

    impl Reward for Once {
        fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
            self.0.store(true, Ordering::Relaxed);
            Ok(pairs.iter().map(|(_, response)| response.len() as f32).collect())
        }

        fn answer<'t>(&self, response: &'t str) -> Option<&'t str> {
            response.get(..1)
        }
    }

    #[test]
    fn it_scores_the_same_and_stops_before_the_next_pairs() {
        static STOP: AtomicBool = AtomicBool::new(false);
        let reward = Stoppable::new(Box::new(Once(&STOP)), &STOP);
        assert_eq!(reward.score(&[("", "ab"), ("", "c")]).unwrap(), [2.0, 1.0]);
        assert_eq!((reward.answer("ab"), reward.answer("")), (Some("a"), None));
        assert!(matches!(reward.score(&[("", "ab")]), Err(RewardError::Stopped)));
        STOP.store(false, Ordering::Relaxed);
        let many = vec![("", "x"); PAIRS + 1];
        assert!(matches!(reward.score(&many), Err(RewardError::Stopped)), "after the first 256");
    }
}
