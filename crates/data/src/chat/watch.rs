//! Templates run on threads of their own, which are given a deep stack and a limited time.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use minijinja::{Error, ErrorKind};

/// The stack on which templates are read and run, in bytes: they are read by recursion, and with their work they can nest lists more than a
/// hundred thousand deep, which are printed and dropped level by level. Only what is used takes memory.
const STACK: usize = 256 << 20;

/// Waits for what one template does.
#[derive(Debug)]
pub(super) struct Watch {
    patience: Duration,
    /// Each lives as long as a thread that did not end in time.
    abandoned: Mutex<Vec<Weak<()>>>,
}

impl Watch {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, abandoned: Mutex::default() }
    }

    /// What the work gives, if it ends in time. A thread cannot be ended from without: one that does not end in time is abandoned, and takes a
    /// core, and what memory it asks for, until it ends or the process does. So nothing more of that template is begun until it has ended.
    ///
    /// # Errors
    /// Those of the work; when it panics or does not end in time, or while other work that did not has still not ended.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let fail = |problem: String| Err(Error::new(ErrorKind::InvalidOperation, problem));
        let endless = || fail(format!("it does not end within {:?}", self.patience));
        let abandoned = || self.abandoned.lock().unwrap_or_else(PoisonError::into_inner);
        if abandoned().iter().any(|life| life.strong_count() > 0) {
            return endless();
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        let alive = Arc::new(());
        let life = Arc::downgrade(&alive);
        let thread = thread::Builder::new().stack_size(STACK).spawn(move || {
            let _alive = alive;
            sender.send(work())
        });
        if let Err(cause) = thread {
            return fail(format!("no thread can be started: {cause}"));
        }
        match receiver.recv_timeout(self.patience) {
            Ok(result) => result,
            Err(RecvTimeoutError::Disconnected) => {
                fail("it makes the interpreter panic".to_owned())
            }
            Err(RecvTimeoutError::Timeout) => {
                let mut abandoned = abandoned();
                abandoned.retain(|life| life.strong_count() > 0);
                abandoned.push(life);
                endless()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_does_not_end_is_abandoned_until_it_has() {
        let watch = Watch::new(Duration::from_millis(50));
        assert_eq!(watch.run(|| Ok(1)).unwrap(), 1);
        let started = Instant::now();
        let (end, wait) = mpsc::channel::<()>();
        let endless = move || {
            let _ = wait.recv();
            Ok(())
        };
        let error = watch.run(endless).unwrap_err().to_string();
        assert!(error.ends_with("it does not end within 50ms"), "{error}");
        assert_eq!(watch.run(|| Ok(1)).unwrap_err().to_string(), error, "nothing more is begun");
        drop(end);
        while watch.run(|| Ok(1)).is_err() && started.elapsed() < Duration::from_secs(30) {
            thread::sleep(Duration::from_millis(5));
        }
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    /// Some work may be begun beside other before either is abandoned.
    #[test]
    fn nothing_is_begun_until_all_that_was_abandoned_has_ended() {
        let watch = Watch::new(Duration::from_secs(1));
        let (begun, begins) = mpsc::channel();
        let endless = || {
            let (end, wait) = mpsc::channel::<()>();
            let begun = begun.clone();
            let work = move || {
                let _ = begun.send(());
                let _ = wait.recv();
                Ok::<(), Error>(())
            };
            (end, work)
        };
        let ((first_end, first), (last_end, last)) = (endless(), endless());
        thread::scope(|scope| {
            scope.spawn(|| assert!(watch.run(first).is_err()));
            begins.recv_timeout(Duration::from_secs(30)).unwrap();
            thread::sleep(Duration::from_millis(200));
            scope.spawn(|| assert!(watch.run(last).is_err()));
            begins.recv_timeout(Duration::from_secs(30)).unwrap();
        });
        drop(last_end);
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(10));
            assert!(watch.run(|| Ok(1)).is_err(), "the first has not ended");
        }
        drop(first_end);
        let started = Instant::now();
        while watch.run(|| Ok(1)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(30));
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_panic_is_an_error() {
        let watch = Watch::new(Duration::from_mins(1));
        let error = watch.run(|| -> Result<(), Error> { panic!("a test's") }).unwrap_err();
        assert!(error.to_string().ends_with("it makes the interpreter panic"), "{error}");
        assert_eq!(watch.run(|| Ok(1)).unwrap(), 1);
    }
}
