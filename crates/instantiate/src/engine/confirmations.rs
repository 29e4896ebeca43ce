//! Which executed actions are looked up once more.

/// Results that are confirmed at first, and again after one of them was not kept.
const AT_FIRST: u32 = 1024;

/// One in so many is confirmed afterwards.
const SAMPLE: u32 = 64;

/// How far a service is taken at its word when it is done with an action.
///
/// Whether results are kept is a matter of the service and of what one may do there, hardly of the action. So when a
/// service has kept a number of them, the rest are sampled: a look-up is a call of its own, and one for each of some
/// hundred thousand executions is a burden to the action cache that the build needs.
#[derive(Default)]
pub(super) struct Confirmations {
    /// Executions since the beginning, or since the last one that had no result in the cache.
    done: u32,
}

impl Confirmations {
    /// An execution is done. Says whether it is to be looked up.
    pub(super) fn is_due(&mut self) -> bool {
        self.done = self.done.saturating_add(1);
        self.done <= AT_FIRST || self.done.is_multiple_of(SAMPLE)
    }

    /// One of them is not in the cache as the service said.
    pub(super) fn refuted(&mut self) {
        self.done = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(confirmations: &mut Confirmations, executions: u32) -> u32 {
        (0..executions).filter(|_| confirmations.is_due()).count().try_into().unwrap_or(u32::MAX)
    }

    #[test]
    fn a_service_is_trusted_once_it_has_kept_many_and_no_longer_than_it_keeps_them() {
        let mut confirmations = Confirmations::default();
        assert_eq!(due(&mut confirmations, AT_FIRST), AT_FIRST);
        assert_eq!(due(&mut confirmations, 10 * SAMPLE), 10);
        confirmations.refuted();
        assert_eq!(due(&mut confirmations, AT_FIRST + SAMPLE), AT_FIRST + 1);
    }
}
