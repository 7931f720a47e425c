//! From the table to the reward.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use infalign_backend::Device;
use infalign_model::ModelFolder;
use infalign_remote::Patience;

use super::{Part, RemoteConfig, RewardConfig};
use crate::{
    Answer, Cached, Ensemble, Length, Lexicon, LogLength, Patterns, RatedWords, RemoteReward,
    Reward, RewardError, RewardModel, Sequence, WeightedSum,
};

/// Tells the API key that the environment variable of this name holds, if it holds one.
pub type ApiKeys<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The key that a variable holds; none where no variable is named.
pub(crate) fn key(
    keys: ApiKeys<'_>,
    variable: Option<&str>,
) -> Result<Option<String>, RewardError> {
    let no_key = |variable: &str| RewardError::NoKey { variable: variable.to_owned() };
    variable.map(|variable| keys(variable).ok_or_else(|| no_key(variable))).transpose()
}

impl RewardConfig {
    /// Builds the reward; models are loaded to `device`, and the base of an adapter is looked up in `cache`, the hub's, where it is named as
    /// there. A server is not asked anything yet.
    ///
    /// # Errors
    /// [`RewardError`] for a setting out of range, a rule that is no rule, a model or a file that cannot be read, or a key that is not there.
    pub fn build(
        &self,
        device: &Device,
        cache: &Path,
        keys: ApiKeys<'_>,
    ) -> Result<Box<dyn Reward>, RewardError> {
        self.build_until(None, device, cache, keys)
    }

    /// The same, of which a server is not asked any more, nor waited for before it is asked again, once a flag is set: scoring then ends with
    /// [`RewardError::Stopped`].
    ///
    /// # Errors
    /// As [`RewardConfig::build`].
    pub fn build_until(
        &self,
        stop: Option<&'static AtomicBool>,
        device: &Device,
        cache: &Path,
        keys: ApiKeys<'_>,
    ) -> Result<Box<dyn Reward>, RewardError> {
        let build = |one: &Self| one.build_until(stop, device, cache, keys);
        Ok(match self {
            Self::Length { unit } => Box::new(Length { unit: *unit }),
            Self::LogLength { unit, most } => Box::new(LogLength::new(*unit, *most)?),
            Self::Lexicon { weights } => Box::new(Lexicon::new(weights)?),
            Self::RatedWords { ratings, ridge } => Box::new(RatedWords::read(ratings, *ridge)?),
            Self::Patterns { weights } => Box::new(Patterns::new(weights)?),
            Self::Sequence {} => Box::new(Sequence),
            Self::Answer { file, pattern } => Box::new(Answer::read(file, pattern.as_deref())?),
            Self::Model { path, reads } => {
                let folder = ModelFolder::new(path.clone(), cache);
                Box::new(RewardModel::load(&folder, *reads, device)?)
            }
            Self::Remote(remote) => Box::new(remote.build(stop, keys)?),
            Self::Sum { parts } => {
                let part = |part: &Part| Ok((part.weight, build(&part.reward)?));
                let parts = parts.iter().map(part).collect::<Result<_, RewardError>>()?;
                Box::new(WeightedSum::new(parts)?)
            }
            Self::Ensemble { of, by, k } => {
                let members = of.iter().map(build);
                Box::new(Ensemble::new(members.collect::<Result<_, _>>()?, *by, *k)?)
            }
        })
    }
}

impl RemoteConfig {
    fn build(
        &self,
        stop: Option<&'static AtomicBool>,
        keys: ApiKeys<'_>,
    ) -> Result<Cached, RewardError> {
        let key = key(keys, self.api_key_env.as_deref())?;
        let patience = Patience::of_seconds(self.timeout_seconds)?;
        let patience = Patience { cancelled: stop, ..patience };
        let batch = NonZeroUsize::new(self.batch).ok_or(RewardError::Setting {
            key: "batch",
            value: 0.0,
            valid: "at least 1",
        })?;
        let reward = Box::new(RemoteReward::new(&self.url, key.as_deref(), patience)?);
        Cached::new(reward, &format!("remote {}", self.url), batch).with_file(self.cache.as_deref())
    }
}
