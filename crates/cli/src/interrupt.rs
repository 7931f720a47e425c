//! Ctrl-C: the first asks to keep what was done and stop, a second one stops at once.

use std::ops::ControlFlow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What comes sooner after the first is the same wish: `timeout`, for one, signals a process and then its group. Nobody presses keys as fast.
const SAME_WISH: Duration = Duration::from_millis(100);

static FIRST: OnceLock<Instant> = OnceLock::new();
static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on, the first Ctrl-C (or SIGTERM) asks.
pub(crate) fn watch() {
    // A handler that cannot be set leaves the system's own, which stops at once.
    let _ = ctrlc::set_handler(|| {
        let first = FIRST.get_or_init(Instant::now);
        if ASKED.swap(true, Ordering::Relaxed) {
            if first.elapsed() >= SAME_WISH {
                std::process::exit(3);
            }
            return;
        }
        tell!("\nstopping; Ctrl-C again to stop at once");
    });
}

/// The flag that it sets, for work that looks at it by itself.
pub(crate) fn flag() -> &'static AtomicBool {
    watch();
    &ASKED
}

/// Whether Ctrl-C was pressed, since [`watch`] was first called.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Break once Ctrl-C was pressed.
pub(crate) fn flow() -> ControlFlow<()> {
    if asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
