//! Progress, for whoever wants to show it.

/// Where a run stands. Numbers of actions unless said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Recorded actions.
    pub actions: u64,
    /// Those whose inputs are not all known.
    pub waiting: u64,
    /// Those that are being adapted.
    pub preparing: u64,
    /// Those that stay as recorded.
    pub unchanged: u64,
    /// Those that are adapted.
    pub adapted: u64,
    /// Those that are given up.
    pub dropped: u64,
    /// Distinct actions that are executing or queued at the service.
    pub running: u64,
    /// Distinct actions whose result was found or made.
    pub finished: u64,
    /// Bytes uploaded.
    pub uploaded_bytes: u64,
}

/// Is told how a run goes on.
///
/// Called from within the run, after every step that changed something, so it
/// must be quick and must not block.
pub trait Observer: Send + Sync + 'static {
    /// The state after a step.
    fn progress(&self, progress: &Progress);
}

impl<F: Fn(&Progress) + Send + Sync + 'static> Observer for F {
    fn progress(&self, progress: &Progress) {
        self(progress);
    }
}
