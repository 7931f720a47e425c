//! What went wrong, and the exit code that says so.

use std::process::ExitCode;

/// A failure of a command.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Usage or bad input: nothing was begun. Exit code 2.
    Input(anyhow::Error),
    /// A check found something wrong, which stdout tells. Exit code 1.
    Check(anyhow::Error),
    /// The run failed; what was finished is kept. Exit code 3.
    Run(anyhow::Error),
}

/// The failure that an error is, which depends on when it comes.
pub(crate) trait OrFailure<T> {
    /// While input is read and checked.
    fn or_input(self) -> Result<T, Failure>;

    /// Once work has begun.
    fn or_run(self) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrFailure<T> for Result<T, E> {
    fn or_input(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::Input(error.into()))
    }

    fn or_run(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::Run(error.into()))
    }
}

impl Failure {
    /// What went wrong, as one sentence.
    pub(crate) fn message(&self) -> String {
        let (Self::Check(error) | Self::Input(error) | Self::Run(error)) = self;
        sentence(error)
    }

    /// The exit code that says so.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Check(_) => 1,
            Self::Input(_) => 2,
            Self::Run(_) => 3,
        }
    }

    /// Prints the failure and gives its exit code.
    pub(crate) fn report(self) -> ExitCode {
        tell!("error: {}", self.message());
        ExitCode::from(self.code())
    }
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
    use anyhow::Context;

    #[test]
    fn causes_are_told_once() {
        let error = Err::<(), _>(anyhow::anyhow!("disk is full"))
            .context("cannot write a: disk is full")
            .context("the run")
            .unwrap_err();
        assert_eq!(super::sentence(&error), "the run: cannot write a: disk is full");
    }
}
