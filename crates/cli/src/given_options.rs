//! Which options stand on a command line: one with a default has a value whether it was given or not.

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches, Id};

/// The options that were given. It stands before all other fields of a command's arguments, which take their options out of what was read.
pub(crate) struct GivenOptions(Vec<Id>);

impl GivenOptions {
    /// The first of some options that was given, as it is written.
    ///
    /// - `fields`: whose options they are.
    pub(crate) fn first_of(&self, fields: &[&str]) -> Option<String> {
        let is_given = |field: &&str| self.0.iter().any(|id| id.as_str() == *field);
        let first = fields.iter().copied().find(is_given)?;
        Some(format!("--{}", first.replace('_', "-")))
    }
}

impl FromArgMatches for GivenOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let is_given =
            |id: &&Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
        Ok(Self(matches.ids().filter(is_given).cloned().collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// It has no options of its own.
impl Args for GivenOptions {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}
