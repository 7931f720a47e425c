//! What a reward and the rewards within it are made from.

use std::path::{Path, PathBuf};

use super::{RemoteConfig, RewardConfig};

impl RewardConfig {
    /// Every model that the reward and the rewards within it read.
    pub fn models_mut(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Model { path, .. } => vec![path],
            other => other.within_mut().into_iter().flat_map(Self::models_mut).collect(),
        }
    }

    /// Every other file that the reward and the rewards within it read, caches included.
    pub fn files_mut(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Answer { file, .. } => vec![file],
            Self::RatedWords { ratings, .. } => ratings.iter_mut().collect(),
            Self::Remote(remote) => remote.cache.iter_mut().collect(),
            other => other.within_mut().into_iter().flat_map(Self::files_mut).collect(),
        }
    }

    /// The rewards in it, itself included, that go by what they know of a prompt, and refuse a prompt that they do not know.
    pub fn of_known_prompts(&self) -> Vec<&Self> {
        match self {
            Self::Sequence {} | Self::Answer { .. } => vec![self],
            Self::Sum { parts } => {
                parts.iter().flat_map(|part| part.reward.of_known_prompts()).collect()
            }
            Self::Ensemble { of, .. } => of.iter().flat_map(Self::of_known_prompts).collect(),
            _ => Vec::new(),
        }
    }

    /// Has every server's answers kept in a file, those aside that have a cache of their own.
    pub fn keep_answers_in(&mut self, file: &Path) {
        match self {
            Self::Remote(remote) => {
                remote.cache.get_or_insert_with(|| file.to_path_buf());
            }
            other => other.within_mut().into_iter().for_each(|one| one.keep_answers_in(file)),
        }
    }

    /// The same without all that its values do not depend on: the keys, waits, batches and caches of servers. With the contents of its
    /// models and files it says what the reward of a response is.
    #[must_use]
    pub fn essence(&self) -> Self {
        let mut config = self.clone();
        config.strip();
        config
    }

    fn strip(&mut self) {
        if let Self::Remote(remote) = self {
            *remote = RemoteConfig::new(std::mem::take(&mut remote.url));
        }
        self.within_mut().into_iter().for_each(Self::strip);
    }

    /// The rewards that it is made of.
    fn within_mut(&mut self) -> Vec<&mut Self> {
        match self {
            Self::Sum { parts } => parts.iter_mut().map(|part| &mut part.reward).collect(),
            Self::Ensemble { of, .. } => of.iter_mut().collect(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NESTED: &str = r#"
        kind = "ensemble"
        by = "minimum"
        of = [
            { kind = "model", path = "one" },
            { kind = "sum", parts = [
                { weight = 1.0, reward = { kind = "answer", file = "three" } },
                { weight = 1.0, reward = { kind = "model", path = "two" } },
                { weight = 1.0, reward = { kind = "remote", url = "http://host", cache = "four", api_key_env = "KEY", batch = 7 } },
            ] },
        ]
    "#;

    fn paths(paths: Vec<&mut PathBuf>) -> Vec<PathBuf> {
        paths.into_iter().map(|path| path.clone()).collect()
    }

    #[test]
    fn models_and_files_are_found_at_every_depth() {
        let mut config: RewardConfig = toml::from_str(NESTED).unwrap();
        assert_eq!(paths(config.models_mut()), [Path::new("one"), Path::new("two")]);
        assert_eq!(paths(config.files_mut()), [Path::new("three"), Path::new("four")]);
    }

    #[test]
    fn answers_are_kept_where_no_other_place_is_given() {
        let mut config: RewardConfig = toml::from_str(NESTED).unwrap();
        config.keep_answers_in(Path::new("answers"));
        assert_eq!(paths(config.files_mut()), [Path::new("three"), Path::new("four")]);
        let alone = RewardConfig::Remote(RemoteConfig::new("http://host".into()));
        let within = "kind = 'sum'\nparts = [{ weight = 1.0, reward = { kind = 'remote', url = 'http://host' } }]";
        for mut config in [alone, toml::from_str(within).unwrap()] {
            config.keep_answers_in(Path::new("answers"));
            assert_eq!(paths(config.files_mut()), [Path::new("answers")]);
        }
    }

    #[test]
    fn what_values_do_not_depend_on_is_left_out() {
        let config: RewardConfig = toml::from_str(NESTED).unwrap();
        let mut essence = config.essence();
        assert_eq!(paths(essence.files_mut()), [Path::new("three")]);
        let text = toml::to_string(&essence).unwrap();
        assert!(text.contains("http://host") && text.contains("one"), "{text}");
        assert!(!text.contains("KEY") && !text.contains("batch = 7"), "{text}");
    }
}
