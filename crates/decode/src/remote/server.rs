//! HTTP: one request, and as many tries as it takes.

use std::thread;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{HeaderMap, HeaderValue, Response, Uri, header};
use ureq::{Agent, Body, Error};

use super::answer;
use crate::{DecodeError, Patience, Stream};

/// The longest answer that is read, in bytes.
const LONGEST_ANSWER: u64 = 256 << 20;

/// A server that speaks OpenAI's protocol, such as vLLM's or llama.cpp's. Its connections are kept for further requests.
///
/// Redirects are not followed, and no proxy is used.
pub struct Server {
    /// The address, without `/v1`.
    base: String,
    authorization: Option<HeaderValue>,
    patience: Patience,
    agent: Agent,
}

/// Why a try brought no answer.
enum Failure {
    /// What another try may mend, and the wait that the server asks for.
    Passing { reason: String, asked: Option<Duration> },
    /// What no other try would mend.
    Final(DecodeError),
}

impl Server {
    /// A server by its address, `http://HOST:PORT` or `https://…`, with or without a path and `/v1`. It is not asked anything yet.
    ///
    /// # Errors
    /// [`DecodeError::Server`] for an address or a key that cannot be used; it does not tell the key.
    pub fn new(url: &str, api_key: Option<&str>, patience: Patience) -> Result<Self, DecodeError> {
        let base = url.trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base);
        check_url(base).map_err(|(url, reason)| DecodeError::Server { url, reason })?;
        let authorization = api_key.map(|key| authorization(base, key)).transpose()?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(patience.time_out))
            .max_idle_connections(usize::MAX)
            .max_idle_connections_per_host(usize::MAX)
            .max_redirects(0)
            // ureq would read the environment.
            .proxy(None);
        Ok(Self { base: base.into(), authorization, patience, agent: config.build().into() })
    }

    /// The names of the models that the server has.
    ///
    /// # Errors
    /// [`DecodeError::NoAnswer`], [`DecodeError::Refused`] and [`DecodeError::Answer`].
    pub fn models(&self) -> Result<Vec<String>, DecodeError> {
        let url = self.url("models");
        let body = self.ask(&url, None, &mut Stream::new(0, "models", "", 0))?;
        answer::models(&body).map_err(|fault| fault.of(&url))
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}/v1/{path}", self.base)
    }

    /// The body of the answer. A connection that fails, a time-out, and the statuses 429, 500, 502, 503 and 504 lead to another try.
    ///
    /// - `request`: what is posted; None to get.
    /// - `stream`: varies the waits, by its draws from position 1 on.
    pub(super) fn ask(
        &self,
        url: &str,
        request: Option<&Value>,
        stream: &mut Stream,
    ) -> Result<String, DecodeError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_once(url, request) {
                Ok(body) => return Ok(body),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing { reason, .. }) if tries >= self.patience.tries => {
                    return Err(DecodeError::NoAnswer { url: url.into(), tries, reason });
                }
                Err(Failure::Passing { asked, .. }) => {
                    let uniform = stream.uniform(u64::from(tries));
                    thread::sleep(self.patience.wait(tries, asked, uniform));
                }
            }
        }
    }

    fn try_once(&self, url: &str, request: Option<&Value>) -> Result<String, Failure> {
        let failed = |error| self.failure(url, error);
        let mut response = self.send(url, request).map_err(failed)?;
        let body = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_string();
        let body = body.map_err(failed)?;
        let status = response.status().as_u16();
        match status {
            200 => Ok(body),
            429 | 500 | 502 | 503 | 504 => {
                let reason = format!("status {status}: {}", answer::message(&body));
                Err(Failure::Passing { reason, asked: retry_after(response.headers()) })
            }
            _ => {
                let message = answer::message(&body);
                Err(Failure::Final(DecodeError::Refused { url: url.into(), status, message }))
            }
        }
    }

    fn send(&self, url: &str, request: Option<&Value>) -> Result<Response<Body>, Error> {
        let Some(request) = request else {
            let get = self.agent.get(url);
            return match &self.authorization {
                Some(key) => get.header(header::AUTHORIZATION, key).call(),
                None => get.call(),
            };
        };
        let post = self.agent.post(url).header(header::CONTENT_TYPE, "application/json");
        let post = match &self.authorization {
            Some(key) => post.header(header::AUTHORIZATION, key),
            None => post,
        };
        post.send(request.to_string())
    }

    fn failure(&self, url: &str, error: Error) -> Failure {
        let reason = match error {
            Error::Timeout(_) => {
                format!("a time-out, nothing complete within {:?}", self.patience.time_out)
            }
            Error::Io(error) => error.to_string(),
            Error::HostNotFound | Error::ConnectionFailed | Error::Protocol(_) => error.to_string(),
            error => {
                let (url, reason) = (url.to_owned(), error.to_string());
                return Failure::Final(DecodeError::Server { url, reason });
            }
        };
        Failure::Passing { reason, asked: None }
    }
}

/// Refuses what is no address, with what may be shown of it and the reason.
fn check_url(url: &str) -> Result<(), (String, String)> {
    let refuse = |url: &str, reason: &str| Err((url.to_owned(), reason.to_owned()));
    let Ok(uri) = url.parse::<Uri>() else {
        return refuse(url, "it is not an address; write it as http://HOST:PORT");
    };
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if let Some((_, host)) = authority.rsplit_once('@') {
        return refuse(host, "its address holds a name or a password; give an API key instead");
    }
    match uri.scheme_str() {
        Some("http" | "https") if uri.query().is_none() => Ok(()),
        _ => refuse(url, "its address has to be http://HOST:PORT or https://HOST, without `?`"),
    }
}

fn authorization(url: &str, key: &str) -> Result<HeaderValue, DecodeError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| {
        let reason = "its API key holds a character that no header may hold, such as a line break";
        DecodeError::Server { url: url.into(), reason: reason.into() }
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The seconds of `Retry-After`; its other form, a date, is passed over.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str, key: Option<&str>) -> Result<Server, DecodeError> {
        Server::new(url, key, Patience::new(Duration::from_secs(1)))
    }

    #[test]
    fn addresses_come_with_and_without_v1() {
        for url in ["http://host:8000", "http://host:8000/", "http://host:8000/v1/"] {
            assert_eq!(server(url, None).ok().unwrap().url("models"), "http://host:8000/v1/models");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_and_secrets_are_not_told() {
        for (url, key, told) in [
            ("host:8000", None, "http://HOST:PORT"),
            ("", None, "http://HOST:PORT"),
            ("ftp://host", None, "http://HOST:PORT"),
            ("http://host/?key=1", None, "without `?`"),
            ("http://me:secret@host", None, "`host`"),
            ("http://host", Some("secret\n"), "line break"),
        ] {
            let message = server(url, key).err().unwrap().to_string();
            assert!(message.contains(told) && !message.contains("secret"), "{url}: {message}");
        }
    }
}
