//! The errors of this crate, and of those who read a server's answers.

/// Why a server brought nothing that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// The address of a server, or the key for it, cannot be used.
    #[error("the server `{url}` cannot be asked: {reason}")]
    Server {
        /// The address as it was given, without what stands before an `@`.
        url: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A time-out that is none.
    #[error("a time-out of {seconds} s cannot be kept: give seconds above 0, at most a year")]
    TimeOut {
        /// The time-out, in seconds.
        seconds: f64,
    },
    /// A server could not be reached, took too long, or was out of order, at the last try as at those before.
    #[error(
        "{url} gave no answer at {tries} tries, at last because of: {reason}; check the address and that the server runs"
    )]
    NoAnswer {
        /// What was asked.
        url: String,
        /// How often.
        tries: u32,
        /// What went wrong the last time.
        reason: String,
    },
    /// Nobody wants the answer any more.
    #[error("{url} was not asked, or not again, since that was to stop")]
    Cancelled {
        /// What was to be asked.
        url: String,
    },
    /// A server refused a request, which it would refuse again.
    #[error("{url} refused the request with status {status}: {message}")]
    Refused {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the server said.
        message: String,
    },
    /// A server's answer is not what was asked for.
    #[error("the answer of {url} cannot be used: `{field}` {reason}")]
    Answer {
        /// What was asked.
        url: String,
        /// The part of the answer.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}
