//! HTTP: one request, and as many tries as it takes.

use std::time::Duration;

use serde_json::Value;
use ureq::http::{HeaderMap, HeaderValue, Response, Uri, header};
use ureq::{Agent, Body, Error};

use crate::{Patience, RemoteError, address, refusal};

/// The longest answer that is read, in bytes.
const LONGEST_ANSWER: u64 = 256 << 20;

/// Asks one server. Its connections are kept for further requests.
///
/// Redirects are not followed, and no proxy is used.
pub struct Client {
    /// Its address: no other server gets the key.
    server: Uri,
    authorization: Option<HeaderValue>,
    patience: Patience,
    agent: Agent,
}

/// Why a try brought no answer.
enum Failure {
    /// What another try may mend, and the wait that the server asks for.
    Passing { reason: String, asked: Option<Duration> },
    /// What no other try would mend.
    Final(RemoteError),
}

impl Client {
    /// A client of the server at `url`, `http://HOST:PORT` or `https://…`, with or without a path. It is not asked anything yet.
    ///
    /// # Errors
    /// [`RemoteError::Server`] for an address or a key that cannot be used; it does not tell the key.
    pub fn new(url: &str, api_key: Option<&str>, patience: Patience) -> Result<Self, RemoteError> {
        let server = address::check(url)?;
        let authorization = api_key.map(|key| address::authorization(url, key)).transpose()?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(patience.time_out))
            .max_idle_connections(usize::MAX)
            .max_idle_connections_per_host(usize::MAX)
            .max_redirects(0)
            // ureq would read the environment.
            .proxy(None);
        Ok(Self { server, authorization, patience, agent: config.build().into() })
    }

    /// The body of the answer. A connection that fails, a time-out, and the statuses 429, 500, 502, 503 and 504 lead to another try.
    ///
    /// - `url`: at the client's server, with scheme, host and port as the client has them.
    /// - `request`: what is posted; None to get.
    /// - `uniform`: varies the waits. It is told the number of the try that failed, from 1, and gives a number from 0 to 1; None where no other
    ///   try may be made.
    ///
    /// # Errors
    /// [`RemoteError::NoAnswer`], [`RemoteError::Refused`], [`RemoteError::Server`], also for an address that does not begin as the client's, and
    /// [`RemoteError::Cancelled`] as [`Patience::cancelled`] has it.
    pub fn ask(
        &self,
        url: &str,
        request: Option<&Value>,
        mut uniform: impl FnMut(u32) -> Option<f64>,
    ) -> Result<String, RemoteError> {
        address::check_at(&self.server, url)?;
        let mut tries = 0;
        loop {
            if self.patience.is_cancelled() {
                return Err(RemoteError::Cancelled { url: url.into() });
            }
            tries += 1;
            match self.try_once(url, request) {
                Ok(body) => return Ok(body),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing { reason, asked }) => {
                    let share = (tries < self.patience.tries).then(|| uniform(tries)).flatten();
                    let Some(share) = share else {
                        return Err(RemoteError::NoAnswer { url: url.into(), tries, reason });
                    };
                    self.patience.sleep(self.patience.wait(tries, asked, share));
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
                let reason = format!("status {status}: {}", refusal::message(&body));
                Err(Failure::Passing { reason, asked: retry_after(response.headers()) })
            }
            _ => {
                let message = refusal::message(&body);
                Err(Failure::Final(RemoteError::Refused { url: url.into(), status, message }))
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
                return Failure::Final(RemoteError::Server { url, reason });
            }
        };
        Failure::Passing { reason, asked: None }
    }
}

/// The seconds of `Retry-After`; its other form, a date, is passed over.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
