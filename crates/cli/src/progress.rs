//! Progress on stderr: a bar on a terminal, a line for each tenth of a stage elsewhere.

use std::cell::Cell;
use std::fmt;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::output::visible;

/// What is shown beside prompts while their KL is measured.
pub(crate) const KL: &str = "KL";

/// The stages of a run, counted.
pub(crate) struct Progress {
    stages: usize,
    stage: usize,
}

impl Progress {
    pub(crate) fn new(stages: usize) -> Self {
        Self { stages, stage: 0 }
    }

    /// Begins a stage of `length` steps.
    pub(crate) fn stage(&mut self, title: &str, length: usize) -> Stage {
        self.resumed(title, length, 0)
    }

    /// Goes on with a stage of `length` steps, of which an earlier process has done some.
    pub(crate) fn resumed(&mut self, title: &str, length: usize, done: usize) -> Stage {
        self.stage += 1;
        let label = format!("[{}/{}] {title}", self.stage, self.stages);
        if !std::io::stderr().is_terminal() {
            tell!("{label}");
        }
        let bar = bar(&label, (done, length), ProgressDrawTarget::stderr());
        bar.enable_steady_tick(Duration::from_millis(500));
        Stage { bar, length, tenth: Cell::new(0) }
    }

    /// Counts a stage that an earlier run has finished.
    pub(crate) fn skip(&mut self, title: &str) {
        self.stage += 1;
        tell!("[{}/{}] {title}: already done", self.stage, self.stages);
    }
}

/// A line as wide as the terminal at most: what is shown beside the steps is cut short.
fn bar(label: &str, (done, length): (usize, usize), target: ProgressDrawTarget) -> ProgressBar {
    // `with_template` fails only on a malformed template, and this one is fixed.
    let style = ProgressStyle::with_template(
        "{prefix:26} {bar:8} {pos:>4}/{len:<4} ({elapsed}, {left} left) {wide_msg}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
    .with_key("left", left);
    let bar = ProgressBar::with_draw_target(Some(length as u64), target).with_position(done as u64);
    bar.set_style(style);
    bar.set_prefix(visible(label).into_owned());
    // What was done before takes no part in the time that is left.
    bar.tick();
    bar.reset_eta();
    bar
}

/// Writes the time that is left, which nobody knows before a step was timed.
fn left(state: &ProgressState, text: &mut dyn fmt::Write) {
    // What is written into is a text in memory.
    let _ = match state.is_finished() || state.per_sec() > 0.0 {
        true => write!(text, "{:#}", HumanDuration(state.eta())),
        false => text.write_char('?'),
    };
}

/// A stage in progress; its bar stays when it ends.
pub(crate) struct Stage {
    bar: ProgressBar,
    length: usize,
    /// Tenths of the stage that a line was printed for.
    tenth: Cell<usize>,
}

impl Stage {
    /// Sets how many steps are done and what is shown beside them.
    pub(crate) fn set(&self, done: usize, message: String) {
        let tenth = 10 * done / self.length.max(1);
        if self.bar.is_hidden() && tenth > self.tenth.replace(tenth) && done < self.length {
            tell!("      {done}/{} {message}", self.length);
        }
        self.bar.set_position(done as u64);
        self.bar.set_message(message);
    }

    /// Ends the stage with a last message.
    pub(crate) fn finish(self, message: String) {
        if self.bar.is_hidden() {
            tell!("      {message}");
        }
        self.bar.finish_with_message(message);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.bar.abandon();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Result;
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;

    /// A terminal of 80 columns that keeps what is written on it.
    #[derive(Clone, Debug, Default)]
    struct Narrow(Arc<Mutex<String>>);

    impl TermLike for Narrow {
        fn width(&self) -> u16 {
            80
        }

        fn write_str(&self, text: &str) -> Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }

        fn write_line(&self, text: &str) -> Result<()> {
            self.write_str(text)
        }

        fn move_cursor_up(&self, _: usize) -> Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> Result<()> {
            Ok(())
        }

        fn clear_line(&self) -> Result<()> {
            Ok(())
        }

        fn flush(&self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_no_wider_than_the_terminal_and_obeys_no_label() {
        let terminal = Narrow::default();
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let bar = bar("[2/7] policy \u{1b}[2J", (0, 40), target);
        bar.set_message("reward".repeat(20));
        terminal.0.lock().unwrap().clear();
        bar.tick();
        let line = terminal.0.lock().unwrap().trim().to_owned();
        let label = "[2/7] policy \\u{1b}[2J ";
        assert!(line.starts_with(label) && line.contains(" left) reward"), "{line}");
        assert_eq!(line.chars().count(), 80, "{line}");
    }

    #[test]
    fn the_time_left_goes_by_the_steps_of_this_process() {
        let terminal = Narrow::default();
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let bar = bar("policy", (900, 1000), target);
        let line = || {
            terminal.0.lock().unwrap().clear();
            bar.tick();
            terminal.0.lock().unwrap().clone()
        };
        let before = line();
        assert!(before.contains(" 900/1000 ") && before.contains(", ? left)"), "{before}");
        let pause = Duration::from_millis(20);
        std::thread::sleep(pause);
        bar.set_position(901);
        assert!(bar.eta() > 90 * pause, "{:?}", bar.eta());
        let after = line();
        assert!(after.contains(" 901/1000 ") && !after.contains('?'), "{after}");
    }
}
