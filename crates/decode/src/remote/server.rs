//! A server that speaks OpenAI's protocol.

use infalign_remote::{Client, Patience, RemoteError};
use serde_json::Value;

use super::answer;
use crate::{DecodeError, Stream};

/// A server that speaks OpenAI's protocol, such as vLLM's or llama.cpp's. Its connections are kept for further requests.
///
/// Redirects are not followed, and no proxy is used.
pub struct Server {
    /// The address, without `/v1`.
    base: String,
    client: Client,
}

impl Server {
    /// A server by its address, `http://HOST:PORT` or `https://…`, with or without a path and `/v1`. It is not asked anything yet.
    ///
    /// # Errors
    /// [`RemoteError::Server`] for an address or a key that cannot be used; it does not tell the key.
    pub fn new(url: &str, api_key: Option<&str>, patience: Patience) -> Result<Self, DecodeError> {
        let base = url.trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base);
        Ok(Self { base: base.into(), client: Client::new(base, api_key, patience)? })
    }

    /// The names of the models that the server has.
    ///
    /// # Errors
    /// [`DecodeError::Remote`] when it does not answer, refuses, or answers something else.
    pub fn models(&self) -> Result<Vec<String>, DecodeError> {
        let url = self.url("models");
        let body = self.ask(&url, None, &mut Stream::new(0, "models", "", 0))?;
        answer::models(&body).map_err(|fault| fault.of(&url))
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}/v1/{path}", self.base)
    }

    /// The body of the answer.
    ///
    /// - `request`: what is posted; None to get.
    /// - `stream`: varies the waits between tries, by its draws from position 1 on.
    pub(super) fn ask(
        &self,
        url: &str,
        request: Option<&Value>,
        stream: &mut Stream,
    ) -> Result<String, RemoteError> {
        self.client.ask(url, request, |tries| Some(stream.uniform(u64::from(tries))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn addresses_come_with_and_without_v1() {
        let patience = Patience::new(Duration::from_secs(1));
        for url in ["http://host:8000", "http://host:8000/", "http://host:8000/v1/"] {
            let server = Server::new(url, None, patience).ok().unwrap();
            assert_eq!(server.url("models"), "http://host:8000/v1/models");
        }
    }
}
