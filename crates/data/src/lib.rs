//! Prompts, preference pairs, ratings and texts, read from files and checked.
//!
#![doc = include_str!("../README.md")]
//!
//! Keys that a reader does not know are ignored, because data sets carry many, but for those that would change what a chat template makes of
//! messages. A name that ends in `.gz` is unpacked on the way.

pub mod answers;
mod chat;
pub mod dataset;
mod error;
pub mod given;
mod grammar;
mod implicit_prompt;
mod lines;
mod messages;
mod plant;
pub mod prompts;
pub mod ratings;
pub mod responses;
pub mod rewarded;
pub mod rows;
mod split;
pub mod stories;

pub use chat::{ChatTemplate, Ending, Turn};
pub use error::{DataError, Place};
pub use grammar::Grammar;
pub use lines::no_json_number;
pub use messages::{Message, Role, Text};
pub use plant::Plant;
pub use prompts::Prompt;
pub use ratings::Rating;
pub use split::split_by_hash;

#[cfg(test)]
mod test_files;
