//! The address of a server and the key for it, checked before anything is asked.

use ureq::http::{HeaderValue, Uri};

use crate::RemoteError;

/// An address that can be asked: `http://` or `https://`, with or without a path.
///
/// # Errors
/// [`RemoteError::Server`] for what is none. It tells neither a name nor a password that the address holds.
pub(crate) fn check(url: &str) -> Result<Uri, RemoteError> {
    let refuse = |url: &str, reason: &str| {
        Err(RemoteError::Server { url: url.to_owned(), reason: reason.to_owned() })
    };
    // Before it is taken apart: a password may hold what no address may.
    if let Some((_, rest)) = url.rsplit_once('@') {
        let reason = "its address holds an `@`, as those with a name or a password do: leave that out, and give an API key instead; in a path, write `%40`";
        return refuse(rest, reason);
    }
    let Ok(uri) = url.parse::<Uri>() else {
        return refuse(url, "it is not an address; write it as http://HOST:PORT");
    };
    match uri.scheme_str() {
        Some("http" | "https") if uri.query().is_none() => Ok(uri),
        _ => refuse(url, "its address has to be http://HOST:PORT or https://HOST, without `?`"),
    }
}

/// Refuses an address that does not have the scheme, the host and the port of the server's own, written as there.
///
/// # Errors
/// [`RemoteError::Server`]. It does not tell a name or a password that the address holds.
pub(crate) fn check_at(server: &Uri, url: &str) -> Result<(), RemoteError> {
    let uri = url.parse::<Uri>().unwrap_or_default();
    if (uri.scheme(), uri.authority()) == (server.scheme(), server.authority()) {
        return Ok(());
    }
    let url = url.rsplit('@').next().unwrap_or_default().to_owned();
    let reason = format!(
        "only {server} is asked here: begin the address with its scheme, host and port, as they stand there"
    );
    Err(RemoteError::Server { url, reason })
}

/// The header that gives the key for the server at `url`.
///
/// # Errors
/// [`RemoteError::Server`] for a key that no header may hold; it does not tell the key.
pub(crate) fn authorization(url: &str, key: &str) -> Result<HeaderValue, RemoteError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| {
        let reason = "its API key holds a character that no header may hold, such as a line break";
        RemoteError::Server { url: url.into(), reason: reason.into() }
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_refused_and_secrets_are_not_told() {
        for (url, told) in [
            ("host:8000", "http://HOST:PORT"),
            ("", "http://HOST:PORT"),
            ("ftp://host", "http://HOST:PORT"),
            ("http://host/?key=1", "without `?`"),
            ("http://me:secret@host", "`host`"),
            ("http://me:secret word@host:80", "`host:80`"),
            ("http://me:secret/more@host:80", "`host:80`"),
            ("http://me:secret?more@host:80", "`host:80`"),
            ("http://me:sec@ret@host/v1", "`host/v1`"),
            ("me:secret@host", "`host`"),
        ] {
            let message = check(url).unwrap_err().to_string();
            assert!(message.contains(told) && !message.contains("secret"), "{url}: {message}");
        }
        let message = authorization("http://host", "secret\n").unwrap_err().to_string();
        assert!(message.contains("line break") && !message.contains("secret"), "{message}");
    }

    #[test]
    fn addresses_may_have_paths() {
        for url in ["http://host:8000", "https://host", "http://127.0.0.1:5000/get_reward"] {
            assert!(check(url).is_ok(), "{url}");
        }
    }
}
