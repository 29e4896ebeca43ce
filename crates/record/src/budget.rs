//! What generating a record may cost, so that hostile or broken input ends in a counted skip.

use cas_client::TreeBudget;

/// Limits of the work on one element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Subactions that are looked at; what comes after them is skipped.
    pub max_subactions: usize,
    /// Bytes of one Action, Command or Tree message, or of one stored record.
    pub max_message_bytes: u64,
    /// Bytes of all Action messages of an element together, and of all its
    /// Command messages, and of all its Tree messages.
    pub max_messages_bytes: u64,
    /// The directories of all its input trees, and again those that are
    /// searched for inputs that no path explains. Up to two and a half times
    /// this is held at once.
    pub trees: TreeBudget,
    /// Files below the output directories of one action.
    pub max_output_files: u64,
    /// Actions of other elements that are copied into one record.
    pub max_copied_actions: usize,
    /// Elements that are derived in one run only to copy actions from.
    pub max_derived_dependencies: usize,
}

impl Budget {
    /// Forty times the 5,050 actions of the large workload.
    pub const SUBACTIONS: usize = 200_000;
    /// What services accept in one message is smaller (4 MiB).
    pub const MESSAGE_BYTES: u64 = 16 << 20;
    /// A thousand bytes for each action that [`SUBACTIONS`](Self::SUBACTIONS) allows.
    pub const MESSAGES_BYTES: u64 = 200 << 20;
    /// An output directory that is larger than this is a distribution, not an intermediate.
    pub const OUTPUT_FILES: u64 = 100_000;
    /// As many as an element of the medium workload has itself. Where more
    /// would be needed, the dependency should have a record of its own.
    pub const COPIED_ACTIONS: usize = 1_000;
    /// Whoever leaves out more elements than this has not asked for their actions.
    pub const DERIVED_DEPENDENCIES: usize = 1_000;
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            max_subactions: Self::SUBACTIONS,
            max_message_bytes: Self::MESSAGE_BYTES,
            max_messages_bytes: Self::MESSAGES_BYTES,
            trees: TreeBudget::default(),
            max_output_files: Self::OUTPUT_FILES,
            max_copied_actions: Self::COPIED_ACTIONS,
            max_derived_dependencies: Self::DERIVED_DEPENDENCIES,
        }
    }
}
