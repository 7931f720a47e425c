//! The judge of `--pairwise`: what its file says, and whether its server knows the key and the model, which is asked before anything is sampled.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use infalign_decode::{DecodeError, Patience, RemoteError, Server};
use infalign_reward::{Preference, PreferenceConfig};

use super::{EvaluateArgs, folder};
use crate::generate::settings_text;
use crate::interrupt;
use crate::server::{api_key, warn_if_unlisted};

/// The longest that a server may take to name its models, before it is left to the judging.
const QUICKLY: Duration = Duration::from_secs(10);

/// A judge before anything is asked.
pub(super) struct Pairwise<'a> {
    file: &'a Path,
    config: PreferenceConfig,
}

impl<'a> Pairwise<'a> {
    /// The judge of a file. Its answers are kept in `--out`, where it names no other place.
    ///
    /// # Errors
    /// When the file cannot be read or is too large, or is none of a judge.
    pub(super) fn read(args: &EvaluateArgs, file: &'a Path) -> Result<Self> {
        let text = settings_text(file)
            .with_context(|| format!("cannot read the judge {}", file.display()))?;
        let mut config: PreferenceConfig =
            toml::from_str(&text).map_err(|error| anyhow!("{}: {error}", file.display()))?;
        config.cache = config.cache.or(args.out.as_deref().map(folder::answers));
        Ok(Self { file, config })
    }

    /// Allows other numbers of requests than the file.
    #[must_use]
    pub(super) fn with_most_requests(mut self, most: usize) -> Self {
        self.config.most_requests = most;
        self
    }

    /// What asks.
    ///
    /// # Errors
    /// For an address, a key or another setting that cannot be used.
    pub(super) fn build(&self) -> Result<Preference> {
        Preference::new_until(Some(interrupt::flag()), &self.config, &api_key)
            .with_context(|| self.file.display().to_string())
    }

    /// Refuses a key that the server refuses, and a model that is not among those that it lists. One that lists none, or does not answer now,
    /// is left to the judging: all its answers may have been kept.
    ///
    /// # Errors
    /// One sentence that names the file and the key at fault.
    pub(super) fn check_server(&self) -> Result<()> {
        let Some(server) = base(&self.config.url) else { return Ok(()) };
        let at = |key: &str| format!("{}: {key}", self.file.display());
        match self.models(server) {
            Ok(models) => {
                warn_if_unlisted(server, &self.config.model, &models);
                Ok(())
            }
            Err(DecodeError::Remote(error @ RemoteError::Refused { status: 401, .. })) => {
                Err(error).with_context(|| at("api_key_env"))
            }
            Err(_) => Ok(()),
        }
    }

    /// The models that the server lists, asked once.
    fn models(&self, server: &str) -> Result<Vec<String>, DecodeError> {
        let key = self.config.api_key_env.as_deref().and_then(api_key);
        let patience = Patience::of_seconds(self.config.timeout_seconds)?;
        let patience = Patience { tries: 1, time_out: patience.time_out.min(QUICKLY), ..patience };
        Server::new(server, key.as_deref(), patience)?.models()
    }
}

/// The server of an address in OpenAI's form, whose models are listed at a place that is known: what stands before `/v1`.
fn base(url: &str) -> Option<&str> {
    let url = url.trim_end_matches('/');
    let base = url.strip_suffix("/chat/completions").unwrap_or(url);
    // What stands before it ends in a slash where `v1` is the host.
    base.strip_suffix("/v1").filter(|server| !server.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::MOST_SETTINGS;

    #[test]
    fn judges_too_large_for_settings_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("judge.cfg");
        std::fs::File::create(&path).unwrap().set_len(MOST_SETTINGS + 1).unwrap();
        let words = ["evaluate", "--policy", "p", "--reference", "r"].map(str::to_owned);
        let args = crate::evaluation(&words).unwrap();
        let error = format!("{:#}", Pairwise::read(&args, &path).err().unwrap());
        assert!(error.contains("judge.cfg: it has more than"), "{error}");
    }

    #[test]
    fn models_are_listed_beside_addresses_in_openais_form() {
        for (url, server) in [
            ("http://host:8000/v1", Some("http://host:8000")),
            ("https://host/api/v1/", Some("https://host/api")),
            ("http://host/v1/chat/completions", Some("http://host")),
            ("http://host/judge/", None),
            ("http://host/chat/completions", None),
            ("http://v1", None),
        ] {
            assert_eq!(base(url), server, "{url}");
        }
    }
}
