//! What a reward and the rewards within it are made from.

use std::path::{Path, PathBuf};

use super::{RemoteConfig, RewardConfig};

/// What a reward is made of, each thing where it stands in the configuration. What is not listed here is never looked for.
#[derive(Default)]
struct MadeOf<'c> {
    models: Vec<&'c mut PathBuf>,
    /// Files that are no models; the cache is the server's.
    files: Vec<&'c mut PathBuf>,
    server: Option<&'c mut RemoteConfig>,
    /// Rewards, which are made of something themselves.
    within: Vec<&'c mut RewardConfig>,
}

impl RewardConfig {
    /// By kind, and every kind with all of its keys: a new one has to be decided on.
    fn made_of(&mut self) -> MadeOf<'_> {
        let nothing = MadeOf::default();
        match self {
            Self::Length { unit: _ }
            | Self::LogLength { unit: _, most: _ }
            | Self::Lexicon { weights: _ }
            | Self::Patterns { weights: _ }
            | Self::Sequence {} => nothing,
            Self::RatedWords { ratings, ridge: _ } => {
                MadeOf { files: ratings.iter_mut().collect(), ..nothing }
            }
            Self::Model { path, reads: _ } => MadeOf { models: vec![path], ..nothing },
            Self::Answer { file, pattern: _ } => MadeOf { files: vec![file], ..nothing },
            Self::Remote(remote) => MadeOf { server: Some(remote), ..nothing },
            Self::Sum { parts } => {
                let within = parts.iter_mut().map(|part| &mut part.reward).collect();
                MadeOf { within, ..nothing }
            }
            Self::Ensemble { of, by: _, k: _ } => {
                MadeOf { within: of.iter_mut().collect(), ..nothing }
            }
        }
    }

    /// Every model that the reward and the rewards within it read.
    pub fn models_mut(&mut self) -> Vec<&mut PathBuf> {
        let MadeOf { mut models, within, .. } = self.made_of();
        models.extend(within.into_iter().flat_map(Self::models_mut));
        models
    }

    /// Every other file that the reward and the rewards within it read, caches included.
    pub fn files_mut(&mut self) -> Vec<&mut PathBuf> {
        let MadeOf { mut files, server, within, .. } = self.made_of();
        files.extend(server.and_then(|server| server.cache.as_mut()));
        files.extend(within.into_iter().flat_map(Self::files_mut));
        files
    }

    /// The rewards in it, itself included, that go by what they know of a prompt, and refuse a prompt that they do not know.
    pub fn of_known_prompts(&self) -> Vec<&Self> {
        match self {
            Self::Sequence {} | Self::Answer { .. } => vec![self],
            Self::Sum { parts } => {
                parts.iter().flat_map(|part| part.reward.of_known_prompts()).collect()
            }
            Self::Ensemble { of, .. } => of.iter().flat_map(Self::of_known_prompts).collect(),
            Self::Length { .. }
            | Self::LogLength { .. }
            | Self::Lexicon { .. }
            | Self::RatedWords { .. }
            | Self::Patterns { .. }
            | Self::Model { .. }
            | Self::Remote(_) => Vec::new(),
        }
    }

    /// Has every server's answers kept in a file, those aside that have a cache of their own.
    pub fn keep_answers_in(&mut self, file: &Path) {
        let MadeOf { server, within, .. } = self.made_of();
        if let Some(server) = server {
            server.cache.get_or_insert_with(|| file.to_path_buf());
        }
        within.into_iter().for_each(|one| one.keep_answers_in(file));
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
        let MadeOf { server, within, .. } = self.made_of();
        if let Some(server) = server {
            *server = RemoteConfig::new(std::mem::take(&mut server.url));
        }
        within.into_iter().for_each(Self::strip);
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
                { weight = 1.0, reward = { kind = "rated-words", ratings = ["five", "six"] } },
                { weight = 1.0, reward = { kind = "sequence" } },
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
        assert_eq!(paths(config.files_mut()), ["three", "five", "six", "four"].map(Path::new));
        let known = config.of_known_prompts();
        assert!(matches!(known[..], [RewardConfig::Answer { .. }, RewardConfig::Sequence {}]));
    }

    #[test]
    fn answers_are_kept_where_no_other_place_is_given() {
        let mut config: RewardConfig = toml::from_str(NESTED).unwrap();
        config.keep_answers_in(Path::new("answers"));
        assert_eq!(paths(config.files_mut()), ["three", "five", "six", "four"].map(Path::new));
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
        assert_eq!(paths(essence.files_mut()), ["three", "five", "six"].map(Path::new));
        let text = toml::to_string(&essence).unwrap();
        assert!(text.contains("http://host") && text.contains("one"), "{text}");
        assert!(!text.contains("KEY") && !text.contains("batch = 7"), "{text}");
    }
}
