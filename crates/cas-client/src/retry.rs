//! Trying again: how often, how soon, and when to stop.
//!
//! Every call of the Remote Execution protocols may be repeated, so retries
//! live here, below every caller: whoever feeds on a half-read blob cannot
//! start over. Time is `tokio`'s, so a paused clock works; randomness is
//! seeded by the caller.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::Error;

/// Shortest wait before any retry. A broken connection is only replaced once
/// its task has noticed; a retry without a pause meets the dead one again.
const MIN_DELAY: Duration = Duration::from_millis(5);

/// How many different waits jitter makes of one.
const JITTER_STEPS: u32 = 1024;

/// How persistently a failed call is repeated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RetryPolicy {
    /// Attempts without progress before giving up, the first included; 1 means no retry.
    pub max_attempts: u32,
    /// Wait before the first retry; doubles for each further one, with jitter between half and all of it.
    pub first_delay: Duration,
    /// The wait never grows beyond this, unless the service asks for more.
    pub max_delay: Duration,
    /// No retry begins later than this after the first attempt or the last progress.
    pub max_elapsed: Duration,
    /// Retries that all calls of one client may spend before some succeed, so
    /// that an outage fails fast; two successes earn one back.
    pub budget: u32,
}

impl Default for RetryPolicy {
    /// 5 attempts, 100 ms to 5 s, at most 60 s, 200 retries in a row.
    fn default() -> Self {
        Self {
            max_attempts: 5,
            first_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(5),
            max_elapsed: Duration::from_secs(60),
            budget: 200,
        }
    }
}

/// Whether a failure may go away by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Repeating the call gives the same answer.
    Fatal,
    /// Worth repeating, after at least this wait where the service named one.
    Retry { at_least: Option<Duration> },
    /// What was refused is about to be replaced: worth repeating once, whatever the policy, and at once.
    Renewed,
}

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) verdict: Verdict,
}

impl Failure {
    pub(crate) fn fatal(error: Error) -> Self {
        Self { error, verdict: Verdict::Fatal }
    }

    pub(crate) fn retry(error: Error) -> Self {
        Self { error, verdict: Verdict::Retry { at_least: None } }
    }

    pub(crate) fn is_fatal(&self) -> bool {
        self.verdict == Verdict::Fatal
    }

    /// The same failure with more context in its error.
    pub(crate) fn map(self, f: impl FnOnce(Error) -> Error) -> Self {
        Self { error: f(self.error), ..self }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::fatal(error)
    }
}

/// The policy of one client with the state that its calls share.
#[derive(Debug)]
pub(crate) struct Retrier {
    policy: RetryPolicy,
    shared: Mutex<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Half retries left.
    half_tokens: u64,
    rng: fastrand::Rng,
}

impl Retrier {
    pub(crate) fn new(policy: RetryPolicy, rng: fastrand::Rng) -> Self {
        let half_tokens = u64::from(policy.budget) * 2;
        Self { policy, shared: Mutex::new(Shared { half_tokens, rng }) }
    }

    /// Starts to count the attempts of one call. The first attempt is free.
    pub(crate) fn attempts(self: &Arc<Self>) -> Attempts {
        Attempts { retrier: Arc::clone(self), made: 1, in_a_row: 1, since: Instant::now(), renewed: false }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        // Nothing panics while it is held, and the state is valid at any point.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spend(&self) -> bool {
        let mut shared = self.lock();
        let Some(left) = shared.half_tokens.checked_sub(2) else { return false };
        shared.half_tokens = left;
        true
    }

    /// Records a success, which earns back half a retry.
    pub(crate) fn succeeded(&self) {
        let mut shared = self.lock();
        shared.half_tokens = (shared.half_tokens + 1).min(u64::from(self.policy.budget) * 2);
    }

    /// The wait before retry number `retry` (from 1): exponential, jittered to between half and all of it.
    fn delay(&self, retry: u32) -> Duration {
        let full = self
            .policy
            .first_delay
            .saturating_mul(2_u32.saturating_pow(retry.saturating_sub(1)))
            .min(self.policy.max_delay);
        let half = full / 2;
        half.saturating_add(half / JITTER_STEPS * self.lock().rng.u32(..=JITTER_STEPS)).max(MIN_DELAY)
    }
}

/// The attempts of one call.
#[derive(Debug)]
pub(crate) struct Attempts {
    retrier: Arc<Retrier>,
    made: u32,
    in_a_row: u32,
    since: Instant,
    renewed: bool,
}

impl Attempts {
    /// Waits until the next attempt may start, or says why there is none:
    /// the failure's own error, with the number of attempts.
    pub(crate) async fn again(&mut self, failure: Failure) -> Result<(), Error> {
        let Failure { error, verdict } = failure;
        let at_least = match verdict {
            Verdict::Renewed if !self.renewed => {
                tracing::debug!(%error, attempt = self.made, "trying once more");
                self.renewed = true;
                self.made = self.made.saturating_add(1);
                return Ok(());
            }
            Verdict::Fatal | Verdict::Renewed => return Err(error.after(self.made)),
            Verdict::Retry { at_least } => at_least,
        };
        let policy = &self.retrier.policy;
        let delay = self.retrier.delay(self.in_a_row).max(at_least.unwrap_or_default());
        let too_late = self.since.elapsed().saturating_add(delay) > policy.max_elapsed;
        if self.in_a_row >= policy.max_attempts || too_late || !self.retrier.spend() {
            return Err(error.after(self.made));
        }
        tracing::debug!(%error, ?delay, attempt = self.made, "trying again");
        tokio::time::sleep(delay).await;
        self.made = self.made.saturating_add(1);
        self.in_a_row += 1;
        Ok(())
    }

    /// Attempts made so far.
    pub(crate) fn made(&self) -> u32 {
        self.made
    }

    /// Starts the count and the clock afresh: the last attempt achieved something.
    pub(crate) fn progressed(&mut self) {
        self.in_a_row = 1;
        self.since = Instant::now();
        self.renewed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn failure() -> Failure {
        Failure::retry(Error::new(ErrorKind::Unavailable, "Test", "down"))
    }

    fn retrier(policy: RetryPolicy) -> Arc<Retrier> {
        Arc::new(Retrier::new(policy, fastrand::Rng::with_seed(7)))
    }

    /// The waits until `again` gives up.
    async fn waits(attempts: &mut Attempts) -> Vec<Duration> {
        let mut waits = Vec::new();
        loop {
            let before = Instant::now();
            if attempts.again(failure()).await.is_err() {
                return waits;
            }
            waits.push(before.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waits_double_up_to_a_limit_with_jitter() {
        let policy = RetryPolicy { max_attempts: 8, max_delay: Duration::from_secs(1), ..RetryPolicy::default() };
        let waits = waits(&mut retrier(policy).attempts()).await;
        let full = [100, 200, 400, 800, 1000, 1000, 1000].map(Duration::from_millis);
        assert_eq!(waits.len(), full.len());
        for (wait, full) in waits.iter().zip(full) {
            // The timer's resolution is a millisecond.
            assert!(*wait >= full / 2 && *wait <= full + Duration::from_millis(1), "{wait:?} of {full:?}");
        }
        assert!(waits[4] != waits[5], "jittered");
    }

    #[tokio::test(start_paused = true)]
    async fn elapsed_time_ends_it_before_the_count_does() {
        let policy = RetryPolicy { max_attempts: 1000, max_elapsed: Duration::from_secs(20), ..RetryPolicy::default() };
        let begun = Instant::now();
        let retrier = retrier(policy);
        assert!(waits(&mut retrier.attempts()).await.len() > 3);
        assert!(begun.elapsed() <= Duration::from_secs(20));
    }

    #[tokio::test(start_paused = true)]
    async fn the_services_own_wait_wins_unless_it_is_too_long() {
        let retrier = retrier(RetryPolicy::default());
        let ask =
            |seconds| Failure { verdict: Verdict::Retry { at_least: Some(Duration::from_secs(seconds)) }, ..failure() };
        let mut attempts = retrier.attempts();
        let begun = Instant::now();
        attempts.again(ask(30)).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(30));
        let begun = Instant::now();
        let error = attempts.again(ask(31)).await.unwrap_err();
        assert_eq!(begun.elapsed(), Duration::ZERO, "no use in waiting for what will not be tried");
        assert!(error.to_string().contains("after 2 attempts"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn progress_starts_everything_afresh() {
        let policy = RetryPolicy { max_attempts: 2, max_elapsed: Duration::from_secs(1), ..RetryPolicy::default() };
        let retrier = retrier(policy);
        let mut attempts = retrier.attempts();
        for _ in 0..20 {
            attempts.again(failure()).await.unwrap();
            attempts.progressed();
        }
        assert_eq!(waits(&mut attempts).await.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn fatal_failures_end_it_at_once() {
        let retrier = retrier(RetryPolicy::default());
        let error = Error::new(ErrorKind::Denied, "Test", "no");
        assert_eq!(retrier.attempts().again(error.into()).await.unwrap_err().to_string(), "denied: Test: no");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_renewed_gets_one_more_attempt_until_there_is_progress() {
        let renewed = || Failure { verdict: Verdict::Renewed, ..failure() };
        let retrier = retrier(RetryPolicy { max_attempts: 1, budget: 0, ..RetryPolicy::default() });
        let mut attempts = retrier.attempts();
        for _ in 0..2 {
            attempts.again(renewed()).await.unwrap();
            attempts.progressed();
        }
        attempts.again(renewed()).await.unwrap();
        let error = attempts.again(renewed()).await.unwrap_err();
        assert!(error.to_string().contains("after 4 attempts"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_is_shared_and_earned_back() {
        let retrier = retrier(RetryPolicy { budget: 5, ..RetryPolicy::default() });
        assert_eq!(waits(&mut retrier.attempts()).await.len(), 4, "all that the policy has");
        assert_eq!(waits(&mut retrier.attempts()).await.len(), 1, "all that the budget has left");
        assert_eq!(waits(&mut retrier.attempts()).await.len(), 0);
        for _ in 0..100 {
            retrier.succeeded();
        }
        assert_eq!(waits(&mut retrier.attempts()).await.len(), 4);
        assert_eq!(waits(&mut retrier.attempts()).await.len(), 1, "never more than the budget");
    }

    #[test]
    fn extreme_policies_do_not_overflow() {
        let policy = RetryPolicy {
            max_attempts: u32::MAX,
            first_delay: Duration::MAX,
            max_delay: Duration::MAX,
            max_elapsed: Duration::MAX,
            budget: u32::MAX,
        };
        assert!(retrier(policy).delay(u32::MAX) >= Duration::MAX / 2);
        let policy = RetryPolicy { first_delay: Duration::ZERO, ..RetryPolicy::default() };
        assert_eq!(retrier(policy).delay(1), MIN_DELAY);
    }
}
