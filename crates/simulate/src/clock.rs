//! Waiting in virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Wakes whoever waits for a moment, all of them by one timer of the runtime: most of what a simulation does is wait, and
/// the runtime's own timers are made for many that never come due. Clones are handles on the same clock.
#[derive(Clone, Default)]
pub(crate) struct Clock(Arc<Inner>);

#[derive(Default)]
struct Inner {
    alarms: Mutex<Alarms>,
    /// The first alarm is another one than before.
    earlier: Notify,
}

#[derive(Default)]
struct Alarms {
    all: BinaryHeap<Reverse<Alarm>>,
    /// How many there have been.
    turn: u64,
}

struct Alarm {
    at: Instant,
    /// Whoever asked first is woken first.
    turn: u64,
    waker: Waker,
}

impl Clock {
    fn alarms(&self) -> MutexGuard<'_, Alarms> {
        // A panic elsewhere cannot leave it half changed.
        self.0.alarms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for as long; not at all, if that is no time.
    pub(crate) fn sleep(&self, duration: Duration) -> Nap {
        self.sleep_until(Instant::now() + duration)
    }

    pub(crate) fn sleep_until(&self, at: Instant) -> Nap {
        Nap { clock: self.clone(), at, waker: None }
    }

    /// Lets time pass. Never ends.
    pub(crate) async fn drive(&self) {
        let mut timer = std::pin::pin!(sleep_until(Instant::now()));
        loop {
            let next = self.alarms().all.peek().map(|Reverse(alarm)| alarm.at);
            if let Some(next) = next.filter(|next| *next != timer.deadline()) {
                timer.as_mut().reset(next);
            }
            tokio::select! {
                biased;
                () = self.0.earlier.notified() => {}
                () = &mut timer, if next.is_some() => self.ring(),
            }
        }
    }

    fn ring(&self) {
        let now = Instant::now();
        let mut alarms = self.alarms();
        while alarms.all.peek().is_some_and(|Reverse(alarm)| alarm.at <= now)
            && let Some(Reverse(Alarm { waker, .. })) = alarms.all.pop()
        {
            waker.wake();
        }
    }
}

/// The time until a moment.
pub(crate) struct Nap {
    clock: Clock,
    at: Instant,
    /// Who is to be woken.
    waker: Option<Waker>,
}

impl Nap {
    /// Waits once more.
    pub(crate) fn reset(&mut self, duration: Duration) {
        self.at = Instant::now() + duration;
        self.waker = None;
    }
}

impl Future for Nap {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.at {
            return Poll::Ready(());
        }
        if self.waker.as_ref().is_none_or(|waker| !waker.will_wake(context.waker())) {
            let waker = context.waker().clone();
            self.waker = Some(waker.clone());
            let mut alarms = self.clock.alarms();
            let Alarms { all, turn } = &mut *alarms;
            *turn += 1;
            let is_first = all.peek().is_none_or(|Reverse(first)| self.at < first.at);
            all.push(Reverse(Alarm { at: self.at, turn: *turn, waker }));
            if is_first {
                self.clock.0.earlier.notify_one();
            }
        }
        Poll::Pending
    }
}

impl PartialEq for Alarm {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Alarm {}

impl PartialOrd for Alarm {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Alarm {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.turn).cmp(&(other.at, other.turn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn everybody_is_woken_in_time_and_nobody_before() {
        let clock = Clock::default();
        let start = Instant::now();
        let wait = |millis: u64| {
            let clock = clock.clone();
            async move {
                clock.sleep(Duration::from_millis(millis)).await;
                let mut nap = clock.sleep(Duration::from_millis(millis / 2));
                (&mut nap).await;
                nap.reset(Duration::from_millis(millis));
                nap.await;
                start.elapsed().as_millis()
            }
        };
        let waits = async { tokio::join!(wait(400), wait(0), wait(10), wait(400), wait(2)) };
        let ended = tokio::select! {
            ended = waits => Some(ended),
            () = clock.drive() => None,
        };
        assert_eq!(ended, Some((1000, 0, 25, 1000, 5)));
    }
}
