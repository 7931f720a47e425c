//! What went wrong, and the exit code that says so.

use std::io;
use std::process::ExitCode;

use infalign_record::RecordError;
use infalign_train::TrainError;

use crate::interrupt;

/// The exit code of what was stopped by a signal.
pub(crate) const STOPPED: u8 = 4;

/// A failure of a command.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Usage or bad input, a file that a run cannot go on with included. Exit code 2.
    Input(anyhow::Error),
    /// A check found something wrong, which stdout tells. Exit code 1.
    Check(anyhow::Error),
    /// The run failed; what was finished is kept. Exit code 3.
    Run(anyhow::Error),
    /// It was asked to stop, and has; what was finished is kept. Exit code 4.
    Stopped(anyhow::Error),
}

/// The failure that an error is, which depends on when it comes.
pub(crate) trait OrFailure<T> {
    /// While input is read and checked.
    fn or_input(self) -> Result<T, Failure>;

    /// Once work has begun, as [`Failure::of_work`].
    fn or_run(self) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrFailure<T> for Result<T, E> {
    fn or_input(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::Input(error.into()))
    }

    fn or_run(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::of_work(error.into()))
    }
}

impl Failure {
    /// What ended work that had begun: a stop where it was asked to, unless the disk or the network failed.
    pub(crate) fn of_work(error: anyhow::Error) -> Self {
        match interrupt::asked() && !is_of_the_system(&error) {
            true => Self::Stopped(error),
            false => Self::Run(error),
        }
    }

    /// What went wrong, as one sentence.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Check(error) | Self::Input(error) | Self::Run(error) | Self::Stopped(error) => {
                sentence(error)
            }
        }
    }

    /// The exit code that says so.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Check(_) => 1,
            Self::Input(_) => 2,
            Self::Run(_) => 3,
            Self::Stopped(_) => STOPPED,
        }
    }

    /// Prints the failure and gives its exit code.
    pub(crate) fn report(self) -> ExitCode {
        tell!("error: {}", self.message());
        ExitCode::from(self.code())
    }
}

/// Whether something failed that no wish to stop breaks off: a file, or a server.
fn is_of_the_system(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<io::Error>()
            || cause.is::<RecordError>()
            || matches!(cause.downcast_ref(), Some(TrainError::Record(_)))
    })
}

/// The error and its causes; a cause that the message before it tells already is left out.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, Error, anyhow};

    use super::*;

    #[test]
    fn causes_are_told_once() {
        let error = Err::<(), _>(anyhow!("disk is full"))
            .context("cannot write a: disk is full")
            .context("the run")
            .unwrap_err();
        assert_eq!(sentence(&error), "the run: cannot write a: disk is full");
    }

    #[test]
    fn a_full_disk_is_no_stop() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let (action, path) = ("write", "a".into());
        let record = RecordError::Io { action, path, cause: full() };
        let failed = [
            Error::new(full()).context("cannot write a"),
            Error::new(TrainError::from(record)).context("the run"),
        ];
        assert!(failed.iter().all(is_of_the_system));
        let interrupted = TrainError::Interrupted { step: 3, dir: "a".into() };
        let stopped = [Error::new(interrupted).context("the run"), anyhow!("stopped")];
        assert!(!stopped.iter().any(is_of_the_system));
    }
}
