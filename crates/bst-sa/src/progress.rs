//! Progress on stderr, when somebody is looking.

use std::io::{IsTerminal, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A spinner with a message, drawn only on a terminal. Removes itself when dropped.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        let bar = ProgressBar::new_spinner();
        if stderr().is_terminal() {
            bar.enable_steady_tick(Duration::from_millis(120));
        } else {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let progress = Self(bar);
        progress.say(what);
        progress
    }

    /// Goes to the log only.
    pub(crate) fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// Replaces the message. Where nobody looks it goes to the log instead.
    pub(crate) fn say(&self, what: impl Into<String>) {
        let what = what.into();
        if self.0.is_hidden() {
            tracing::info!("{what}");
        }
        self.0.set_message(what);
    }

    /// Turns it into a bar of `done` out of `total`.
    pub(crate) fn count(&self, done: u64, total: u64) {
        if self.0.length() != Some(total) {
            // The template is a constant; should it ever be refused, the spinner stays.
            if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {elapsed}") {
                self.0.set_style(style.progress_chars("=> "));
            }
            self.0.set_length(total);
        }
        self.0.set_position(done);
    }
}

/// The state of priming on one line: what is done, what is under way, and what the rest waits for.
pub(crate) fn line(progress: &instantiate::Progress) -> String {
    let mut line = format!("{} primed, {} in flight", progress.finished, progress.running);
    for (count, what) in [
        (progress.ready, "waiting for their turn"),
        (progress.preparing, "being adapted"),
        (progress.waiting, "waiting for inputs"),
    ] {
        if count > 0 {
            line.push_str(&format!(", {count} {what}"));
        }
    }
    line
}

/// Lines on stderr, for where somebody else has the terminal: now and then, and only news.
pub(crate) struct Lines {
    last: Mutex<Option<(Instant, String)>>,
}

impl Lines {
    /// The shortest time between two lines.
    const PERIOD: Duration = Duration::from_secs(2);

    pub(crate) fn new() -> Self {
        Self { last: Mutex::new(None) }
    }

    /// Says it, unless something was said just now.
    pub(crate) fn say(&self, line: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_some_and(|(when, said)| when.elapsed() < Self::PERIOD || said == line) {
            return;
        }
        eprintln!("bst-sa: {line}");
        *last = Some((Instant::now(), line.to_owned()));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_line_says_what_is_waited_for() {
        let mut progress = instantiate::Progress { finished: 3, running: 2, ..Default::default() };
        assert_eq!(line(&progress), "3 primed, 2 in flight");
        (progress.ready, progress.preparing, progress.waiting) = (7, 1, 40);
        let expected = "3 primed, 2 in flight, 7 waiting for their turn, 1 being adapted, 40 waiting for inputs";
        assert_eq!(line(&progress), expected);
    }
}
