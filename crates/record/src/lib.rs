//! Run directories, records of runs, hashes, atomic files, and the only readings of the clock and the environment.
//!
#![doc = include_str!("../README.md")]
//!
//! Whatever a run leaves behind goes through this crate, so that a killed process or a full disk
//! never leaves half a file under its final name. Other libraries take times and folders as
//! arguments; this one is where they come from.
//!
//! A record is opened by [`Recorder::begin`] and closed by [`Recorder::completed`] or [`Recorder::failed`]. [`verify`] says whether a folder
//! still is what was recorded, [`compare`] how near one run comes to another, [`badges`] and [`checklist`] what the record is evidence of.

mod address;
pub mod atomic;
pub mod badges;
mod build_record;
pub mod capture;
pub mod checklist;
pub mod clock;
mod command_line;
pub mod compare;
pub mod env;
mod error;
mod expect;
pub mod folder;
pub mod hash;
pub mod manifest;
mod markdown;
mod page;
mod preview;
pub mod record;
mod recorder;
pub mod replication;
mod ro_crate;
mod run_dir;
mod secrets;
mod shell;
mod steps;
mod surroundings;
pub mod verify;
mod weights;
mod workflow;

pub use build_record::{BuildRecord, Source};
pub use error::RecordError;
pub use expect::{Claim, Equivalence, Expect, Level, Tolerance};
pub use markdown::markdown_table;
pub use page::Page;
pub use record::Record;
pub use recorder::{InputFile, Opening, Recorder, changed_input};
pub use run_dir::{RunDir, START_FILE};
pub use secrets::Secrets;
pub use shell::{command_line, shell_word};
pub use steps::{Divergence, divergence};
pub use surroundings::{Difference, environment};
pub use weights::Weights;
pub use workflow::{Workflow, WorkflowStep};
