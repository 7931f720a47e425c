//! What points to a reward is one, so that one may be part of a sum and judge as well.

use std::sync::Arc;

use crate::{Reward, RewardError};

macro_rules! forward {
    ($($pointer:ty),+) => {$(
        impl<R: Reward + ?Sized> Reward for $pointer {
            fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
                (**self).score(pairs)
            }

            fn answer<'t>(&self, response: &'t str) -> Option<&'t str> {
                (**self).answer(response)
            }
        }
    )+};
}

forward!(&R, Box<R>, Arc<R>);
