//! What whoever runs the server is told of its failures: no prompt, no response and no key.

use std::sync::Arc;

use infalign_decode::{DecodeError, RemoteError};
use infalign_reward::RewardError;

/// Is told a line at a time.
pub(crate) type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// An error in words that hold nothing of a request, and nothing that another server may have repeated of it.
pub(crate) fn without_texts(error: &DecodeError) -> String {
    match error {
        DecodeError::Prompt { source, .. } | DecodeError::Model(source) => source.to_string(),
        DecodeError::Stopped => error.to_string(),
        DecodeError::Batch { .. } => "the batch that a response was part of failed".to_owned(),
        DecodeError::Remote(error) => of_server(error),
        DecodeError::Reward(error) => of_reward(error),
        _ => "the responses cannot be made".to_owned(),
    }
}

fn of_reward(error: &RewardError) -> String {
    match error {
        RewardError::Remote(error) => format!("the reward: {}", of_server(error)),
        RewardError::Model(_)
        | RewardError::Requests { .. }
        | RewardError::CacheFile { .. }
        | RewardError::CacheLine { .. } => format!("the reward: {error}"),
        RewardError::NotFinite { score, .. } => {
            format!("the reward of a response is {score}, which is no finite number")
        }
        _ => "the reward cannot be computed of a response".to_owned(),
    }
}

fn of_server(error: &RemoteError) -> String {
    match error {
        RemoteError::NoAnswer { url, tries, reason } => {
            // What stands behind a status is the server's.
            let ours = reason.split(": ").next().filter(|status| status.starts_with("status "));
            let reason = ours.unwrap_or(reason);
            format!("{url} gave no answer at {tries} tries, at last because of: {reason}")
        }
        RemoteError::Refused { url, status, .. } => {
            format!("{url} refused the request with status {status}")
        }
        RemoteError::Answer { url, field, .. } => {
            format!("the answer of {url} cannot be used, for its `{field}`")
        }
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_request_is_told() {
        let (url, secret) = ("http://host/r".to_owned(), "secret".to_owned());
        let reward = DecodeError::Reward;
        let remote = |error: RemoteError| reward(RewardError::Remote(error));
        let gone = |reason: &str| {
            let (url, reason) = (url.clone(), reason.to_owned());
            remote(RemoteError::NoAnswer { url, tries: 5, reason })
        };
        for (error, told) in [
            (gone("status 503: secret: secret"), "because of: status 503"),
            (gone("Connection refused (os error 111)"), "because of: Connection refused (os"),
            (
                remote(RemoteError::Refused {
                    url: url.clone(),
                    status: 422,
                    message: secret.clone(),
                }),
                "http://host/r refused the request with status 422",
            ),
            (
                remote(RemoteError::Answer {
                    url: url.clone(),
                    field: "rewards",
                    reason: secret.clone(),
                }),
                "for its `rewards`",
            ),
            (reward(RewardError::NotFinite { response: secret.clone(), score: 1e9 }), "is 1000000"),
            (reward(RewardError::NoAnswer { prompt: secret.clone() }), "cannot be computed"),
            (DecodeError::Batch { reason: secret.clone() }, "the batch"),
            (DecodeError::Cancelled { prompt: secret }, "cannot be made"),
            (DecodeError::Stopped, "the engine has stopped"),
        ] {
            let line = without_texts(&error);
            assert!(line.contains(told) && !line.contains("secret"), "{line}");
        }
    }
}
