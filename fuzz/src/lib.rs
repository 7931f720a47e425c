//! What the targets have in common: files for readers that want a path, and the parts of an input.

mod caught;
mod edits;
mod folder;
mod log_probs;
mod parts;
mod tensors;

pub use caught::with_caught_panics;
pub use edits::edited;
pub use folder::Folder;
pub use log_probs::check_log_probs;
pub use parts::parts;
pub use tensors::{normal, safetensors};
