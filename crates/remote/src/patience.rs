//! How long to wait for a server, and how often to ask again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::RemoteError;

/// The longest time-out, in seconds: a year, so that it can be added to any time.
const LONGEST_TIME_OUT: u64 = 31_536_000;
/// The longest time from one look at the flag to the next, in a wait.
const LOOK: Duration = Duration::from_millis(50);

/// How long to wait for a server, and how often to ask again.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The longest that a request may take, from connecting to the end of the answer.
    pub time_out: Duration,
    /// How often a request is made before it counts as failed; 0 is as 1.
    pub tries: u32,
    /// The longest wait before the second try. It doubles with each further one.
    pub first_wait: Duration,
    /// When it becomes true, waits end and nothing more is asked; a request that is on its way ends.
    pub cancelled: Option<&'static AtomicBool>,
}

impl Patience {
    /// Five tries, and up to 7.5 seconds between the first and the last: enough for a server that is busy or starts anew.
    pub fn new(time_out: Duration) -> Self {
        Self { time_out, tries: 5, first_wait: Duration::from_millis(500), cancelled: None }
    }

    /// As [`Patience::new`], of seconds above 0, at most a year.
    ///
    /// # Errors
    /// [`RemoteError::TimeOut`] for any other number.
    pub fn of_seconds(seconds: f64) -> Result<Self, RemoteError> {
        let valid = |time: &Duration| !time.is_zero() && time.as_secs() <= LONGEST_TIME_OUT;
        let time_out = Duration::try_from_secs_f64(seconds).ok().filter(valid);
        time_out.map(Self::new).ok_or(RemoteError::TimeOut { seconds })
    }

    /// The wait after the try number `tries`, counted from 1.
    ///
    /// It is what the server asks for, if it does, but no more than the time-out. Else it is half of the longest wait, and a share `uniform`
    /// of the other half, so that requests that failed together do not come back together.
    pub(crate) fn wait(&self, tries: u32, asked: Option<Duration>, uniform: f64) -> Duration {
        let longest = self.first_wait.saturating_mul(2_u32.saturating_pow(tries - 1));
        let own = longest.min(self.time_out).mul_f64(0.5 + 0.5 * uniform);
        asked.map_or(own, |asked| asked.min(self.time_out))
    }

    /// Whether nobody wants an answer any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// Sleeps, until nobody wants an answer any more.
    pub(crate) fn sleep(&self, wait: Duration) {
        let longest = if self.cancelled.is_some() { LOOK } else { wait };
        let mut left = wait;
        while !left.is_zero() && !self.is_cancelled() {
            let part = left.min(longest);
            thread::sleep(part);
            left -= part;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_stay_below_the_time_out() {
        let patience = Patience::new(Duration::from_secs(3));
        let wait = |tries, uniform| patience.wait(tries, None, uniform).as_millis();
        assert_eq!([1, 2, 3, 4, 99].map(|tries| wait(tries, 1.0)), [500, 1000, 2000, 3000, 3000]);
        assert_eq!((wait(1, 0.0), wait(1, 0.5)), (250, 375));
    }

    #[test]
    fn time_outs_are_above_nothing_and_end() {
        for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
            let message = Patience::of_seconds(seconds).unwrap_err().to_string();
            assert!(message.contains(&format!("{seconds} s")), "{message}");
        }
        let patience = Patience::of_seconds(0.5).unwrap();
        assert_eq!(patience.time_out, Duration::from_millis(500));
    }

    #[test]
    fn a_server_may_ask_for_a_wait() {
        let patience = Patience::new(Duration::from_secs(3));
        let wait = |asked| patience.wait(1, Some(Duration::from_secs(asked)), 0.0).as_secs();
        assert_eq!((wait(0), wait(2), wait(3600)), (0, 2, 3));
    }
}
