//! Progress on stderr, when somebody is looking.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

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

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
