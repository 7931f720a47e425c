//! Run directories, hashes, atomic files, and the only readings of the clock and the environment.
//!
//! Whatever a run leaves behind goes through this crate, so that a killed process or a full disk
//! never leaves half a file under its final name. Other libraries take times and folders as
//! arguments; this one is where they come from.

pub mod atomic;
pub mod clock;
pub mod env;
mod error;
pub mod hash;
mod run_dir;

pub use error::RecordError;
pub use run_dir::RunDir;
