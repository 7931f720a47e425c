//! Prompts, preference pairs, ratings and texts, read from files and checked.
//!
//! Every reader names the file and the line of what it refuses, and keeps text exactly as the file
//! has it. Keys that a reader does not know are ignored, because data sets carry many. A name that
//! ends in `.gz` is unpacked on the way.

mod error;
pub mod given;
mod grammar;
mod lines;
pub mod pairs;
pub mod prompts;
pub mod ratings;
mod split;
pub mod stories;
pub mod texts;

pub use error::DataError;
pub use grammar::Grammar;
pub use pairs::{Pair, Pairs};
pub use prompts::Prompt;
pub use ratings::Rating;
pub use split::split_by_hash;

#[cfg(test)]
mod test_files;
