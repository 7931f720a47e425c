//! Ctrl-C: the first asks to keep what was done and stop, the second stops at once.

use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// A flag that the first Ctrl-C (or SIGTERM) sets.
pub(crate) fn flag() -> &'static AtomicBool {
    // A handler that cannot be set leaves the system's own, which stops at once.
    let _ = ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::Relaxed) {
            std::process::exit(3);
        }
        tell!("\nstopping; Ctrl-C again to stop at once");
    });
    &ASKED
}

/// Whether Ctrl-C was pressed, since [`flag`] was first called.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
