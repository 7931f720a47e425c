//! Who may ask, and how often who asked.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, MatchedPath, Request, State as Shared};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use infalign_record::hash::sha256_bytes;

use crate::connections::Asker;
use crate::failure::Failure;
use crate::service::State;

/// Lets through who knows the key or, where there is none, who is no page of another site in a browser.
pub(crate) async fn check(
    Shared(state): Shared<Arc<State>>,
    request: Request,
    next: Next,
) -> Response {
    let (method, headers) = (request.method(), request.headers());
    let checked = match &state.service.api_key {
        Some(key) => check_key(key, headers),
        None => check_host(state.is_local, headers).and_then(|()| check_kind(method, headers)),
    };
    match checked.and_then(|()| check_encoding(headers)) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn check_key(key: &str, headers: &HeaderMap) -> Result<(), Failure> {
    let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let refuse = |message: &str| {
        Err(Failure::new(StatusCode::UNAUTHORIZED, message).with_code("invalid_api_key"))
    };
    match given {
        // Hashes, so that the time that the comparison takes tells nothing of the key.
        Some(given)
            if key_of(given)
                .is_some_and(|given| sha256_bytes(given) == sha256_bytes(key.as_bytes())) =>
        {
            Ok(())
        }
        Some(_) => refuse("the API key is wrong"),
        None => refuse("there is no API key: send it as `Authorization: Bearer KEY`"),
    }
}

/// Refuses names that are not the server's own where it is for this machine alone: a site can give any name of its own this machine's address, so
/// that a browser takes the server for a part of the site (DNS rebinding). Of one for other machines nobody knows all names.
fn check_host(is_local: bool, headers: &HeaderMap) -> Result<(), Failure> {
    // Browsers always send it.
    let Some(host) = headers.get(header::HOST).filter(|_| is_local) else { return Ok(()) };
    let is_own = |authority: &Authority| {
        let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        is_address || name == "localhost" || name.ends_with(".localhost")
    };
    if Authority::try_from(host.as_bytes()).is_ok_and(|authority| is_own(&authority)) {
        return Ok(());
    }
    let message = format!(
        "this server has no key, is for its own machine alone, and answers at localhost and at addresses, not at {:?}: start it with \
         --api-key-env, or have the proxy before it send `Host: localhost`",
        String::from_utf8_lossy(host.as_bytes())
    );
    Err(Failure::new(StatusCode::FORBIDDEN, message))
}

/// Refuses what a browser sends from any page to any server without asking the server before.
fn check_kind(method: &Method, headers: &HeaderMap) -> Result<(), Failure> {
    let kind = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if method != Method::POST || kind.eq_ignore_ascii_case(b"application/json") {
        return Ok(());
    }
    let message = "the request needs the header `Content-Type: application/json`";
    Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
}

/// Refuses a body that is compressed, which would be read as it came.
fn check_encoding(headers: &HeaderMap) -> Result<(), Failure> {
    let is_plain = |value: &&HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(encoding) = encodings.find(|value| !is_plain(value)) else { return Ok(()) };
    let message = format!(
        "the body of the request has `Content-Encoding: {}`, but this server reads no body that is compressed: send it as it is",
        String::from_utf8_lossy(encoding.as_bytes())
    );
    Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
}

/// The key in the header's value; none where its scheme is another one. The scheme may be written in either case (RFC 9110, section 11.1).
fn key_of(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"Bearer ";
    match value.split_at_checked(SCHEME.len()) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(SCHEME) => Some(key),
        _ => None,
    }
}

/// Counts answers, and who may be waiting for one.
pub(crate) async fn count(
    Shared(state): Shared<Arc<State>>,
    request: Request,
    next: Next,
) -> Response {
    if let Some(ConnectInfo(asker)) = request.extensions().get::<ConnectInfo<Asker>>() {
        asker.ask();
    }
    let path = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    // Not the path that was asked for: there would be no end of them.
    let path = path.as_ref().map_or("other", MatchedPath::as_str);
    state.metrics.count(path, response.status().as_u16());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: header::HeaderName, value: &'static str) -> HeaderMap {
        [(name, HeaderValue::from_static(value))].into_iter().collect()
    }

    #[test]
    fn a_server_for_this_machine_knows_itself_by_addresses_and_one_name() {
        let is_own = |host| check_host(true, &with(header::HOST, host)).is_ok();
        for host in
            ["127.0.0.1:8000", "10.1.2.3", "[::1]:8000", "[::1]", "localhost:1", "LOCALHOST"]
        {
            assert!(is_own(host), "{host}");
        }
        for host in ["evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "lan"]
        {
            assert!(!is_own(host), "{host}");
        }
        assert!(!is_own("") && !is_own("a b"));
        assert!(is_own("localhost.") && is_own("infalign.localhost:80"));
        assert!(check_host(true, &HeaderMap::new()).is_ok());
        assert!(check_host(false, &with(header::HOST, "infalign:8000")).is_ok());
    }

    #[test]
    fn what_is_posted_is_json() {
        let passes = |kind| check_kind(&Method::POST, &with(header::CONTENT_TYPE, kind)).is_ok();
        for kind in ["application/json", "Application/JSON", "application/json ; charset=utf-8"] {
            assert!(passes(kind), "{kind}");
        }
        for kind in ["text/plain", "text/plain; application/json", "", "application/jsonp"] {
            assert!(!passes(kind), "{kind}");
        }
        assert!(check_kind(&Method::POST, &HeaderMap::new()).is_err());
        assert!(check_kind(&Method::GET, &HeaderMap::new()).is_ok());
    }

    #[test]
    fn no_body_is_compressed() {
        let passes = |value| check_encoding(&with(header::CONTENT_ENCODING, value)).is_ok();
        assert!(passes("identity") && passes("Identity"));
        assert!(!passes("gzip") && !passes("gzip, identity"));
        assert!(check_encoding(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn the_scheme_is_bearer_in_either_case() {
        for value in ["Bearer a b", "bearer a b", "BEARER a b"] {
            assert_eq!(key_of(value.as_bytes()), Some(&b"a b"[..]));
        }
        for value in ["", "Bearer", "Basic a b", "a b"] {
            assert_eq!(key_of(value.as_bytes()), None);
        }
    }
}
