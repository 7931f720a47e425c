//! Ctrl-C, and the signals by which schedulers end jobs: the first asks to keep what was done and stop, a second one stops at once.

use std::ops::ControlFlow;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Once, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, Signal, System};

use crate::failure::STOPPED;

/// What comes sooner after the first is the same wish: `timeout`, for one, signals a process and then its group. Nobody presses keys as fast.
const SAME_WISH: Duration = Duration::from_millis(100);
/// How often a child is looked at: a terminal signals it as well, and what is passed on to it has to come within [`SAME_WISH`] of that.
const EVERY: Duration = Duration::from_millis(20);

static FIRST: OnceLock<Instant> = OnceLock::new();
static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on, the first Ctrl-C asks, and so does SIGTERM, and SIGHUP unless it is ignored.
pub(crate) fn watch() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        // A handler that cannot be set leaves the system's own, which stops at once.
        let _ = on_signal(hear);
    });
}

fn hear() {
    let first = FIRST.get_or_init(Instant::now);
    if !ASKED.swap(true, Ordering::Relaxed) {
        tell!("\nstopping; Ctrl-C again to stop at once");
    } else if first.elapsed() >= SAME_WISH {
        std::process::exit(STOPPED.into());
    }
}

/// Calls `act` at every signal that asks to stop.
#[cfg(unix)]
fn on_signal(act: fn()) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let hangup = (!may_ignore_hangups(&status)).then_some(SIGHUP);
    let asking = [SIGINT, SIGTERM].into_iter().chain(hangup);
    let mut signals = signal_hook::iterator::Signals::new(asking)?;
    let listen = move || signals.forever().for_each(|_| act());
    std::thread::Builder::new().name("signals".to_owned()).spawn(listen).map(drop)
}

#[cfg(not(unix))]
fn on_signal(act: fn()) -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(act)
}

/// Whether SIGHUP is ignored, as nohup has it, or may be: Linux alone tells, in a process's status. It then stays as the system has it.
#[cfg(unix)]
fn may_ignore_hangups(status: &str) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // It is signal 1, the lowest bit.
    ignored.is_none_or(|mask| mask & 1 == 1)
}

/// The flag that it sets, for work that looks at it by itself.
pub(crate) fn flag() -> &'static AtomicBool {
    watch();
    &ASKED
}

/// The same for what is made before the work: until [`watch`] is called it stays as it is, and Ctrl-C ends the program.
pub(crate) fn unwatched_flag() -> &'static AtomicBool {
    &ASKED
}

/// Whether it was asked to stop, since [`watch`] was first called.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Break once it was asked to stop.
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

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn hangups_are_left_alone_unless_it_is_known_that_they_are_not_ignored() {
        let status = |mask: &str| format!("Name:\tx\nSigIgn:\t{mask}\nSigCgt:\t0000000000000001\n");
        assert!(may_ignore_hangups(&status("0000000000001001")));
        assert!(!may_ignore_hangups(&status("0000000000001000")));
        assert!(may_ignore_hangups(""), "there is no /proc");
    }
}
