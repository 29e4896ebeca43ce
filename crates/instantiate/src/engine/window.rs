//! How many executions to have in flight.
//!
//! As many as the service starts soon after they are requested, and no more:
//! what waits in its queue helps nobody, is in the way of the build where the
//! service knows no priorities, and has to be taken back when it becomes
//! useless. The size is found as TCP finds its window: it grows while queues
//! are short, shrinks by a factor when they are long or the service has no
//! room, and is bounded by [`Options::jobs`](crate::Options::jobs).

use std::time::Duration;

use tokio::time::Instant;

/// Executions in flight at first: enough to keep a small cluster busy, few
/// enough for any service. Grows with every quick start until the first sign of congestion.
const INITIAL: usize = 16;

/// A start within this long of the request is quick: the window may grow.
const QUICK: Duration = Duration::from_secs(2);

/// A start later than this is slow: the window shrinks to [`AFTER_SLOW`]. In between it stays.
const SLOW: Duration = Duration::from_secs(10);

/// What is left of the window after a slow start, in percent.
const AFTER_SLOW: usize = 75;

/// What is left of the window after a refusal, in percent.
const AFTER_REFUSAL: usize = 50;

/// The first wait after a refusal that names none. Doubles with each further one until something starts.
const FIRST_REST: Duration = Duration::from_secs(1);

/// The longest wait of our own.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// The longest wait that a service is granted. Whoever asks for more will not be asked again for what it refused.
pub(super) const LONGEST_GRANTED: Duration = Duration::from_secs(300);

/// Which window an execution was requested in: what happened before the last
/// reduction is no reason for another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ticket(u64);

/// The number of executions that may be in flight, and when the next may be requested.
#[derive(Debug)]
pub(super) struct Window {
    limit: usize,
    size: usize,
    /// Quick starts since the size changed.
    credit: usize,
    /// There was no sign of congestion yet: grows by one with each quick start
    /// instead of with each windowful of them.
    starting: bool,
    reductions: u64,
    /// Refusals since something started.
    refusals: u32,
    rest: Option<Instant>,
}

impl Window {
    /// At most `limit` in flight.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, size: limit.min(INITIAL), credit: 0, starting: true, reductions: 0, refusals: 0, rest: None }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn ticket(&self) -> Ticket {
        Ticket(self.reductions)
    }

    /// Until when nothing is to be requested.
    pub(super) fn resting(&self, now: Instant) -> Option<Instant> {
        self.rest.filter(|until| *until > now)
    }

    /// An execution has started, `waited` after it was requested, while this many were in flight.
    pub(super) fn started(&mut self, ticket: Ticket, waited: Duration, in_flight: usize) {
        self.refusals = 0;
        if waited > SLOW {
            return self.reduce(ticket, AFTER_SLOW);
        }
        // A window that is not used says nothing about a larger one.
        if waited > QUICK || self.size >= self.limit || in_flight * 2 < self.size {
            return;
        }
        self.credit += 1;
        if self.starting || self.credit >= self.size {
            self.size += 1;
            self.credit = 0;
        }
    }

    /// The service has no room. `asked` is how long it wants to be left alone.
    pub(super) fn refused(&mut self, ticket: Ticket, asked: Option<Duration>, now: Instant) {
        let own = FIRST_REST.saturating_mul(1 << self.refusals.min(10)).min(LONGEST_REST);
        // What was refused together counts as one refusal.
        if ticket == self.ticket() {
            self.refusals += 1;
        }
        self.reduce(ticket, AFTER_REFUSAL);
        let until = now + asked.unwrap_or(own).min(LONGEST_GRANTED);
        self.rest = Some(self.rest.map_or(until, |rest| rest.max(until)));
    }

    /// The service cannot be used for some other reason that may pass.
    pub(super) fn failed(&mut self, ticket: Ticket) {
        self.reduce(ticket, AFTER_REFUSAL);
    }

    fn reduce(&mut self, ticket: Ticket, percent: usize) {
        if ticket == self.ticket() {
            self.size = (self.size * percent / 100).max(1);
            self.credit = 0;
            self.starting = false;
            self.reductions += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(window: &mut Window, times: usize, waited: Duration) {
        for _ in 0..times {
            window.started(window.ticket(), waited, window.size());
        }
    }

    #[test]
    fn it_doubles_per_round_until_the_limit() {
        let mut window = Window::new(100);
        assert_eq!(window.size(), 16);
        start(&mut window, 16, Duration::ZERO);
        assert_eq!(window.size(), 32);
        start(&mut window, 1000, QUICK);
        assert_eq!(window.size(), 100);
        assert_eq!(Window::new(3).size(), 3);
    }

    #[test]
    fn long_queues_shrink_it_once_per_window_and_it_grows_slowly_then() {
        let mut window = Window::new(100);
        let before = window.ticket();
        for _ in 0..16 {
            window.started(before, SLOW + QUICK, 16);
        }
        assert_eq!(window.size(), 12, "all sixteen belong to one window");
        start(&mut window, 11, Duration::ZERO);
        assert_eq!(window.size(), 12);
        start(&mut window, 1, Duration::ZERO);
        assert_eq!(window.size(), 13);
        start(&mut window, 100, SLOW);
        assert_eq!(window.size(), 13, "neither quick nor slow");
        start(&mut window, 100, Duration::MAX);
        assert_eq!(window.size(), 1, "never less than one");
    }

    #[test]
    fn what_is_not_used_does_not_grow() {
        let mut window = Window::new(100);
        for _ in 0..100 {
            window.started(window.ticket(), Duration::ZERO, 7);
        }
        assert_eq!(window.size(), 16);
    }

    #[test]
    fn refusals_halve_it_and_are_waited_out() {
        let now = Instant::now();
        let mut window = Window::new(100);
        assert_eq!(window.resting(now), None);
        let first = window.ticket();
        window.refused(first, Some(Duration::from_secs(7)), now);
        window.refused(first, Some(Duration::from_secs(5)), now);
        assert_eq!((window.size(), window.resting(now)), (8, Some(now + Duration::from_secs(7))));
        let later = now + Duration::from_secs(7);
        assert_eq!(window.resting(later), None);
        // Without a word about how long: 2, 4, 8 seconds and so on.
        for expected in [2, 4, 8, 16, 30, 30] {
            let later = later + Duration::from_secs(1000 * expected);
            window.refused(window.ticket(), None, later);
            assert_eq!(window.resting(later), Some(later + Duration::from_secs(expected)));
        }
        assert_eq!(window.size(), 1);
        start(&mut window, 1, Duration::ZERO);
        let later = later + Duration::from_secs(100_000);
        window.refused(window.ticket(), None, later);
        assert_eq!(window.resting(later), Some(later + FIRST_REST), "something had started");
        window.refused(window.ticket(), Some(Duration::MAX), later);
        assert_eq!(window.resting(later), Some(later + LONGEST_GRANTED));
    }
}
