//! Where `tokenizers` may panic: it takes parts of a file on trust.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// Whether a panic of this thread is caught here.
    static CATCHES: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread is caught here.
pub(super) fn catches() -> bool {
    CATCHES.get()
}

/// Does what `tokenizers` may fail at, or end with a panic.
pub(super) fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    CATCHES.set(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    CATCHES.set(false);
    done.map_err(|_| "its parts contradict each other".to_owned())?
        .map_err(|error| error.to_string())
}
