//! Ctrl-C: the first asks to keep what was done and stop, a second one stops at once.

use std::ops::ControlFlow;
use std::process::{Child, ExitStatus};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, Signal, System};

/// What comes sooner after the first is the same wish: `timeout`, for one, signals a process and then its group. Nobody presses keys as fast.
const SAME_WISH: Duration = Duration::from_millis(100);
/// How often a child is looked at: a terminal signals it as well, and what is passed on to it has to come within [`SAME_WISH`] of that.
const EVERY: Duration = Duration::from_millis(20);

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

/// Waits until a child of this program has ended. It is asked to stop once this process was, and killed once `is_enough` says so.
///
/// # Errors
/// That it was asked to stop, and did before it was done.
pub(crate) fn wait(child: &mut Child, is_enough: impl Fn() -> bool) -> Result<ExitStatus> {
    let mut passed_on = false;
    let status = loop {
        if let Some(status) = child.try_wait().context("it was lost")? {
            break status;
        }
        if is_enough() {
            // It may have ended by itself in the meantime.
            let _ = child.kill();
            return child.wait().context("it was lost");
        }
        if asked() && !passed_on {
            passed_on = true;
            ask(child);
        }
        std::thread::sleep(EVERY);
    };
    ensure!(status.success() || !asked(), "stopped; what was finished is kept");
    Ok(status)
}

/// Sends a child SIGTERM, if it has not ended. Windows has no such signal: there, a console tells the child by itself.
fn ask(child: &Child) {
    let pid = Pid::from_u32(child.id());
    let mut system = System::new();
    let nothing_more = ProcessRefreshKind::nothing();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, nothing_more);
    if let Some(process) = system.process(pid) {
        // It may have ended by itself in the meantime.
        let _ = process.kill_with(Signal::Term);
    }
}
